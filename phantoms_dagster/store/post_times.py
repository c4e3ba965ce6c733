"""Says when a post may go out: its booking, or else the time of its brief. Implements `claims.PostTimes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import text

from phantoms_dagster.domain.claims import Claim, PostTime
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.store.bookings import BEGUN, Limits, is_missed, time_of, waits_because
from phantoms_dagster.store.group_commit import GroupCommit
from phantoms_dagster.store.rows import as_json
from phantoms_dagster.store.transactions import statements, transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_LOOK = text(
    f"""
    SELECT v.id AS video_id, s.stage, v.publish_at, b.at, b.kind, b.state, b.note, {BEGUN} AS begun
    FROM jsonb_to_recordset(CAST(:rows AS jsonb)) AS g(video_id bigint, stage text)
    JOIN phantoms.videos v ON v.id = g.video_id
    JOIN phantoms.stages s ON s.video_id = g.video_id AND s.stage = g.stage
    LEFT JOIN phantoms.bookings b ON b.video_id = g.video_id AND b.platform = split_part(g.stage, '/', 1)
    """
)


@dataclass(frozen=True)
class _Asked:
    row: dict[str, Any]


class PostgresPostTimes:
    """Reads bookings. A post that has no slot yet is booked, and a missed slot is dealt with. One instance per event loop."""

    def __init__(self, engine: AsyncEngine, *, limits: Limits, clock: Clock) -> None:
        self._engine = engine
        self._statements = statements(engine)
        self._limits = limits
        self._clock = clock
        self._look: GroupCommit[_Asked, Any] = GroupCommit(self._read)

    async def of(self, claim: Claim) -> PostTime:
        """See the port."""
        platform = claim.stage.platform
        assert platform is not None
        row = await self._look(_Asked({"video_id": claim.video_id, "stage": claim.stage.name}))
        now = self._clock.now()
        booked = row.at is not None
        if not row.begun and (
            is_missed(row.at, row.kind, row.state, now)
            if booked
            else row.publish_at is None and claim.video.channel.has_slots(platform)
        ):

            async def work(connection: AsyncConnection) -> PostTime:
                return await connection.run_sync(time_of, claim.video_id, platform, self._limits, now)

            return await transaction(self._engine, work)
        return PostTime(row.at or row.publish_at, waits_because(claim.video.key, row.state, row.note) if booked else "", row.begun)

    async def _read(self, asked: Sequence[_Asked]) -> Sequence[Any]:
        rows = {(one.row["video_id"], one.row["stage"]): one.row for one in asked}

        async def work(connection: AsyncConnection) -> dict[tuple[int, str], Any]:
            found = await connection.execute(_LOOK, {"rows": as_json(list(rows.values()))})
            return {(row.video_id, row.stage): row for row in found}

        found = await transaction(self._statements, work)
        return [found[one.row["video_id"], one.row["stage"]] for one in asked]
