"""The HTTP transport of every adapter's client: breakers, admission to pools, time-outs, outcome and metrics of each call.

An adapter cannot bypass it and need not know it. The adapter decides what a status means to a stage; the transport only judges
whether the integration worked. A request is sent at most once: the runner retries.
"""

from __future__ import annotations

import asyncio
import functools
import json as json_module
import re
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import httpx

from phantoms_dagster.domain.attempt_context import wait_seconds_left
from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.retry_after import retry_after
from phantoms_dagster.resilience.bodies import BoundedBody
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope, Limits, Permit, UnguardedLimits, current_account
from phantoms_dagster.resilience.wire import wire

__all__ = ["CallObserver", "CallRecord", "CallScope", "Deadlines", "GuardedTransport", "UnguardedLimits", "build_client"]

# Seconds after a call's deadline before its slot is considered abandoned.
_SLACK_SECONDS = 30.0
Scoping = CallScope | Callable[[httpx.Request], CallScope]
_SCOPE_FIELDS = frozenset(field.name for field in fields(CallScope))


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Time limits in seconds. `total`: from sending the request to the last byte of the answer. `max_wait`: waiting for admission.

    A request may set its own: `timeout=` for connect (only shorter) and read, `extensions={"phantoms": {"total": 600}}` for total.
    """

    connect: float = 5.0
    read: float = 60.0
    total: float = 120.0
    max_wait: float = 30.0


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call, for metrics. `outcome`: `answered`, `failed`, `none` (cut short by us) or `deferred` (never sent).

    `status`: the HTTP status, if any. `why`: the error's type, or the limit that was reached. `waited`: seconds until admission.
    `seconds`: from sending to the end of the answer.
    """

    scope: CallScope
    method: str
    host: str
    outcome: str
    status: int | None
    why: str
    waited: float
    seconds: float


class CallObserver(Protocol):
    """Called once for each call, when the call is over. Must not block or raise."""

    def __call__(self, call: CallRecord, /) -> None: ...


@dataclass(eq=False)
class _OngoingCall:
    """A call under way."""

    request: httpx.Request
    scope: CallScope
    total: float
    permit: Permit
    began: float = 0.0
    deadline: float = 0.0
    status: int | None = None
    over: bool = False

    def __post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Start the clock of the call now."""
        self.began = asyncio.get_running_loop().time()
        self.deadline = self.began + self.total


class GuardedTransport(httpx.AsyncBaseTransport):
    """Guards the transport `inner`. `scope` gives the scope of a call unless its `extensions["phantoms"]` does.

    That extension is a CallScope, or a mapping with some of its fields (`{"account": "main"}`); so an adapter can name its account
    without importing this module. The mapping may also hold:
    - `total`: the total deadline in seconds,
    - `most_bytes`: how large a 2xx answer may be, compressed and decompressed (default 8 MB),
    - `before`: awaited after admission, right before the request is sent; an exception from it stops the call.
    Raises NotYet when a breaker is open or a call must wait longer than `max_wait`, httpx.ReadTimeout past the total deadline,
    AnswerTooLarge, and whatever `inner` raises.
    """

    def __init__(
        self,
        inner: httpx.AsyncBaseTransport,
        limits: Limits,
        *,
        scope: Scoping,
        deadlines: Deadlines | None = None,
        observer: CallObserver | None = None,
    ) -> None:
        self._inner = inner
        self._limits = limits
        self._scope = scope
        self._deadlines = deadlines or Deadlines()
        self._observer = observer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Wait for admission, then send the request once. The slot is held until the answer is closed."""
        scope, total = self._scope_of(request)
        asked = time.monotonic()
        try:
            permit = await self._limits.admit(scope, max_wait=self._max_wait(), hold_seconds=total + _SLACK_SECONDS)
        except NotYet as error:
            why = getattr(error, "kind", type(error).__name__)
            self._observe(CallRecord(scope, request.method, request.url.host, "deferred", None, why, time.monotonic() - asked, 0.0))
            raise
        call = _OngoingCall(request, scope, total, permit)
        self._bound_timeouts(request)
        try:
            await _await_before(request)
            call.begin()
            async with asyncio.timeout_at(call.deadline):
                response = await self._inner.handle_async_request(request)
        except TimeoutError as error:
            raise await self._too_late(call) from error
        except BaseException as error:
            await self._failed(call, error)
            raise
        call.status = response.status_code
        if response.status_code == 429:
            await self._limits.throttled(scope, _retry_after(response.headers))
        assert isinstance(response.stream, httpx.AsyncByteStream)
        # Closing the body ends the call and gives back the slot.
        watched = _GuardedBody(BoundedBody(response, response.stream, request), call, self)
        if response.is_closed:  # a response that was already read would never be closed again
            return httpx.Response(response.status_code, headers=response.headers, stream=watched, request=request)
        response.stream = watched
        return response

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    # --- inside

    def _scope_of(self, request: httpx.Request) -> tuple[CallScope, float]:
        """The request's scope and its total deadline in seconds."""
        said: Any = request.extensions.get("phantoms")
        if isinstance(said, CallScope):
            return said, self._deadlines.total
        scope = self._scope(request) if callable(self._scope) else self._scope
        if scope.account is None:
            scope = replace(scope, account=current_account())
        if not isinstance(said, Mapping):
            return scope, self._deadlines.total
        changes = {name: value for name, value in said.items() if name in _SCOPE_FIELDS}
        return replace(scope, **changes), float(said.get("total", self._deadlines.total))

    def _max_wait(self) -> float:
        left = wait_seconds_left()
        return self._deadlines.max_wait if left is None else min(self._deadlines.max_wait, left)

    def _bound_timeouts(self, request: httpx.Request) -> None:
        """Give every request time-outs, whatever its client sets (the default of openai's client is ten minutes)."""
        asked = request.extensions.get("timeout") or {}
        connect, read = asked.get("connect"), asked.get("read")
        bounded = {
            **asked,
            "connect": self._deadlines.connect if connect is None else min(connect, self._deadlines.connect),
            "read": self._deadlines.read if read is None else read,
        }
        request.extensions = {**request.extensions, "timeout": bounded}

    async def _too_late(self, call: _OngoingCall) -> httpx.ReadTimeout:
        """Settle a call that exceeded its deadline. Returns the error to raise, which adapters can classify."""
        error = httpx.ReadTimeout(f"no complete answer within {call.total:g} s", request=call.request)
        await self._failed(call, error)
        return error

    async def _failed(self, call: _OngoingCall, error: BaseException) -> None:
        """Settle a call that ended with `error`."""
        why = type(error).__name__
        if not isinstance(error, Exception):
            self._cut_short(call, why)
            return
        # Our own errors (a bad URL, a closed client) say nothing about the integration.
        ours = isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError) or not isinstance(
            error, httpx.TransportError
        )
        await self._finish(call, CallOutcome.NONE if ours else CallOutcome.FAILED, why)

    async def _finish(self, call: _OngoingCall, outcome: CallOutcome, why: str = "") -> None:
        if not call.over:
            self._over(call, outcome, why)
            await self._limits.settle(call.permit, outcome)

    def _cut_short(self, call: _OngoingCall, why: str) -> None:
        if not call.over:
            self._over(call, CallOutcome.NONE, why)
            self._limits.abandon(call.permit, CallOutcome.NONE)

    def _over(self, call: _OngoingCall, outcome: CallOutcome, why: str) -> None:
        call.over = True
        seconds = asyncio.get_running_loop().time() - call.began
        request = call.request
        self._observe(
            CallRecord(call.scope, request.method, request.url.host, outcome, call.status, why, call.permit.waited, seconds)
        )

    def _observe(self, record: CallRecord) -> None:
        if self._observer is not None:
            self._observer(record)


async def _await_before(request: httpx.Request) -> None:
    """Await the adapter's `before` hook: the request is admitted and is sent next."""
    said: Any = request.extensions.get("phantoms")
    if isinstance(said, Mapping) and "before" in said:
        await said["before"]()


class _GuardedBody(httpx.AsyncByteStream):
    """A response body that is read within the call's deadline. Closing it ends the call."""

    def __init__(self, inner: BoundedBody, call: _OngoingCall, transport: GuardedTransport) -> None:
        self._inner = inner
        self._call = call
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._inner)
        while True:
            try:
                async with asyncio.timeout_at(self._call.deadline):
                    chunk = await anext(chunks)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                raise await self._transport._too_late(self._call) from error
            except BaseException as error:
                await self._transport._failed(self._call, error)
                raise
            yield chunk

    async def whole(self) -> bytes:
        """Read the whole body and end the call. Same as iterating and closing, without a generator per layer."""
        try:
            async with asyncio.timeout_at(self._call.deadline):
                return await self._inner.whole()
        except TimeoutError as error:
            raise await self._transport._too_late(self._call) from error
        except BaseException as error:
            await self._transport._failed(self._call, error)
            raise
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        try:
            await self._inner.aclose()
        finally:
            broke = self._call.status is not None and self._call.status >= 500
            await self._transport._finish(self._call, CallOutcome.FAILED if broke else CallOutcome.ANSWERED)


def build_client(
    *,
    limits: Limits,
    scope: Scoping,
    deadlines: Deadlines | None = None,
    observer: CallObserver | None = None,
    inner: httpx.AsyncBaseTransport | None = None,
    **client: Any,
) -> httpx.AsyncClient:
    """An httpx client for one adapter and one event loop. The caller closes it. `client`: more arguments for httpx.AsyncClient.

    Only tests pass `inner`. The client follows no redirects and ignores the environment's proxies and .netrc.
    """
    deadlines = deadlines or Deadlines()
    guarded = GuardedTransport(inner or wire(), limits, scope=scope, deadlines=deadlines, observer=observer)
    timeout = httpx.Timeout(deadlines.read, connect=deadlines.connect, pool=None)
    made = _Client(**{"timeout": timeout, "trust_env": False, **client, "transport": guarded})
    made.headers["Accept-Encoding"] = "gzip, deflate"  # what `bodies` can decompress
    return made


class _Client(httpx.AsyncClient):
    """httpx' client without features that no call of ours uses: redirects, authentication flows, event hooks and cookies.

    Cookies of one account must never be sent with another account's calls.
    """

    # Tests give adapters plain httpx clients. This attribute tells them that this client awaits `extensions["phantoms"]["before"]`.
    awaits_before = True

    def build_request(
        self,
        method: str,
        url: httpx.URL | str,
        *,
        content: Any = None,
        data: Any = None,
        files: Any = None,
        json: Any = None,
        params: Any = None,
        headers: Any = None,
        cookies: Any = None,
        timeout: Any = httpx.USE_CLIENT_DEFAULT,
        extensions: Any = None,
    ) -> httpx.Request:
        """See the base class. The URL must be absolute."""
        del cookies
        limits = self.timeout if isinstance(timeout, type(httpx.USE_CLIENT_DEFAULT)) else httpx.Timeout(timeout)
        all_extensions = {"timeout": limits.as_dict(), **(extensions or {})}
        with_defaults = self._with_defaults(headers)
        if data is None and files is None and (content is None or isinstance(content, bytes)):
            where = _address(url) if params is None else httpx.URL(url, params=params)
            body = content or b""
            if json is not None and content is None:
                body = json_module.dumps(json, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
                if not any(name.lower() == b"content-type" for name, _ in with_defaults):
                    with_defaults.append((b"Content-Type", b"application/json"))
            return _plain_request(method, where, with_defaults, body=body, extensions=all_extensions)
        return httpx.Request(
            method,
            url,
            params=params,
            headers=with_defaults,
            content=content,
            data=data,
            files=files,
            json=json,
            extensions=all_extensions,
        )

    async def send(
        self,
        request: httpx.Request,
        *,
        stream: bool = False,
        auth: Any = None,
        follow_redirects: Any = None,
    ) -> httpx.Response:
        """See the base class. Reads the whole answer unless `stream` is set."""
        del auth, follow_redirects
        if self.is_closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        response = await self._transport.handle_async_request(request)
        response.request = request
        if stream:
            return response
        if isinstance(response.stream, _GuardedBody):
            response.stream = httpx.ByteStream(await response.stream.whole())
            response.read()
        else:
            await response.aread()
        return response

    def _with_defaults(self, given: Any) -> list[tuple[bytes, bytes]]:
        headers = httpx.Headers(given).raw
        names = {name.lower() for name, _ in headers}
        return [*(pair for pair in self.headers.raw if pair[0].lower() not in names), *headers]


# An integration calls the same few addresses again and again, and parsing one is a tenth of a call's CPU time.
@functools.lru_cache(maxsize=1024)
def _address(url: httpx.URL | str) -> httpx.URL:
    return httpx.URL(url)


def _plain_request(
    method: str, url: httpx.URL, headers: list[tuple[bytes, bytes]], *, body: bytes, extensions: Any
) -> httpx.Request:
    """Build the request as httpx.Request would, for a body of bytes, but parse the headers once instead of four times."""
    names = {name.lower() for name, _ in headers}
    if b"host" not in names:
        headers = [(b"Host", url.netloc), *headers]
    if (body or method in ("POST", "PUT", "PATCH")) and not names & {b"content-length", b"transfer-encoding"}:
        headers = [*headers, (b"Content-Length", b"%d" % len(body))]
    request = httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(body), extensions=extensions)
    request.read()
    return request


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds to wait, from `retry-after-ms` or `Retry-After`; None when absent or unreadable."""
    milliseconds = headers.get("retry-after-ms", "")
    if re.fullmatch(r"\d+(\.\d+)?", milliseconds):
        return float(milliseconds) / 1_000
    return retry_after(headers)
