"""Holds: a video on hold leaves the review queue and cannot be decided on until the hold is released."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.audit import Actor, AuditEntry
from phantoms_dagster.store.audit import note as note_deeds

_HOLD = text("INSERT INTO phantoms.holds (video_id, reviewer, note, via) VALUES (:id, :reviewer, :note, :via)")
_RELEASE = text(
    """
    DELETE FROM phantoms.holds h USING phantoms.videos v WHERE v.id = h.video_id AND v.key = :key
    RETURNING h.reviewer, h.note, h.held_at
    """
)
HELD = text(
    """
    SELECT v.key, v.title, v.channel, h.reviewer, h.note, h.held_at
    FROM phantoms.holds h JOIN phantoms.videos v ON v.id = h.video_id ORDER BY h.held_at LIMIT :limit
    """
)


@dataclass(frozen=True)
class HeldVideo:
    """A video on hold: by whom, since when, and why."""

    key: str
    title: str
    channel: str
    reviewer: str
    note: str
    held_at: datetime


def put(connection: Connection, row: RowMapping | Mapping[str, Any], actor: Actor, note: str) -> None:
    """Put the row's video on hold. Its approval must be locked."""
    connection.execute(_HOLD, {"id": row["id"], "reviewer": actor.name, "note": note, "via": actor.via})
    note_deeds(connection, [AuditEntry(actor, "hold", row["key"], before={"state": row["state"]}, after={"note": note})])


def release(connection: Connection, key: str, actor: Actor) -> None:
    """Release a hold. Raises InvalidInput when the video is not on hold."""
    row = connection.execute(_RELEASE, {"key": key}).mappings().one_or_none()
    if row is None:
        raise InvalidInput(f"{key} is not on hold; see `phantoms show {key}`")
    before = {"reviewer": row["reviewer"], "note": row["note"], "since": row["held_at"].isoformat()}
    note_deeds(connection, [AuditEntry(actor, "take back from hold", key, before=before)])


def held(connection: Connection, limit: int) -> list[HeldVideo]:
    """The videos on hold, the longest first."""
    return [HeldVideo(**row) for row in connection.execute(HELD, {"limit": limit}).mappings()]
