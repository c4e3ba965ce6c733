"""The one way a runner's transactions are made: tried again when the server went away or chose a deadlock's victim.

Everything run through here must be safe to run twice, because a commit's answer can be lost too: that is why every write
of a runner is fenced by the claim's generation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store import fitting
from phantoms_dagster.store.away import in_words, is_away, spoils_connection

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)

MAX_WAIT_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


def passes(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed a moment later."""
    return is_away(error)


def statements(engine: AsyncEngine) -> AsyncEngine:
    """The engine for work of a single statement, which is a transaction by itself: it saves the round trips of BEGIN and COMMIT."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


async def transaction(
    engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Answer]], *, max_wait: float | None = None
) -> Answer:
    """Run `work` in one transaction. While PostgreSQL is away it is tried again for `max_wait` seconds (default: a minute).

    Raises StoreAway after that. Errors of the work itself, such as a wrong statement, are raised as they are.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + (MAX_WAIT_SECONDS if max_wait is None else max_wait)
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            return await _once(engine, work)
        except SQLAlchemyError as error:
            if not is_away(error):
                if getattr(getattr(error, "orig", None), "sqlstate", None) in fitting.BROKEN_BY_MIGRATIONS:
                    await check_schema(engine)  # then it is the schema that is wrong, and not the statement
                raise
            if loop.time() > give_up:
                raise StoreAway(in_words(error)) from error
            _log.warning("PostgreSQL did not answer (%s); trying again in %.2f s", in_words(error), pause)
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE_SECONDS, pause * 2)


async def check_schema(engine: AsyncEngine) -> None:
    """Raises SchemaMismatch when the tables are not those that this code knows."""
    async with engine.connect() as connection:
        await connection.run_sync(fitting.check)


async def _once(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
    async with engine.connect() as connection:
        try:
            async with connection.begin():
                return await work(connection)
        except DBAPIError as error:
            if spoils_connection(error):
                await connection.invalidate()
            raise
