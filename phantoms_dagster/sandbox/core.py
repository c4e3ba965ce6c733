"""The common parts of all stand-ins: the ledger of accepted commits, faults per route, the sandbox's clock, the HTTP application.

With a `StateStore` the ledger, the settings, the clock and the stand-ins' states outlive the process; faults and counts of calls do
not. Each provider's module has `routes(sandbox)`: aiohttp routes with a `name` such as `openai.chat`, by which (or by a glob)
faults are set.
"""

from __future__ import annotations

import asyncio
import fnmatch
import itertools
import json
import random
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from email.utils import formatdate
from typing import Any, ClassVar, TypeVar

from aiohttp import web

from phantoms_dagster.sandbox.state_store import StateStore
from phantoms_dagster.sandbox.webhooks import ORDERS, SandboxWebhooks

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
T = TypeVar("T")
MAX_UPLOAD_BYTES = 1 << 30
ARRIVALS_KEPT = 100_000  # per route
PACES = ("quick", "realistic")
TOKEN_PREFIX = "sandbox-"  # noqa: S105 - what every token of the sandbox starts with


@dataclass
class Fault:
    """A fault on the routes that match `route` (a glob over route names).

    `kind`: `status` (answer `status` with `body`, instead of the real answer), `latency` (wait `seconds`, then the real
    answer), `drop_before` (the connection breaks, nothing is accepted), `drop_after` (accepted, then the connection breaks),
    `timeout` (nothing is accepted, and there is no answer for `seconds`), `malformed` (accepted, then an answer that is not JSON),
    `slow_body` (accepted, then the answer arrives slowly over `seconds`).
    `probability`: 0..1. `times`: how many more requests it hits (None: no limit). `match`: a text that the request's URL or body
    must contain.
    """

    KINDS: ClassVar = ("status", "latency", "drop_before", "drop_after", "timeout", "malformed", "slow_body")

    route: str
    kind: str = "status"
    status: int = 500
    body: str | None = None
    retry_after: float | None = None
    seconds: float = 0.0
    probability: float = 1.0
    times: int | None = None
    match: str | None = None
    hits: int = 0
    id: int = field(default_factory=itertools.count(1).__next__)

    def __post_init__(self) -> None:
        if self.kind not in self.KINDS:
            raise ValueError(f"unknown fault kind {self.kind!r}; use one of {', '.join(self.KINDS)}")


class Sandbox:
    """The state of all stand-ins. `seed` determines every random choice; `state` has one object per provider.

    `store`: where the state outlives the process (None: it does not). A stored state keeps its original seed, because ids and
    metrics of posts depend on it.
    """

    def __init__(self, *, seed: int = 1, base_url: str = "", store: StateStore | None = None) -> None:
        self.store = store
        kept = dict(store.rows("sandbox")) if store else {}
        self.seed = int(kept.get("seed", seed))
        self.random = random.Random(self.seed)
        self.base_url = base_url
        self.ledger: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self.calls: dict[str, int] = {}
        self.arrivals: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=ARRIVALS_KEPT))
        self.in_flight: dict[str, int] = {}
        self.max_in_flight: dict[str, int] = {}
        self.config: dict[str, Any] = kept.get("config", {})
        self.webhooks = SandboxWebhooks(self)
        self.state: dict[str, Any] = {}
        self.numbers: dict[str, int] = dict(store.rows("number")) if store else {}
        self._skew = float(kept.get("skew", 0.0))
        self.ledger += [entry for _, entry in self.kept_rows("ledger")]
        self.keep("sandbox", "seed", self.seed)

    def now(self) -> float:
        """Seconds since the epoch on the sandbox's clock, which `POST /_sandbox/advance` moves forward."""
        return time.time() + self._skew

    def advance(self, seconds: float) -> None:
        """Move the clock forward, for the lives of tokens and sessions, for quotas and for growing metrics."""
        self._skew += seconds
        self.keep("sandbox", "skew", self._skew)

    def configure(self, values: dict[str, Any]) -> None:
        """Change settings of the stand-ins."""
        self.config.update(values)
        self.keep("sandbox", "config", self.config)

    def number(self, name: str, *, lazily: bool = False) -> int:
        """The next number of the counter `name`, from 1. It never repeats, even after a restart. `lazily`: see `StateStore`."""
        found = self.numbers[name] = self.numbers.get(name, 0) + 1
        self.keep("number", name, found, lazily=lazily)
        return found

    # --- what outlives the process

    def keep(self, kind: str, key: str, value: Any, *, lazily: bool = False) -> None:
        """Save the value before the present request is answered. See `StateStore.keep`."""
        if self.store is not None:
            self.store.keep(kind, key, value, lazily=lazily)

    def forget(self, kind: str, key: str) -> None:
        """Delete the saved value."""
        if self.store is not None:
            self.store.forget(kind, key)

    def kept(self, kind: str, cls: type[T]) -> Iterator[T]:
        """The saved values of that kind, oldest first, as objects of the dataclass `cls`."""
        if self.store is not None:
            yield from (thing for _, thing in self.store.restored(kind, cls))

    def kept_rows(self, kind: str) -> Iterator[tuple[str, Any]]:
        """The saved values of that kind, oldest first, as keys and plain values."""
        if self.store is not None:
            yield from self.store.rows(kind)

    def save(self) -> None:
        """Write the changes. Requests do that automatically; background tasks must call it."""
        if self.store is not None:
            self.store.save()

    def setting(self, name: str, default: Any) -> Any:
        """A value set by `POST /_sandbox/config`, else the default."""
        return self.config.get(name, default)

    def record(self, kind: str, **facts: Any) -> None:
        """Add an entry to the ledger for something that took effect: a post, a billed render, a billed script."""
        entry = {"kind": kind, "at": self.now(), **facts}
        self.ledger.append(entry)
        if self.store is not None:
            self.keep("ledger", str(self.number("ledger")), entry)

    def fault_for(self, route: str, text: str) -> Fault | None:
        """The first fault that applies to this request; None if there is none. Counts the hit."""
        for fault in self.faults:
            if not fnmatch.fnmatchcase(route, fault.route) or (fault.times is not None and fault.hits >= fault.times):
                continue
            if fault.match is not None and fault.match not in text:
                continue
            if self.random.random() >= fault.probability:
                continue
            fault.hits += 1
            return fault
        return None


SANDBOX_KEY: web.AppKey[Sandbox] = web.AppKey("sandbox", Sandbox)


@web.middleware
async def _saving(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Middleware that saves a request's changes before the answer. It is the innermost one, so no fault can come between."""
    try:
        return await handler(request)
    finally:
        request.app[SANDBOX_KEY].save()


def _drop(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


@web.middleware
async def _faulty(request: web.Request, handler: Handler) -> web.StreamResponse:
    sandbox = request.app[SANDBOX_KEY]
    name = request.match_info.route.name or ""
    if not name or name.startswith("sandbox."):
        return await handler(request)
    sandbox.calls[name] = sandbox.calls.get(name, 0) + 1
    sandbox.arrivals[name].append(time.time())
    sandbox.in_flight[name] = sandbox.in_flight.get(name, 0) + 1
    sandbox.max_in_flight[name] = max(sandbox.max_in_flight.get(name, 0), sandbox.in_flight[name])
    try:
        return await _with_fault(sandbox, name, request, handler)
    finally:
        sandbox.in_flight[name] -= 1


async def _with_fault(sandbox: Sandbox, name: str, request: web.Request, handler: Handler) -> web.StreamResponse:
    if not sandbox.faults:
        return await handler(request)
    text = ""  # built only if a fault needs it: building the URL takes as long as finding the route
    if any(f.match for f in sandbox.faults):
        text = f"{request.url} {(await request.read()).decode('utf-8', 'replace')}"
    fault = sandbox.fault_for(name, text)
    if fault is None:
        return await handler(request)
    if fault.kind == "latency":
        await asyncio.sleep(fault.seconds)
        return await handler(request)
    if fault.kind == "status":
        headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
        body = fault.body if fault.body is not None else json.dumps({"error": {"message": f"injected {fault.status}"}})
        return web.Response(status=fault.status, text=body, content_type="application/json", headers=headers)
    if fault.kind == "timeout":
        await asyncio.sleep(fault.seconds)
    if fault.kind in ("drop_before", "timeout"):
        _drop(request)
        return web.Response(status=500)
    response = await handler(request)
    if fault.kind == "malformed":
        return web.Response(status=response.status, text='{"truncated": ', content_type="application/json")
    if fault.kind == "slow_body":
        return await _trickle(request, response, fault.seconds)
    _drop(request)
    return response


async def _trickle(request: web.Request, response: web.StreamResponse, seconds: float) -> web.StreamResponse:
    body = response.body if isinstance(response, web.Response) and isinstance(response.body, bytes) else b""
    slow = web.StreamResponse(status=response.status, headers={"Content-Type": response.content_type})
    await slow.prepare(request)
    for i in range(0, len(body), max(1, len(body) // 10)):
        await slow.write(body[i : i + max(1, len(body) // 10)])
        await asyncio.sleep(seconds / 10)
    return slow


def account_behind(token: str) -> str | None:
    """The account of a token `sandbox-<account>` or `sandbox-<account>~<number>`. None for any other token."""
    account = token.removeprefix(TOKEN_PREFIX).partition("~")[0]
    return account if account and token.startswith(TOKEN_PREFIX) else None


async def body_blocks(request: web.Request, size: int) -> AsyncIterator[bytes]:
    """The body as it arrives, in blocks of at most `size` bytes. One block if a fault with `match` has already read it."""
    if request.content.at_eof():
        yield await request.read()
    async for block in request.content.iter_chunked(size):
        yield block


def page(title: str, body: str, *, status: int = 200) -> web.Response:
    """A page with the title as its heading. Both arguments are HTML, so the caller must escape plain text."""
    text = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>{body}</html>'
    return web.Response(text=text, status=status, content_type="text/html")


def _control(sandbox: Sandbox) -> list[web.RouteDef]:
    async def ledger(request: web.Request) -> web.Response:
        kind = request.query.get("kind")
        entries = [e for e in sandbox.ledger if kind is None or e["kind"] == kind]
        answer: dict[str, Any] = {"entries": entries, "calls": sandbox.calls, "max_in_flight": sandbox.max_in_flight}
        if (wanted := request.query.get("arrivals")) is not None:
            # When each call of those routes arrived, on the system's clock, whatever its outcome.
            answer["arrivals"] = {n: list(t) for n, t in sandbox.arrivals.items() if fnmatch.fnmatchcase(n, wanted)}
        return web.json_response(answer)

    async def list_faults(_: web.Request) -> web.Response:
        return web.json_response({"faults": [asdict(f) for f in sandbox.faults]})

    async def add_fault(request: web.Request) -> web.Response:
        try:
            fault = Fault(**await request.json())
        except (TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        sandbox.faults.append(fault)
        return web.json_response(asdict(fault), status=201)

    async def clear_faults(request: web.Request) -> web.Response:
        route = request.query.get("route")
        sandbox.faults[:] = [f for f in sandbox.faults if route is not None and f.route != route]
        return web.json_response({"faults": [asdict(f) for f in sandbox.faults]})

    async def configure(request: web.Request) -> web.Response:
        values = await request.json()
        if values.get("processing", "quick") not in PACES:
            return web.json_response({"error": f"`processing` is one of {', '.join(PACES)}"}, status=400)
        sandbox.configure(values)
        return web.json_response(sandbox.config)

    async def advance(request: web.Request) -> web.Response:
        sandbox.advance(float((await request.json())["seconds"]))
        return web.json_response({"now": sandbox.now()})

    async def release_webhooks(request: web.Request) -> web.Response:
        wanted = await request.json()
        if wanted.get("order", "sent") not in ORDERS:
            return web.json_response({"error": f"`order` is one of {', '.join(ORDERS)}"}, status=400)
        return web.json_response({"deliveries": await sandbox.webhooks.release(**wanted)})

    async def health(_: web.Request) -> web.Response:
        return web.json_response({"status": "ok", "sandbox": True, "seed": sandbox.seed})

    return [
        web.get("/_sandbox/health", health, name="sandbox.health"),
        web.get("/_sandbox/ledger", ledger, name="sandbox.ledger"),
        web.get("/_sandbox/faults", list_faults, name="sandbox.faults"),
        web.post("/_sandbox/faults", add_fault),
        web.delete("/_sandbox/faults", clear_faults),
        web.post("/_sandbox/config", configure, name="sandbox.config"),
        web.post("/_sandbox/advance", advance, name="sandbox.advance"),
        web.post("/_sandbox/webhooks", release_webhooks, name="sandbox.webhooks"),
    ]


def application(sandbox: Sandbox, providers: Iterable[list[web.RouteDef]]) -> web.Application:
    """The HTTP application: the control routes under `/_sandbox` and the routes of the given providers."""
    lasting = [_saving] if sandbox.store is not None else []
    app = web.Application(middlewares=[_faulty, *lasting], client_max_size=MAX_UPLOAD_BYTES)
    app[SANDBOX_KEY] = sandbox

    async def close_webhooks(_: web.Application) -> None:
        await sandbox.webhooks.close()

    async def date(_: web.Request, response: web.StreamResponse) -> None:
        response.headers["Date"] = formatdate(sandbox.now(), usegmt=True)

    app.on_cleanup.append(close_webhooks)
    app.on_response_prepare.append(date)
    app.add_routes([*_control(sandbox), *itertools.chain.from_iterable(providers)])
    return app
