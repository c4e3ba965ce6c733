"""Group commit: writes the items of many coroutines with one statement and one commit.

A caller resumes only when its own item is committed, so an intent is still durable before its request is sent.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

from phantoms_dagster.domain.errors import StoreAway

Item = TypeVar("Item")
Answer = TypeVar("Answer")

_log = logging.getLogger(__name__)

LINGER_SECONDS = 0.002
# With many callers a batch waits longer, because a statement costs as much as forty items in it.
LONGEST_LINGER_SECONDS = 0.05
WORTHWHILE_ITEMS = 20
FEW_ITEMS = 4
RATE_SECONDS = 0.25
MOST_ITEMS = 500


class GroupCommit(Generic[Item, Answer]):
    """Collects items for `linger` seconds, passes them to `write`, and returns each caller's own answer.

    `write` gets at most 500 items and returns one answer for each, in order. It writes all items, or raises and writes none. Then
    each item is written alone, so that only the caller of a bad item gets the error. All callers get a StoreAway. A cancelled
    caller's item may still be written.
    """

    def __init__(self, write: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]], *, linger: float = LINGER_SECONDS) -> None:
        self._write = write
        self._linger = linger
        self._rate = 0.0
        self._measured_at = 0.0
        self._waiting: list[tuple[Item, asyncio.Future[Answer]]] = []
        self._task: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        """Write one item. Returns its answer after the commit."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(
                self._drain(), context=Context()
            )  # it works for many callers, so its log lines must not name one
        return await asyncio.shield(future)

    def _pause(self) -> float:
        """Seconds to wait for more items: `linger` when few arrive, up to LONGEST_LINGER_SECONDS when many do."""
        # If fewer than FEW_ITEMS arrive within the longest wait, waiting is useless.
        if self._rate * LONGEST_LINGER_SECONDS < FEW_ITEMS:
            return self._linger
        return max(self._linger, min(WORTHWHILE_ITEMS / self._rate, LONGEST_LINGER_SECONDS))

    def _count(self, items: int) -> None:
        """Update the rate of items per second, averaged over RATE_SECONDS."""
        now = time.monotonic()
        passed = now - self._measured_at
        if passed >= RATE_SECONDS * 4:
            self._rate, passed = 0.0, RATE_SECONDS
        weight = min(1.0, passed / RATE_SECONDS)
        self._rate += weight * (items / max(passed, 0.001) - self._rate)
        self._measured_at = now

    async def _drain(self) -> None:
        while self._waiting:
            await asyncio.sleep(self._pause())
            self._count(len(self._waiting))
            batch, self._waiting = self._waiting[:MOST_ITEMS], self._waiting[MOST_ITEMS:]
            try:
                await self._write_batch(batch)
            except asyncio.CancelledError:
                for _, future in [*batch, *self._waiting]:
                    future.cancel()
                raise

    async def _write_batch(self, batch: Sequence[tuple[Item, asyncio.Future[Answer]]]) -> StoreAway | None:
        """Write the items together; if one of them makes that fail, each alone. Returns the StoreAway that stopped it, if any."""
        try:
            answers = await self._write([item for item, _ in batch])
        except StoreAway as error:
            for _, future in batch:
                _fail(future, type(error)(error.reason))
            return error
        except Exception as error:  # noqa: BLE001  the callers raise it; nothing awaits this task
            if len(batch) == 1:
                _fail(batch[0][1], error)
                return None
            _log.warning("%d items could not be written together (%s); each is written alone", len(batch), type(error).__name__)
            for n, one in enumerate(batch):
                if (away := await self._write_batch([one])) is not None:
                    for _, future in batch[n + 1 :]:
                        _fail(future, type(away)(away.reason))
                    return away
        else:
            for (_, future), answer in zip(batch, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
        return None


def _fail(future: asyncio.Future[Answer], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)
        future.exception()  # so that asyncio does not warn when the caller was cancelled
