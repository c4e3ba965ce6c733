"""Alerts: the sensor that tells people of new dead letters and opened breakers, and the daily summary.

Thin shells: what is news and how it is worded belongs in `production.alerts`, how it is sent in `wiring.alerts`.
"""

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away, skips_while_the_store_is_away
from phantoms_dagster.defs.tags import STAGE
from phantoms_dagster.production import alerts
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.addresses import desk_url
from phantoms_dagster.wiring.alerts import destinations, facts_of, local_zone, read

SECONDS = 30
SUMMARY_HOUR = 8
NOWHERE = "nobody to tell: set PHANTOMS_ALERT_URLS to one or more Apprise URLs"


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells of new dead letters and opened breakers, grouped by cause in one message, through Apprise.",
)
@skips_while_the_store_is_away
def alert_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SkipReason:
    """Only what a destination has taken is remembered: the rest is sent again with the next tick."""
    targets = destinations(services.settings)
    if not targets:
        return dg.SkipReason(NOWHERE)
    told = alerts.remembered(context.cursor)
    delivery = alerts.deliver(
        told,
        read(services, alerts.looking_back(told, targets)),
        targets,
        now=services.clock.now(),
        pause=timedelta(minutes=services.settings.alert_minutes),
        web_url=services.settings.web_url,
        desk_url=desk_url(services.settings),
    )
    if delivery.failed and len(delivery.failed) == len(targets):
        raise alerts.Undelivered(_failures(delivery, len(targets)))
    context.update_cursor(alerts.cursor_of(delivery.told))
    said = [f"sent {len(delivery.sent)}: {delivery.sent[0].title}"] if delivery.sent else []
    said += [_failures(delivery, len(targets))] if delivery.failed else []
    said += [f"more is to be told, not before {delivery.until:%H:%M:%S} UTC"] if delivery.until else []
    return dg.SkipReason("; ".join(said) or "nothing is new")


def _failures(delivery: alerts.AlertDelivery, of: int) -> str:
    reasons = "; ".join(sorted(set(delivery.failed.values())))
    return f"{len(delivery.failed)} of {of} destinations did not take the alert ({reasons}); it is sent again"


class SummaryConfig(dg.Config):
    """Run config of the summary."""

    day: str = ""
    """The local day to sum up, such as 2026-11-22; empty: yesterday."""


@dg.op(description="Sums a day up and sends it.")
@fails_plainly_while_the_store_is_away
def daily_summary(context: dg.OpExecutionContext, config: SummaryConfig, services: dg.ResourceParam[Services]) -> None:
    """Raises Failure when a destination does not take it; those that took it are not told again unless the run is repeated."""
    zone = local_zone()
    try:
        day = date.fromisoformat(config.day) if config.day else alerts.yesterday(services.clock.now().astimezone(ZoneInfo(zone)))
    except ValueError as error:
        raise dg.Failure(f"{config.day!r} is no day; give one such as 2026-11-22", allow_retries=False) from error
    message = alerts.summary(facts_of(services, day, zone), desk_url=desk_url(services.settings))
    context.log.info("%s\n%s", message.title, message.body)
    failed = []
    for send in destinations(services.settings).values():
        try:
            send(message)
        except alerts.Undelivered as error:
            failed.append(str(error))
    if failed:
        raise dg.Failure(f"{len(failed)} destinations did not take the summary: {'; '.join(failed)}", allow_retries=False)


@dg.job(tags={STAGE: "analytics"}, description="Yesterday's videos, posts, failures and cost in one message.")
def daily_summary_job() -> None:
    """One op: it needs no partition and makes nothing."""
    daily_summary()


def make_daily_summary_schedule(zone: str) -> dg.ScheduleDefinition:
    """The schedule, at eight in the morning of `zone`."""

    @dg.schedule(
        name="daily_summary_schedule",
        job=daily_summary_job,
        cron_schedule=f"0 {SUMMARY_HOUR} * * *",
        execution_timezone=zone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Sends yesterday's summary at eight in the morning.",
    )
    def daily_summary_schedule(
        context: dg.ScheduleEvaluationContext, services: dg.ResourceParam[Services]
    ) -> dg.RunRequest | dg.SkipReason:
        """One run a day, also when the daemon was away at eight."""
        if not services.settings.alert_urls:
            return dg.SkipReason(NOWHERE)
        at = context.scheduled_execution_time or datetime.now(UTC)
        day = alerts.yesterday(at.astimezone(ZoneInfo(zone))).isoformat()
        return dg.RunRequest(run_key=day, run_config=dg.RunConfig(ops={"daily_summary": SummaryConfig(day=day)}))

    return daily_summary_schedule
