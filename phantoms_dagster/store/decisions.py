"""Reviewers' decisions. A decision is bound to the hash of exactly what was looked at."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Engine, text

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import RenderedVideoOutput, ScriptOutput, content_hash
from phantoms_dagster.store.planning import nudge

_CONTENT = text(
    """
    SELECT v.id, a.state, a.reason, sc.output AS script, r.output AS rendered
    FROM phantoms.videos v
    JOIN phantoms.stages a ON a.video_id = v.id AND a.stage = 'approval'
    LEFT JOIN phantoms.stages sc ON sc.video_id = v.id AND sc.stage = 'script' AND sc.state = 'done'
    LEFT JOIN phantoms.stages r ON r.video_id = v.id AND r.stage = 'rendered_video' AND r.state = 'done'
    WHERE v.key = :key FOR UPDATE OF a
    """
)

_RECORD = text(
    """
    INSERT INTO phantoms.approvals (video_id, approved, reviewer, note, content_sha256, via, decided_at)
    VALUES (:video_id, :approved, :reviewer, :note, :content_sha256, :via, clock_timestamp())
    """
)

# A stage that waited for a person is due now; one that was rejected may be decided again. A runner that is at it read the
# table before this decision: it would put the stage off until the next one, so its claim is taken away.
_DUE = text(
    """
    UPDATE phantoms.stages
    SET state = CASE state WHEN 'rejected' THEN 'ready' WHEN 'running' THEN 'deferred' ELSE state END,
        generation = generation + CASE state WHEN 'running' THEN 1 ELSE 0 END, lease_owner = NULL, lease_until = NULL,
        retry_at = clock_timestamp(), ready_at = LEAST(ready_at, clock_timestamp()), updated_at = clock_timestamp()
    WHERE video_id = :video_id AND stage = 'approval' AND state IN ('ready', 'deferred', 'rejected', 'running')
    """
)

_UNDECIDED = text(
    """
    SELECT v.key FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE s.stage = 'approval' AND s.state IN ('ready', 'deferred')
        AND NOT EXISTS (SELECT FROM phantoms.approvals d WHERE d.video_id = v.id AND d.decided_at >= s.ready_at)
    ORDER BY v.publish_at NULLS LAST, v.priority, v.id LIMIT :limit
    """
)


@dataclass(frozen=True)
class Decided:
    """A decision that was recorded, or that was recorded before."""

    key: str
    approved: bool
    new: bool


class Decisions:
    """What reviewers decide."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def undecided(self, *, limit: int = 1000) -> list[str]:
        """Videos that are ready for review, most urgent first."""
        with self._engine.connect() as connection:
            return list(connection.execute(_UNDECIDED, {"limit": limit}).scalars())

    def decide(self, key: str, *, approved: bool, reviewer: str, note: str = "", via: str) -> Decided:
        """Record a decision on what the video is now. `via`: cli, desk, dagster, demo.

        Raises InvalidInput when there is nothing to review yet, or when it is approved already.
        """
        with self._engine.begin() as connection:
            row = connection.execute(_CONTENT, {"key": key}).mappings().first()
            if row is None or row["script"] is None or row["rendered"] is None or row["state"] == "blocked":
                raise InvalidInput(f"{key} is not rendered yet: there is nothing to review (see `phantoms show {key}`)")
            if row["state"] == "done":
                if approved:
                    return Decided(key, approved=True, new=False)
                raise InvalidInput(f"{key} is approved already; regenerate its script or render to take it back")
            script = ScriptOutput.model_validate(row["script"]).script
            video = RenderedVideoOutput.model_validate(row["rendered"]).video
            values = {
                "video_id": row["id"],
                "approved": approved,
                "reviewer": reviewer,
                "note": note,
                "content_sha256": content_hash(script, video),
                "via": via,
            }
            connection.execute(_RECORD, values)
            connection.execute(_DUE, {"video_id": row["id"]})
            connection.execute(text(nudge("'approval'")))
        return Decided(key, approved=approved, new=True)
