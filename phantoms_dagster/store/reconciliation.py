"""Saves what a person decided about a post whose outcome is unknown, or that its creator has as a draft.

The decision and a read of the platform may happen at the same time. Both change the row of the stage's post only while they hold
the row of the stage. The decision takes the stage from the run that holds it: the stage is no longer `running` and has a new
generation, so the ledger refuses everything that the run saves afterwards. And the decision is refused itself unless the post is
still `unknown` or `handed_over`. So only one of them takes effect.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.publication import NotPublished
from phantoms_dagster.domain.stages import PostState, StageState
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.dead_letters.letters import DeadLetters, LetterFilter
from phantoms_dagster.store.ledgers import MOST_EVIDENCE
from phantoms_dagster.store.planning import NOTIFY

_LOCK_STAGE = text(
    """
    SELECT v.key, s.video_id, s.stage, s.state FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE v.key = :key AND s.stage = :stage FOR UPDATE OF s
    """
)
_LOCK_POST = text(
    """
    SELECT p.id, p.platform, p.state, p.account, p.remote_id FROM phantoms.posts p
    WHERE p.video_id = :video_id AND p.platform = :platform AND NOT p.duplicate
    ORDER BY p.state IN ('unknown', 'handed_over') DESC, p.sandbox LIMIT 1 FOR UPDATE
    """
)
_TAKEN = text(
    """
    SELECT v.key FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id
    WHERE p.platform = :platform AND p.remote_id = :remote_id AND p.id <> :id AND NOT p.duplicate LIMIT 1
    """
)
_PUBLISHED = text(
    """
    UPDATE phantoms.posts SET state = 'published', remote_id = :remote_id, url = COALESCE(:url, url), proof = :proof,
        proved_at = clock_timestamp(), published_at = COALESCE(:published_at, clock_timestamp()), updated_at = clock_timestamp()
    WHERE id = :id AND state IN ('unknown', 'handed_over')
    """
)
# Nothing of the old attempt is kept: neither the handle nor an id that a person has just declared void.
_AGAIN = text(
    """
    UPDATE phantoms.posts SET state = 'intent', handle = '{}', upload_offset = 0, remote_id = NULL, url = NULL, attempted_at = NULL,
        proof = :proof, proved_at = clock_timestamp(), updated_at = clock_timestamp()
    WHERE id = :id AND state IN ('unknown', 'handed_over')
    """
)
_GIVEN_UP = text("UPDATE phantoms.posts SET state = 'failed', updated_at = clock_timestamp() WHERE id = :id AND state = 'intent'")
# The stage fails with a letter, which is then discarded. So a replay of that letter sends the draft again.
_FAILED = text(
    """
    WITH ended AS (
        UPDATE phantoms.stages SET state = 'failed', generation = generation + 1, lease_owner = NULL, lease_until = NULL,
            retry_at = NULL, error_class = 'rejected', reason = :reason, finished_at = clock_timestamp(),
            updated_at = clock_timestamp()
        WHERE video_id = :video_id AND stage = :stage AND state IN ('ready', 'running', 'deferred')
        RETURNING video_id, stage, revision, run_id
    )
    INSERT INTO phantoms.dead_letters (video_id, stage, revision, provider, error_class, code, message, attempts, tries, run_id)
    SELECT video_id, stage, revision, :platform, 'rejected', 'not_posted', :reason, '[]', 0, run_id FROM ended
    """
)
_DUE = text(
    """
    UPDATE phantoms.stages
    SET state = CASE state WHEN 'ready' THEN state ELSE 'deferred' END, generation = generation + 1, lease_owner = NULL,
        lease_until = NULL, retry_at = clock_timestamp(), attempts = 0, failing_since = NULL, waits = 0, error_class = NULL,
        reason = :reason, updated_at = clock_timestamp()
    WHERE video_id = :video_id AND stage = :stage AND state IN ('ready', 'running', 'deferred')
    """
)
_TO_SETTLE = (PostState.UNKNOWN, PostState.HANDED_OVER)
_ENDED = (StageState.FAILED, StageState.REJECTED, StageState.DISCARDED)


@dataclass(frozen=True)
class SeenPost:
    """A post that a person, and if possible the platform, says is there. `evidence`: how that was checked."""

    remote_id: str
    url: str | None
    published_at: datetime | None
    evidence: str


class Reconciliation:
    """Saves decisions about unknown posts and about drafts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def is_there(self, key: str, platform: Platform, seen: SeenPost, actor: Actor) -> None:
        """Save that the post is public. Its stage then confirms it. Raises InvalidInput."""
        with self._engine.begin() as connection:
            stage, post = _locked(connection, key, platform)
            taken = connection.execute(_TAKEN, {"platform": str(platform), "remote_id": seen.remote_id, "id": post["id"]}).scalar()
            if taken is not None:
                raise InvalidInput(f"{seen.remote_id} is the post of {taken} already, so it cannot be the post of {key}")
            values = {
                "id": post["id"],
                "remote_id": seen.remote_id,
                "url": seen.url,
                "published_at": seen.published_at,
                "proof": _proof(actor, f"it is there; {seen.evidence}"),
            }
            connection.execute(_PUBLISHED, values)
            after = {"state": "published", "remote_id": seen.remote_id, "url": seen.url, "read": seen.evidence}
            self._make_due(connection, stage, actor.name)
            note(connection, [_entry(actor, "post is there", stage, post, after)])

    def is_not_there(self, key: str, platform: Platform, actor: Actor, reason: str = "") -> None:
        """Save that the post is not there. Its stage then publishes it from the start. Raises InvalidInput."""
        with self._engine.begin() as connection:
            stage, post = _locked(connection, key, platform, (PostState.UNKNOWN,))
            proof = NotPublished(_proof(actor, f"it is not there{f': {reason}' if reason else ''}"), then="open")
            connection.execute(_AGAIN, {"id": post["id"], "proof": proof.evidence})
            self._make_due(connection, stage, actor.name)
            after = {"state": "intent", **({"reason": reason} if reason else {})}
            note(connection, [_entry(actor, "post is not there", stage, post, after)])

    def will_not_be_posted(self, key: str, platform: Platform, actor: Actor, reason: str = "") -> None:
        """Save that the creator will not post the draft. Its stage is discarded. Raises InvalidInput."""
        with self._engine.begin() as connection:
            stage, post = _locked(connection, key, platform, (PostState.HANDED_OVER,))
            said = f"it will not be posted{f': {reason}' if reason else ''}"
            proof = NotPublished(_proof(actor, said), then="open")
            connection.execute(_AGAIN, {"id": post["id"], "proof": proof.evidence})
            connection.execute(_GIVEN_UP, {"id": post["id"]})
            given = {"video_id": stage["video_id"], "stage": stage["stage"], "platform": str(platform)}
            connection.execute(_FAILED, {**given, "reason": f"{actor.name} says that the draft will not be posted"})
            letters = LetterFilter(keys=[stage["key"]], stages=[stage["stage"]])
            DeadLetters(self._engine).discard_in(connection, letters, by=actor.name, reason=said)
            after = {"state": "failed", **({"reason": reason} if reason else {})}
            note(connection, [_entry(actor, "draft will not be posted", stage, post, after)])

    def _make_due(self, connection: Connection, stage: RowMapping, by: str) -> None:
        """Let the stage run now. A runner that works on it loses its claim."""
        if StageState(stage["state"]) in _ENDED:
            letters = LetterFilter(keys=[stage["key"]], stages=[stage["stage"]], state=None)
            DeadLetters(self._engine).replay_in(connection, letters, by=by)
        given = {"video_id": stage["video_id"], "stage": stage["stage"], "reason": f"{by} decided about its post"}
        connection.execute(_DUE, given)
        connection.execute(text(NOTIFY))


def _locked(
    connection: Connection, key: str, platform: Platform, states: Collection[PostState] = _TO_SETTLE
) -> tuple[RowMapping, RowMapping]:
    """The rows of the stage and of its post, locked in the order in which runners lock them.

    Raises InvalidInput when the post is in none of `states`.
    """
    stage = connection.execute(_LOCK_STAGE, {"key": key, "stage": f"{platform}/post"}).mappings().one_or_none()
    if stage is None:
        raise InvalidInput(f"{key} is not posted on {platform.title}; see `phantoms show {key}`")
    given = {"video_id": stage["video_id"], "platform": str(platform)}
    post = connection.execute(_LOCK_POST, given).mappings().one_or_none()
    state = None if post is None else post["state"]
    if post is None or PostState(post["state"]) not in states:
        now = "has not begun" if state is None else f"is {state}, not {' or '.join(states)}"
        raise InvalidInput(f"the post of {key} on {platform.title} {now}: there is nothing to decide")
    return stage, post


def _entry(actor: Actor, action: str, stage: RowMapping, post: RowMapping, after: dict[str, Any]) -> AuditEntry:
    """The entry for the audit log."""
    where = {"platform": post["platform"], "account": post["account"]}
    before = {**where, "state": post["state"], "remote_id": post["remote_id"]}
    return AuditEntry(actor, action, stage["key"], before, {**where, **after})


def _proof(actor: Actor, said: str) -> str:
    return f"person: {actor.name} says {said}"[:MOST_EVIDENCE]
