"""Reviewers' decisions. A decision is bound to the hash of exactly what was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import RenderedVideoOutput, ScriptOutput, content_hash
from phantoms_dagster.store.planning import nudge

_CONTENT = text(
    """
    SELECT v.key, v.id, a.state, sc.output AS script, r.output AS rendered
    FROM phantoms.videos v
    JOIN phantoms.stages a ON a.video_id = v.id AND a.stage = 'approval'
    LEFT JOIN phantoms.stages sc ON sc.video_id = v.id AND sc.stage = 'script' AND sc.state = 'done'
    LEFT JOIN phantoms.stages r ON r.video_id = v.id AND r.stage = 'rendered_video' AND r.state = 'done'
    WHERE v.key = ANY(:keys) ORDER BY v.id FOR UPDATE OF a
    """
)

_RECORD = text(
    """
    INSERT INTO phantoms.approvals (video_id, approved, reviewer, note, content_sha256, via, decided_at)
    SELECT d.id, :approved, :reviewer, :note, d.content, :via, clock_timestamp()
    FROM unnest(CAST(:ids AS bigint[]), CAST(:contents AS text[])) AS d(id, content)
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
    WHERE video_id = ANY(:ids) AND stage = 'approval' AND state IN ('ready', 'deferred', 'rejected', 'running')
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
        [decided] = self.decide_all([key], approved=approved, reviewer=reviewer, note=note, via=via)
        if isinstance(decided, InvalidInput):
            raise decided
        return decided

    def decide_all(
        self, keys: Sequence[str], *, approved: bool, reviewer: str, note: str = "", via: str
    ) -> list[Decided | InvalidInput]:
        """`decide` for many videos in one transaction; for each of `keys` (no two alike) what became of it.

        What is decided together becomes ready together: one by one, the first of them would be on their way in runs of their own.
        """
        with self._engine.begin() as connection:
            rows = {row["key"]: row for row in connection.execute(_CONTENT, {"keys": list(keys)}).mappings()}
            found = [_judged(key, rows.get(key), approved=approved) for key in keys]
            new = [rows[one.key] for one in found if isinstance(one, Decided) and one.new]
            if new:
                ids = [row["id"] for row in new]
                values = {"approved": approved, "reviewer": reviewer, "note": note, "via": via}
                connection.execute(_RECORD, {**values, "ids": ids, "contents": [_content(row) for row in new]})
                connection.execute(_DUE, {"ids": ids})
                connection.execute(text(nudge("'approval'")))
        return found


def _judged(key: str, row: RowMapping | None, *, approved: bool) -> Decided | InvalidInput:
    """What a decision on the video comes to, as it stands."""
    if row is None or row["script"] is None or row["rendered"] is None or row["state"] == "blocked":
        return InvalidInput(f"{key} is not rendered yet: there is nothing to review (see `phantoms show {key}`)")
    if row["state"] == "done" and not approved:
        return InvalidInput(f"{key} is approved already; regenerate its script or render to take it back")
    return Decided(key, approved=approved, new=row["state"] != "done")


def _content(row: RowMapping) -> str:
    script = ScriptOutput.model_validate(row["script"]).script
    return content_hash(script, RenderedVideoOutput.model_validate(row["rendered"]).video)
