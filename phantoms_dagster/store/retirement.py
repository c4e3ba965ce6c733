"""Retirement in the table of videos: mark, restore, and list unfinished removals. Synchronous, for commands, sensors and jobs.

A row with `retired_at` and `place` is marked, and its partition may still exist. With `retired_at` and without `place`, the
partition is gone. `production.retirement` decides when and in which order; `cleaning` deletes files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.retirement import RetirementCandidate
from phantoms_dagster.domain.stages import PostState, StageState
from phantoms_dagster.store.planning import NOTIFY

UNDER_WAY = "('ready', 'running', 'deferred', 'failed')"
OPEN_POSTS = "('opened', 'uploading', 'committing', 'unknown', 'handed_over')"

_CANDIDATES = f"""
    SELECT v.id, v.key, v.retired_at, v.registered_at IS NOT NULL AND v.place IS NOT NULL AS registered,
        (SELECT jsonb_object_agg(s.stage, s.state) FROM phantoms.stages s WHERE s.video_id = v.id) AS states,
        (SELECT jsonb_object_agg(p.platform, p.state) FROM phantoms.posts p
            WHERE p.video_id = v.id AND p.state IN {OPEN_POSTS}) AS posts,
        e.ended_at
    FROM phantoms.videos v CROSS JOIN LATERAL (
        SELECT GREATEST(v.registered_at,
            (SELECT max(s.finished_at) FROM phantoms.stages s WHERE s.video_id = v.id),
            (SELECT max(d.closed_at) FROM phantoms.dead_letters d WHERE d.video_id = v.id AND d.state = 'discarded')) AS ended_at
    ) e"""
_THESE = text(f"{_CANDIDATES} WHERE v.key = ANY(:keys) ORDER BY v.id")
_DUE = text(
    f"""{_CANDIDATES}
    WHERE v.id > :after AND v.retired_at IS NULL AND v.place IS NOT NULL AND v.registered_at < :before AND e.ended_at < :before
        AND NOT EXISTS (SELECT FROM phantoms.stages s WHERE s.video_id = v.id AND s.state IN {UNDER_WAY})
    ORDER BY v.id LIMIT :most
    """
)

# Locks stages before videos, and both in a fixed order, as runners do. Foreign key checks may still read the video.
_LOCK_STAGES = text(
    """
    SELECT FROM phantoms.stages s WHERE s.video_id IN (SELECT id FROM phantoms.videos WHERE key = ANY(:keys))
    ORDER BY s.video_id, s.stage FOR UPDATE
    """
)
_LOCK_MARKED = text(
    """
    SELECT v.key FROM phantoms.videos v WHERE v.key = ANY(:keys) AND v.retired_at IS NOT NULL AND v.place IS NOT NULL
    ORDER BY v.id FOR NO KEY UPDATE
    """
)

_MARK = text(
    """
    UPDATE phantoms.videos SET retired_at = clock_timestamp()
    WHERE key = ANY(:keys) AND retired_at IS NULL AND place IS NOT NULL RETURNING key
    """
)
_UNFINISHED = text(
    "SELECT key FROM phantoms.videos WHERE retired_at IS NOT NULL AND place IS NOT NULL ORDER BY retired_at, id LIMIT :most"
)
_GONE = text("UPDATE phantoms.videos SET place = NULL WHERE key = ANY(:keys)")
_RESTORE_AT_END = text("UPDATE phantoms.videos SET retired_at = NULL, registered_at = NULL, place = NULL WHERE key = ANY(:keys)")

# An existing partition keeps its position. A missing one is added by the intake. The video gets its full time again.
_BACK = """
    UPDATE phantoms.videos v
    SET retired_at = NULL, registered_at = CASE WHEN v.place IS NOT NULL THEN clock_timestamp() END
    WHERE v.retired_at IS NOT NULL AND {which} RETURNING v.key
"""
_BACK_THESE = text(_BACK.format(which="v.key = ANY(:keys)"))
_BACK_ALIVE = text(_BACK.format(which=f"v.id IN (SELECT DISTINCT s.video_id FROM phantoms.stages s WHERE s.state IN {UNDER_WAY})"))


@dataclass(frozen=True)
class LockedVideos:
    """Implements `retirement.PartitionRemoval`."""

    videos: Sequence[RetirementCandidate]
    _connection: Connection

    def mark_removed(self, keys: Sequence[str]) -> None:
        """See the port."""
        self._connection.execute(_GONE, {"keys": list(keys)})

    def restore(self, keys: Sequence[str]) -> None:
        """See the port."""
        self._connection.execute(_BACK_THESE, {"keys": list(keys)})

    def restore_at_end(self, keys: Sequence[str]) -> None:
        """See the port."""
        self._connection.execute(_RESTORE_AT_END, {"keys": list(keys)})


class Retirement:
    """Implements `retirement.RetirementStore`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def candidates(self, keys: Sequence[str]) -> list[RetirementCandidate]:
        """The retirement facts of these videos, in the order they were added."""
        with self._engine.connect() as connection:
            return _candidates(connection, keys)

    def due(self, before: datetime, *, after: int = 0, most: int) -> list[RetirementCandidate]:
        """See the port."""
        with self._engine.connect() as connection:
            rows = connection.execute(_DUE, {"before": before, "after": after, "most": most}).mappings()
            return [_read(row) for row in rows]

    def unfinished(self, most: int) -> list[str]:
        """See the port."""
        with self._engine.connect() as connection:
            return list(connection.execute(_UNFINISHED, {"most": most}).scalars())

    def mark(self, keys: Sequence[str], may: Callable[[RetirementCandidate], bool]) -> list[str]:
        """See the port."""
        with self._engine.begin() as connection:
            connection.execute(_LOCK_STAGES, {"keys": list(keys)})
            ended = [video.key for video in _candidates(connection, keys) if may(video)]
            marked = set(connection.execute(_MARK, {"keys": ended}).scalars())
        return [key for key in ended if key in marked]

    @contextmanager
    def lock_for_removal(self, keys: Sequence[str]) -> Iterator[LockedVideos]:
        """See the port."""
        with self._engine.begin() as connection:
            connection.execute(_LOCK_STAGES, {"keys": list(keys)})
            marked = list(connection.execute(_LOCK_MARKED, {"keys": list(keys)}).scalars())
            yield LockedVideos(_candidates(connection, marked), connection)

    def take_back(self, keys: Sequence[str]) -> list[str]:
        """Restore these videos. Returns the keys of those that were retired. The intake adds missing partitions."""
        with self._engine.begin() as connection:
            found = list(connection.execute(_BACK_THESE, {"keys": list(keys)}).scalars())
            connection.execute(text(NOTIFY))
        return found

    def take_back_alive(self) -> list[str]:
        """Restore every retired video that has open stages again, for example after a new decision or a replay."""
        with self._engine.begin() as connection:
            found = list(connection.execute(_BACK_ALIVE).scalars())
            if found:
                connection.execute(text(NOTIFY))
        return found


def _candidates(connection: Connection, keys: Sequence[str]) -> list[RetirementCandidate]:
    return [_read(row) for row in connection.execute(_THESE, {"keys": list(keys)}).mappings()]


def _read(row: RowMapping) -> RetirementCandidate:
    return RetirementCandidate(
        id=row["id"],
        key=row["key"],
        states={name: StageState(state) for name, state in (row["states"] or {}).items()},
        posts={platform: PostState(state) for platform, state in (row["posts"] or {}).items()},
        ended_at=row["ended_at"],
        registered=row["registered"],
        retired_at=row["retired_at"],
    )
