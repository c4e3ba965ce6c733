"""Retirement in the table of videos: marking, taking back, and what is left to do. Synchronous: for commands, sensors and jobs.

`retired_at` alone: marked, the partition may still be there. Without a `place` beside it: the partition is gone. When and in
which order belongs in `production.retirement`, what becomes of their files in `cleaning`.
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
OPEN_POSTS = "('opened', 'uploading', 'committing', 'unknown')"

_STANDING = f"""
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
_THESE = text(f"{_STANDING} WHERE v.key = ANY(:keys) ORDER BY v.id")
_DUE = text(
    f"""{_STANDING}
    WHERE v.id > :after AND v.retired_at IS NULL AND v.place IS NOT NULL AND v.registered_at < :before AND e.ended_at < :before
        AND NOT EXISTS (SELECT FROM phantoms.stages s WHERE s.video_id = v.id AND s.state IN {UNDER_WAY})
    ORDER BY v.id LIMIT :most
    """
)

# Stages before videos and both in one order, as runners lock them; a foreign key's check may read the video all the same.
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
_HALF_DONE = text(
    "SELECT key FROM phantoms.videos WHERE retired_at IS NOT NULL AND place IS NOT NULL ORDER BY retired_at, id LIMIT :most"
)
_GONE = text("UPDATE phantoms.videos SET place = NULL WHERE key = ANY(:keys)")
_ANEW = text("UPDATE phantoms.videos SET retired_at = NULL, registered_at = NULL, place = NULL WHERE key = ANY(:keys)")

# A partition that is still there stays where it is; one that is gone is for the intake to add. Its days begin anew.
_BACK = """
    UPDATE phantoms.videos v
    SET retired_at = NULL, registered_at = CASE WHEN v.place IS NOT NULL THEN clock_timestamp() END
    WHERE v.retired_at IS NOT NULL AND {which} RETURNING v.key
"""
_BACK_THESE = text(_BACK.format(which="v.key = ANY(:keys)"))
_BACK_ALIVE = text(_BACK.format(which=f"v.id IN (SELECT DISTINCT s.video_id FROM phantoms.stages s WHERE s.state IN {UNDER_WAY})"))


@dataclass(frozen=True)
class LockedVideos:
    """Implements `retirement.TakingOut`."""

    videos: Sequence[RetirementCandidate]
    _connection: Connection

    def gone(self, keys: Sequence[str]) -> None:
        """See the port."""
        self._connection.execute(_GONE, {"keys": list(keys)})

    def back(self, keys: Sequence[str]) -> None:
        """See the port."""
        self._connection.execute(_BACK_THESE, {"keys": list(keys)})

    def anew(self, keys: Sequence[str]) -> None:
        """See the port."""
        self._connection.execute(_ANEW, {"keys": list(keys)})


class Retirement:
    """Who is retired. Implements `retirement.Retiring`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def standing(self, keys: Sequence[str]) -> list[RetirementCandidate]:
        """Where these videos stand, in the order they were added."""
        with self._engine.connect() as connection:
            return _standing(connection, keys)

    def due(self, before: datetime, *, after: int = 0, most: int) -> list[RetirementCandidate]:
        """See the port."""
        with self._engine.connect() as connection:
            rows = connection.execute(_DUE, {"before": before, "after": after, "most": most}).mappings()
            return [_read(row) for row in rows]

    def half_done(self, most: int) -> list[str]:
        """See the port."""
        with self._engine.connect() as connection:
            return list(connection.execute(_HALF_DONE, {"most": most}).scalars())

    def mark(self, keys: Sequence[str], may: Callable[[RetirementCandidate], bool]) -> list[str]:
        """See the port."""
        with self._engine.begin() as connection:
            connection.execute(_LOCK_STAGES, {"keys": list(keys)})
            ended = [video.key for video in _standing(connection, keys) if may(video)]
            marked = set(connection.execute(_MARK, {"keys": ended}).scalars())
        return [key for key in ended if key in marked]

    @contextmanager
    def taking_out(self, keys: Sequence[str]) -> Iterator[LockedVideos]:
        """See the port."""
        with self._engine.begin() as connection:
            connection.execute(_LOCK_STAGES, {"keys": list(keys)})
            marked = list(connection.execute(_LOCK_MARKED, {"keys": list(keys)}).scalars())
            yield LockedVideos(_standing(connection, marked), connection)

    def take_back(self, keys: Sequence[str]) -> list[str]:
        """A person wants these videos back; the keys of those that were retired. The intake adds partitions that are gone."""
        with self._engine.begin() as connection:
            found = list(connection.execute(_BACK_THESE, {"keys": list(keys)}).scalars())
            connection.execute(text(NOTIFY))
        return found

    def take_back_alive(self) -> list[str]:
        """Take back every retired video that has work again: somebody decided otherwise, or replayed what was given up."""
        with self._engine.begin() as connection:
            found = list(connection.execute(_BACK_ALIVE).scalars())
            if found:
                connection.execute(text(NOTIFY))
        return found


def _standing(connection: Connection, keys: Sequence[str]) -> list[RetirementCandidate]:
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
