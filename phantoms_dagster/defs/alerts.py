"""The sensor that sends alerts about new dead letters and opened breakers, and the daily summary.

`production.alerts` decides what to send and words it; `wiring.alerts` sends it.
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
NOWHERE = "no alert destinations: set PHANTOMS_ALERT_URLS to one or more Apprise URLs"


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Sends alerts about new dead letters and opened breakers through Apprise, grouped by cause in one message.",
)
@skips_while_the_store_is_away
def alert_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SkipReason:
    """The cursor remembers only what a destination accepted. The rest is sent again at the next tick."""
    targets = destinations(services.settings)
    if not targets:
        return dg.SkipReason(NOWHERE)
    told = alerts.load_cursor(context.cursor)
    delivery = alerts.deliver(
        told,
        read(services, alerts.read_letters_since(told, targets)),
        targets,
        now=services.clock.now(),
        pause=timedelta(minutes=services.settings.alerts.minutes),
        web_url=services.settings.web.url,
        desk_url=desk_url(services.settings),
    )
    if delivery.failed and len(delivery.failed) == len(targets):
        raise alerts.Undelivered(_failures(delivery, len(targets)))
    context.update_cursor(alerts.dump_cursor(delivery.told))
    said = [f"sent {len(delivery.sent)}: {delivery.sent[0].title}"] if delivery.sent else []
    said += [_failures(delivery, len(targets))] if delivery.failed else []
    said += [f"the next alert goes out after {delivery.until:%H:%M:%S} UTC"] if delivery.until else []
    return dg.SkipReason("; ".join(said) or "nothing new")


def _failures(delivery: alerts.AlertDelivery, of: int) -> str:
    reasons = "; ".join(sorted(set(delivery.failed.values())))
    return f"{len(delivery.failed)} of {of} destinations did not accept the alert ({reasons}); it will be sent again"


class SummaryConfig(dg.Config):
    """Run config of the summary."""

    day: str = ""
    """The local day to summarize, such as 2026-11-22; empty means yesterday."""


@dg.op(description="Sends a summary of a day.")
@fails_plainly_while_the_store_is_away
def daily_summary(context: dg.OpExecutionContext, config: SummaryConfig, services: dg.ResourceParam[Services]) -> None:
    """Send the summary to every destination. Raises Failure when one does not accept it.

    Repeating the run sends it to all destinations again.
    """
    zone = local_zone()
    try:
        day = date.fromisoformat(config.day) if config.day else alerts.yesterday(services.clock.now().astimezone(ZoneInfo(zone)))
    except ValueError as error:
        raise dg.Failure(f"{config.day!r} is not a day; write it like 2026-11-22", allow_retries=False) from error
    message = alerts.summary(facts_of(services, day, zone), desk_url=desk_url(services.settings))
    context.log.info("%s\n%s", message.title, message.body)
    failed = []
    for send in destinations(services.settings).values():
        try:
            send(message)
        except alerts.Undelivered as error:
            failed.append(str(error))
    if failed:
        raise dg.Failure(f"{len(failed)} destinations did not accept the summary: {'; '.join(failed)}", allow_retries=False)


@dg.job(tags={STAGE: "analytics"}, description="Yesterday's videos, posts, failures and cost in one message.")
def daily_summary_job() -> None:
    """An op, because it needs no partition and makes no asset."""
    daily_summary()


def make_daily_summary_schedule(zone: str) -> dg.ScheduleDefinition:
    """Return the schedule, which runs at 08:00 in `zone`."""

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
        """Request one run per day, even when the daemon was down at 08:00."""
        if not services.settings.alerts.urls:
            return dg.SkipReason(NOWHERE)
        at = context.scheduled_execution_time or datetime.now(UTC)
        day = alerts.yesterday(at.astimezone(ZoneInfo(zone))).isoformat()
        return dg.RunRequest(run_key=day, run_config=dg.RunConfig(ops={"daily_summary": SummaryConfig(day=day)}))

    return daily_summary_schedule
