"""The innermost transport: httpx' interface over aiohttp, made honest about what was sent.

httpx-aiohttp alone is not enough for calls that must not be made twice. aiohttp sends PUT and DELETE again by itself when a
kept-alive connection breaks, and httpx-aiohttp calls a connection that broke *after* the request was sent `ConnectTimeout`,
which everybody else reads as "nothing was sent". Both end in a double post, and both end here. So does aiohttp's habit of
rewriting URLs (`%2F` in a query to `/`), which breaks the signatures of upload addresses that must be used verbatim.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator
from contextvars import ContextVar

import aiohttp
import httpx
from aiohttp.client_middlewares import ClientHandlerType
from httpx_aiohttp import AiohttpTransport
from yarl import URL

KEEP_ALIVE_SECONDS = 5.0
# The URL of the request that this task is sending: a middleware of aiohttp is only shown the rewritten one.
_verbatim: ContextVar[str] = ContextVar("phantoms_verbatim_url")
# The connection was never made, so nothing was sent on it.
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.ServerFingerprintMismatch)
# What reading a body can raise that is not named for it; RuntimeError is aiohttp's for a session closed meanwhile.
_MISNAMED_WHILE_READING = (httpx.ConnectError, httpx.ConnectTimeout, aiohttp.ClientError, RuntimeError)


def wire() -> httpx.AsyncBaseTransport:
    """An open transport for one event loop; it connects with the first request. Pools bound the calls, so it does not."""
    return _Wire(verify=tls(), client=_session)


@functools.cache
def tls() -> ssl.SSLContext:
    """httpx' context (certifi's authorities), made once: each costs 20 ms, and slim containers have no authorities of their own."""
    return httpx.create_ssl_context()


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=tls())
    # Cookies of one account must not travel with another's calls.
    return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), middlewares=(_as_asked,))


async def _as_asked(request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
    """Send to the very URL that was asked for, once: the loss of a connection that had been made becomes the error that
    aiohttp does not retry and httpx-aiohttp calls ReadError.
    """
    request.url = URL(_verbatim.get(), encoded=True)
    try:
        return await send(request)
    except (*_NOT_CONNECTED, aiohttp.SocketTimeoutError, aiohttp.ClientPayloadError):
        raise
    except (OSError, aiohttp.ClientConnectionError) as error:
        raise aiohttp.ClientPayloadError(f"the connection was lost: {type(error).__name__}: {error}") from error


class _Wire(AiohttpTransport):
    """Adds the body's errors: whatever breaks while an answer is read, the request had been sent."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        _verbatim.set(str(request.url).partition("#")[0])
        try:
            response = await super().handle_async_request(request)
        except aiohttp.ClientError as error:
            # What httpx-aiohttp has no name for (a header too long, a garbled status line) is an answer nobody can read.
            raise httpx.RemoteProtocolError(f"{type(error).__name__}: {error}", request=request) from error
        assert isinstance(response.stream, httpx.AsyncByteStream)
        response.stream = _Body(response.stream)
        return response


class _Body(httpx.AsyncByteStream):
    def __init__(self, inner: httpx.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._inner:
                yield chunk
        except _MISNAMED_WHILE_READING as error:
            raise httpx.ReadError(str(error)) from error

    async def aclose(self) -> None:
        await self._inner.aclose()
