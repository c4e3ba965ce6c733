"""What the runner must know about one try of a stage and cannot see: whether anything was sent, how the last call failed, and
how long the try only waited.

The transport and the clock note it here, the runner reads it. A context variable carries it, because adapters and vendors' own
clients lie between the two. No decision is made here.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.ports import Clock


@dataclass
class Try:
    """One try. `slot` is what it holds of the runner's places in flight; `longest_wait` bounds its waits, in seconds.

    `sent`: a request left. `outage`: the last call failed, and a breaker of its scope was not closed when that was judged: the
    provider is down, so the failure says nothing about the video. `waited`: seconds slept inside the try. `paced`: those of
    them that a pool or a breaker asked for, by its name; the runner adds what it slept for the same before the try.
    """

    slot: asyncio.Semaphore | None = None
    longest_wait: float | None = None
    sent: bool = False
    outage: bool = False
    waited: float = 0.0
    paced: dict[str, float] = field(default_factory=dict)


_try: ContextVar[Try | None] = ContextVar("phantoms_try", default=None)


@contextmanager
def trying(this: Try) -> Iterator[Try]:
    """What is called inside, in this task and those it starts, is noted in `this`."""
    token = _try.set(this)
    try:
        yield this
    finally:
        _try.reset(token)


def note_sent() -> None:
    """A request is about to leave."""
    if (this := _try.get()) is not None:
        this.sent = True


def note_end(*, outage: bool) -> None:
    """A call is over. `outage`: it failed while a breaker of its scope was not closed."""
    if (this := _try.get()) is not None:
        this.outage = outage


def note_pace(name: str, seconds: float) -> None:
    """Note that the pool or breaker made the try wait, and how long."""
    if (this := _try.get()) is not None:
        this.paced[name] = this.paced.get(name, 0.0) + seconds


def longest_wait() -> float | None:
    """How many more seconds the try under way may wait; None: as long as the caller likes."""
    this = _try.get()
    if this is None or this.longest_wait is None:
        return None
    return max(0.0, this.longest_wait - this.waited)


@asynccontextmanager
async def aside() -> AsyncIterator[None]:
    """Give the place in flight to others meanwhile. It is taken back at the end, which may take until one is free."""
    this = _try.get()
    if this is None or this.slot is None:
        yield
        return
    slot, this.slot = this.slot, None
    slot.release()
    stopped = False
    try:
        yield
    except asyncio.CancelledError:
        stopped = True  # it must end now: the runner gives back only what the try holds
        raise
    finally:
        if not stopped:
            await slot.acquire()
            this.slot = slot


async def turn(lock: asyncio.Lock, seconds: float) -> bool:
    """Whether it was this try's turn within that time; then it holds the lock. Who stands in line takes no place in flight."""
    if not lock.locked() and await lock.acquire():
        return True
    this, left = _try.get(), longest_wait()
    began, held = asyncio.get_running_loop().time(), False
    try:
        async with aside(), asyncio.timeout(seconds if left is None else min(seconds, left)):
            held = await lock.acquire()
    except TimeoutError:
        if this is not None:
            this.waited += asyncio.get_running_loop().time() - began
    except BaseException:
        if held:
            lock.release()
        raise
    return held


class WaitingClock:
    """The clock for use cases and adapters. Who sleeps by it occupies no place in flight, and the runner hears how long it was.

    `sleep` raises NotYet when the try may not wait that long: the rest of the wait belongs in the table.
    """

    def __init__(self, inner: Clock) -> None:
        self._inner = inner

    def now(self) -> datetime:
        """See the port."""
        return self._inner.now()

    async def sleep(self, seconds: float) -> None:
        """See the port."""
        this, left = _try.get(), longest_wait()
        if left is not None and seconds > left:
            raise NotYet("this run must not be held up by waiting", retry_after=seconds)
        if this is not None:
            this.waited += seconds
        async with aside():
            await self._inner.sleep(seconds)
