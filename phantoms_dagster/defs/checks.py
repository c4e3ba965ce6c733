"""Asset checks: `no_dead_letters` on every stage, and the sensor that keeps them current without a run.

What a dead letter is belongs in `store`; who is told of one, in `alerts`.
"""

import json
from typing import Any

import dagster as dg

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away, skips_while_the_store_is_away
from phantoms_dagster.domain.stages import STAGES, Stage
from phantoms_dagster.store.dead_letters import DeadLetters, Letter, LetterFilter
from phantoms_dagster.wiring import Workshop

NAME = "no_dead_letters"
SHOWN_LETTERS = 50
SHOWN_CHARACTERS = 300
SECONDS = 30


def _metadata(stage: Stage, letters: list[Letter], total: int) -> dict[str, Any]:
    entries: dict[str, Any] = {"open": dg.MetadataValue.int(total)}
    if letters:
        records = [
            dg.TableRecord(
                {
                    "letter": n.id,
                    "video": n.key,
                    "class": n.error_class,
                    "provider": n.provider or "",
                    "message": n.message[:SHOWN_CHARACTERS],
                    "since": n.created_at.isoformat(timespec="seconds"),
                }
            )
            for n in letters
        ]
        entries["letters"] = dg.MetadataValue.table(records)
        entries["next"] = dg.MetadataValue.md(f"`phantoms dead-letters replay --stage {stage.name}`, or a backfill from failure")
    return entries


def _look(workshop: Workshop, stage: Stage) -> tuple[bool, dict[str, Any]]:
    letters, wanted = DeadLetters(workshop.engine), LetterFilter(stages=[stage.name])
    total = letters.count(wanted)
    return total == 0, _metadata(stage, letters.list(wanted, limit=SHOWN_LETTERS) if total else [], total)


def _check(stage: Stage) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=dg.AssetKey(stage.path),
        name=NAME,
        blocking=False,
        description=f"No video has failed for good in {stage.name}: every dead letter is replayed or discarded.",
    )
    @fails_plainly_while_the_store_is_away
    def no_dead_letters(workshop: dg.ResourceParam[Workshop]) -> dg.AssetCheckResult:
        passed, entries = _look(workshop, stage)
        return dg.AssetCheckResult(passed=passed, metadata=entries)

    return no_dead_letters


checks = [_check(stage) for stage in STAGES.values()]


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports `no_dead_letters` for each stage whose open dead letters have changed.",
)
@skips_while_the_store_is_away
def dead_letters_sensor(
    context: dg.SensorEvaluationContext, workshop: dg.ResourceParam[Workshop]
) -> dg.SensorResult | dg.SkipReason:
    """One query when nothing changed. A run for the checks would cost seconds of CPU, and those of a stage's own run are skipped
    when the stage fails, which is when they matter."""
    before = json.loads(context.cursor) if context.cursor else {}
    counts = DeadLetters(workshop.engine).open_by_stage()
    now = {name: list(counts.get(name, (0, 0))) for name in STAGES}
    changed = [stage for name, stage in STAGES.items() if before.get(name) != now[name]]
    if not changed:
        return dg.SkipReason("no dead letter was added or closed")
    events = []
    for stage in changed:
        passed, entries = _look(workshop, stage)
        events.append(dg.AssetCheckEvaluation(dg.AssetKey(stage.path), NAME, passed, entries))
    return dg.SensorResult(asset_events=events, cursor=json.dumps(now))
