"""Sends a webhook once, signed, with a time limit, and only to allowed addresses. Returns the outcome as a value.

Names are resolved here, and the connection goes to the address that was checked, so a name that resolves differently a moment later
cannot bypass the check. Redirects are not followed. The answer's body is discarded.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from datetime import UTC, datetime
from typing import Any, NamedTuple

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.retry_after import retry_after
from phantoms_dagster.domain.webhooks import Targets, address_of, check_url, refused
from phantoms_dagster.providers.redaction import redact

MOST_BODY = 65_536
AGENT = "phantoms-webhooks/1"
GONE = 410


class WebhookAnswer(NamedTuple):
    """The outcome of one try. `error` is empty on success. `gone`: send no more. `asked`: the receiver's Retry-After in seconds."""

    at: datetime
    seconds: float
    status: int | None = None
    error: str = ""
    gone: bool = False
    asked: float | None = None


class _Forbidden(OSError):
    """The name resolves to addresses that are not allowed."""


class _CheckedResolver(AbstractResolver):
    """Resolves names, and returns only allowed addresses."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """See the base class. Raises OSError when the name has no address, or none that is allowed."""
        found = await asyncio.get_running_loop().getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
        allowed: list[ResolveResult] = []
        why = ""
        for kind, _, _, _, place in found:
            address = address_of(str(place[0]))
            why = ("it has no address" if address is None else refused(address, self._targets)) or ""
            if address is not None and not why:
                one = ResolveResult(hostname=host, host=str(place[0]), port=port, family=kind, proto=0, flags=socket.AI_NUMERICHOST)
                allowed.append(one)
        if not allowed:
            raise _Forbidden(why or "the name has no address")
        return allowed

    async def close(self) -> None:
        """Do nothing: the resolver holds no resources."""


class WebhookSender:
    """Sends webhooks, for one event loop. `timeout`: seconds for one try, from resolving the name to the end of the answer."""

    def __init__(self, targets: Targets, *, timeout: float, tls: ssl.SSLContext) -> None:
        self._targets = targets
        connector = aiohttp.TCPConnector(
            resolver=_CheckedResolver(targets), ssl=tls, limit=0, keepalive_timeout=5, use_dns_cache=False
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=timeout, connect=timeout),
            trust_env=False,
            auto_decompress=False,
        )

    async def send(self, url: str, message_id: str, body: str, secrets: tuple[str, ...]) -> WebhookAnswer:
        """Try once. Raises nothing: the answer says in words what went wrong, without the address."""
        at, began = datetime.now(UTC), time.monotonic()

        def ended(**said: Any) -> WebhookAnswer:
            return WebhookAnswer(at, round(time.monotonic() - began, 3), **said)

        try:
            check_url(url, self._targets)
            headers = _headers(message_id, at, body, secrets)
            async with self._session.post(url, data=body.encode(), headers=headers, allow_redirects=False) as answer:
                await answer.content.read(MOST_BODY)
                status = answer.status
                asked = retry_after({name.lower(): value for name, value in answer.headers.items()})
        except InvalidInput as error:
            return ended(error=str(error))
        except TimeoutError:
            return ended(error="no answer in time")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return ended(error=_words(error))
        if 200 <= status < 300:
            return ended(status=status)
        if status == GONE:
            return ended(status=status, error="answered 410: it wants no more events", gone=True)
        if 300 <= status < 400:
            return ended(
                status=status, error=f"answered {status}: redirects are not followed; enter the address to which it redirects"
            )
        return ended(status=status, error=f"answered {status}", asked=asked)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()


def _headers(message_id: str, at: datetime, body: str, secrets: tuple[str, ...]) -> dict[str, str]:
    """The headers of Standard Webhooks, with one signature per secret. The receiver knows at least one of the secrets."""
    return {
        "Content-Type": "application/json",
        "User-Agent": AGENT,
        "webhook-id": message_id,
        "webhook-timestamp": str(int(at.timestamp())),
        "webhook-signature": " ".join(Webhook(secret).sign(message_id, at, body) for secret in secrets),
    }


def _words(error: BaseException) -> str:
    """What went wrong, for the delivery log: why an address is not allowed, or the kind of failure."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, _Forbidden):
            return str(cause)
        cause = cause.__cause__
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientConnectorSSLError):
        return "its certificate is not valid, or it does not speak TLS"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot be reached: {error.os_error.strerror or type(error.os_error).__name__}"
    if isinstance(error, aiohttp.ServerDisconnectedError | ConnectionError):
        return "the connection was lost before it answered"
    return redact(f"no usable answer: {type(error).__name__}")
