"""Earlier revisions of a video. They are stored when something is made again, so that people can compare.

A revision is the revision of its master, stored with the script that it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text

from phantoms_dagster.domain.models import RenderedVideoOutput, ScriptOutput
from phantoms_dagster.store.stored import UnreadableRow, output_of


def keep(videos: str) -> str:
    """SQL that stores the master and the script of these videos (a condition on `r`), for a statement that replaces them.

    A common table expression sees the tables as they were before the statement. A revoked approval replaces no master.
    """
    return f"""
    INSERT INTO phantoms.earlier_revisions (video_id, revision, script, rendered)
    SELECT r.video_id, r.revision, k.output, r.output
    FROM phantoms.stages r JOIN phantoms.stages k ON k.video_id = r.video_id AND k.stage = 'script'
    WHERE {videos} AND r.stage = 'rendered_video' AND r.state = 'done' AND r.output IS NOT NULL AND k.output IS NOT NULL
        AND CAST(:stage AS text) <> 'approval'
    ON CONFLICT DO NOTHING"""


_NEWEST = text(
    """
    SELECT e.revision, e.replaced_at, e.script, e.rendered
    FROM phantoms.earlier_revisions e JOIN phantoms.videos v ON v.id = e.video_id
    WHERE v.key = :key AND e.revision < :current ORDER BY e.revision DESC LIMIT :limit
    """
)


@dataclass(frozen=True)
class Earlier:
    """An earlier revision of a video, and when it was replaced."""

    revision: int
    replaced_at: datetime
    script: ScriptOutput
    master: RenderedVideoOutput


class EarlierRevisions:
    """Reads the stored revisions."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, key: str, *, before: int, limit: int = 20) -> list[Earlier]:
        """The revisions of a video before revision `before`, the newest first. Unreadable ones are left out."""
        with self._engine.connect() as connection:
            rows = connection.execute(_NEWEST, {"key": key, "current": before, "limit": limit}).all()
        found = []
        for row in rows:
            try:
                script, master = output_of(key, "script", row.script), output_of(key, "rendered_video", row.rendered)
            except UnreadableRow:  # made by an older version, so it cannot be compared
                continue
            if isinstance(script, ScriptOutput) and isinstance(master, RenderedVideoOutput):
                found.append(Earlier(row.revision, row.replaced_at, script, master))
        return found
