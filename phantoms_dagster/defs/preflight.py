"""Checks before posts: the sensor that finds posts to check, and the job that checks them. A wrapper of `production.preflight`."""

import dagster as dg

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away, skips_while_the_store_is_away
from phantoms_dagster.defs.in_flight import OPEN
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.defs.tags import STAGE
from phantoms_dagster.domain.preflight import phase_to_check, worst
from phantoms_dagster.production.preflight import PreflightRound
from phantoms_dagster.wiring import Services

SECONDS = 300


@dg.op(description="Asks the platforms what would make the next posts fail.")
@fails_plainly_while_the_store_is_away
def check_upcoming_posts(context: dg.OpExecutionContext, services: dg.ResourceParam[Services]) -> None:
    """Never fails because of what it finds: `phantoms preflight`, the desk and alerts show that."""
    from phantoms_dagster.wiring.preflight import run_preflight  # noqa: PLC0415 - it imports every provider

    async def work() -> PreflightRound:
        return await run_preflight(services, await services.pipeline())

    done = run_interruptible(work(), services.loop)
    for name, checks in {**done.accounts, **done.posts}.items():
        if worst(checks) == "wrong":
            context.log.warning("%s: %s", name, "; ".join(check.found for check in checks if check.verdict == "wrong"))
    context.add_output_metadata({"accounts": len(done.accounts), "posts": len(done.posts), "wrong": done.wrong})


@dg.job(tags={STAGE: "analytics"}, description="Checks posts 24 hours and 1 hour before they are due.")
def preflight_job() -> None:
    """One op."""
    check_upcoming_posts()


@dg.sensor(
    job_name=preflight_job.name,
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Starts preflight_job when a post must be checked before it is due.",
)
@skips_while_the_store_is_away
def preflight_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.RunRequest | dg.SkipReason:
    """Request a run if a post must be checked and no run is open. It costs one query."""
    from phantoms_dagster.wiring.preflight import preflights  # noqa: PLC0415 - it imports every provider

    now = services.clock.now()
    if not any(phase_to_check(post, now) for post in preflights(services).upcoming(now)):
        return dg.SkipReason("no post must be checked now")
    if context.instance.get_runs(dg.RunsFilter(job_name=preflight_job.name, statuses=OPEN), limit=1):
        return dg.SkipReason("the last round has not ended")
    return dg.RunRequest()
