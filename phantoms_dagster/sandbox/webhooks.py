"""Webhooks that the stand-ins send, as the real services do: at least once, later, or in another order.

Each stand-in has a setting with the address, and sends nothing without one. These settings apply to all of them:

- `webhooks.copies` (1): how often each one is delivered;
- `webhooks.delay_seconds` (0): how long each delivery waits;
- `webhooks.held` (false): they are kept until `POST /_sandbox/webhooks` with `{"order": "sent" or "reversed", "copies": 1}`.

A delivery without a 2xx answer is repeated TRIES times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from phantoms_dagster.sandbox.core import Sandbox

TRIES = 3
AGAIN_SECONDS = 0.2
TIMEOUT_SECONDS = 10.0
# How often a webhook that is due later looks at the sandbox's clock, which may be moved.
LOOK_SECONDS = 0.05
ORDERS = ("sent", "reversed")


@dataclass(frozen=True)
class SandboxWebhook:
    """One event. `headers` makes the headers of a delivery, with its own time and signature. `at`: when it happens."""

    url: str
    body: bytes
    headers: Callable[[], Mapping[str, str]]
    at: float


class SandboxWebhooks:
    """The webhooks of one sandbox. `statuses`: the answers to all deliveries so far; 0 for none."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._held: list[SandboxWebhook] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.statuses: list[int] = []

    def send(self, url: str, body: bytes, headers: Callable[[], Mapping[str, str]], *, at: float | None = None) -> None:
        """Send an event in the background. `at`: on the sandbox's clock; None: now."""
        webhook = SandboxWebhook(url, body, headers, self._sandbox.now() if at is None else at)
        if self._sandbox.setting("webhooks.held", False):
            self._held.append(webhook)
            return
        for _ in range(int(self._sandbox.setting("webhooks.copies", 1))):
            task = asyncio.create_task(self._later(webhook))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def release(self, *, order: str = "sent", copies: int = 1) -> int:
        """Deliver the events that are held, one after the other. Returns how many deliveries that took."""
        held, self._held = self._held, []
        if order == "reversed":
            held.reverse()
        deliveries = [webhook for webhook in held for _ in range(copies)]
        for webhook in deliveries:
            await self._deliver(webhook)
        return len(deliveries)

    async def close(self) -> None:
        """Drop what was not delivered."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _later(self, webhook: SandboxWebhook) -> None:
        while self._sandbox.now() < webhook.at:  # noqa: ASYNC110 - a test may move the clock at any time
            await asyncio.sleep(LOOK_SECONDS)
        await asyncio.sleep(float(self._sandbox.setting("webhooks.delay_seconds", 0.0)))
        await self._deliver(webhook)

    async def _deliver(self, webhook: SandboxWebhook) -> None:
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for _ in range(TRIES):
                status = await _post(session, webhook)
                self.statuses.append(status)
                if 200 <= status < 300:
                    return
                await asyncio.sleep(AGAIN_SECONDS)


async def _post(session: aiohttp.ClientSession, webhook: SandboxWebhook) -> int:
    headers = {"Content-Type": "application/json", **webhook.headers()}
    try:
        async with session.post(webhook.url, data=webhook.body, headers=headers, allow_redirects=False) as answer:
            return answer.status
    except (aiohttp.ClientError, TimeoutError):
        return 0
