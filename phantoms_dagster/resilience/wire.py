"""The innermost transport: httpx' interface over aiohttp, honest about what was sent.

A request goes to the very URL that was asked for, once, without cookies. aiohttp would send PUT and DELETE again by itself when a
kept-alive connection breaks: a second post hides in that. What a failure means belongs to the adapters; they tell by its class
whether anything can have been sent: ConnectError and ConnectTimeout mean that nothing was, all others that it may have been.
"""

from __future__ import annotations

import functools
import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import httpx
from aiohttp.client_middlewares import ClientHandlerType
from yarl import URL

KEEP_ALIVE_SECONDS = 5.0
_BLOCK_BYTES = 1 << 16
# The connection was never made, so nothing was sent on it. aiohttp's own classes of these names are wider.
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ServerFingerprintMismatch)
_NO_URL = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)


def wire() -> httpx.AsyncBaseTransport:
    """An open transport for one event loop; it connects with the first request. Pools bound the calls, so it does not."""
    return _Wire()


@functools.cache
def tls() -> ssl.SSLContext:
    """httpx' context (certifi's authorities), made once: each costs 20 ms, and slim containers have no authorities of their own."""
    return httpx.create_ssl_context()


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=tls())
    # Cookies of one account must not travel with another's calls.
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), middlewares=(_once,), auto_decompress=False
    )


async def _once(request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
    """Let the loss of a connection that had been made be an error that aiohttp does not answer with a second request."""
    try:
        return await send(request)
    except (*_NOT_CONNECTED, aiohttp.ConnectionTimeoutError, aiohttp.SocketTimeoutError, aiohttp.ClientPayloadError):
        raise
    except (OSError, aiohttp.ClientConnectionError) as error:
        raise aiohttp.ClientPayloadError(f"the connection was lost: {type(error).__name__}: {error}") from error


class _Wire(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """See the base class. `timeout` of the extensions: `connect` and `read` seconds."""
        if self._session is None:
            self._session = _session()
        url = str(request.url).partition("#")[0]
        try:
            answer = await self._session.request(
                request.method,
                # As it is: yarl would write `%2F` in a query as `/`, which breaks the signatures of upload addresses.
                URL(url, encoded=True),
                headers=_headers(request),
                data=_body(request),
                allow_redirects=False,
                timeout=_timeout(request),
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _named(error, request) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=WireBody(answer, request), request=request)

    async def aclose(self) -> None:
        """Close all connections; answers that are still being read break off."""
        if self._session is not None:
            await self._session.close()


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    pairs = request.headers.multi_items()
    # A streamed body of unknown length: aiohttp says so itself.
    return [(name, value) for name, value in pairs if name != "transfer-encoding"]


def _body(request: httpx.Request) -> Any:
    try:
        return request.content or None
    except httpx.RequestNotRead:
        return request.stream


def _timeout(request: httpx.Request) -> aiohttp.ClientTimeout:
    asked = request.extensions.get("timeout", {})
    return _client_timeout(asked.get("connect"), asked.get("read"))


@functools.lru_cache(maxsize=64)
def _client_timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(sock_connect=connect, sock_read=read)


def _named(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """The httpx error for one of aiohttp's."""
    words = f"{type(error).__name__}: {error}"
    if isinstance(error, _NO_URL):
        return httpx.UnsupportedProtocol(words, request=request)
    if isinstance(error, aiohttp.ConnectionTimeoutError):
        return httpx.ConnectTimeout(words, request=request)
    if isinstance(error, _NOT_CONNECTED):
        return httpx.ConnectError(words, request=request)
    if isinstance(error, TimeoutError):
        return httpx.ReadTimeout(words, request=request)
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ClientConnectionError):
        return httpx.ReadError(words, request=request)
    # A header too long, a garbled status line: an answer that nobody can read.
    return httpx.RemoteProtocolError(words, request=request)


class WireBody(httpx.AsyncByteStream):
    """An answer's body. Whatever breaks while it is read, the request had been sent."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for block in self._answer.content.iter_chunked(_BLOCK_BYTES):
                yield block
        except (aiohttp.ClientError, TimeoutError, OSError, RuntimeError) as error:
            raise self._broken(error) from error

    async def aclose(self) -> None:
        """Give the connection back, or close it when there is more to come."""
        self._answer.release()

    def _broken(self, error: Exception) -> httpx.TransportError:
        words = f"{type(error).__name__}: {error}"  # RuntimeError is aiohttp's for a session that was closed meanwhile
        kind = httpx.ReadTimeout if isinstance(error, TimeoutError) else httpx.ReadError
        return kind(words, request=self._request)
