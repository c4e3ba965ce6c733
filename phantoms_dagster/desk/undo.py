"""The task that commits decisions when they can no longer be undone. Any desk of the same database commits those of all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from sqlalchemy.exc import SQLAlchemyError
from starlette.concurrency import run_in_threadpool

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store.away import in_words, is_away
from phantoms_dagster.store.pending import PendingDecisions

# Between two looks. A decision is seen before it is due, unless it can be undone for less than this: then there are more looks.
LOOK_SECONDS = 5.0
SHORTEST_SECONDS = 0.2
AWAY_SECONDS = 3.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def committing(pending: Callable[[], PendingDecisions]) -> AsyncIterator[None]:
    """Commit due decisions while the desk runs. Those that become due after its end wait for the next desk."""
    task = asyncio.create_task(_commit_all(pending), name="commit decisions")
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _commit_all(pending: Callable[[], PendingDecisions]) -> None:
    away = False
    while True:
        try:
            pause = await run_in_threadpool(_look, pending)
            if away:
                _log.info("PostgreSQL answers again; decisions are committed")
            away = False
        except (SQLAlchemyError, StoreAway) as error:
            if not isinstance(error, StoreAway) and not is_away(error):
                _log.exception("decisions could not be committed; trying again")
            elif not away:
                _log.warning("decisions wait: PostgreSQL does not answer (%s)", in_words(error))
            away, pause = True, AWAY_SECONDS
        await asyncio.sleep(pause)


def _look(make: Callable[[], PendingDecisions]) -> float:
    """Commit what is due; how many seconds until the next look."""
    pending = make()
    left = pending.due_in()
    longest = min(LOOK_SECONDS, max(SHORTEST_SECONDS, pending.window.total_seconds()))
    if left is None or left > 0:
        return min(longest, max(SHORTEST_SECONDS, left or longest))
    for one in pending.commit_due():
        _log.info("%s: %s %s%s", one.reviewer, one.answer, one.key, f", refused: {one.outcome}" if one.outcome else "")
    return SHORTEST_SECONDS
