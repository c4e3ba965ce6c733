"""Asset checks of the stages, evaluated in each run that makes something, and the sensor that keeps them current without a run.

`store` says what a dead letter is, `alerts` who hears of one, and `content` what content should be like.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from typing import Any, NamedTuple

import dagster as dg

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away, skips_while_the_store_is_away
from phantoms_dagster.defs.content import evaluation, rules_of
from phantoms_dagster.defs.events import Origin, log_checks
from phantoms_dagster.defs.interrupt import run_interruptible
from phantoms_dagster.domain.claims import Result
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.domain.models import StageOutput
from phantoms_dagster.domain.stages import STAGES, Stage
from phantoms_dagster.store.away import store_errors
from phantoms_dagster.store.dead_letters.letters import DeadLetter, DeadLetters, LetterFilter
from phantoms_dagster.store.latest import latest_outputs
from phantoms_dagster.wiring import Services

NAME = "no_dead_letters"
DECIDED = "every_film_is_decided_on"
SHOWN_LETTERS = 50
SHOWN_CHARACTERS = 300
SECONDS = 60
# A check that is run by hand looks at so many of the newest outputs.
LOOKED_AT = 500

_log = logging.getLogger(__name__)


class CheckFacts(NamedTuple):
    """What the checks ask the tables: open letters by stage, and the videos that wait for a person."""

    letters: Mapping[str, int]
    undecided: Sequence[str]


def specs(stage: Stage) -> list[dg.AssetCheckSpec]:
    """The checks of a stage. Its own run evaluates them: steps after it would be skipped when it makes nothing or fails."""
    key = dg.AssetKey(stage.slug)
    letters = f"No video has failed for good in {stage.name}: every dead letter is replayed or discarded."
    found = [dg.AssetCheckSpec(NAME, asset=key, description=letters)]
    found += [dg.AssetCheckSpec(rule.name, asset=key, description=rule.description) for rule in rules_of(stage)]
    if stage.name == "approval":
        # A warning, and no failure: to wait for a person is what `approval` is for.
        found.append(dg.AssetCheckSpec(DECIDED, asset=key, description="No finished video waits for a person to decide on it."))
    return found


class ChecksLeft:
    """The checks that the steps of a run leave for its end. There they cost one question and one batch of events.

    In between they would hold up the next stage, by a tenth of what a short stage takes.
    """

    def __init__(self, instance: dg.DagsterInstance, services: Services) -> None:
        self._instance, self._services = instance, services
        self._left: list[tuple[Origin, Stage, Set[str], Mapping[str, StageOutput]]] = []

    def add(self, origin: Origin, stage: Stage, names: Set[str], made: Mapping[str, StageOutput]) -> None:
        """Leave the checks of these names, about what the step has made."""
        if names:
            self._left.append((origin, stage, names, made))

    def tell(self) -> None:
        """Evaluate and log what is left. While PostgreSQL is away, a warning is all: no run fails by its checks."""
        left, self._left = self._left, []
        if not left:
            return
        try:
            with store_errors():
                decided = any(DECIDED in names for _, _, names, _ in left)
                standing = run_interruptible(_standing(self._services, decided=decided), self._services.loop)
                found = [
                    (origin, each)
                    for origin, stage, names, made in left
                    for each in _evaluations(self._services, stage, names, made, standing)
                ]
                log_checks(self._instance, found)
        except StoreAway as error:
            _log.warning("the checks were not evaluated: %s", error)


class ChecksLeftResource(dg.ConfigurableResource[ChecksLeft]):
    """The checks that the steps of a run leave for its end."""

    services: dg.ResourceDependency[Services]

    def create_resource(self, context: dg.InitResourceContext) -> ChecksLeft:
        """Nothing is left yet."""
        if context.instance is None:
            raise dg.DagsterInvariantViolationError("checks are logged to an instance, and there is none")
        return ChecksLeft(context.instance, self.services)

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator[ChecksLeft]:
        """Its end comes after the last step, however that ended, and before the end of the run."""
        left = self.create_resource(context)
        try:
            yield left
        finally:
            left.tell()


def evaluate(
    context: dg.AssetExecutionContext, services: Services, left: ChecksLeft, stage: Stage, results: Sequence[Result]
) -> Iterator[dg.AssetCheckResult]:
    """Evaluate the checks of a stage that the run selected. The others are `left` for the end of the run.

    The jobs of the sensors select none: planning them would cost each run more than evaluating them.
    """
    made = {result.key: result.output for result in results if result.outcome == "done" and result.output is not None}
    selected = {key.name for key in context.selected_asset_check_keys}
    names = {each.name for each in specs(stage)}
    if made or any(result.outcome == "failed" for result in results):
        left.add(Origin.of(context), stage, names - selected, made)
    if not selected:
        return
    try:
        with store_errors():
            standing = run_interruptible(_standing(services, decided=DECIDED in selected), services.loop)
            looked_at = made or latest_outputs(services.engine, stage.name, most=LOOKED_AT)
            found = _evaluations(services, stage, selected, looked_at, standing)
    except StoreAway as error:
        context.log.warning("the checks were not evaluated: %s", error)
        return
    for each in found:
        yield _result(each)


@fails_plainly_while_the_store_is_away
def evaluate_alone(context: dg.AssetExecutionContext, stage: Stage, *, services: Services) -> Iterator[dg.AssetCheckResult]:
    """Evaluate checks that a person starts on their own, over the newest outputs of the stage."""
    found = {NAME: lambda: _letters(services, stage), DECIDED: lambda: _decided(services)}
    outputs = latest_outputs(services.engine, stage.name, most=LOOKED_AT)
    rules = {rule.name: rule for rule in rules_of(stage)}
    for name in sorted(key.name for key in context.selected_asset_check_keys):
        yield _result(evaluation(stage, rules[name], outputs) if name in rules else found[name]())


# --- dead letters


def _metadata(stage: Stage, letters: list[DeadLetter], total: int) -> dict[str, Any]:
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


async def _standing(services: Services, *, decided: bool) -> CheckFacts:
    """The open letters, and if `decided` the videos that wait for a person, asked on the run's own connection."""
    standing = (await services.pipeline()).standing
    return CheckFacts(await standing.open_letters(), await standing.undecided(limit=LOOKED_AT) if decided else ())


def _evaluations(
    services: Services, stage: Stage, names: Set[str], outputs: Mapping[str, StageOutput], standing: CheckFacts
) -> Iterator[dg.AssetCheckEvaluation]:
    """The checks of a stage that have one of these names. `outputs` may be empty: then there is nothing to say of the content."""
    if NAME in names:
        yield _letters(services, stage, total=standing.letters.get(stage.name, 0))
    if DECIDED in names:
        yield _decided(services, keys=standing.undecided)
    for rule in rules_of(stage):
        if outputs and rule.name in names:
            yield evaluation(stage, rule, outputs)


def _letters(services: Services, stage: Stage, *, total: int | None = None) -> dg.AssetCheckEvaluation:
    wanted = LetterFilter(stages=[stage.name])
    total = DeadLetters(services.engine).count(wanted) if total is None else total
    letters = DeadLetters(services.engine).list(wanted, limit=SHOWN_LETTERS) if total else []
    entries = _metadata(stage, letters, total)
    return dg.AssetCheckEvaluation(dg.AssetKey(stage.slug), NAME, total == 0, entries)


# --- decisions


def _decided(services: Services, *, keys: Sequence[str] | None = None) -> dg.AssetCheckEvaluation:
    keys = services.decisions().undecided(limit=LOOKED_AT) if keys is None else keys
    entries: dict[str, Any] = {"waiting": dg.MetadataValue.int(len(keys))}
    if keys:
        records = [dg.TableRecord({"video": key, "next": f"phantoms approve {key}"}) for key in keys[:SHOWN_LETTERS]]
        entries["videos"] = dg.MetadataValue.table(records)
    return dg.AssetCheckEvaluation(dg.AssetKey("approval"), DECIDED, not keys, entries, severity=dg.AssetCheckSeverity.WARN)


def _result(found: dg.AssetCheckEvaluation) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=found.passed,
        asset_key=found.asset_key,
        check_name=found.check_name,
        metadata=found.metadata,
        severity=found.severity,
    )


@dg.sensor(
    minimum_interval_seconds=SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports `no_dead_letters` for each stage whose open dead letters have changed, and `every_film_is_decided_on` "
    "when other videos wait.",
)
@skips_while_the_store_is_away
def dead_letters_sensor(
    context: dg.SensorEvaluationContext, services: dg.ResourceParam[Services]
) -> dg.SensorResult | dg.SkipReason:
    """Two queries when nothing changed. A run for the checks would cost seconds of CPU."""
    before = json.loads(context.cursor) if context.cursor else {}
    counts = DeadLetters(services.engine).open_by_stage()
    now: dict[str, Any] = {name: list(counts.get(name, (0, 0))) for name in STAGES}
    changed = [stage for name, stage in STAGES.items() if before.get(name) != now[name]]
    events = [_letters(services, stage) for stage in changed]
    now[DECIDED] = services.decisions().undecided(limit=SHOWN_LETTERS)
    if now[DECIDED] != before.get(DECIDED):
        events.append(_decided(services))
    if not events:
        return dg.SkipReason("no dead letter was added or closed, and no other video waits for a person")
    said = [f"{stage.slug}: {counts.get(stage.name, (0, 0))[0]} open" for stage in changed]
    reason = f"dead letters: {', '.join(said)}" if said else ""
    waiting = (
        f"{counted(len(now[DECIDED]), 'video waits', 'videos wait')} for a person" if now[DECIDED] != before.get(DECIDED) else ""
    )
    return dg.SensorResult(
        skip_reason=dg.SkipReason("checks reported; " + "; ".join(part for part in (reason, waiting) if part)),
        asset_events=events,
        cursor=json.dumps(now),
    )
