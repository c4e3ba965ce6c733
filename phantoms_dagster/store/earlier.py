"""What earlier revisions of a video looked like: kept when something is made again, read by who compares.

A revision is that of its film. It is kept together with the script that it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text

from phantoms_dagster.domain.models import RenderedVideoOutput, ScriptOutput
from phantoms_dagster.store.stored import UnreadableRow, output_of


def keep(videos: str) -> str:
    """SQL that keeps the film and the script of these videos (a condition on `r`), for a statement that replaces them.

    In a common table expression it sees the tables as they were before. An approval that is asked for again replaces no film.
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
    film: RenderedVideoOutput


class EarlierRevisions:
    """Reads what was kept."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def of(self, key: str, *, before: int, limit: int = 20) -> list[Earlier]:
        """The revisions of a video before that one, the newest first. One that cannot be read any more is left out."""
        with self._engine.connect() as connection:
            rows = connection.execute(_NEWEST, {"key": key, "current": before, "limit": limit}).all()
        found = []
        for row in rows:
            try:
                script, film = output_of(key, "script", row.script), output_of(key, "rendered_video", row.rendered)
            except UnreadableRow:  # made by an older version: there is nothing to compare with
                continue
            if isinstance(script, ScriptOutput) and isinstance(film, RenderedVideoOutput):
                found.append(Earlier(row.revision, row.replaced_at, script, film))
        return found
