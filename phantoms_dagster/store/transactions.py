"""Runs all of a runner's transactions. They are retried when the server went away or ended a deadlock. So are people's changes of
the rows that runners lock, after a deadlock.

All work must be safe to run twice, because the answer to a commit can be lost, too. That is why the claim's generation fences every
write of a runner.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store import schema_version
from phantoms_dagster.store.away import in_words, is_away, spoils_connection

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)

MAX_WAIT_SECONDS = 60.0
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0
MOST_TRIES = 3  # of a person's transaction


def is_retryable(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed when it is retried."""
    return is_away(error)


def statements(engine: AsyncEngine) -> AsyncEngine:
    """The engine for single statements. Each is its own transaction, which saves the round trips of BEGIN and COMMIT."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


def persons_transaction(engine: Engine, work: Callable[[Connection], Answer]) -> Answer:
    """Run `work` in one transaction, for a command or a page.

    It is repeated after a deadlock, because runners lock the same rows.
    """
    for tries in range(1, MOST_TRIES + 1):
        try:
            with engine.begin() as connection:
                return work(connection)
        except DBAPIError as error:
            if error.connection_invalidated or not is_retryable(error) or tries == MOST_TRIES:
                raise
    raise AssertionError("unreachable")


async def transaction(
    engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Answer]], *, max_wait: float | None = None
) -> Answer:
    """Run `work` in one transaction. While PostgreSQL is away it is retried for `max_wait` seconds (default: a minute).

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
                if getattr(getattr(error, "orig", None), "sqlstate", None) in schema_version.BROKEN_BY_MIGRATIONS:
                    await check_schema(engine)  # raises SchemaMismatch if the schema is wrong, not the statement
                raise
            if loop.time() > give_up:
                raise StoreAway(in_words(error)) from error
            _log.warning("PostgreSQL did not answer (%s); trying again in %.2f s", in_words(error), pause)
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE_SECONDS, pause * 2)


async def check_schema(engine: AsyncEngine) -> None:
    """Raise SchemaMismatch when the database has another schema version than this code."""
    async with engine.connect() as connection:
        await connection.run_sync(schema_version.check)


async def _once(engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Answer]]) -> Answer:
    async with engine.connect() as connection:
        try:
            async with connection.begin():
                return await work(connection)
        except DBAPIError as error:
            if spoils_connection(error):
                await connection.invalidate()
            raise
