"""What a desk does beside serving pages, again and again: commit decisions that can no longer be undone, carry on bulk actions.

Any desk of the same database does it for all, so nothing is left behind. What is left when a desk ends waits for the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeGuard

from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store.away import in_words, is_away
from phantoms_dagster.store.bulk import BulkActions
from phantoms_dagster.store.pending import PendingDecisions
from phantoms_dagster.wiring.threads import in_thread

# Between two looks. A decision is seen before it is due, unless it can be undone for less than this: then there are more looks.
LOOK_SECONDS = 5.0
SHORTEST_SECONDS = 0.2
# Between two looks for a bulk action. Somebody watches its page; while there is something to do, no pause is made.
BULK_SECONDS = 3.0
AWAY_SECONDS = 3.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def repeated(look: Callable[[], float], what: str) -> AsyncIterator[None]:
    """Call `look` in a thread while the block runs; it returns the seconds until the next time. `what` is for the log.

    While PostgreSQL is away it is tried again every few seconds. Other errors are logged, and it is tried again, too.
    """
    task = asyncio.create_task(_repeat(look, what), name=what)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _repeat(look: Callable[[], float], what: str) -> None:
    away = False
    while True:
        try:
            pause = await in_thread(look)
            if away:
                _log.info("%s: PostgreSQL answers again", what)
            away = False
        except Exception as error:  # noqa: BLE001 - whatever it is, decisions must not wait for the next start of a desk
            pause = AWAY_SECONDS
            if not _is_away(error):
                _log.exception("%s: failed; trying again", what)
            elif not away:
                _log.warning("%s: waits, PostgreSQL does not answer (%s)", what, in_words(error))
                away = True
        await asyncio.sleep(pause)


def _is_away(error: Exception) -> TypeGuard[SQLAlchemyError | StoreAway]:
    return isinstance(error, StoreAway) or (isinstance(error, SQLAlchemyError) and is_away(error))


def commit_due(pending: PendingDecisions) -> float:
    """Commit the decisions that are due; how many seconds until the next look."""
    left = pending.due_in()
    longest = min(LOOK_SECONDS, max(SHORTEST_SECONDS, pending.window.total_seconds()))
    if left is None or left > 0:
        return min(longest, max(SHORTEST_SECONDS, left or longest))
    for one in pending.commit_due():
        _log.info("%s: %s %s%s", one.reviewer, one.answer, one.key, f", refused: {one.outcome}" if one.outcome else "")
    return SHORTEST_SECONDS


def carry_on(actions: BulkActions) -> float:
    """Carry on with the bulk actions that are open; how many seconds until the next look."""
    return 0.0 if actions.advance() else BULK_SECONDS
