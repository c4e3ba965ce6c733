"""The body of every stage's asset: run the stage over the step's partitions, then end the step in one of the three ways.

- All done and a later stage is in the same run: metadata for each partition and one `MaterializeResult`.
- All done otherwise, or some deferred in a run that the sensor planned: one materialization for each done video, no output.
- Some failed, or some deferred in a run that a person started: the same, then a `Failure` that says which and why.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import dagster as dg

from phantoms_dagster.defs import metadata, tags
from phantoms_dagster.defs.events import log_materializations
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.domain.errors import PhantomsError, StoreAway
from phantoms_dagster.domain.stages import Stage
from phantoms_dagster.domain.work import Decision, Result, RunContext
from phantoms_dagster.wiring import Workshop

SHOWN_VIDEOS = 20
# A shorter wait is sat out in a chain's run: a run of its own afterwards costs as much.
CHAIN_PATIENCE_SECONDS = 5.0
_STOPPED = (
    "This run stopped because {}. No video has failed by that: what was finished stays, the rest goes on when PostgreSQL is back."
)


def run_stage(
    context: dg.AssetExecutionContext,
    workshop: Workshop,
    stage: Stage,
    *,
    regenerate: bool = False,
    decision: Decision | None = None,
) -> Iterator[dg.MaterializeResult[None]]:
    """Carry the partitions of this step through `stage`. Raises Failure, which no retry policy of Dagster's may repeat."""
    keys = list(context.partition_keys)
    planned = tags.PLANNED in context.run.tags
    # In a chain a platform's post goes after another's: the wait of one must not hold up the other. What a person asked for waits.
    patience = CHAIN_PATIENCE_SECONDS if planned and stage.platform and _later_stage_selected(context, stage) else None
    asker = RunContext(context.run.run_id, "sensor" if planned else "person", decision, patience)
    results: list[Result] = []

    async def work() -> None:
        pipeline = await workshop.pipeline()
        await pipeline.runner.run(stage, keys, asker, regenerate=regenerate, on_result=results.append)

    context.log.info("%s: %s", stage.name, _some(keys))
    try:
        run_interruptible(work(), workshop.loop)
    except StoreAway as error:
        _log(context, workshop, stage, results)
        # The sensor asks again for what it planned; a person's run is repeated by Dagster.
        raise dg.Failure(_STOPPED.format(error), allow_retries=not planned) from None
    except PhantomsError as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    except BaseException:
        # What was finished before the run was stopped is finished; the rest is taken up again.
        _log(context, workshop, stage, results)
        raise
    yield from _end(context, workshop, stage, results, planned=planned)


def _end(
    context: dg.AssetExecutionContext, workshop: Workshop, stage: Stage, results: Sequence[Result], *, planned: bool
) -> Iterator[dg.MaterializeResult[None]]:
    by_ending = {name: [r for r in results if r.ending == name] for name in ("done", "deferred", "failed", "rejected", "stale")}
    for result in results:
        if result.ending != "done":
            until = f" until {result.retry_at:%Y-%m-%d %H:%M:%S} UTC" if result.retry_at else ""
            context.log.info("%s: %s%s: %s", result.key, result.ending, until, result.message)
    unfinished = by_ending["failed"] + ([] if planned else by_ending["deferred"] + by_ending["rejected"] + by_ending["stale"])
    whole = len(by_ending["done"]) == len(results)
    if whole and not unfinished and _later_stage_selected(context, stage):
        asset_key = dg.AssetKey(stage.path)
        for result in results:
            entries = metadata.of_result(result, workshop.shelf)
            context.add_asset_metadata(entries, asset_key=asset_key, partition_key=result.key)
        yield dg.MaterializeResult(asset_key=asset_key)
        return
    _log(context, workshop, stage, by_ending["done"])
    if unfinished:
        raise dg.Failure(_what_happened(stage, unfinished, len(results)), metadata=_table(unfinished), allow_retries=False)


def _log(context: dg.AssetExecutionContext, workshop: Workshop, stage: Stage, results: Sequence[Result]) -> None:
    done = {r.key: metadata.of_result(r, workshop.shelf) for r in results if r.ending == "done"}
    if done:
        log_materializations(context, dg.AssetKey(stage.path), done)


def _later_stage_selected(context: dg.AssetExecutionContext, stage: Stage) -> bool:
    selected = context.run.asset_selection or context.job_def.asset_layer.selected_asset_keys
    return len(set(selected) - {dg.AssetKey(stage.path)}) > 0


def _what_happened(stage: Stage, unfinished: Sequence[Result], of: int) -> str:
    lines = [f"{r.key}: {r.ending}{f' until {r.retry_at:%H:%M:%S} UTC' if r.retry_at else ''}: {r.message}" for r in unfinished]
    more = [f"... and {len(lines) - SHOWN_VIDEOS} more"] if len(lines) > SHOWN_VIDEOS else []
    return f"{stage.name}: {len(unfinished)} of {of} not made\n" + "\n".join(lines[:SHOWN_VIDEOS] + more)


def _table(unfinished: Sequence[Result]) -> dict[str, dg.MetadataValue[object]]:
    records = [
        dg.TableRecord({"video": r.key, "ending": r.ending, "class": r.error_class or "", "message": r.message[:500]})
        for r in unfinished[:100]
    ]
    return {"videos": dg.MetadataValue.table(records)}


def _some(keys: Sequence[str]) -> str:
    return f"{len(keys)} videos, {keys[0]} .. {keys[-1]}" if len(keys) > 1 else keys[0]
