"""Which queue carries a run, and how many workers and runs there are of each. Plain functions of tags and settings: a process
that starts workers does not import RQ.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.stages import CHAINS, STAGES
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.up_lock import nothing_runs

# The run tags that name its stage or its chain of stages, and the one that names the job that carries it now.
STAGE_TAG = "phantoms/stage"
CHAIN_TAG = "phantoms/chain"
JOB_TAG = "phantoms/rq_job"
VIDEO_TAG, VIDEOS_TAG = "content/video", "content/videos"
# Dagster's own.
BACKFILL_TAG = "dagster/backfill"
PARTITION_TAG = "dagster/partition"
RANGE_START_TAG, RANGE_END_TAG = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
DEFAULT_QUEUE = "default"
ANALYTICS_POOL = "analytics"
QUEUES: tuple[str, ...] = (DEFAULT_QUEUE, *CHAINS, *(stage.slug for stage in STAGES.values() if stage.usual))


def queue_of(tags: Mapping[str, str]) -> str:
    """The queue of a run with those tags: its stage's or its chain's, else `default`.

    The stages of a platform that not everybody uses have no worker that waits for them: `default`'s does their runs.
    """
    stage, chain = STAGES.get(tags.get(STAGE_TAG, "")), CHAINS.get(tags.get(CHAIN_TAG, ""))
    return stage.slug if stage and stage.usual else chain.name if chain else DEFAULT_QUEUE


def tags_of_assets(assets: Collection[str]) -> dict[str, str]:
    """The tag of the stage, or of the shortest chain of stages, that a selection of assets is all of; none when it is neither.

    A backfill, and a click on *Materialize*, select assets and not one of our jobs, so their runs come without.
    """
    stages = {stage.slug: stage.name for stage in STAGES.values()}
    if not assets or not set(assets) <= set(stages):
        return {}
    if len(assets) == 1:
        return {STAGE_TAG: stages[next(iter(assets))]}
    for name, chain in CHAINS.items():
        if set(assets) <= {stage.slug for stage in chain.stages}:
            return {CHAIN_TAG: name}
    return {}


def tags_of_partitions(tags: Mapping[str, str]) -> dict[str, str]:
    """The tag that names a run's video, or the first and last of its videos, for people; none when its run has one already."""
    if VIDEO_TAG in tags or VIDEOS_TAG in tags:
        return {}
    if video := tags.get(PARTITION_TAG):
        return {VIDEO_TAG: video}
    first, last = tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)
    if not first or not last:
        return {}
    return {VIDEO_TAG: first} if first == last else {VIDEOS_TAG: f"{first} .. {last}"}


def job_of(run_id: str, tags: Mapping[str, str]) -> str | None:
    """The id of the job that carries the run now. A tag copied from another run, as re-execution does, does not count."""
    job_id = tags.get(JOB_TAG, "")
    return job_id if job_id.startswith(f"{run_id}-") else None


def launches(run_id: str, tags: Mapping[str, str]) -> int:
    """How often the run was launched."""
    job_id = job_of(run_id, tags)
    return int(job_id.rsplit("-", 1)[1]) if job_id else 0


def slots_of(settings: Settings, given: str | None = None) -> dict[str, int]:
    """Workers by queue: those of `given` (`script=2,rendered_video=1`) alone, else one of each but for what the settings say.

    Raises InvalidInput, which names the queues there are.
    """
    if given is None:
        found = dict.fromkeys(QUEUES, 1) | settings.worker_slots
    else:
        pairs = [part.strip().partition("=") for part in given.split(",") if part.strip()]
        try:
            found = {name.strip(): int(count or 1) for name, _, count in pairs}
        except ValueError as error:
            raise InvalidInput(f"--queues {given}: write it as script=2,rendered_video=1 ({error})") from error
    if unknown := sorted(set(found) - set(QUEUES)):
        raise InvalidInput(f"unknown queue {unknown[0]!r}; the queues are {', '.join(QUEUES)}")
    if any(count < 0 for count in found.values()) or not any(found.values()):
        raise InvalidInput("there must be at least one worker, and no queue can have less than none")
    return {name: count for name, count in found.items() if count}


def run_limits(settings: Settings) -> list[dict[str, Any]]:
    """`tag_concurrency_limits` of dagster.yaml: as many runs of a stage at once as it has workers.

    The rest wait in Dagster's queue, which knows priorities, and not in RQ. A queue without workers gets one run, whose event
    log says that nobody listens. A backfill of several stages may not fill `default`'s queue either.
    """
    slots = slots_of(settings)
    default = max(1, slots.get(DEFAULT_QUEUE, 0))
    return [
        *({"key": STAGE_TAG, "value": stage.name, "limit": max(1, slots.get(stage.slug, 0))} for stage in STAGES.values()),
        *({"key": CHAIN_TAG, "value": chain, "limit": max(1, slots.get(chain, 0))} for chain in CHAINS),
        {"key": BACKFILL_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": default},
    ]


def pool_limits(settings: Settings) -> dict[str, int]:
    """The limit of each Dagster pool: as set, else as many runs as there are workers that could carry one with such a step.

    Raises InvalidInput, which names the pools there are.
    """
    slots = slots_of(settings)
    shared = slots.get(DEFAULT_QUEUE, 0)
    found: dict[str, int] = {}
    for stage in STAGES.values():
        queues = [stage.slug, *(name for name, chain in CHAINS.items() if stage in chain.joined)]
        found[stage.pool] = found.get(stage.pool, 0) + sum(slots.get(queue, 0) for queue in queues)
    found = {ANALYTICS_POOL: 1, **{pool: max(1, count + shared) for pool, count in found.items()}}
    if unknown := sorted(set(settings.dagster_pools) - set(found)):
        raise InvalidInput(f"PHANTOMS_DAGSTER_POOLS: unknown pool {unknown[0]!r}; the pools are {', '.join(found)}")
    return {**found, **settings.dagster_pools}


def redis_url(settings: Settings) -> str:
    """Where the queues are. Raises InvalidInput when no Redis is set and none is running here."""
    if settings.redis_url is None:
        raise nothing_runs(settings, "Redis")
    return settings.redis_url.get_secret_value()
