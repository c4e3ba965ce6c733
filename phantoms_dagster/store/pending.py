"""Pending decisions: they can still be undone, and are committed when that time is over.

A decision at the desk is first a pending row. It removes the video from the queue at once, so that nobody else decides on it. It
becomes a real decision only when it can no longer be undone. Any process may commit it, so a killed desk loses none. Locks are
taken in a fixed order: the video, its approval, the pending row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, get_args

from sqlalchemy import Connection, Engine, text

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.decision_rows import LOCK_APPROVALS
from phantoms_dagster.store.decisions import DecidedFirst, Decisions
from phantoms_dagster.store.engine import reading

Answer = Literal["approve", "reject", "hold"]
ANSWERS: tuple[Answer, ...] = get_args(Answer)

_SUBMIT = text(
    """
    INSERT INTO phantoms.pending_decisions
        (video_id, answer, platforms, reviewer, person, note, content_sha256, via, address, commit_at)
    SELECT v.id, :answer, :platforms, :reviewer, :person, :note, :content, :via, :address, clock_timestamp() + :window
    FROM phantoms.videos v WHERE v.key = :key RETURNING id, commit_at
    """
)
_COLUMNS = """p.id, v.key, v.title, p.answer, p.platforms, p.reviewer, p.note, p.content_sha256, p.via, p.address, p.state,
    p.outcome, p.made_at, p.commit_at, p.ended_at, p.person"""
_DUE = text(
    f"""
    SELECT {_COLUMNS} FROM phantoms.pending_decisions p JOIN phantoms.videos v ON v.id = p.video_id
    WHERE p.state = 'pending' AND p.commit_at <= clock_timestamp() ORDER BY p.commit_at LIMIT :limit
    """
)
_STILL = text("SELECT id FROM phantoms.pending_decisions WHERE id = :id AND state = 'pending' FOR UPDATE")
_END = text(
    """
    UPDATE phantoms.pending_decisions SET state = :state, outcome = :outcome, ended_at = clock_timestamp()
    WHERE id = :id AND state = 'pending' RETURNING id
    """
)
_REFUSE = text("UPDATE phantoms.pending_decisions SET state = 'refused', outcome = :outcome WHERE id = :id")
_OF = text(
    f"""
    SELECT {_COLUMNS} FROM phantoms.pending_decisions p JOIN phantoms.videos v ON v.id = p.video_id
    WHERE p.reviewer = :reviewer AND p.made_at > clock_timestamp() - :since ORDER BY p.made_at DESC LIMIT :limit
    """
)
_ONE = text(
    f"""
    SELECT {_COLUMNS} FROM phantoms.pending_decisions p JOIN phantoms.videos v ON v.id = p.video_id WHERE p.id = :id
    """
)
_DUE_IN = text(
    """
    SELECT extract(epoch FROM min(commit_at) - clock_timestamp())::float FROM phantoms.pending_decisions WHERE state = 'pending'
    """
)


@dataclass(frozen=True)
class Pending:
    """A decision made at the desk. `state`: pending, committed, undone, or refused (then `outcome` says why).

    `person`: the responsible person, when it is not the reviewer.
    """

    id: int
    key: str
    title: str
    answer: Answer
    platforms: tuple[str, ...] | None
    reviewer: str
    note: str
    content_sha256: str
    via: str
    address: str
    state: str
    outcome: str | None
    made_at: datetime
    commit_at: datetime
    ended_at: datetime | None
    person: str | None = None


class PendingDecisions:
    """Accepts decisions, undoes them, and commits those that are due. `window`: how long a decision can be undone."""

    def __init__(self, engine: Engine, decisions: Decisions, *, window: timedelta) -> None:
        self._engine = engine
        self._decisions = decisions
        self._window = window

    @property
    def window(self) -> timedelta:
        """How long a decision can be undone."""
        return self._window

    def submit(
        self, key: str, answer: Answer, actor: Actor, *, content_sha256: str, note: str = "", only: Sequence[Platform] = ()
    ) -> Pending:
        """Accept a decision on exactly what the reviewer looked at. Without a window it is committed at once.

        Raises InvalidInput as `Decisions.decide` does, and DecidedFirst, which says who was first.
        """
        with self._engine.begin() as connection:
            return self.submit_in(connection, key, answer, actor, content_sha256=content_sha256, note=note, only=only)

    def submit_in(
        self,
        connection: Connection,
        key: str,
        answer: Answer,
        actor: Actor,
        *,
        content_sha256: str,
        note: str = "",
        only: Sequence[Platform] = (),
        exactly: bool = False,
    ) -> Pending:
        """`submit` in the caller's transaction. `exactly`: a rejection is also refused when the content has changed."""
        if answer == "reject" and not note.strip():
            raise InvalidInput("a rejection needs a reason: it is what the next version is made from")
        if connection.execute(LOCK_APPROVALS, {"keys": [key]}).scalar() is None:
            raise InvalidInput(f"no video {key!r}; `phantoms status` lists them")
        if answer == "hold":
            self._decisions.check_hold(connection, key)
        else:
            approved = answer == "approve"
            self._decisions.check(connection, key, actor, approved=approved, content_sha256=content_sha256, only=only)
        if exactly and ((now := self._decisions.review_in(connection, key)) is None or now.content != content_sha256):
            raise InvalidInput(f"{key} is not what was looked at: its video or the words of its posts have changed since")
        values = {
            "key": key,
            "answer": answer,
            "platforms": [str(platform) for platform in only] or None,
            "reviewer": actor.name,
            "person": actor.counts_as,
            "note": note,
            "content": content_sha256,
            "via": actor.via,
            "address": actor.address,
            "window": self._window,
        }
        made = connection.execute(_SUBMIT, values).one()
        if not self._window:
            self._commit(connection, self._read(connection, made.id))
        return self._read(connection, made.id)

    def get(self, number: int) -> Pending:
        """One decision. Raises NotFound."""
        with reading(self._engine).connect() as connection:
            return self._read(connection, number)

    def undo(self, number: int, actor: Actor, *, others: bool = False) -> Pending:
        """Undo a decision. Raises InvalidInput when it is committed, or when it is another person's and `others` is False."""
        with self._engine.begin() as connection:
            found = self._read(connection, number)
            if actor.name not in (found.reviewer, found.person) and not others:
                raise InvalidInput(f"that decision is {found.reviewer}'s: only they or an operator can undo it")
            # Its time may be over although no process has committed it yet. It is too late then, as the page said.
            late = text("SELECT commit_at <= clock_timestamp() FROM phantoms.pending_decisions WHERE id = :id FOR UPDATE")
            too_late = connection.execute(late, {"id": number}).scalar_one()
            ended = {"id": number, "state": "undone", "outcome": f"undone by {actor.name}"}
            if too_late or connection.execute(_END, ended).scalar() is None:
                found = self._read(connection, number)
                if found.state == "undone":
                    return found
                raise InvalidInput(f"the decision on {found.key} cannot be undone any more: its time was over")
            note(connection, [AuditEntry(actor, f"undo {found.answer}", found.key, before={"reviewer": found.reviewer})])
            return self._read(connection, number)

    def commit_due(self, *, limit: int = 100) -> list[Pending]:
        """Commit the decisions that are due, each in its own transaction. Returns them as they are then."""
        with reading(self._engine).connect() as connection:
            due = [_pending(row) for row in connection.execute(_DUE, {"limit": limit}).mappings()]
        return [ended for one in due if (ended := self._commit_one(one)) is not None]

    def due_in(self) -> float | None:
        """Seconds until the next decision is due, by PostgreSQL's clock; None when there is none."""
        with reading(self._engine).connect() as connection:
            found: float | None = connection.execute(_DUE_IN).scalar()
        return found

    def latest_of(self, reviewer: str, *, within: timedelta, limit: int = 3) -> list[Pending]:
        """A person's newest decisions, in any state."""
        with reading(self._engine).connect() as connection:
            rows = connection.execute(_OF, {"reviewer": reviewer, "since": within, "limit": limit})
            return [_pending(row) for row in rows.mappings()]

    def _commit_one(self, one: Pending) -> Pending | None:
        with self._engine.begin() as connection:
            connection.execute(LOCK_APPROVALS, {"keys": [one.key]})
            if connection.execute(_STILL, {"id": one.id}).scalar() is None:
                return None  # another process has committed it, or it was undone
            self._commit(connection, one)
            return self._read(connection, one.id)

    def _commit(self, connection: Connection, one: Pending) -> None:
        """Make it a real decision. If that is no longer possible it is refused with the reason, and nothing else changes."""
        connection.execute(_END, {"id": one.id, "state": "committed", "outcome": None})
        actor = Actor(one.reviewer, one.via, one.address, counts_as=one.person)
        try:
            with connection.begin_nested():
                self._carry_out(connection, one, actor)
        except InvalidInput as error:
            connection.execute(_REFUSE, {"id": one.id, "outcome": str(error)})
            note(connection, [AuditEntry(actor, f"{one.answer} was refused", one.key, after={"why": str(error)})])

    def _carry_out(self, connection: Connection, one: Pending, actor: Actor) -> None:
        if one.answer == "hold":
            self._decisions.hold_in(connection, one.key, actor, note=one.note)
            return
        [decided] = self._decisions.decide_in(
            connection,
            [one.key],
            actor,
            approved=one.answer == "approve",
            note=one.note,
            contents={one.key: one.content_sha256},
            only=tuple(Platform(name) for name in one.platforms or ()),
        )
        if isinstance(decided, InvalidInput):
            raise decided
        if not decided.new:
            raise DecidedFirst(f"{one.key} was approved by another person meanwhile")

    def _read(self, connection: Connection, number: int) -> Pending:
        row = connection.execute(_ONE, {"id": number}).mappings().one_or_none()
        if row is None:
            raise NotFound(f"There is no decision {number}.")
        return _pending(row)


def _pending(row: object) -> Pending:
    fields = dict(row)  # type: ignore[call-overload]
    return Pending(**{**fields, "platforms": tuple(fields["platforms"]) if fields["platforms"] else None})
