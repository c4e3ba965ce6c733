"""Reads what happens next and what happened last, for `phantoms watch`. Every statement reads a few rows through an index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, text

from phantoms_dagster.domain.models import Channel
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.stored import channel_of

# Approvals, and posts that wait for a person or were taken out, are left out, whatever time their row has.
_NOT_HELD = """NOT EXISTS (SELECT FROM phantoms.bookings b
                WHERE b.video_id = s.video_id AND b.platform || '/post' = s.stage AND b.state <> 'booked')"""
_NEXT = text(
    f"""
    SELECT w.stage, n.key, n.at FROM unnest(CAST(:stages AS text[])) AS w(stage) CROSS JOIN LATERAL (
        (SELECT v.key, s.ready_at AS at FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
            WHERE s.stage = w.stage AND s.state = 'ready' AND s.ready_at > clock_timestamp() AND {_NOT_HELD}
            ORDER BY s.ready_at LIMIT 1)
        UNION ALL
        (SELECT v.key, s.retry_at FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
            WHERE s.stage = w.stage AND s.state = 'deferred' AND s.retry_at > clock_timestamp() AND {_NOT_HELD}
            ORDER BY s.retry_at LIMIT 1)
    ) n
    WHERE w.stage <> 'approval' ORDER BY n.at LIMIT :most
    """
)

_LATEST = text(
    """
    SELECT a.id, v.key, a.stage, a.state, a.started_at, a.finished_at, a.error_class, a.code, a.message
    FROM (SELECT * FROM phantoms.attempts ORDER BY id DESC LIMIT :most) a JOIN phantoms.videos v ON v.id = a.video_id
    ORDER BY a.id DESC
    """
)

_CHANNELS = text(
    """
    SELECT v.key, v.brief->'platforms' AS platforms, c.config AS channel, COALESCE(
        (SELECT min(b.at) FROM phantoms.bookings b WHERE b.video_id = v.id AND b.state = 'booked'), v.publish_at) AS publish_at,
        (SELECT count(*) FROM phantoms.bookings b WHERE b.video_id = v.id AND b.state <> 'booked') AS waiting
    FROM phantoms.videos v JOIN phantoms.channels c ON c.name = v.channel WHERE v.key = ANY(:keys)
    """
)


@dataclass(frozen=True)
class NextStep:
    """The time at which the next video of a stage continues by itself."""

    stage: str
    key: str
    at: datetime


@dataclass(frozen=True)
class AttemptSummary:
    """One attempt at a stage of a video. `state` is as stored: `intent` while the attempt is running."""

    id: int
    key: str
    stage: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    error_class: str | None
    code: str | None
    message: str | None


@dataclass(frozen=True)
class Release:
    """The facts that decide when an approved video is published.

    `publish_at`: its first booking, or else the time in its brief. `waits`: all of its posts wait for a person, or were taken out
    of the calendar.
    """

    key: str
    publish_at: datetime | None
    platforms: tuple[str, ...]
    channel: Channel
    waits: bool = False


class Outlook:
    """Reads what happens next and what happened last."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def next_steps(self, *, most: int = 3) -> list[NextStep]:
        """The next times at which something continues by itself, at most two for each stage."""
        with self._engine.connect() as connection:
            rows = connection.execute(_NEXT, {"stages": list(STAGES), "most": most})
            return [NextStep(row.stage, row.key, row.at) for row in rows]

    def latest(self, *, most: int = 12) -> list[AttemptSummary]:
        """The newest attempts first."""
        with self._engine.connect() as connection:
            return [AttemptSummary(**row) for row in connection.execute(_LATEST, {"most": most}).mappings()]

    def releases(self, keys: Sequence[str]) -> list[Release]:
        """The facts that decide when these videos are published. Raises UnreadableRow."""
        with self._engine.connect() as connection:
            rows = connection.execute(_CHANNELS, {"keys": list(keys)}).mappings().all()
        return [
            Release(
                r["key"],
                r["publish_at"],
                tuple(r["platforms"]),
                channel_of(r["key"], r["channel"]),
                waits=r["waiting"] >= len(r["platforms"]),
            )
            for r in rows
        ]
