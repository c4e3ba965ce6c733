"""Settled stages, which will never be made: the brief does not name their platform, or a person gave them up.

Dagster's pages show them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import Engine, text

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import STAGES, downstream, stages_for

# A row becomes visible at most this long after the time written in it, because its transaction is short.
OVERLAP = timedelta(seconds=60)

_REGISTERED = text(
    """
    SELECT id, key, registered_at, brief->'platforms' AS platforms FROM phantoms.videos
    WHERE registered_at > :since AND retired_at IS NULL AND NOT brief->'platforms' @> CAST(:usual AS jsonb)
    ORDER BY registered_at, id LIMIT :most
    """
)
_DISCARDED = text(
    """
    SELECT d.id, v.key, d.stage, d.closed_at, d.closed_by, d.closed_reason, v.brief->'platforms' AS platforms
    FROM phantoms.dead_letters d JOIN phantoms.videos v ON v.id = d.video_id
    JOIN phantoms.stages s ON s.video_id = d.video_id AND s.stage = d.stage AND s.state = 'discarded'
    WHERE d.state = 'discarded' AND d.closed_at > :since AND v.registered_at IS NOT NULL AND v.retired_at IS NULL
    ORDER BY d.closed_at, d.id LIMIT :most
    """
)


@dataclass(frozen=True)
class Settled:
    """A stage of a video that will never be made, and why. `since`: when that became known. `row`: the id of its source row."""

    row: int
    key: str
    stage: str
    why: str
    since: datetime
    discarded: bool


class SettledStages:
    """Reads what was settled since a time, the oldest first."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def not_wanted(self, since: datetime, *, most: int) -> list[Settled]:
        """The stages of usual platforms that a brief does not name, of at most `most` videos."""
        values = {"since": since, "most": most, "usual": json.dumps(list(Platform.usual()))}
        found = []
        with self._engine.connect() as connection:
            for row in connection.execute(_REGISTERED, values):
                wanted = {stage.name for stage in stages_for(tuple(Platform(name) for name in row.platforms))}
                for stage in STAGES.values():
                    if stage.usual and stage.name not in wanted:
                        why = f"not wanted on {stage.platform}"
                        found.append(Settled(row.id, row.key, stage.name, why, row.registered_at, discarded=False))
        return found

    def given_up(self, since: datetime, *, most: int) -> list[Settled]:
        """The stages whose dead letter was discarded, and the stages after them, for at most `most` letters."""
        found = []
        with self._engine.connect() as connection:
            for row in connection.execute(_DISCARDED, {"since": since, "most": most}):
                wanted = {stage.name for stage in stages_for(tuple(Platform(name) for name in row.platforms))}
                reason = f"given up by {row.closed_by} at {row.closed_at:%Y-%m-%d %H:%M} UTC: {row.closed_reason}"
                found.append(Settled(row.id, row.key, row.stage, reason, row.closed_at, discarded=True))
                for later in downstream(row.stage):
                    if later.name in wanted:
                        why = f"{row.stage} was {reason}"
                        found.append(Settled(row.id, row.key, later.name, why, row.closed_at, discarded=True))
        return found
