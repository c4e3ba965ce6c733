"""What happened to posts after they were published. The ledger's own states end with `confirmed` and stay as they are."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, Engine, text

from phantoms_dagster.domain.post_changes import PostChange, StateAfter
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.ledgers import MOST_EVIDENCE

# A repeated observation is no change. The row of the post is locked, so that two readers cannot both write the first one. What we
# took down stays so: a read that began before may still show the post.
_LOCK = text("SELECT FROM phantoms.posts WHERE id = :id FOR NO KEY UPDATE")
_RECORD = text(
    """
    INSERT INTO phantoms.post_changes (post_id, at, state, evidence, who)
    SELECT :id, clock_timestamp(), :state, :evidence, :who
    FROM (SELECT COALESCE(
        (SELECT c.state FROM phantoms.post_changes c WHERE c.post_id = :id ORDER BY c.id DESC LIMIT 1), 'public') AS state) last
    WHERE last.state NOT IN (:state, 'taken_down')
    RETURNING id
    """
)


_LATEST = text(
    """
    SELECT DISTINCT ON (c.post_id) c.post_id, c.state FROM phantoms.post_changes c WHERE c.post_id = ANY(:ids)
    ORDER BY c.post_id, c.id DESC
    """
)


class PostChanges:
    """Records changes of posts."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def latest(self, post_ids: Sequence[int]) -> dict[int, StateAfter]:
        """The last recorded state of each of these posts. A post to which nothing happened is left out."""
        with self._engine.connect() as connection:
            return {row.post_id: row.state for row in connection.execute(_LATEST, {"ids": list(post_ids)})}

    def record(self, post_id: int, change: PostChange) -> bool:
        """Record what a read showed. False when that was known already."""
        with self._engine.begin() as connection:
            return _record(connection, post_id, change, None)

    def taken_down(self, post_id: int, key: str, platform: str, evidence: str, actor: Actor) -> bool:
        """Record that the post was deleted at its platform, with the audit log. False when that was recorded already."""
        with self._engine.begin() as connection:
            new = _record(connection, post_id, PostChange("taken_down", evidence), actor.name)
            if new:
                after = {"platform": platform, "state": "taken_down", "evidence": evidence}
                note(connection, [AuditEntry(actor, "take down", key, None, after)])
            return new


def _record(connection: Connection, post_id: int, change: PostChange, who: str | None) -> bool:
    connection.execute(_LOCK, {"id": post_id})
    values = {"id": post_id, "state": change.state, "evidence": change.evidence[:MOST_EVIDENCE], "who": who}
    return connection.execute(_RECORD, values).first() is not None
