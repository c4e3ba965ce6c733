"""The newest outputs of a stage."""

from __future__ import annotations

from sqlalchemy import Engine, text

from phantoms_dagster.domain.models import StageOutput
from phantoms_dagster.store.stored import UnreadableRow, output_of

_LATEST = text(
    """
    SELECT v.key, s.output::text AS output FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE s.stage = :stage AND s.state = 'done' AND s.output IS NOT NULL
    ORDER BY s.finished_at DESC LIMIT :most
    """
)


def latest_outputs(engine: Engine, stage: str, *, most: int) -> dict[str, StageOutput]:
    """The newest outputs of a stage, by video key. Unreadable rows are left out; `phantoms show` explains them."""
    found: dict[str, StageOutput] = {}
    with engine.connect() as connection:
        for row in connection.execute(_LATEST, {"stage": stage, "most": most}):
            try:
                found[row.key] = output_of(row.key, stage, row.output)
            except UnreadableRow:
                continue
    return found
