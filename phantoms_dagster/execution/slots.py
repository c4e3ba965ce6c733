"""Chooses the queue of a run, and the number of workers and runs per queue. Pure functions of tags and settings.

It does not import RQ, so neither does the process that starts the workers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.stages import CHAINS, STAGES
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.up_lock import nothing_runs

# The tags of a run with its stage or chain of stages, and with the job that executes it.
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
    """Return the queue of a run with these tags: that of its stage or chain, else `default`.

    Stages of optional platforms have no queue of their own and use `default`.
    """
    stage, chain = STAGES.get(tags.get(STAGE_TAG, "")), CHAINS.get(tags.get(CHAIN_TAG, ""))
    return stage.slug if stage and stage.usual else chain.name if chain else DEFAULT_QUEUE


def tags_of_assets(assets: Collection[str]) -> dict[str, str]:
    """Return the tag for the stage, or for the chain, that contains all selected assets; empty when there is none.

    Backfills and the button *Materialize* select assets instead of one of our jobs, so their runs lack the tag.
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
    """Return the tag with a run's video, or its first and last video, for people. Empty when the run already has one."""
    if VIDEO_TAG in tags or VIDEOS_TAG in tags:
        return {}
    if video := tags.get(PARTITION_TAG):
        return {VIDEO_TAG: video}
    first, last = tags.get(RANGE_START_TAG), tags.get(RANGE_END_TAG)
    if not first or not last:
        return {}
    return {VIDEO_TAG: first} if first == last else {VIDEOS_TAG: f"{first} .. {last}"}


def job_of(run_id: str, tags: Mapping[str, str]) -> str | None:
    """Return the id of the job that executes the run. A tag that a re-execution copied from another run does not count."""
    job_id = tags.get(JOB_TAG, "")
    return job_id if job_id.startswith(f"{run_id}-") else None


def launches(run_id: str, tags: Mapping[str, str]) -> int:
    """Return how often the run was launched."""
    job_id = job_of(run_id, tags)
    return int(job_id.rsplit("-", 1)[1]) if job_id else 0


def slots_of(settings: Settings, given: str | None = None) -> dict[str, int]:
    """Return the number of workers per queue: those in `given` (`script=2,rendered_video=1`), else the settings, else one each.

    Raises InvalidInput for unknown queues and impossible numbers.
    """
    if given is None:
        found = dict.fromkeys(QUEUES, 1) | settings.workers.slots
    else:
        pairs = [part.strip().partition("=") for part in given.split(",") if part.strip()]
        try:
            found = {name.strip(): int(count or 1) for name, _, count in pairs}
        except ValueError as error:
            raise InvalidInput(f"--queues {given}: write it as script=2,rendered_video=1 ({error})") from error
    if unknown := sorted(set(found) - set(QUEUES)):
        raise InvalidInput(f"unknown queue {unknown[0]!r}; the queues are {', '.join(QUEUES)}")
    if any(count < 0 for count in found.values()) or not any(found.values()):
        raise InvalidInput("there must be at least one worker, and no queue can have a negative number")
    return {name: count for name, count in found.items() if count}


def run_limits(settings: Settings) -> list[dict[str, Any]]:
    """Return `tag_concurrency_limits` for dagster.yaml: a stage may have as many runs at once as it has workers.

    The others wait in Dagster's queue, which has priorities, instead of in RQ. A queue without workers gets one run, whose event
    log says that no worker listens. A backfill over several stages is limited to the workers of `default`.
    """
    slots = slots_of(settings)
    default = max(1, slots.get(DEFAULT_QUEUE, 0))
    return [
        *({"key": STAGE_TAG, "value": stage.name, "limit": max(1, slots.get(stage.slug, 0))} for stage in STAGES.values()),
        *({"key": CHAIN_TAG, "value": chain, "limit": max(1, slots.get(chain, 0))} for chain in CHAINS),
        {"key": BACKFILL_TAG, "value": {"applyLimitPerUniqueValue": True}, "limit": default},
    ]


def pool_limits(settings: Settings) -> dict[str, int]:
    """Return the limit of each Dagster pool: from the settings, else the number of workers that can run such a step.

    Raises InvalidInput for unknown pools.
    """
    slots = slots_of(settings)
    shared = slots.get(DEFAULT_QUEUE, 0)
    found: dict[str, int] = {}
    for stage in STAGES.values():
        queues = [stage.slug, *(name for name, chain in CHAINS.items() if stage in chain.joined)]
        found[stage.pool] = found.get(stage.pool, 0) + sum(slots.get(queue, 0) for queue in queues)
    found = {ANALYTICS_POOL: 1, **{pool: max(1, count + shared) for pool, count in found.items()}}
    if unknown := sorted(set(settings.dagster.pools) - set(found)):
        raise InvalidInput(f"PHANTOMS_DAGSTER_POOLS: unknown pool {unknown[0]!r}; the pools are {', '.join(found)}")
    return {**found, **settings.dagster.pools}


def redis_url(settings: Settings) -> str:
    """Return the URL of the Redis with the queues. Raises InvalidInput when none is set and none is running here."""
    if settings.redis.url is None:
        raise nothing_runs(settings, "Redis")
    return settings.redis.url.get_secret_value()
