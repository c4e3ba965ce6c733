"""The body of every stage's asset. It runs the stage over the step's partitions and ends the step in one of three ways:

- All done, and a later stage is in the same run: metadata for each partition and one `MaterializeResult`.
- All done otherwise, or some deferred in a run that a sensor planned: one materialization for each done video, no output.
- Some failed, or some deferred in a run that a person started: the same, then a `Failure` that says which and why.

A video that waits for a decision, was rejected or discarded, or is not wanted on this platform never fails a run. A note on its
partition says why nothing was made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg

from phantoms_dagster.defs import metadata, tags
from phantoms_dagster.defs.checks import ChecksLeft, evaluate, evaluate_alone
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.defs.step_events import StepEvents
from phantoms_dagster.domain.claims import (
    DISCARDED,
    NOT_WANTED,
    REJECTED,
    UNKNOWN_VIDEO,
    WAITS_FOR_PERSON,
    Result,
    ReviewDecision,
    RunContext,
)
from phantoms_dagster.domain.errors import PhantomsError, StoreAway
from phantoms_dagster.domain.stages import Stage
from phantoms_dagster.wiring import Services

Ended = dg.MaterializeResult[None] | dg.AssetCheckResult
SHOWN_VIDEOS = 20
# In a run of a chain, a shorter wait is waited out: a separate run afterwards would cost as much.
CHAIN_MAX_WAIT_SECONDS = 5.0
# Results of these classes are not failures, and no run can change them.
_NOBODYS_FAILURE = frozenset({WAITS_FOR_PERSON, REJECTED, DISCARDED, NOT_WANTED})
_STOPPED = (
    "This run stopped because {}. No video has failed: finished ones stay finished, and the rest continue when PostgreSQL is back."
)


def run_stage(
    context: dg.AssetExecutionContext,
    services: Services,
    checks: ChecksLeft,
    stage: Stage,
    *,
    regenerate: bool = False,
    decision: ReviewDecision | None = None,
) -> Iterator[Ended]:
    """Run the stage over the partitions of this step. Raises Failure; Dagster may retry it only when PostgreSQL was down."""
    if not context.selected_asset_keys:
        yield from evaluate_alone(context, stage, services=services)
        return
    keys = list(context.partition_keys)
    planned = tags.PLANNED in context.run.tags
    # In a chain the platforms' posts run one after the other, so the wait of one must not delay the next. Runs of people may wait.
    max_wait = CHAIN_MAX_WAIT_SECONDS if planned and stage.platform and _later_stage_selected(context, stage) else None
    asker = RunContext(context.run.run_id, "sensor" if planned else "person", decision, max_wait)
    results: list[Result] = []
    events = StepEvents(context, stage, services.media_files)
    # If a later stage of this run reads the output, Dagster itself records the materialization when the step ends.
    goes_on = _later_stage_selected(context, stage)

    def note(result: Result) -> None:
        results.append(result)
        if result.outcome == "done" and not goes_on:
            events.note(result)

    async def work() -> None:
        pipeline = await services.pipeline()
        async with events.flushed_now_and_then():
            await pipeline.runner.run(stage, keys, asker, regenerate=regenerate, on_result=note)

    context.log.info("%s: %s", stage.name, _some(keys))
    try:
        run_interruptible(work(), services.loop)
    except StoreAway as error:
        _log_done(events, results, goes_on=goes_on)
        # The sensor will plan its own runs again. Dagster may retry the run of a person.
        raise dg.Failure(_STOPPED.format(error), allow_retries=not planned) from None
    except PhantomsError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    except BaseException:
        # Record what was finished before the run was stopped; another run will do the rest.
        _log_done(events, results, goes_on=goes_on)
        raise
    yield from _end(context, services, checks, stage, results, events=events, planned=planned, goes_on=goes_on)


def _end(
    context: dg.AssetExecutionContext,
    services: Services,
    checks: ChecksLeft,
    stage: Stage,
    results: Sequence[Result],
    *,
    events: StepEvents,
    planned: bool,
    goes_on: bool,
) -> Iterator[Ended]:
    unfinished = [result for result in results if _is_unfinished(result, planned=planned)]
    for result in results:
        if result.outcome != "done":
            until = f" until {result.retry_at:%Y-%m-%d %H:%M:%S} UTC" if result.retry_at else ""
            context.log.info("%s: %s%s: %s", result.key, result.outcome, until, result.message)
        if result.error_class in _NOBODYS_FAILURE and not planned:
            master = services.master_of(result.key) if stage.name == "approval" else None
            events.explain(result, settle=tags.BACKFILL in context.run.tags, shown=master)
    if goes_on and all(result.outcome == "done" for result in results):
        asset_key = dg.AssetKey(stage.slug)
        for result in results:
            entries = metadata.of_result(result, services.media_files)
            context.add_asset_metadata(entries, asset_key=asset_key, partition_key=result.key)
        yield dg.MaterializeResult(asset_key=asset_key)
    else:
        _log_done(events, results, goes_on=goes_on)
    yield from evaluate(context, services, checks, stage, results)
    if unfinished:
        _remove_unknown(context, unfinished)
        raise dg.Failure(_what_happened(stage, unfinished, len(results)), metadata=_table(unfinished), allow_retries=False)


def _is_unfinished(result: Result, *, planned: bool) -> bool:
    """Whether this result fails the run. In a person's run a deferred result counts, too: the video was not made."""
    if result.error_class in _NOBODYS_FAILURE and result.outcome != "failed":
        return False
    return result.outcome == "failed" or (not planned and result.outcome in ("deferred", "rejected", "stale"))


def _remove_unknown(context: dg.AssetExecutionContext, unfinished: Sequence[Result]) -> None:
    """Delete partitions that a person added without a brief. Otherwise they would be listed as failed forever."""
    for result in unfinished:
        if result.error_class == UNKNOWN_VIDEO:
            context.instance.delete_dynamic_partition(VIDEOS, result.key)
            context.log.warning("%s: removed the partition, because no brief has this key", result.key)


def _log_done(events: StepEvents, results: Sequence[Result], *, goes_on: bool) -> None:
    if goes_on:
        for result in results:
            if result.outcome == "done":
                events.note(result)
    events.flush()


def _later_stage_selected(context: dg.AssetExecutionContext, stage: Stage) -> bool:
    selected = context.run.asset_selection or context.job_def.asset_layer.selected_asset_keys
    return len(set(selected) - {dg.AssetKey(stage.slug)}) > 0


def _what_happened(stage: Stage, unfinished: Sequence[Result], of: int) -> str:
    lines = [f"{r.key}: {r.outcome}{f' until {r.retry_at:%H:%M:%S} UTC' if r.retry_at else ''}: {r.message}" for r in unfinished]
    more = [f"... and {len(lines) - SHOWN_VIDEOS} more"] if len(lines) > SHOWN_VIDEOS else []
    return f"{stage.name}: {len(unfinished)} of {of} not made\n" + "\n".join(lines[:SHOWN_VIDEOS] + more)


def _table(unfinished: Sequence[Result]) -> dict[str, dg.TableMetadataValue]:
    records = [
        dg.TableRecord({"video": r.key, "outcome": r.outcome, "class": r.error_class or "", "message": r.message[:500]})
        for r in unfinished[:100]
    ]
    return {"videos": dg.MetadataValue.table(records)}


def _some(keys: Sequence[str]) -> str:
    return f"{len(keys)} videos, {keys[0]} .. {keys[-1]}" if len(keys) > 1 else keys[0]
