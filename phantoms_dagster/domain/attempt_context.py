"""Facts about a running attempt that the runner needs but cannot see: was anything sent, how did the last call fail, how long did
the attempt wait?

The transport and the clock note them here and the runner reads them. A context variable carries them, because adapters and vendors'
own clients lie in between. No decision is made here.
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
class AttemptContext:
    """The facts about one attempt. `slot`: the runner's concurrency slot, if it holds one. `longest_wait`: its limit, in seconds.

    - `sent`: a request left.
    - `outage`: the last call failed while a breaker in its scope was not closed. The provider is down, so the failure says nothing
      about the video.
    - `waited`: seconds slept during the attempt.
    - `paced`: the part of them spent on a pool or a breaker, by its name. The runner adds its own sleeps before the attempt.
    """

    slot: asyncio.Semaphore | None = None
    longest_wait: float | None = None
    sent: bool = False
    outage: bool = False
    waited: float = 0.0
    paced: dict[str, float] = field(default_factory=dict)


_try: ContextVar[AttemptContext | None] = ContextVar("phantoms_try", default=None)


@contextmanager
def track_attempt(this: AttemptContext) -> Iterator[AttemptContext]:
    """Note the calls made inside the block, by this task and the tasks it starts, in `this`."""
    token = _try.set(this)
    try:
        yield this
    finally:
        _try.reset(token)


def note_sent() -> None:
    """Note that a request is about to leave."""
    if (this := _try.get()) is not None:
        this.sent = True


def note_call_ended(*, outage: bool) -> None:
    """Note that a call ended. `outage`: it failed while a breaker in its scope was not closed."""
    if (this := _try.get()) is not None:
        this.outage = outage


def note_paced_wait(name: str, seconds: float) -> None:
    """Note that the pool or breaker called `name` made the attempt wait for `seconds`."""
    if (this := _try.get()) is not None:
        this.paced[name] = this.paced.get(name, 0.0) + seconds


def wait_seconds_left() -> float | None:
    """How many more seconds the running attempt may wait; None: there is no limit."""
    this = _try.get()
    if this is None or this.longest_wait is None:
        return None
    return max(0.0, this.longest_wait - this.waited)


@asynccontextmanager
async def slot_released() -> AsyncIterator[None]:
    """Release the attempt's concurrency slot during the block. Leaving the block waits until a slot is free again."""
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
        stopped = True  # end at once: the runner releases a slot only if the attempt holds one
        raise
    finally:
        if not stopped:
            await slot.acquire()
            this.slot = slot


async def acquire_within(lock: asyncio.Lock, seconds: float) -> bool:
    """Acquire the lock within `seconds`. Returns whether it is held. The attempt holds no concurrency slot while it waits."""
    if not lock.locked() and await lock.acquire():
        return True
    this, left = _try.get(), wait_seconds_left()
    began, held = asyncio.get_running_loop().time(), False
    try:
        async with slot_released(), asyncio.timeout(seconds if left is None else min(seconds, left)):
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
    """The clock for use cases and adapters. A sleep holds no concurrency slot, and its length is noted for the runner.

    `sleep` raises NotYet when the attempt may not wait that long. The stage is then deferred in the table.
    """

    def __init__(self, inner: Clock) -> None:
        self._inner = inner

    def now(self) -> datetime:
        """See the port."""
        return self._inner.now()

    async def sleep(self, seconds: float) -> None:
        """See the port."""
        this, left = _try.get(), wait_seconds_left()
        if left is not None and seconds > left:
            raise NotYet("this run must not be held up by waiting", retry_after=seconds)
        if this is not None:
            this.waited += seconds
        async with slot_released():
            await self._inner.sleep(seconds)
