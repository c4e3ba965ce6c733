"""Reads which renders were ordered from our own ledger."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Engine, text

_IDS = text(
    """
    SELECT r.render_id FROM phantoms.renders r JOIN phantoms.videos v ON v.id = r.video_id
    WHERE v.key = ANY(:keys) AND r.render_id IS NOT NULL
    """
)


def paid_renders(engine: Engine, keys: Sequence[str]) -> set[str]:
    """The render API's ids of all renders of these videos: one for each revision of a video that was not made here."""
    with engine.connect() as connection:
        return set(connection.execute(_IDS, {"keys": list(keys)}).scalars())
