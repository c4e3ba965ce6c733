"""Queries of the stage checks after a run, on the run's own connection. A second connection would cost more than the queries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phantoms_dagster.store.dead_letters import statements as replay_sql
from phantoms_dagster.store.decision_rows import UNDECIDED
from phantoms_dagster.store.transactions import statements, transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class StageChecks:
    """The queries of the stage checks at the end of a run. Both methods raise StoreAway."""

    def __init__(self, database: AsyncEngine) -> None:
        self._statements = statements(database)

    async def open_letters(self) -> dict[str, int]:
        """How many dead letters are open, for each stage that has any."""

        async def work(connection: AsyncConnection) -> dict[str, int]:
            return {row.stage: row.n for row in await connection.execute(replay_sql.OPEN_BY_STAGE)}

        return await transaction(self._statements, work)

    async def undecided(self, *, limit: int) -> list[str]:
        """The videos that are ready for review, most urgent first."""

        async def work(connection: AsyncConnection) -> list[str]:
            return list((await connection.execute(UNDECIDED, {"limit": limit})).scalars())

        return await transaction(self._statements, work)
