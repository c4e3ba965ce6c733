"""Sensors: thin shells that read, call a pure function or the store, and return. They never wait and never work."""

from collections.abc import Iterator
from datetime import UTC, datetime

import dagster as dg

from phantoms_dagster.defs import tags
from phantoms_dagster.defs.jobs import stage_jobs
from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.domain.work import OpenRun
from phantoms_dagster.production.planner import plan
from phantoms_dagster.wiring import Workshop

SECONDS = 5
SHOWN_REFUSALS = 5
OPEN = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes briefs from the inbox folder and adds a partition for every new video.",
)
def intake_sensor(context: dg.SensorEvaluationContext, workshop: dg.ResourceParam[Workshop]) -> dg.SkipReason:
    """Adding a key twice is harmless: a crash between the two steps costs nothing."""
    for report in workshop.take_inbox():
        context.log.info("%s: %d briefs taken, %d refused", report.file, report.taken, len(report.refused))
        for refusal in report.refused[:SHOWN_REFUSALS]:
            context.log.warning("%s", refusal)
    catalogue = workshop.catalogue()
    keys = catalogue.unregistered()
    if not keys:
        return dg.SkipReason("no new videos")
    context.instance.add_dynamic_partitions(VIDEOS, keys)
    catalogue.registered(keys)
    return dg.SkipReason(f"{len(keys)} new videos: {keys[0]} .. {keys[-1]}")


@dg.sensor(
    jobs=list(stage_jobs.values()),
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests runs for whatever is ready: one stage over a contiguous range of videos each.",
)
def advance_sensor(
    context: dg.SensorEvaluationContext, workshop: dg.ResourceParam[Workshop]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Reads the table and the open runs, and asks the planner."""
    ready = workshop.planning().ready(list(STAGES))
    if not any(ready.values()):
        yield dg.SkipReason("nothing is ready")
        return
    order = {key: place for place, key in enumerate(context.instance.get_dynamic_partitions(VIDEOS))}
    runs = plan(
        ready,
        order=order,
        open_runs=list(_open_runs(context.instance)),
        batch_size=workshop.settings.batch_size,
        runs_per_stage=workshop.settings.runs_per_stage,
        now=datetime.now(UTC),
    )
    if not runs:
        yield dg.SkipReason("everything that is ready has a run already")
    for run in runs:
        yield dg.RunRequest(
            run_key=run.run_key,
            job_name=stage_jobs[run.stage].name,
            tags={
                tags.STAGE: run.stage,
                tags.PLANNED: "true",
                tags.RANGE_START: run.first,
                tags.RANGE_END: run.last,
                tags.PRIORITY: str(run.priority),
            },
        )


def _open_runs(instance: dg.DagsterInstance) -> Iterator[OpenRun]:
    for run in instance.get_runs(dg.RunsFilter(statuses=OPEN, tags={tags.PLANNED: "true"})):
        yield OpenRun(run.tags[tags.STAGE], run.tags[tags.RANGE_START], run.tags[tags.RANGE_END])
