"""Lists, shows, replays and discards dead letters. Synchronous, for commands, sensors and pages.

`outcomes` writes letters. `claims` closes them when a person or a backfill requests the stage again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.stages import STAGES, StageEvent, StageState, downstream, next_state, stage, states_before
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.dead_letters import statements as sql
from phantoms_dagster.store.engine import reading
from phantoms_dagster.store.planning import NOTIFY
from phantoms_dagster.store.stage_store import REGENERATED
from phantoms_dagster.store.transactions import persons_transaction

Answer = TypeVar("Answer")

NO_PROVIDER = "none"
MOST_TRIES = 3
REASON_CHARACTERS = 1_000
# The stages from which a person may start over: those that `regenerate` makes again, the approval and the variants.
FRESH_STARTS = (*REGENERATED, "approval", "variant")


@dataclass(frozen=True)
class LetterFilter:
    """Selects letters. None matches all. The provider `none` selects letters without a provider."""

    stages: Sequence[str] | None = None
    provider: str | None = None
    error_class: str | None = None
    since: datetime | None = None
    state: str | None = "open"
    ids: Sequence[int] | None = None
    keys: Sequence[str] | None = None

    def values(self) -> dict[str, object]:
        """The parameters of the conditions in `statements`."""
        lists = {"stages": self.stages, "ids": self.ids, "keys": self.keys}
        found = {name: None if values is None else list(values) for name, values in lists.items()}
        scalars = {"provider": self.provider, "error_class": self.error_class, "since": self.since, "state": self.state}
        return {**found, **scalars}


@dataclass(frozen=True)
class DeadLetter:
    """A dead letter in a list. `state`: open, replayed or discarded.

    `tries`: the number of attempts. `counted`: those that the budget was charged for, the first of them at `failing_since`.
    """

    id: int
    key: str
    stage: str
    revision: int
    provider: str | None
    error_class: str
    code: str | None
    message: str
    created_at: datetime
    tries: int
    run_id: str | None
    state: str
    closed_at: datetime | None
    closed_by: str | None
    closed_reason: str | None
    counted: int | None = None
    failing_since: datetime | None = None


@dataclass(frozen=True)
class DeadLetterDetail:
    """Everything about a letter: the provider's answer, the attempts, and the current state of the stage."""

    letter: DeadLetter
    evidence: dict[str, Any]
    attempts: list[dict[str, Any]]
    stage_state: str


@dataclass(frozen=True)
class LetterLeft:
    """A letter that could not be replayed or discarded, and why."""

    letter: DeadLetter
    reason: str


@dataclass(frozen=True)
class Handled:
    """The result of a replay or a discard: the letters that were closed, and those that were refused."""

    closed: tuple[DeadLetter, ...]
    refused: tuple[LetterLeft, ...] = ()


def stages_named(name: str) -> tuple[str, ...]:
    """The stages with that name or kind: `post` means all platforms. Raises InvalidInput, which lists the stages."""
    found = tuple(s.name for s in STAGES.values() if name in (s.name, s.kind))
    if not found:
        raise InvalidInput(f"unknown stage {name!r}; the stages are {', '.join(STAGES)} (or `variant`, `post` for all platforms)")
    return found


class DeadLetters:
    """The dead letters."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def list(
        self, wanted: LetterFilter = LetterFilter(), *, limit: int | None = None, before: int | None = None
    ) -> list[DeadLetter]:
        """The letters, newest first. `before`: only those with a lower number."""
        statement = sql.LIST if before is None else sql.LIST_BEFORE
        values = {**wanted.values(), "limit": limit} | ({} if before is None else {"before": before})
        with reading(self._engine).connect() as connection:
            rows = connection.execute(statement, values).mappings()
            return [_letter(row) for row in rows]

    def count(self, wanted: LetterFilter = LetterFilter(), *, most: int | None = None) -> int:
        """The number of letters, counted up to `most`."""
        statement = sql.COUNT if most is None else sql.COUNT_UP_TO
        with reading(self._engine).connect() as connection:
            return int(connection.execute(statement, {**wanted.values(), "most": most}).scalar_one())

    def show(self, letter_id: int) -> DeadLetterDetail:
        """One letter. Raises NotFound."""
        found = self._details(LetterFilter(ids=[letter_id], state=None))
        if not found:
            raise NotFound(f"no dead letter {letter_id}; `phantoms dead-letters list --state all` lists them")
        return found[0]

    def of_video(self, key: str) -> Sequence[DeadLetterDetail]:
        """Every letter of a video in any state, newest first."""
        return self._details(LetterFilter(keys=[key], state=None))

    def open_since(self, since: datetime | None) -> tuple[Sequence[DeadLetter], datetime]:
        """The open letters since that time (None: all), newest first, and the database's time just before they were read.

        A letter's time is the start of its transaction, so it may become visible a moment after newer ones.
        """
        with reading(self._engine).connect() as connection:
            now = connection.execute(sql.NOW).scalar_one()
            rows = connection.execute(sql.LIST, {**LetterFilter(since=since).values(), "limit": None}).mappings()
            return [_letter(row) for row in rows], now

    def open_by_stage(self) -> dict[str, tuple[int, int]]:
        """For each stage with open letters: how many, and the newest one's id."""
        with reading(self._engine).connect() as connection:
            return {row.stage: (row.n, row.newest) for row in connection.execute(sql.OPEN_BY_STAGE)}

    def replay(self, wanted: LetterFilter, *, by: str, start: str | None = None, actor: Actor | None = None) -> Handled:
        """Restart the stages of these letters with a fresh budget, and close the letters. `by`: the person who asks.

        `actor`: the person in the audit log.

        With `start`, the videos start over from that earlier stage: it gets a new revision, the stages after it are made again, and
        published posts stay. The ledgers do not change: a post or a render with an unknown outcome is read back first. Letters
        selected by id may also be discarded ones. Raises InvalidInput when `start` is not a possible stage.
        """
        if start is not None and stage(start).kind not in FRESH_STARTS:
            raise InvalidInput(f"nothing starts over from {start}; give an earlier stage, or none to repeat the one that failed")

        def work(connection: Connection) -> Handled:
            if start is None:
                handled = self.replay_in(connection, wanted, by=by)
            else:
                handled = _start_over(connection, _locked(connection, sql.LOCK_WHOLE_VIDEOS, wanted), by, start)
            _note(connection, actor, "replay", handled)
            return handled

        return persons_transaction(self._engine, work)

    def replay_in(self, connection: Connection, wanted: LetterFilter, *, by: str) -> Handled:
        """`replay` without `start`, in the caller's transaction."""
        return _replay(connection, _locked(connection, sql.LOCK, wanted), by)

    def discard(self, wanted: LetterFilter, *, by: str, reason: str, actor: Actor | None = None) -> Handled:
        """Give these stages up, so that no stage after them is made. The letters stay, with reason, person and time.

        Raises InvalidInput without a reason.
        """
        reason = reason.strip()
        if not reason:
            raise InvalidInput("a discard needs a reason; it is kept with the letter")

        def work(connection: Connection) -> Handled:
            handled = self.discard_in(connection, wanted, by=by, reason=reason)
            _note(connection, actor, "discard", handled, reason=reason)
            return handled

        return persons_transaction(self._engine, work)

    def discard_in(self, connection: Connection, wanted: LetterFilter, *, by: str, reason: str) -> Handled:
        """`discard` in the caller's transaction."""
        legal, moot = _split(_locked(connection, sql.LOCK, wanted), StageEvent.DISCARD)
        changed = _write(
            connection,
            sql.DISCARD,
            legal,
            before=states_before(StageEvent.DISCARD),
            to=next_state(StageState.FAILED, StageEvent.DISCARD),
        )
        closed = _close(connection, changed, to="discarded", by=by, reason=reason[:REASON_CHARACTERS])
        return Handled(closed, tuple(LetterLeft(_letter(row), f"the stage is {row['stage_state']} now") for row in moot))

    def _details(self, wanted: LetterFilter) -> Sequence[DeadLetterDetail]:
        with reading(self._engine).connect() as connection:
            rows = connection.execute(sql.DETAILS, wanted.values()).mappings()
            return [
                DeadLetterDetail(
                    _letter(row), dict(row["evidence"] or {}), [dict(a) for a in row["history"] or []], row["stage_state"]
                )
                for row in rows
            ]


def _note(connection: Connection, actor: Actor | None, action: str, handled: Handled, **more: str) -> None:
    if actor is not None:
        note(
            connection,
            [AuditEntry(actor, action, one.key, after={"stage": one.stage, "letter": one.id, **more}) for one in handled.closed],
        )


def _letter(row: RowMapping) -> DeadLetter:
    return DeadLetter(**{field.name: row[field.name] for field in fields(DeadLetter)})


def _locked(connection: Connection, lock: Any, wanted: LetterFilter) -> Sequence[RowMapping]:
    """Lock the stages of the selected letters, so that runners wait, and return the letters with the stages' states."""
    connection.execute(lock, wanted.values())
    return connection.execute(sql.STATES, wanted.values()).mappings().all()


def _split(rows: Iterable[RowMapping], event: StageEvent) -> tuple[list[RowMapping], list[RowMapping]]:
    """Split letters by whether their stage allows the event. A discarded letter counts only while its stage is discarded."""
    legal: list[RowMapping] = []
    other: list[RowMapping] = []
    for row in rows:
        belongs = row["state"] == "open" or (row["state"] == "discarded" and row["stage_state"] == StageState.DISCARDED)
        (legal if belongs and StageState(row["stage_state"]) in states_before(event) else other).append(row)
    return legal, other


def _replay(connection: Connection, rows: Sequence[RowMapping], by: str) -> Handled:
    legal, other = _split(rows, StageEvent.REPLAY)
    changed = _write(
        connection, sql.REPLAY, legal, before=states_before(StageEvent.REPLAY), to=next_state(StageState.FAILED, StageEvent.REPLAY)
    )
    # An earlier stage was regenerated meanwhile. This stage will be made again anyway, so only the letter must be closed.
    moot = [row for row in other if row["state"] == "open"]
    connection.execute(text(NOTIFY))
    closed = _close(connection, changed, to="replayed", by=by, reason="replayed")
    closed += _close(connection, moot, to="replayed", by=by, reason="the stage was started over already")
    return Handled(
        closed, tuple(LetterLeft(_letter(row), f"it was {row['state']} before") for row in other if row["state"] != "open")
    )


def _start_over(connection: Connection, rows: Sequence[RowMapping], by: str, start: str) -> Handled:
    following = [s.name for s in downstream(start)]
    own = [row for row in rows if row["stage"] == start]
    handled = _replay(connection, own, by)
    refused = list(handled.refused)
    candidates: dict[int, RowMapping] = {}
    for row in rows:
        if row["stage"] in following:
            candidates.setdefault(row["video_id"], row)
        elif row["stage"] != start:
            refused.append(LetterLeft(_letter(row), f"{row['stage']} does not come after {start}"))
    values = {"ids": list(candidates), "start": start, "platforms": sorted({n.split("/")[0] for n in following if "/post" in n})}
    why = {row.video_id: _why_not(row, start) for row in connection.execute(sql.MAY_START_OVER, values)}
    ids = [video_id for video_id in candidates if why.get(video_id) is None]
    refused += [LetterLeft(_letter(row), str(why[i])) for i, row in candidates.items() if why.get(i) is not None]
    made = connection.execute(
        sql.NEW_REVISION, {"ids": ids, "stage": start, "before": [str(s) for s in states_before(StageEvent.REGENERATE)]}
    )
    fresh = [row.video_id for row in made]
    connection.execute(sql.VOID, {"ids": fresh, "stages": following})
    connection.execute(text(NOTIFY))
    moot = connection.execute(sql.OPEN_LETTERS, {"ids": fresh, "stages": [start, *following]}).mappings().all()
    closed = _close(connection, moot, to="replayed", by=by, reason=f"replayed from {start}")
    return Handled(handled.closed + closed, tuple(refused))


def _why_not(row: Any, start: str) -> str | None:
    if row.state != StageState.DONE:
        return f"{start} is {row.state}: there is no revision of it to replace"
    if row.busy is not None:
        return f"it is being published on {row.busy}; replay {row.busy}/post, or wait for its end"
    return None


def _write(
    connection: Connection, statement: Any, rows: Sequence[RowMapping], *, before: Sequence[StageState], to: StageState
) -> list[RowMapping]:
    """Change the state of these letters' stages. Returns the letters whose stage changed."""
    values = {"videos": [row["video_id"] for row in rows], "stages": [row["stage"] for row in rows]}
    states = {"before": [str(state) for state in before], "to": str(to)}
    moved = {(row.video_id, row.stage) for row in connection.execute(statement, {**values, **states})}
    return [row for row in rows if (row["video_id"], row["stage"]) in moved]


def _close(connection: Connection, rows: Sequence[RowMapping], *, to: str, by: str, reason: str) -> tuple[DeadLetter, ...]:
    """Close letters and return them."""
    values = {"ids": [row["id"] for row in rows], "to": to, "by": by, "reason": reason}
    closed = connection.execute(sql.CLOSE, values).scalars().all()
    wanted = LetterFilter(ids=closed, state=None)
    return tuple(_letter(row) for row in connection.execute(sql.LIST, {**wanted.values(), "limit": None}).mappings())
