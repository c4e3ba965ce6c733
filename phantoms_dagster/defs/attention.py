"""The sensor that reports failures that only Dagster knows: scheduled runs that failed, and sensors or schedules that fail."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from phantoms_dagster.defs.away import skips_while_the_store_is_away
from phantoms_dagster.defs.tags import CHAIN, STAGE
from phantoms_dagster.domain.attention import Notice
from phantoms_dagster.domain.stages import CHAINS, STAGES
from phantoms_dagster.wiring import Services

SECONDS = 120
# A single failed tick means little: PostgreSQL may have been down for a moment.
FAILED_TICKS = 3
RUNS, TICKS = "run:", "tick:"
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
_LOOKED_AT = 50


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Notes scheduled runs that failed and sensors or schedules whose ticks fail, for `phantoms status` and alerts.",
)
@skips_while_the_store_is_away
def attention_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SkipReason:
    """Store a notice for each failure. Failed videos are not included: they have dead letters."""
    runs, ticks = list(failed_runs(context.instance)), list(failing_ticks(context.instance))
    board = services.attention()
    board.keep(RUNS, runs)
    board.keep(TICKS, ticks)
    return dg.SkipReason("; ".join(notice.what for notice in (*runs, *ticks)) or "all runs and ticks are healthy")


def failed_runs(instance: dg.DagsterInstance) -> Iterator[Notice]:
    """Yield a notice for each job, except those of stages, whose last finished run failed."""
    seen = set()
    for record in instance.get_run_records(dg.RunsFilter(statuses=_ENDED), limit=_LOOKED_AT):
        run = record.dagster_run
        of_videos = run.tags.get(STAGE) in STAGES or run.tags.get(CHAIN) in CHAINS
        if of_videos or run.job_name in seen or run.tags.get("dagster/backfill"):
            continue
        seen.add(run.job_name)
        if run.status is dg.DagsterRunStatus.FAILURE:
            ended = datetime.fromtimestamp(record.end_time, UTC) if record.end_time else record.create_timestamp
            what = f"the last run of {run.job_name} failed at {ended:%Y-%m-%d %H:%M} UTC"
            yield Notice(f"{RUNS}{run.job_name}", what, f"open run {run.run_id} in the Dagster UI", ended)


def failing_ticks(instance: dg.DagsterInstance) -> Iterator[Notice]:
    """Yield a notice for each sensor or schedule whose last FAILED_TICKS ticks all failed."""
    for state in instance.all_instigator_state():
        if state.status.value == "STOPPED":
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=FAILED_TICKS + 1)
        # The newest tick may be this evaluation, or another that is still running.
        ended = [tick for tick in ticks if tick.status.value != "STARTED"][:FAILED_TICKS]
        if len(ended) == FAILED_TICKS and all(tick.status.value == "FAILURE" for tick in ended):
            since = datetime.fromtimestamp(ended[-1].timestamp, UTC)
            error = ended[0].error
            why = f": {' '.join(error.message.split())[:160]}" if error is not None else ""
            yield Notice(f"{TICKS}{state.name}", f"{state.name} fails{why}", f"open {state.name} in the Dagster UI", since)
