"""What could run now, read for the planner in one statement."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, text

from phantoms_dagster.domain.work import ReadyVideo

# An approval is due only when somebody decided since it became ready.
_READY = text(
    """
    SELECT s.stage, v.key, s.generation, v.priority, v.publish_at
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE s.stage = ANY(:stages) AND v.registered_at IS NOT NULL AND v.retired_at IS NULL AND (
        (s.state = 'ready' AND (s.ready_at IS NULL OR s.ready_at <= clock_timestamp()))
        OR (s.state = 'deferred' AND s.retry_at <= clock_timestamp())
        OR (s.state = 'running' AND s.lease_until < clock_timestamp()))
        AND (s.stage <> 'approval'
            OR EXISTS (SELECT FROM phantoms.approvals d WHERE d.video_id = v.id AND d.decided_at >= s.ready_at))
    ORDER BY v.id
    """
)


class Planning:
    """The planner's reader."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def ready(self, stages: Sequence[str]) -> dict[str, list[ReadyVideo]]:
        """Videos that a run could work on now, by stage, in the order they were added."""
        found: dict[str, list[ReadyVideo]] = {stage: [] for stage in stages}
        with self._engine.connect() as connection:
            for row in connection.execute(_READY, {"stages": list(stages)}):
                found[row.stage].append(ReadyVideo(row.stage, row.key, row.generation, row.priority, row.publish_at))
        return found
