"""The task that carries bulk actions on. Any desk of the same database carries on those of all, so none is left behind."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store.away import in_words, is_away
from phantoms_dagster.store.bulk import BulkActions

LOOK_SECONDS = 0.5
AWAY_SECONDS = 3.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def carrying_on(actions: Callable[[], BulkActions]) -> AsyncIterator[None]:
    """Carry bulk actions on as long as the desk runs. What is left at its end waits for the next one."""
    task = asyncio.create_task(_carry_on(actions), name="carry on bulk actions")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def _advance(make: Callable[[], BulkActions]) -> int:
    """Carry on what is open; how many steps were done."""
    return make().advance()


async def _carry_on(actions: Callable[[], BulkActions]) -> None:
    away = False
    while True:
        pause = LOOK_SECONDS
        try:
            if await run_in_threadpool(_advance, actions):
                pause = 0.0
            if away:
                _log.info("PostgreSQL answers again; bulk actions go on")
            away = False
        except (SQLAlchemyError, StoreAway) as error:
            if not isinstance(error, StoreAway) and not is_away(error):
                _log.exception("a bulk action could not be carried on; trying again")
            elif not away:
                _log.warning("bulk actions wait: PostgreSQL does not answer (%s)", in_words(error))
            away, pause = True, AWAY_SECONDS
        await asyncio.sleep(pause)
