"""Reads the stages that could run now, for the planner, and waits until there are some. Implements `planning.ReadyVideos`.

Code that makes a stage ready also sends a notification in the same transaction: `NOTIFY`, or `notify` if it knows the stage.
"""

from __future__ import annotations

import select
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
from sqlalchemy import Engine, text

from phantoms_dagster.domain.planning import OpenRun, ReadyVideo, Span

CHANNEL = "phantoms_ready"


def notify(stage: str) -> str:
    """SQL that notifies listeners that something is ready. `stage` is an SQL expression for the stage's name."""
    return f"SELECT pg_notify('{CHANNEL}', {stage})"


# A notification for no particular stage.
NOTIFY = notify("''")
# Not a stage: asks listeners to stop, because the daemon is shutting down and waits for them.
_STOP = "(stop)"
STOP = notify(f"'{_STOP}'")

# Whether stage `s` of video `v` is due. An approval is due only when a person has decided since it became ready.
_DUE = """(
    (s.state = 'ready' AND (s.ready_at IS NULL OR s.ready_at <= clock_timestamp()))
    OR (s.state = 'deferred' AND s.retry_at <= clock_timestamp())
    OR (s.state = 'running' AND s.lease_until < clock_timestamp()))
    AND (s.stage <> 'approval'
        OR EXISTS (SELECT FROM phantoms.approvals d WHERE d.video_id = v.id AND d.decided_at >= s.ready_at))"""
_SINCE = (
    """COALESCE(CASE s.state WHEN 'ready' THEN s.ready_at WHEN 'deferred' THEN s.retry_at ELSE s.lease_until END, s.updated_at)"""
)

_SPANS = text(
    """
    SELECT w.target, f.place AS first, l.place AS last
    FROM unnest(CAST(:targets AS text[]), CAST(:firsts AS text[]), CAST(:lasts AS text[])) AS w(target, first, last)
    JOIN phantoms.videos f ON f.key = w.first JOIN phantoms.videos l ON l.key = w.last
    WHERE f.place IS NOT NULL AND l.place IS NOT NULL
    """
)

_MOST_URGENT = text(
    f"""
    SELECT w.stage, n.* FROM unnest(CAST(:stages AS text[]), CAST(:most AS int[])) AS w(stage, most)
    CROSS JOIN LATERAL (
        SELECT v.key, v.place, s.generation, {_SINCE} AS since, v.priority, v.publish_at
        FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
        WHERE s.stage = w.stage AND v.place IS NOT NULL AND v.retired_at IS NULL AND {_DUE}
            AND NOT EXISTS (
                SELECT FROM unnest(CAST(:targets AS text[]), CAST(:firsts AS bigint[]), CAST(:lasts AS bigint[]))
                    AS b(stage, first, last)
                WHERE b.stage = s.stage AND v.place BETWEEN b.first AND b.last)
        ORDER BY v.publish_at NULLS LAST, v.priority, v.place
        LIMIT w.most
    ) n
    """
)

# The first time at which something becomes due by the clock alone. It uses `now()`, so that indexes can be used.
_NEXT_DUE = text(
    """
    SELECT extract(epoch FROM min(due.at) - now())::float8
    FROM unnest(CAST(:stages AS text[])) AS w(stage)
    CROSS JOIN LATERAL (
        SELECT LEAST(
            (SELECT min(ready_at) FROM phantoms.stages WHERE stage = w.stage AND state = 'ready' AND ready_at > now()),
            (SELECT min(retry_at) FROM phantoms.stages WHERE stage = w.stage AND state = 'deferred' AND retry_at > now()),
            (SELECT min(lease_until) FROM phantoms.stages WHERE stage = w.stage AND state = 'running' AND lease_until > now())
        ) AS at
    ) due
    """
)

# The neighbours are selected before it is known whether they are due, so that gaps are visible.
_AROUND = text(
    f"""
    SELECT w.stage, w.at, p.key, p.place, p.priority, p.publish_at, d.generation, d.since
    FROM unnest(CAST(:stages AS text[]), CAST(:places AS bigint[])) AS w(stage, at)
    CROSS JOIN LATERAL (
        (SELECT * FROM phantoms.videos v WHERE v.place >= w.at AND v.retired_at IS NULL ORDER BY v.place LIMIT :most)
        UNION ALL
        (SELECT * FROM phantoms.videos v WHERE v.place < w.at AND v.retired_at IS NULL ORDER BY v.place DESC LIMIT :most)
    ) p
    LEFT JOIN LATERAL (
        SELECT s.generation, {_SINCE} AS since FROM phantoms.stages s CROSS JOIN (SELECT p.id) AS v(id)
        WHERE s.video_id = p.id AND s.stage = w.stage AND {_DUE}
    ) d ON true
    ORDER BY w.stage, w.at, p.place
    """
)


class Planning:
    """Implements `planning.ReadyVideos`, and listens for ready stages."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def spans(self, runs: Sequence[OpenRun]) -> list[Span]:
        """See the port."""
        values = {"targets": [r.target for r in runs], "firsts": [r.first for r in runs], "lasts": [r.last for r in runs]}
        with self._engine.connect() as connection:
            return [Span(row.target, row.first, row.last) for row in connection.execute(_SPANS, values)] if runs else []

    def most_urgent(self, most: Mapping[str, int], busy: Sequence[Span]) -> dict[str, list[ReadyVideo]]:
        """See the port."""
        found: dict[str, list[ReadyVideo]] = {stage: [] for stage in most}
        values = {
            "stages": list(most),
            "most": list(most.values()),
            "targets": [b.target for b in busy],
            "firsts": [b.first for b in busy],
            "lasts": [b.last for b in busy],
        }
        with self._engine.connect() as connection:
            for row in connection.execute(_MOST_URGENT, values):
                found[row.stage].append(_ready(row))
        return found

    def around(self, wanted: Sequence[tuple[str, int]], most: int) -> dict[tuple[str, int], list[ReadyVideo]]:
        """See the port."""
        values = {"stages": [stage for stage, _ in wanted], "places": [place for _, place in wanted], "most": most}
        rows: dict[tuple[str, int], list[Any]] = {pair: [] for pair in wanted}
        with self._engine.connect() as connection:
            for row in connection.execute(_AROUND, values):
                rows[row.stage, row.at].append(row)
        return {pair: _without_gap(found, pair[1]) for pair, found in rows.items()}

    def next_due(self, stages: Collection[str]) -> float | None:
        """Seconds until one of these stages becomes due by the clock alone, without a notification; None when none will."""
        with self._engine.connect() as connection:
            found: float | None = connection.execute(_NEXT_DUE, {"stages": list(stages)}).scalar()
        return None if found is None else max(0.0, found)

    @contextmanager
    def listen(self, stages: Collection[str]) -> Iterator[ReadyListener]:
        """Listen for notifications about these stages."""
        with self._engine.connect() as pooled:
            raw = pooled.connection.driver_connection
            assert isinstance(raw, psycopg.Connection)
            raw.autocommit = True
            raw.execute(f"LISTEN {CHANNEL}")
            try:
                yield ReadyListener(raw, stages)
            finally:
                raw.execute(f"UNLISTEN {CHANNEL}")
                raw.autocommit = False


class ReadyListener:
    """A connection that listens for notifications. `stopped`: a listener was asked to stop."""

    def __init__(self, connection: psycopg.Connection[Any], stages: Collection[str]) -> None:
        self._connection = connection
        self._payloads = {"", _STOP, *stages}
        self.stopped = False

    def wait(self, seconds: float) -> bool:
        """Wait for a notification. Returns whether one arrived within `seconds`, or since listening began."""
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._connection.fileno(), select.POLLIN)
        while not self._received():
            left = until - time.monotonic()
            # psycopg's own wait would wake up ten times a second.
            if left <= 0 or not poll.poll(left * 1000):
                return False
        return True

    def _received(self) -> bool:
        for notice in self._connection.notifies(timeout=0):
            self.stopped = self.stopped or notice.payload == _STOP
            if notice.payload in self._payloads:
                return True
        return False


def _without_gap(rows: Sequence[Any], at: int) -> list[ReadyVideo]:
    middle = next((n for n, row in enumerate(rows) if row.place == at), None)
    if middle is None or rows[middle].generation is None:
        return []
    first = last = middle
    while first > 0 and rows[first - 1].generation is not None:
        first -= 1
    while last + 1 < len(rows) and rows[last + 1].generation is not None:
        last += 1
    return [_ready(row) for row in rows[first : last + 1]]


def _ready(row: Any) -> ReadyVideo:
    return ReadyVideo(row.stage, row.key, row.place, row.generation, row.since, row.priority, row.publish_at)
