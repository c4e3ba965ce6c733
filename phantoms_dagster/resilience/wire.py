"""The innermost transport: httpx' interface over aiohttp. Its errors say whether the request can have been sent.

A request goes out once, to exactly the given URL, without cookies. aiohttp on its own would resend PUT and DELETE when a kept-alive
connection breaks, which could post twice. Adapters tell from the error's class what happened: with ConnectError and ConnectTimeout
nothing was sent, with any other error the request may have been sent.
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
# No connection was made, so nothing was sent. aiohttp's base classes of these cover more cases.
_NOT_CONNECTED = (aiohttp.ClientConnectorError, aiohttp.ServerFingerprintMismatch)
_NO_URL = (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError)


def wire() -> httpx.AsyncBaseTransport:
    """A transport for one event loop. It connects with the first request and sets no connection limit: pools limit the calls."""
    return _Wire()


@functools.cache
def tls() -> ssl.SSLContext:
    """httpx' TLS context, with certifi's authorities since slim containers have none. Made once, because it takes 20 ms."""
    return httpx.create_ssl_context()


def _session() -> aiohttp.ClientSession:
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_SECONDS, ssl=tls())
    # Cookies of one account must never be sent with another account's calls.
    return aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), middlewares=(_no_resend,), auto_decompress=False
    )


async def _no_resend(request: aiohttp.ClientRequest, send: ClientHandlerType) -> aiohttp.ClientResponse:
    """Turn the loss of an established connection into an error after which aiohttp does not send the request again."""
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
                # Unchanged: yarl would rewrite `%2F` in a query to `/`, which breaks the signatures of upload addresses.
                URL(url, encoded=True),
                headers=_headers(request),
                data=_body(request),
                allow_redirects=False,
                timeout=_timeout(request),
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _to_httpx_error(error, request) from error
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=WireBody(answer, request), request=request)

    async def aclose(self) -> None:
        """Close all connections. Answers that are still being read break off."""
        if self._session is not None:
            await self._session.close()


def _headers(request: httpx.Request) -> list[tuple[str, str]]:
    pairs = request.headers.multi_items()
    # aiohttp sets this header itself for a streamed body of unknown length.
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


def _to_httpx_error(error: Exception, request: httpx.Request) -> httpx.TransportError:
    """The httpx error that corresponds to an aiohttp error."""
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
    # A header that is too long or a garbled status line: the answer is unreadable.
    return httpx.RemoteProtocolError(words, request=request)


class WireBody(httpx.AsyncByteStream):
    """A response body. Any error while reading it comes after the request was sent."""

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
        """Give the connection back, or close it when the body was not read to its end."""
        self._answer.release()

    def _broken(self, error: Exception) -> httpx.TransportError:
        words = f"{type(error).__name__}: {error}"  # RuntimeError is aiohttp's for a session that was closed meanwhile
        kind = httpx.ReadTimeout if isinstance(error, TimeoutError) else httpx.ReadError
        return kind(words, request=self._request)
