"""Delivers webhooks: claims due deliveries, sends them and records the outcomes. Any number of deliverers may run at once.

It runs inside `phantoms metrics`, or alone as `phantoms webhooks deliver`. The pipeline only writes events as rows and never waits
for it. A deliverer that is killed loses nothing: its claims are due again when their leases end.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from redis.exceptions import RedisError
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.domain import webhooks
from phantoms_dagster.domain.errors import PhantomsError, StoreAway
from phantoms_dagster.domain.webhooks import RetrySchedule, WebhookEvent
from phantoms_dagster.providers.redaction import redact
from phantoms_dagster.providers.webhook_payloads import payload
from phantoms_dagster.providers.webhooks import WebhookSender
from phantoms_dagster.resilience.wire import tls
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.away import in_words, is_away
from phantoms_dagster.store.outbox import ClaimedDelivery, DeliveryResult, Outbox
from phantoms_dagster.wiring.addresses import desk_url
from phantoms_dagster.wiring.threads import in_thread
from phantoms_dagster.wiring.watching import Watcher, watching

# Seconds between two polls: while an endpoint wants events, and while none does.
LOOK_SECONDS = 1.0
IDLE_SECONDS = 10.0
AWAY_SECONDS = 3.0
BREAKER_SECONDS = 5.0
FORGET_SECONDS = 3_600.0
# Older openings of breakers are not reported. Redis keeps a breaker's last hundred changes.
OPENED_WITHIN = timedelta(days=7)
CLOSED, OPEN = "closed", "open"

_log = logging.getLogger(__name__)


class Deliverer:
    """Delivers webhooks, for one event loop. `look_seconds`: seconds between two polls."""

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        sender: WebhookSender,
        *,
        schedule: RetrySchedule,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:
        self._settings = settings
        self._outbox = Outbox(engine, schedule)
        self._schedule = schedule
        self._sender = sender
        self._look_seconds = look_seconds
        self._busy: Counter[int] = Counter()
        self._sending: set[asyncio.Task[None]] = set()
        self._done = asyncio.Event()
        self._told: set[str] = set()
        self._breakers_at = self._forget_at = 0.0
        self._redis_away = False

    async def run(self) -> None:
        """Deliver until cancelled. No error ends it."""
        away = False
        async with watching_if_any(self._settings) as watcher:
            while True:
                try:
                    pause = await self._look(watcher)
                    if away:
                        _log.info("webhooks: PostgreSQL answers again")
                    away = False
                except Exception as error:  # noqa: BLE001 - no error may stop deliveries until the next start
                    pause = AWAY_SECONDS
                    if not _is_away(error):
                        _log.exception("webhooks: polling failed; trying again")
                    elif not away:
                        _log.warning("webhooks: deliveries wait, PostgreSQL does not answer (%s)", in_words(error))
                        away = True
                self._done.clear()
                # A finished delivery frees capacity, so there may be more to send at once.
                await _wait(self._done, pause)

    async def aclose(self) -> None:
        """Give deliveries in progress two seconds to finish. The others are due again when their leases end."""
        if self._sending:
            _, left = await asyncio.wait(self._sending, timeout=2.0)
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)

    async def _look(self, watcher: Watcher | None) -> float:
        """Poll once and start due deliveries. Returns the seconds until the next poll."""
        wanted = await in_thread(self._outbox.wanted, datetime.now(UTC), dict(self._busy))
        now = time.monotonic()
        if now >= self._forget_at:
            self._forget_at = now + (1.0 if await in_thread(self._outbox.forget) else FORGET_SECONDS)
        if not wanted.events:
            return IDLE_SECONDS
        if WebhookEvent.PROVIDER_DOWN in wanted.events and watcher is not None and now >= self._breakers_at:
            self._breakers_at = now + BREAKER_SECONDS
            await self._tell_of_breakers(watcher)
        for one in await in_thread(self._outbox.claim, wanted.free):
            self._busy[one.endpoint_id] += 1
            task = asyncio.create_task(self._deliver(one), name=f"webhook {one.message_id}")
            self._sending.add(task)
            task.add_done_callback(self._sending.discard)
        return self._look_seconds

    async def _deliver(self, one: ClaimedDelivery) -> None:
        try:
            body = payload(one.type, one.at, one.data, desk_url(self._settings))
            secrets = (one.secret, one.old_secret) if one.old_secret else (one.secret,)
            answer = await self._sender.send(one.url, one.message_id, body, secrets)
            await self._end(one, DeliveryResult(*answer))
        except Exception:  # noqa: BLE001 - it is due again when its lease ends
            _log.exception("webhooks: delivery %d failed unexpectedly; it is tried again", one.id)
        finally:
            self._busy[one.endpoint_id] -= 1
            self._done.set()

    async def _end(self, one: ClaimedDelivery, tried: DeliveryResult) -> None:
        """Record the outcome, retrying while PostgreSQL is unavailable until the lease ends; after that it is sent again."""
        until = time.monotonic() + self._schedule.lease - self._schedule.timeout
        while True:
            try:
                await in_thread(self._outbox.end, one, tried, spread=random.uniform(-1, 1))
                break
            except (SQLAlchemyError, StoreAway) as error:
                if not _is_away(error):
                    raise
                if time.monotonic() >= until:
                    _log.warning("webhooks: the outcome of delivery %d could not be recorded; it is sent again", one.id)
                    return
            await asyncio.sleep(0.5)
        if tried.error:
            _log.warning("webhooks: delivery %d of %s to endpoint %d: %s", one.id, one.type, one.endpoint_id, tried.error)

    async def _tell_of_breakers(self, watcher: Watcher) -> None:
        """Write an event for each new opening of a breaker. Redis keeps their history, so none is lost between polls."""
        try:
            for breaker in await watcher.breakers.look():
                for change in reversed(await watcher.breakers.history(breaker.name)):
                    source = f"breaker/{breaker.name}/{change.at.timestamp():.6f}"
                    # A failed probe opens the breaker again; that belongs to the same outage.
                    fresh = change.old == CLOSED and change.new == OPEN and change.at > datetime.now(UTC) - OPENED_WITHIN
                    if fresh and source not in self._told:
                        data = webhooks.down(breaker.name, change.at, redact(change.why))
                        await in_thread(self._outbox.tell, str(WebhookEvent.PROVIDER_DOWN), source, data, change.at)
                        self._told.add(source)
            self._redis_away = False
        except (RedisError, PhantomsError) as error:
            if isinstance(error, StoreAway):
                raise
            if not self._redis_away:
                _log.warning("webhooks: the breakers could not be read: %s", type(error).__name__)
            self._redis_away = True


@asynccontextmanager
async def delivering(
    settings: Settings, engine: Engine, *, schedule: RetrySchedule | None = None, look_seconds: float = LOOK_SECONDS
) -> AsyncIterator[asyncio.Task[None]]:
    """Deliver while the block runs. The caller closes `engine`."""
    times = schedule or RetrySchedule()
    sender = WebhookSender(settings.webhooks.targets, timeout=times.timeout, tls=tls())
    deliverer = Deliverer(settings, engine, sender, schedule=times, look_seconds=look_seconds)
    task = asyncio.create_task(deliverer.run(), name="webhooks")
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await deliverer.aclose()
        await sender.aclose()


@asynccontextmanager
async def watching_if_any(settings: Settings) -> AsyncIterator[Watcher | None]:
    """A watcher; None without Redis."""
    if settings.redis.url is None:
        yield None
        return
    async with watching(settings) as watcher:
        yield watcher


async def _wait(event: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return


def _is_away(error: Exception) -> bool:
    return isinstance(error, StoreAway) or (isinstance(error, SQLAlchemyError) and is_away(error))
