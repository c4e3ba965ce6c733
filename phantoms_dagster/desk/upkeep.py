"""The desk's background tasks: commit decisions whose undo window has passed, advance bulk actions, follow providers' events.

Any desk on the same database does the work for all of them. What is left when a desk stops waits for the next one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import TypeGuard

from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store.away import in_words, is_away
from phantoms_dagster.store.bulk import BulkActions
from phantoms_dagster.store.pending import PendingDecisions
from phantoms_dagster.store.provider_events import ProviderEvents
from phantoms_dagster.wiring.threads import in_thread

# Time between two checks for due decisions. With a shorter undo window the checks come more often, so none is found late.
LOOK_SECONDS = 5.0
SHORTEST_SECONDS = 0.2
# Time between two checks for bulk actions. While there are steps to do, there is no pause: a person is watching the page.
BULK_SECONDS = 3.0
AWAY_SECONDS = 3.0
# Time between two checks for events of providers, and between two removals of old ones.
EVENTS_SECONDS = 2.0
FORGET_SECONDS = 3_600.0

_log = logging.getLogger(__name__)


@asynccontextmanager
async def run_repeatedly(look: Callable[[], float], what: str) -> AsyncIterator[None]:
    """Call `look` in a thread again and again while the block runs. It returns the seconds to wait before the next call.

    `what` names the task in the log. After an error, with PostgreSQL down or anything else, it is called again in AWAY_SECONDS.
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
        except Exception as error:  # noqa: BLE001 - no error may keep decisions waiting until the desk is restarted
            pause = AWAY_SECONDS
            if not _is_away(error):
                _log.exception("%s: failed; trying again", what)
            elif not away:
                _log.warning("%s: waiting, PostgreSQL does not answer (%s)", what, in_words(error))
                away = True
        await asyncio.sleep(pause)


def _is_away(error: Exception) -> TypeGuard[SQLAlchemyError | StoreAway]:
    return isinstance(error, StoreAway) or (isinstance(error, SQLAlchemyError) and is_away(error))


def commit_due(pending: PendingDecisions) -> float:
    """Commit the decisions that are due. Return the seconds until the next check."""
    left = pending.due_in()
    longest = min(LOOK_SECONDS, max(SHORTEST_SECONDS, pending.window.total_seconds()))
    if left is None or left > 0:
        return min(longest, max(SHORTEST_SECONDS, left or longest))
    for one in pending.commit_due():
        _log.info("%s: %s %s%s", one.reviewer, one.answer, one.key, f", refused: {one.outcome}" if one.outcome else "")
    return SHORTEST_SECONDS


def advance_bulk_actions(actions: BulkActions) -> float:
    """Advance the bulk actions that are not finished. Return the seconds until the next check."""
    return 0.0 if actions.advance() else BULK_SECONDS


def follow_events(events: ProviderEvents) -> Callable[[], float]:
    """Returns a function that follows the events of providers and forgets old ones. It returns the seconds until the next check."""
    forget_at = 0.0

    def look() -> float:
        nonlocal forget_at
        for event in events.follow():
            _log.info("%s sent %s: %d to look at", event.provider, event.kind, event.woken)
        if time.monotonic() >= forget_at:
            forget_at = time.monotonic() + (0.0 if events.forget() else FORGET_SECONDS)
        return EVENTS_SECONDS

    return look
