"""The sensors that take in briefs and request runs. `dispatch` does their waiting."""

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta

import dagster as dg

from phantoms_dagster.defs import dispatch, tags
from phantoms_dagster.defs.away import skips_while_the_store_is_away
from phantoms_dagster.defs.dispatch import RELEASE_INTERVAL_SECONDS, Dispatcher, requested, stand_back, until_found
from phantoms_dagster.defs.in_flight import VideoPartitions
from phantoms_dagster.defs.jobs import chain_jobs, stage_jobs
from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.planning import OpenRun, PlannedRun
from phantoms_dagster.domain.stages import CHAINS, Chain
from phantoms_dagster.production.planner import BatchPolicy, plan
from phantoms_dagster.store.catalogue import Catalogue
from phantoms_dagster.wiring import Services

INTAKE_SECONDS = 15
SHOWN_REFUSALS = 5
# How often to read all partitions, to find those that a person has added or deleted by hand.
AUDIT_SECONDS = 900
OPEN = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


@dg.sensor(
    minimum_interval_seconds=INTAKE_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Takes briefs from the inbox folder, adds a partition for every new video, and keeps both in the same order.",
)
@skips_while_the_store_is_away
def intake_sensor(context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]) -> dg.SkipReason:
    """The cursor holds the time of the last audit of the partitions. An evaluation polls until it finds something."""
    with services.planning().listen(()) as ears:
        found = until_found(lambda: _taken_in(context, services), ears, timings=dispatch.TIMINGS)
    return dg.SkipReason(found or "no new videos")


def _taken_in(context: dg.SensorEvaluationContext, services: Services) -> str | None:
    """Read the inbox once, register new videos, and every AUDIT_SECONDS audit all partitions. Return what was done, or None."""
    reports = services.take_inbox()
    for report in reports:
        left = f", {report.left} left for the next time" if report.left else ""
        context.log.info("%s: %d briefs added, %d refused%s", report.file, report.taken, report.rows_refused, left)
        for refusal in report.refused[:SHOWN_REFUSALS]:
            context.log.warning("%s", refusal)
    said = [f"inbox: {counted(len(reports), 'file')} read"] if reports else []
    if keys := register(context.instance, services.catalogue()):
        said.append(f"{counted(len(keys), 'new video')}: {keys[0]} .. {keys[-1]}")
    now = time.time()
    if now - float(context.cursor or 0) >= AUDIT_SECONDS:
        context.update_cursor(str(now))
        if removed := remove_unknown(context.instance, services.catalogue()):
            said.append(f"removed partitions without a brief: {', '.join(removed[:SHOWN_REFUSALS])}")
        if moved := services.catalogue().reorder(context.instance.get_dynamic_partitions(VIDEOS)):
            said.append(f"partitions were added or deleted by hand: corrected {counted(moved, 'video')}")
    return "; ".join(said) or None


def remove_unknown(instance: dg.DagsterInstance, catalogue: Catalogue) -> list[str]:
    """Delete partitions that a person added without a brief: nothing can be made for them. Return their keys.

    A partition with an open run or backfill stays until the next audit.
    """
    unknown = catalogue.unknown(instance.get_dynamic_partitions(VIDEOS))
    if not unknown:
        return []
    busy = VideoPartitions(instance).in_flight()
    if busy.unclear:
        return []
    taken = busy.keys | {key for ends in busy.ranges for key in ends}
    removed = [key for key in unknown if key not in taken]
    for key in removed:
        instance.delete_dynamic_partition(VIDEOS, key)
    return removed


def register(instance: dg.DagsterInstance, catalogue: Catalogue) -> list[str]:
    """Add a partition for every new video and return their keys. After a crash between the two steps, the next call repairs it."""
    keys = catalogue.unregistered()
    if keys:
        # Partitions that a crashed call has added are at the end of Dagster's order, before those added now.
        page = instance.get_paginated_dynamic_partitions(VIDEOS, limit=len(keys), ascending=False).results
        added = [key for key in reversed(page) if key in set(keys)]
        instance.add_dynamic_partitions(VIDEOS, keys)
        catalogue.registered([*added, *(key for key in keys if key not in set(added))])
    return keys


@dg.sensor(
    jobs=[chain_jobs["make"], *(stage_jobs[stage.name] for stage in CHAINS["make"].stages)],
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Adds a partition for every new video and requests runs for everything that is ready, from script to render. Each "
    "run is over a contiguous range: one stage, or for a few videos all of them.",
)
@skips_while_the_store_is_away
def advance_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request runs of the chain `make`. `release_sensor` handles approved videos."""
    yield from _requests(context, services, CHAINS["make"])


@dg.sensor(
    jobs=[chain_jobs["release"], *(stage_jobs[stage.name] for stage in CHAINS["release"].stages)],
    minimum_interval_seconds=1,
    tags={tags.INTERVAL: str(RELEASE_INTERVAL_SECONDS)},
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Requests runs for everything that is ready, from approval to posts. It is separate from advance_sensor, so that "
    "approved videos never wait behind a flood of new ones.",
)
@skips_while_the_store_is_away
def release_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Request runs of the chain `release`. `advance_sensor` handles what comes before."""
    yield from _requests(context, services, CHAINS["release"])


def _requests(context: dg.SensorEvaluationContext, services: Services, chain: Chain) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Yield requests for what can run, or the reason why nothing can."""
    stand_back(chain, lambda: bool(_open_runs(context.instance, CHAINS["release"])))
    with services.planning().listen([stage.name for stage in chain.stages]) as listener:
        found = Dispatcher(chain, _Tables(context.instance, services, chain), listener, timings=dispatch.TIMINGS).found()
    if not found.runs:
        yield dg.SkipReason(found.reason())
        return
    if _was_stopped(context):
        yield dg.SkipReason("the sensor was stopped while it waited")
        return
    context.log.info("requested %s", requested(found.runs))
    for run in found.runs:
        chained = run.target in CHAINS
        yield dg.RunRequest(
            run_key=run.run_key,
            job_name=(chain_jobs if chained else stage_jobs)[run.target].name,
            tags={
                tags.CHAIN if chained else tags.STAGE: run.target,
                **_which(run),
                tags.PLANNED: "true",
                tags.PRIORITY: str(run.priority),
            },
        )


def _which(run: PlannedRun) -> dict[str, str]:
    """Return the tags that say which videos a run works on. The first one is for people."""
    if len(run.keys) == 1:
        return {tags.VIDEO: run.first, tags.PARTITION: run.first}
    return {tags.VIDEOS: str(len(run.keys)), tags.RANGE_START: run.first, tags.RANGE_END: run.last}


class _Tables:
    """Reads Dagster's open runs and our tables for the sensor of a chain."""

    def __init__(self, instance: dg.DagsterInstance, services: Services, chain: Chain) -> None:
        self._instance, self._services, self._chain = instance, services, chain

    def open_runs(self) -> list[OpenRun]:
        """See `dispatch.Tables`."""
        return _open_runs(self._instance, self._chain)

    def plan(self, open_runs: Sequence[OpenRun]) -> list[PlannedRun]:
        """See `dispatch.Tables`."""
        return tick(self._instance, self._services, self._chain, open_runs)

    def next_due(self) -> float | None:
        """See `dispatch.Tables`."""
        return self._services.planning().next_due([stage.name for stage in self._chain.stages])


def _was_stopped(context: dg.SensorEvaluationContext) -> bool:
    """Whether a person has turned the sensor off since this evaluation began. Then it must request nothing more."""
    states = context.instance.all_instigator_state()
    return any(state.name == context.sensor_name and state.status.value == "STOPPED" for state in states)


def tick(
    instance: dg.DagsterInstance, services: Services, chain: Chain, open_runs: Sequence[OpenRun] | None = None
) -> list[PlannedRun]:
    """Query the tables once: register new videos, and return the runs for what is ready in the chain's stages.

    `open_runs` are the chain's open runs, if the caller already has them.
    """
    catalogue, settings = services.catalogue(), services.settings
    if chain.name == "make":
        register(instance, catalogue)
    runs = plan(
        services.planning(),
        chain=chain,
        open_runs=_open_runs(instance, chain) if open_runs is None else open_runs,
        policy=BatchPolicy(
            batch_size=settings.pacing.batch_size,
            runs_per_stage=settings.pacing.runs_per_stage,
            chain_videos=settings.pacing.chain_videos if settings.workers.slots.get(chain.name, 1) else 0,
            batch_wait=timedelta(seconds=settings.pacing.batch_wait_seconds),
        ),
        now=services.clock.now(),
    )
    return [run for run in runs if _has_both_ends(instance, catalogue, run)]


def _has_both_ends(instance: dg.DagsterInstance, catalogue: Catalogue, run: PlannedRun) -> bool:
    """Whether both ends of the run's range are partitions. If a person deleted one, Dagster would refuse all runs of this tick."""
    lost = [key for key in {run.first, run.last} if not instance.has_dynamic_partition(VIDEOS, key)]
    if lost:
        catalogue.forget(lost)
    return not lost


def _ends(of: Mapping[str, str]) -> tuple[str, str]:
    """Return the first and last partition of a planned run."""
    one = of.get(tags.PARTITION, "")
    return of.get(tags.RANGE_START, one), of.get(tags.RANGE_END, one)


def _open_runs(instance: dg.DagsterInstance, chain: Chain) -> list[OpenRun]:
    found = instance.get_runs(dg.RunsFilter(statuses=OPEN, tags={tags.PLANNED: "true"}))
    runs = [OpenRun(run.tags.get(tags.CHAIN) or run.tags[tags.STAGE], *_ends(run.tags)) for run in found]
    return [run for run in runs if run.target in chain.targets]
