"""Live counts as server-sent events. One query every LOOK_SECONDS serves all open pages."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from fastapi import FastAPI
from sqlalchemy.exc import SQLAlchemyError
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from phantoms_dagster.desk.context import Desk
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.store.away import is_away

LOOK_SECONDS = 2.0
PING_SECONDS = 20
# After this time the stream ends. The browser reconnects, which checks the session again.
LIVES_SECONDS = 600
_PULSE = "pulse"


@dataclass
class Pulse:
    """The latest counts. They are queried at most once every LOOK_SECONDS, however many pages are open."""

    desk: Desk
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    looked_at: float = 0.0
    counts: str = "{}"
    board: str = "{}"

    async def now(self) -> str:
        """Return the counts as JSON. While PostgreSQL is down these are the last known ones."""
        async with self.lock:
            if time.monotonic() - self.looked_at >= LOOK_SECONDS:
                self.looked_at = time.monotonic()
                try:
                    counts = await run_in_threadpool(self.desk.queue.counts)
                    stages = await run_in_threadpool(self.desk.board.counts)
                except SQLAlchemyError as error:
                    if not is_away(error):
                        raise
                else:
                    waiting, held = sum(c.waiting for c in counts), sum(c.held for c in counts)
                    self.counts = json.dumps({"review": waiting, "held": held})
                    self.board = json.dumps(stages)
            return self.counts


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/events", include_in_schema=False)(events)


async def events(visit: CurrentVisit) -> Response:
    """Stream the counts now and whenever they change: the review queue as `counts`, the stages of all videos as `board`."""
    pulse = visit.desk.extras.setdefault(_PULSE, Pulse(visit.desk))
    assert isinstance(pulse, Pulse)

    async def changes() -> AsyncIterator[ServerSentEvent]:
        last, board, ends = None, None, time.monotonic() + LIVES_SECONDS
        while time.monotonic() < ends:
            counts = await pulse.now()
            if counts != last:
                yield ServerSentEvent(event="counts", data=counts)
                last = counts
            if pulse.board != board:
                yield ServerSentEvent(event="board", data=pulse.board)
                board = pulse.board
            await asyncio.sleep(LOOK_SECONDS)

    return EventSourceResponse(changes(), ping=PING_SECONDS)
