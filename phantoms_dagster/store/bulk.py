"""Bulk actions: one action on many videos or dead letters, step by step, each step exactly once.

A step's change, its audit row and its outcome are one transaction. If a desk is killed in between, the next one continues and
repeats nothing. With a canary, the first step runs alone, and the others follow when its stage is done.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import ValidationError
from sqlalchemy import Connection, Engine, text

from phantoms_dagster.domain.brief_changes import BriefChanges
from phantoms_dagster.domain.errors import InvalidInput, NotFound, PhantomsError, StoreAway
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.brief_edits import edit_in
from phantoms_dagster.store.dead_letters.letters import DeadLetters, LetterFilter
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.engine import reading
from phantoms_dagster.store.retrying import Retrying

ACTIONS = ("retry", "hold", "priority", "move", "replay", "discard")
MOST_ITEMS = 10_000
OUTCOME_CHARACTERS = 500
NEWEST = 2**62

_log = logging.getLogger(__name__)

_MAKE = text(
    """
    INSERT INTO phantoms.bulk_actions (action, arguments, chosen, who, via, address, state, once)
    VALUES (:action, CAST(:arguments AS jsonb), :chosen, :who, :via, :address, :state, :once)
    ON CONFLICT (once) DO NOTHING RETURNING id
    """
)
MADE_ONCE = text("SELECT id FROM phantoms.bulk_actions WHERE once = :once AND who = :who")
_MAKE_ITEMS = text(
    """
    INSERT INTO phantoms.bulk_items (bulk_id, n, key, letter_id)
    SELECT :id, g.n, g.key, g.letter
    FROM unnest(CAST(:keys AS text[]), CAST(:letters AS bigint[])) WITH ORDINALITY AS g(key, letter, n)
    """
)
COLUMNS = "b.id, b.action, b.arguments, b.chosen, b.who, b.via, b.address, b.state, b.note, b.made_at, b.ended_at"
ONE = text(f"SELECT {COLUMNS} FROM phantoms.bulk_actions b WHERE b.id = :id")
LATEST = text(f"SELECT {COLUMNS} FROM phantoms.bulk_actions b WHERE b.id < :before ORDER BY b.id DESC LIMIT :limit")
COUNTED = text("SELECT bulk_id, state, count(*) AS n FROM phantoms.bulk_items WHERE bulk_id = ANY(:ids) GROUP BY bulk_id, state")
_STEP_STATES = ("pending", "done", "failed", "skipped")
ITEMS = text(
    """
    SELECT n, key, letter_id, state, outcome, ended_at FROM phantoms.bulk_items
    WHERE bulk_id = :id AND state = :state AND n > :after ORDER BY n LIMIT :limit
    """
)
OPEN = text("SELECT b.id FROM phantoms.bulk_actions b WHERE b.state IN ('canary', 'running') ORDER BY b.id LIMIT 20")
# Locks the action, so that its steps run one after the other and a stop waits for the running step.
_STATE = text("SELECT state FROM phantoms.bulk_actions WHERE id = :id FOR UPDATE")
NEXT = text(
    """
    SELECT n, key, letter_id FROM phantoms.bulk_items WHERE bulk_id = :id AND state = 'pending'
    ORDER BY n LIMIT 1
    """
)
_END_ITEM = text(
    """
    UPDATE phantoms.bulk_items SET state = :state, outcome = :outcome, ended_at = clock_timestamp() WHERE bulk_id = :id AND n = :n
    """
)
_TURN = text(
    """
    UPDATE phantoms.bulk_actions SET state = CAST(:to AS text), note = :note,
        ended_at = CASE WHEN CAST(:to AS text) IN ('ended', 'stopped') THEN clock_timestamp() END
    WHERE id = :id AND state = ANY(:before)
    """
)
CANARY = text(
    """
    SELECT i.key, i.state, i.outcome, i.ended_at,
        COALESCE(d.stage, i.stage) AS stage, s.state AS stage_state, s.reason, s.updated_at
    FROM (SELECT key, state, outcome, ended_at, letter_id, substring(outcome FROM '^[a-z_]+(?:/[a-z_]+)?') AS stage
          FROM phantoms.bulk_items WHERE bulk_id = :id AND n = 1) i
    JOIN phantoms.videos v ON v.key = i.key
    LEFT JOIN phantoms.dead_letters d ON d.id = i.letter_id
    LEFT JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = COALESCE(d.stage, i.stage)
    """
)


@dataclass(frozen=True)
class Bulk:
    """A bulk action. `state`: canary (the first step runs alone), running, stopped or ended.

    `chosen`: the search or issue it is from.
    """

    id: int
    action: str
    arguments: dict[str, Any]
    chosen: str
    who: str
    via: str
    address: str
    state: str
    note: str
    made_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True)
class Item:
    """A step of a bulk action. `state`: pending, done, failed, skipped."""

    n: int
    key: str
    letter_id: int | None
    state: str
    outcome: str
    ended_at: datetime | None


@dataclass(frozen=True)
class Canary:
    """The first step: its video, its stage, and the stage's current state."""

    key: str
    state: str
    outcome: str
    ended_at: datetime | None
    stage: str | None
    stage_state: str | None
    reason: str | None
    updated_at: datetime | None


class BulkActions:
    """Accepts bulk actions and runs their steps."""

    def __init__(self, engine: Engine, *, retrying: Retrying, decisions: Decisions) -> None:
        self._engine = engine
        self._retrying = retrying
        self._decisions = decisions
        self._letters = DeadLetters(engine)

    def submit(
        self,
        action: str,
        steps: Sequence[tuple[str, int | None]],
        actor: Actor,
        *,
        arguments: Mapping[str, Any] | None = None,
        chosen: str = "",
        canary: bool = False,
        once: str | None = None,
    ) -> int:
        """Create an action on these videos or letters. Each step is a key, and a letter's number or None. Returns its number.

        `once`: the form's unique token. Sending the same form again returns the number of the first action.
        Raises InvalidInput when there are no steps or too many, or an argument is missing.
        """
        with self._engine.begin() as connection:
            return self.submit_in(connection, action, steps, actor, arguments=arguments, chosen=chosen, canary=canary, once=once)

    def submit_in(
        self,
        connection: Connection,
        action: str,
        steps: Sequence[tuple[str, int | None]],
        actor: Actor,
        *,
        arguments: Mapping[str, Any] | None = None,
        chosen: str = "",
        canary: bool = False,
        once: str | None = None,
    ) -> int:
        """`submit` in the caller's transaction."""
        given = dict(arguments or {})
        check(action, given)
        if not steps:
            raise InvalidInput("nothing is selected: tick some rows, or select all results")
        if len(steps) > MOST_ITEMS:
            raise InvalidInput(f"at most {MOST_ITEMS:,} at once; narrow the search")
        canary = canary and action in ("retry", "replay") and len(steps) > 1
        who = {"who": actor.name, "via": actor.via, "address": actor.address}
        values = {
            "action": action,
            "arguments": json.dumps(given),
            "chosen": chosen,
            "state": "canary" if canary else "running",
            "once": once,
        }
        number = connection.execute(_MAKE, {**values, **who}).scalar()
        if number is None:  # the form was sent twice, and the other request created the action
            found = connection.execute(MADE_ONCE, {"once": once, "who": actor.name}).scalar()
            if found is None:
                raise InvalidInput("that form belongs to another user: reload the page")
            return int(found)
        keys, letters = [key for key, _ in steps], [letter for _, letter in steps]
        connection.execute(_MAKE_ITEMS, {"id": number, "keys": keys, "letters": letters})
        after = {"videos": len(steps), "from": chosen, **given}
        note(connection, [AuditEntry(actor, f"bulk {action}", f"bulk {number}", after=after)])
        return int(number)

    def made_by(self, once: str, actor: Actor) -> int | None:
        """The number of the action that this form created; None when it created none."""
        with reading(self._engine).connect() as connection:
            found: int | None = connection.execute(MADE_ONCE, {"once": once, "who": actor.name}).scalar()
        return found

    def get(self, number: int) -> Bulk:
        """One action. Raises NotFound."""
        with reading(self._engine).connect() as connection:
            return self.get_in(connection, number)

    def get_in(self, connection: Connection, number: int) -> Bulk:
        """`get` in the caller's transaction."""
        row = connection.execute(ONE, {"id": number}).mappings().one_or_none()
        if row is None:
            raise NotFound(f"There is no bulk action {number}.")
        return Bulk(**row)

    def latest(self, *, before: int = NEWEST, limit: int = 30) -> list[Bulk]:
        """The newest actions."""
        with reading(self._engine).connect() as connection:
            return [Bulk(**row) for row in connection.execute(LATEST, {"before": before, "limit": limit}).mappings()]

    def counts(self, number: int) -> dict[str, int]:
        """How many steps are pending, done, failed and skipped."""
        return self.counts_of([number])[number]

    def counts_of(self, numbers: Sequence[int]) -> dict[int, dict[str, int]]:
        """The same for several actions, by number."""
        found = {number: dict.fromkeys(_STEP_STATES, 0) for number in numbers}
        with reading(self._engine).connect() as connection:
            for row in connection.execute(COUNTED, {"ids": list(numbers)}):
                found[row.bulk_id][row.state] = row.n
        return found

    def items(self, number: int, state: str, *, after: int = 0, limit: int = 50) -> list[Item]:
        """The steps in that state after step `after`."""
        values = {"id": number, "state": state, "after": after, "limit": limit}
        with reading(self._engine).connect() as connection:
            return [Item(**row) for row in connection.execute(ITEMS, values).mappings()]

    def canary(self, number: int) -> Canary | None:
        """The first step and the current state of its stage."""
        with reading(self._engine).connect() as connection:
            row = connection.execute(CANARY, {"id": number}).mappings().one_or_none()
        return Canary(**row) if row is not None else None

    def stop(self, number: int, actor: Actor) -> None:
        """Start no further step. Raises InvalidInput when the action has ended."""
        with self._engine.begin() as connection:
            if not self._turn(connection, number, "stopped", f"stopped by {actor.name}", ("canary", "running")):
                raise InvalidInput("it has already ended: there is nothing to stop")
            note(connection, [AuditEntry(actor, "stop", f"bulk {number}")])

    def go_on(self, number: int, actor: Actor) -> None:
        """Run the rest without waiting for the canary, or after a stop. Raises InvalidInput when it is running or has ended."""
        with self._engine.begin() as connection:
            if not self._turn(connection, number, "running", "", ("canary", "stopped")):
                raise InvalidInput("it is already running, or has ended")
            note(connection, [AuditEntry(actor, "go on", f"bulk {number}")])

    # --- running steps

    def advance(self, *, steps: int = 20) -> int:
        """Run at most `steps` steps of every open action. Returns how many were done."""
        with reading(self._engine).connect() as connection:
            numbers = list(connection.execute(OPEN).scalars())
        return sum(self._advance(number, steps) for number in numbers)

    def _advance(self, number: int, steps: int) -> int:
        for done in range(steps):
            try:
                with self._engine.begin() as connection:
                    if not self._step(connection, number):
                        return done
            except _Broken as broken:
                self._give_up(number, broken)
        return steps

    def _step(self, connection: Connection, number: int) -> bool:
        """Do one step. Returns False when there is none to do now."""
        state = connection.execute(_STATE, {"id": number}).scalar()
        if state == "canary" and not self._canary_may_go(connection, number):
            return False
        if state not in ("canary", "running"):
            return False
        item = connection.execute(NEXT, {"id": number}).mappings().one_or_none()
        if item is None:
            self._turn(connection, number, "ended", "", ("running",))
            return False
        bulk = Bulk(**connection.execute(ONE, {"id": number}).mappings().one())
        try:
            with connection.begin_nested():
                outcome, ended = self._carry_out(connection, bulk, item["key"], item["letter_id"]), "done"
        except InvalidInput as error:
            outcome, ended = str(error), "failed"
        except StoreAway:
            raise
        except PhantomsError as error:
            outcome, ended = str(error), "failed"
        except (ValueError, KeyError, TypeError, ValidationError) as error:
            raise _Broken(item["n"]) from error
        self._end(connection, number, item["n"], ended, outcome)
        return True

    def _canary_may_go(self, connection: Connection, number: int) -> bool:
        """Whether the first step still has to be done. When its stage has ended, the action continues or stops."""
        row = connection.execute(CANARY, {"id": number}).mappings().one_or_none()
        if row is None:
            self._turn(connection, number, "stopped", "its first video is gone", ("canary",))
            return False
        if row["state"] == "pending":
            return True
        stage_state = row["stage_state"]
        if row["state"] == "failed":
            self._turn(connection, number, "stopped", f"the canary {row['key']} could not be done: {row['outcome']}", ("canary",))
        elif stage_state == "done":
            self._turn(connection, number, "running", f"the canary {row['key']} succeeded", ("canary",))
        elif stage_state in ("failed", "rejected", "discarded"):
            why = f": {row['reason']}" if row["reason"] else ""
            self._turn(
                connection, number, "stopped", f"the canary failed again: {row['stage']} of {row['key']}{why}"[:1000], ("canary",)
            )
        return False

    def _carry_out(self, connection: Connection, bulk: Bulk, key: str, letter: int | None) -> str:
        """Do the step itself. Returns its outcome in words."""
        actor, given = Actor(bulk.who, bulk.via, bulk.address), bulk.arguments
        deed: dict[str, Any] = {"bulk": bulk.id}
        if bulk.action == "hold":
            self._decisions.hold_in(connection, key, actor, note=given.get("reason", ""))
            return "on hold"
        if bulk.action in ("priority", "move"):
            edited = edit_in(connection, key, _changes(bulk.action, given), by=bulk.who)
            changed = [(name, old, new) for name, old, new in edited.differences]
            note(
                connection,
                [AuditEntry(actor, bulk.action, key, {n: o for n, o, _ in changed}, {n: w for n, _, w in changed} | deed)],
            )
            return "; ".join(edited.notes) or ("changed" if changed else "it was like that already")
        if bulk.action == "retry":
            plan = self._retrying.retry_in(connection, key, by=bulk.who)
            note(connection, [AuditEntry(actor, "retry", key, after={"stage": plan.stage, "how": plan.how, **deed})])
            return f"{plan.stage} is requested again"
        which = LetterFilter(ids=[letter], state=None) if letter is not None else LetterFilter(keys=[key])
        if bulk.action == "replay":
            handled = self._letters.replay_in(connection, which, by=bulk.who)
        else:
            handled = self._letters.discard_in(connection, which, by=bulk.who, reason=given["reason"])
        if not handled.closed:
            raise InvalidInput(handled.refused[0].reason if handled.refused else "it has no open dead letter")
        stages = ", ".join(one.stage for one in handled.closed)
        note(connection, [AuditEntry(actor, bulk.action, key, after={"stage": stages, **given, **deed})])
        return f"{stages} {'starts over' if bulk.action == 'replay' else 'was given up'}"

    def _end(self, connection: Connection, number: int, n: int, state: str, outcome: str) -> None:
        connection.execute(_END_ITEM, {"id": number, "n": n, "state": state, "outcome": outcome[:OUTCOME_CHARACTERS]})

    def _give_up(self, number: int, broken: _Broken) -> None:
        """Record a step that raised an unexpected error, so that the others continue."""
        _log.error("step %d of bulk action %d broke", broken.n, number, exc_info=broken.__cause__)
        with self._engine.begin() as connection:
            self._end(connection, number, broken.n, "failed", "an internal error occurred; the desk's log has the details")

    def _turn(self, connection: Connection, number: int, to: str, why: str, before: Sequence[str]) -> bool:
        return connection.execute(_TURN, {"id": number, "to": to, "note": why, "before": list(before)}).rowcount == 1


class _Broken(Exception):
    """A step raised an unexpected error."""

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.n = n


def check(action: str, arguments: Mapping[str, Any]) -> None:
    """Raise InvalidInput when there is no such action, or when its argument is missing or invalid."""
    if action not in ACTIONS:
        raise InvalidInput(f"there is no action {action!r}; there are {', '.join(ACTIONS)}")
    if action == "discard" and not str(arguments.get("reason", "")).strip():
        raise InvalidInput("a discard needs a reason; it is kept with the letter")
    if action in ("priority", "move"):
        _changes(action, arguments)


def _changes(action: str, arguments: Mapping[str, Any]) -> BriefChanges:
    if action == "priority":
        given = str(arguments.get("priority", ""))
        if given not in set("0123456789"):
            raise InvalidInput("a priority is 0 (first) to 9")
        return BriefChanges(priority=int(given))
    given = str(arguments.get("publish_at", ""))
    if given == "now":
        return BriefChanges(publish_now=True)
    try:
        at = datetime.fromisoformat(given)
    except ValueError:
        raise InvalidInput("give the day and time to move to") from None
    if at.tzinfo is None:
        raise InvalidInput("that time has no time zone")
    return BriefChanges(publish_at=at)
