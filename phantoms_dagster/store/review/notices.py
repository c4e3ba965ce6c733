"""Which videos wait for approval, and which of them each destination was notified about.

A destination's row is locked while a message is sent, so that only one process sends it, once. If that process dies after the
message was accepted and before the commit, the message is sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, text

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 30.0, 3_600.0
KEPT_DAYS = 90

_KNOW = text("INSERT INTO phantoms.review_destinations (name) VALUES (:name) ON CONFLICT DO NOTHING")
_TURN = text(
    """
    SELECT clock_timestamp() AS now FROM phantoms.review_destinations
    WHERE name = :name AND (retry_at IS NULL OR retry_at <= clock_timestamp()) FOR UPDATE SKIP LOCKED
    """
)
# The same videos as in the desk's queue. A master that was made again has a new ready time, and counts as new.
WAITING = text(
    """
    SELECT v.id, v.key, v.title, v.channel, v.publish_at, s.ready_at, n.told_at
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    LEFT JOIN phantoms.review_notices n ON n.destination = :name AND n.video_id = v.id AND n.ready_at = s.ready_at
    WHERE s.stage = 'approval' AND s.state IN ('ready', 'deferred') AND s.ready_at IS NOT NULL
        AND NOT EXISTS (SELECT FROM phantoms.approvals d WHERE d.video_id = v.id AND d.decided_at >= s.ready_at)
        AND NOT EXISTS (SELECT FROM phantoms.pending_decisions p WHERE p.video_id = v.id AND p.state = 'pending')
        AND NOT EXISTS (SELECT FROM phantoms.holds h WHERE h.video_id = v.id)
    ORDER BY v.publish_at NULLS LAST, v.priority, v.id
    """
)
_TOLD = text(
    """
    INSERT INTO phantoms.review_notices (destination, video_id, ready_at, told_at)
    SELECT :name, g.id, g.ready_at, :now FROM unnest(CAST(:ids AS bigint[]), CAST(:ready AS timestamptz[])) AS g(id, ready_at)
    ON CONFLICT (destination, video_id) DO UPDATE SET ready_at = excluded.ready_at, told_at = excluded.told_at
    """
)
_WELL = text("UPDATE phantoms.review_destinations SET failures = 0, retry_at = NULL WHERE name = :name")
_ILL = text(
    """
    UPDATE phantoms.review_destinations SET failures = failures + 1,
        retry_at = clock_timestamp() + make_interval(secs => LEAST(:longest, :first * power(2, LEAST(failures, 20))))
    WHERE name = :name
    """
)
_FORGET = text("DELETE FROM phantoms.review_notices WHERE destination = :name AND told_at < now() - make_interval(days => :days)")


@dataclass(frozen=True)
class VideoWaiting:
    """A video that waits. `told_at`: when this destination was last notified about it."""

    id: int
    key: str
    title: str
    channel: str
    publish_at: datetime | None
    ready_at: datetime
    told_at: datetime | None


class DestinationLock:
    """A destination that this process has locked. `now` is the database's time."""

    def __init__(self, connection: Connection, name: str, now: datetime) -> None:
        self._connection = connection
        self._name = name
        self.now = now

    def videos(self) -> list[VideoWaiting]:
        """The waiting videos, in the order of the queue."""
        return [VideoWaiting(**row) for row in self._connection.execute(WAITING, {"name": self._name}).mappings()]

    def told(self, videos: Sequence[tuple[int, datetime]]) -> None:
        """Record that the destination was notified about these: (id, time when it became ready) each."""
        ids, ready = [number for number, _ in videos], [at for _, at in videos]
        self._connection.execute(_TOLD, {"name": self._name, "ids": ids, "ready": ready, "now": self.now})
        self._connection.execute(_FORGET, {"name": self._name, "days": KEPT_DAYS})
        self._connection.execute(_WELL, {"name": self._name})

    def failed(self) -> None:
        """Record that the destination did not accept the message. The next one is sent later, with growing pauses."""
        pauses = {"first": FIRST_PAUSE_SECONDS, "longest": LONGEST_PAUSE_SECONDS}
        self._connection.execute(_ILL, {"name": self._name, **pauses})


class ReviewNotices:
    """Locks destinations for sending notices."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @contextmanager
    def turn(self, name: str) -> Iterator[DestinationLock | None]:
        """Lock the destination `name` during the block. Yields None when another process has it, or when it is not due yet."""
        with self._engine.begin() as connection:
            connection.execute(_KNOW, {"name": name})
        with self._engine.begin() as connection:
            row = connection.execute(_TURN, {"name": name}).one_or_none()
            yield DestinationLock(connection, name, row.now) if row is not None else None
