"""Receives the events of platforms and providers. Verified, stored once, answered at once; `upkeep` follows them later.

There is no visitor: the signature of a delivery is its credential. Without PHANTOMS_PROVIDER_EVENTS_URL nothing is accepted.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response

from phantoms_dagster.desk.context import Desk
from phantoms_dagster.desk.visits import address_of
from phantoms_dagster.domain.provider_events import Delivery, NotAuthentic
from phantoms_dagster.wiring.provider_events import PATH, SENDERS, SettingsSecrets, reader_of

MOST_BYTES = 64_000
# For each service. All of them send a delivery again later if it is refused.
MOST_A_MINUTE = 600

_log = logging.getLogger(__name__)


class DeliveryLimit:
    """Counts the deliveries of each service in this process, by the minute."""

    def __init__(self, most: int = MOST_A_MINUTE) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._counts: dict[str, tuple[int, int]] = {}

    def admits(self, provider: str) -> bool:
        """Count a delivery. False when there were too many within the minute."""
        now = int(time.monotonic() // 60)
        with self._lock:
            minute, count = self._counts.get(provider, (now, 0))
            count = count + 1 if minute == now else 1
            self._counts[provider] = (now, count)
        return count <= self._most


def register(app: FastAPI) -> None:
    """Add the routes."""
    limit = DeliveryLimit()

    async def receive(request: Request, integration: str, secret: str = "") -> Response:
        """Take a delivery. `secret`: the end of the address, for a service that does not sign."""
        desk: Desk = request.app.state.desk
        if (refusal := _closed(desk, integration)) is not None:
            return refusal
        body = await _body_of(request)
        if body is None:
            return _answer(413, f"a delivery has at most {MOST_BYTES} bytes")
        delivery = Delivery(dict(request.headers), dict(request.query_params), body, datetime.now(UTC), secret)
        return await run_in_threadpool(_take, desk, integration, delivery, address_of(request), limit)

    async def shake_hands(request: Request, integration: str) -> Response:
        """Answer a service that checks the address."""
        desk: Desk = request.app.state.desk
        if (refusal := _closed(desk, integration)) is not None:
            return refusal
        return await run_in_threadpool(_shake_hands, desk, integration, dict(request.query_params), address_of(request))

    for path in (f"{PATH}/{{integration}}", f"{PATH}/{{integration}}/{{secret}}"):
        app.post(path, include_in_schema=False)(receive)
    app.get(f"{PATH}/{{integration}}", include_in_schema=False)(shake_hands)


def _closed(desk: Desk, integration: str) -> Response | None:
    if desk.settings.provider_events.url is None or integration not in SENDERS:
        return _answer(404, "no events are accepted here")
    return None


async def _body_of(request: Request) -> bytes | None:
    """The body; None when it is too large. At most MOST_BYTES and one block are held."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def _take(desk: Desk, integration: str, delivery: Delivery, address: str, limit: DeliveryLimit) -> Response:
    try:
        events = reader_of(integration).read_events(delivery, SettingsSecrets(desk.settings, integration))
    except NotAuthentic as error:
        # After the check: a service may send events of other people's apps from the same address.
        if (wait := desk.attempts.forgery_wait_seconds(address)) > 0:
            return _answer(429, "too many wrong signatures", retry_after=wait)
        desk.attempts.forged(address)
        _log.warning("an event of %s from %s was refused: %s", integration, address, error)
        return _answer(401, "the delivery is not authentic")
    # Only authentic deliveries count, so that nobody else can use the limit up.
    if not limit.admits(integration):
        return _answer(429, "too many deliveries", retry_after=60)
    desk.provider_events.take(integration, delivery, [event for event in events if event.usable])
    return _answer(200, "ok")


def _shake_hands(desk: Desk, integration: str, query: dict[str, str], address: str) -> Response:
    handshake = getattr(reader_of(integration), "handshake", None)
    if handshake is None:
        return _answer(405, "send events with POST")
    if (wait := desk.attempts.forgery_wait_seconds(address)) > 0:
        return _answer(429, "too many wrong tokens", retry_after=wait)
    try:
        return PlainTextResponse(handshake(query, SettingsSecrets(desk.settings, integration)))
    except NotAuthentic as error:
        desk.attempts.forged(address)
        _log.warning("the check of the address by %s from %s was refused: %s", integration, address, error)
        return _answer(403, "the verify token is wrong")


def _answer(status: int, said: str, *, retry_after: int | None = None) -> Response:
    return PlainTextResponse(f"{said}\n", status, headers={} if retry_after is None else {"Retry-After": str(retry_after)})
