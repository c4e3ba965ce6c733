"""The one HTTP transport that every adapter's client goes through: breaker, admission, time-outs, outcome, metrics.

An adapter cannot forget any of it and knows none of it. What a status means to a stage belongs to the adapter; here it only
matters whether the integration did its work. Retries belong to the runner: a request is sent at most once.
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

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.retry_after import retry_after
from phantoms_dagster.domain.trying import longest_wait
from phantoms_dagster.resilience.bodies import BoundedBody
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope, Limits, Permit, UnguardedLimits, current_account
from phantoms_dagster.resilience.wire import wire

__all__ = ["CallObserver", "CallRecord", "CallScope", "Deadlines", "GuardedTransport", "UnguardedLimits", "build_client"]

# Between the deadline of a call and the time when its slot is taken to be forgotten.
_SLACK_SECONDS = 30.0
Scoping = CallScope | Callable[[httpx.Request], CallScope]
_SCOPE_FIELDS = frozenset(field.name for field in fields(CallScope))


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds. `total` runs from sending the request to the last byte of the answer; waiting for admission is `max_wait`.

    A request may ask for less or more: `timeout=` for connect and read, `extensions={"phantoms": {"total": 600}}`.
    """

    connect: float = 5.0
    read: float = 60.0
    total: float = 120.0
    max_wait: float = 30.0


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call, for metrics. `outcome`: `answered`, `failed`, `none` (cut short by us) or `deferred` (never sent).

    `status` is the HTTP status if there was one, `why` the error's type or the limit in the way, `waited` the seconds until
    admission, `seconds` those from sending to the end of the answer.
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
    """Is told of each call, once, when it is over. Must not block or raise."""

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
        """Let its time run from now."""
        self.began = asyncio.get_running_loop().time()
        self.deadline = self.began + self.total


class GuardedTransport(httpx.AsyncBaseTransport):
    """Guards `inner`. `scope` is what a call falls under unless its `extensions["phantoms"]` says otherwise.

    That extension is a CallScope, or a mapping with some of its fields (`{"account": "main"}`) and perhaps `total` seconds; so
    an adapter can name its account without knowing this module. `most_bytes` in it is how large a successful answer may be, packed
    and unpacked (8 MB unless it says so). A `before` in it is awaited once the call may be sent and right before it is; what it
    raises stops the call. Raises NotYet when a call must wait longer than `max_wait` or a breaker is open, httpx.ReadTimeout past
    the total deadline, AnswerTooLarge, and otherwise what `inner` raises.
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
        """Send it, once, when it is allowed to be sent. The slot is held until the answer is closed."""
        scope, total = self._scope_of(request)
        asked = time.monotonic()
        try:
            permit = await self._limits.admit(scope, max_wait=self._max_wait(), hold_seconds=total + _SLACK_SECONDS)
        except NotYet as error:
            why = getattr(error, "kind", type(error).__name__)
            self._observe(CallRecord(scope, request.method, request.url.host, "deferred", None, why, time.monotonic() - asked, 0.0))
            raise
        call = _OngoingCall(request, scope, total, permit)
        self._bound(request)
        try:
            await _before(request)
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
        # Its body is watched, because the slot is taken until it is closed.
        watched = _Watched(BoundedBody(response, response.stream, request), call, self)
        if response.is_closed:  # one that was read before it came here would never be closed again
            return httpx.Response(response.status_code, headers=response.headers, stream=watched, request=request)
        response.stream = watched
        return response

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    # --- inside

    def _scope_of(self, request: httpx.Request) -> tuple[CallScope, float]:
        """What the request falls under, and its total deadline."""
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
        left = longest_wait()
        return self._deadlines.max_wait if left is None else min(self._deadlines.max_wait, left)

    def _bound(self, request: httpx.Request) -> None:
        """No call without time-outs, whatever client it came from (openai's are ten minutes)."""
        asked = request.extensions.get("timeout") or {}
        connect, read = asked.get("connect"), asked.get("read")
        bounded = {
            **asked,
            "connect": self._deadlines.connect if connect is None else min(connect, self._deadlines.connect),
            "read": self._deadlines.read if read is None else read,
        }
        request.extensions = {**request.extensions, "timeout": bounded}

    async def _too_late(self, call: _OngoingCall) -> httpx.ReadTimeout:
        """Settle a call that met its deadline; the error that adapters know how to classify."""
        error = httpx.ReadTimeout(f"no complete answer within {call.total:g} s", request=call.request)
        await self._failed(call, error)
        return error

    async def _failed(self, call: _OngoingCall, error: BaseException) -> None:
        """Settle a call that ended with `error`."""
        why = type(error).__name__
        if not isinstance(error, Exception):
            self._cut_short(call, why)
            return
        # Our own mistakes (a bad URL, a closed client) say nothing about the integration.
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


async def _before(request: httpx.Request) -> None:
    """What the adapter has to do when nothing stands between the request and its sending any more."""
    said: Any = request.extensions.get("phantoms")
    if isinstance(said, Mapping) and "before" in said:
        await said["before"]()


class _Watched(httpx.AsyncByteStream):
    """An answer's body: read within the deadline, and the end of its call when it is closed."""

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
        """All of it, and the end of its call: what reading to the end and closing come to, without a generator for each layer."""
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
    """An httpx client for one adapter and one event loop; close it. `client`: further arguments of httpx.AsyncClient.

    `inner` is only given by tests. Redirects are not followed and the environment's proxies and .netrc are not used.
    """
    deadlines = deadlines or Deadlines()
    guarded = GuardedTransport(inner or wire(), limits, scope=scope, deadlines=deadlines, observer=observer)
    timeout = httpx.Timeout(deadlines.read, connect=deadlines.connect, pool=None)
    made = _Client(**{"timeout": timeout, "trust_env": False, **client, "transport": guarded})
    made.headers["Accept-Encoding"] = "gzip, deflate"  # what `bodies` unpacks
    return made


class _Client(httpx.AsyncClient):
    """httpx' client without what no call of ours has: redirects, authentication flows, hooks, and cookies, since those of one
    account must not travel with another's calls.
    """

    # Adapters are also given plain clients, by tests: this one awaits `extensions["phantoms"]["before"]`.
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
            return _plain(method, where, with_defaults, body=body, extensions=all_extensions)
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
        """See the base class. The answer is read here unless it is to be streamed."""
        del auth, follow_redirects
        if self.is_closed:
            raise RuntimeError("Cannot send a request, as the client has been closed.")
        response = await self._transport.handle_async_request(request)
        response.request = request
        if stream:
            return response
        if isinstance(response.stream, _Watched):
            response.stream = httpx.ByteStream(await response.stream.whole())
            response.read()
        else:
            await response.aread()
        return response

    def _with_defaults(self, given: Any) -> list[tuple[bytes, bytes]]:
        headers = httpx.Headers(given).raw
        names = {name.lower() for name, _ in headers}
        return [*(pair for pair in self.headers.raw if pair[0].lower() not in names), *headers]


# Most calls of an integration go to the same few addresses, and to read one is a tenth of what a call costs.
@functools.lru_cache(maxsize=1024)
def _address(url: httpx.URL | str) -> httpx.URL:
    return httpx.URL(url)


def _plain(method: str, url: httpx.URL, headers: list[tuple[bytes, bytes]], *, body: bytes, extensions: Any) -> httpx.Request:
    """What httpx.Request makes of bytes, with the headers read once instead of four times."""
    names = {name.lower() for name, _ in headers}
    if b"host" not in names:
        headers = [(b"Host", url.netloc), *headers]
    if (body or method in ("POST", "PUT", "PATCH")) and not names & {b"content-length", b"transfer-encoding"}:
        headers = [*headers, (b"Content-Length", b"%d" % len(body))]
    request = httpx.Request(method, url, headers=headers, stream=httpx.ByteStream(body), extensions=extensions)
    request.read()
    return request


def _retry_after(headers: httpx.Headers) -> float | None:
    """Seconds, from any of the forms in use; None when absent or unreadable."""
    milliseconds = headers.get("retry-after-ms", "")
    if re.fullmatch(r"\d+(\.\d+)?", milliseconds):
        return float(milliseconds) / 1_000
    return retry_after(headers)
