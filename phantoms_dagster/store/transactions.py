"""The one way a runner's transactions are made: tried again when the server went away or chose a deadlock's victim.

Everything run through here must be safe to run twice, because a commit's answer can be lost too: that is why every write
of a runner is fenced by the claim's generation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)

# https://www.postgresql.org/docs/current/errcodes-appendix.html: connection exceptions, operator intervention,
# serialization failure, deadlock, too many connections.
_PASSING = ("08", "57P", "40001", "40P01", "53300")
FIRST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 2.0


def passes(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed a moment later."""
    code = getattr(error.orig, "sqlstate", None)
    if code is None:  # it never came from the server: a connection that failed, or a value that cannot be sent
        return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
    return error.connection_invalidated or code.startswith(_PASSING)


def statements(engine: AsyncEngine) -> AsyncEngine:
    """The engine for work of a single statement, which is a transaction by itself: it saves the round trips of BEGIN and COMMIT."""
    return engine.execution_options(isolation_level="AUTOCOMMIT")


async def transaction(
    engine: AsyncEngine, work: Callable[[AsyncConnection], Awaitable[Answer]], *, patience: float = 60.0
) -> Answer:
    """Run `work` in one transaction. Passing failures are tried again for `patience` seconds, then raised."""
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    pause = FIRST_PAUSE_SECONDS
    while True:
        try:
            async with engine.begin() as connection:
                return await work(connection)
        except DBAPIError as error:
            if not passes(error) or loop.time() > give_up:
                raise
            _log.warning("the database did not answer (%s); trying again in %.2f s", type(error.orig).__name__, pause)
        await asyncio.sleep(pause)
        pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
