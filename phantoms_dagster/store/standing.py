"""How a stage stands after a run: read on the run's own connection, because a second one costs more than the whole question."""

from __future__ import annotations

from typing import TYPE_CHECKING

from phantoms_dagster.store import replay_sql
from phantoms_dagster.store.dead_letters import LetterFilter
from phantoms_dagster.store.decisions import UNDECIDED
from phantoms_dagster.store.transactions import statements, transaction

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine


class Standing:
    """What the checks of a stage ask at the end of a run. Both methods raise StoreAway."""

    def __init__(self, database: AsyncEngine) -> None:
        self._statements = statements(database)

    async def open_letters(self, stage: str) -> int:
        """How many dead letters of the stage are open."""

        async def work(connection: AsyncConnection) -> int:
            found = await connection.execute(replay_sql.COUNT, LetterFilter(stages=[stage]).values())
            return int(found.scalar_one())

        return await transaction(self._statements, work)

    async def undecided(self, *, limit: int) -> list[str]:
        """The videos that are ready for review, most urgent first."""

        async def work(connection: AsyncConnection) -> list[str]:
            return list((await connection.execute(UNDECIDED, {"limit": limit})).scalars())

        return await transaction(self._statements, work)
