"""What the tests of all platforms share: a ledger, a clock and a transport that can end the process anywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.paid_job import NotBilled, PaidRecord, PaidState, WrittenOff, check_paid_step
from phantoms_dagster.domain.publication import NotPublished, PostRecord, check_step
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.sandbox.core import Sandbox

Kill = Callable[[str, int], None]
MOMENTS = ("before save", "after save", "before send", "after answer")
Row = TypeVar("Row", PostRecord, PaidRecord)


class Killed(BaseException):
    """The process died here. No handler of the product may see it."""


def never(moment: str, number: int) -> None:
    """Nothing dies."""


def at(moment: str, number: int) -> Kill:
    """The process dies there. `number` counts saves, or requests, from 1."""

    def kill(now: str, count: int) -> None:
        if (now, count) == (moment, number):
            raise Killed(moment)

    return kill


class _FakeLedger(Generic[Row]):
    """A ledger's row in memory. It outlives its process, which may be killed before and after each save."""

    record: Row

    def __init__(self, *, kill: Kill, clock: Any) -> None:
        self.saves: list[Row] = []
        self.proofs: list[Any] = []
        self.kill = kill
        self.count = 0
        self._clock = clock

    def _save(self, state: Any, proof: Any, kept: dict[str, Any]) -> Row:
        self.count += 1
        self.kill("before save", self.count)
        self.record = replace(self.record, state=state, **kept)
        self.saves.append(self.record)
        self.proofs.append(proof)
        self.kill("after save", self.count)
        return self.record

    def _now(self) -> datetime:
        return datetime.now(UTC) if self._clock is None else self._clock.now()

    @property
    def states(self) -> list[Any]:
        return [record.state for record in self.saves]

    def left(self, state: Any, **changes: Any) -> None:
        """The row as another version or another runner may have left it, which is not checked."""
        self.record = replace(self.record, state=state, **changes)


class FakeJournal(_FakeLedger[PostRecord]):
    """A post's row. It refuses and keeps what the real one does."""

    def __init__(self, record: PostRecord | None = None, *, kill: Kill = never, clock: Any = None) -> None:
        super().__init__(kill=kill, clock=clock)
        self.record = record or PostRecord(PostState.INTENT)

    async def save(
        self,
        state: PostState,
        *,
        handle: JsonObject | None = None,
        offset: int | None = None,
        remote_id: str | None = None,
        url: str | None = None,
        proof: NotPublished | None = None,
    ) -> PostRecord:
        check_step(self.record.state, state, proof)
        given = {"handle": handle, "offset": offset, "remote_id": remote_id, "url": url}
        # Through JSON, as a database would: what cannot be stored must not be relied on.
        kept = json.loads(json.dumps({name: value for name, value in given.items() if value is not None}))
        # As in the ledger: from the first step that is more than an intent.
        attempted_at = None if state is PostState.INTENT else self.record.attempted_at or self._now()
        return self._save(state, proof, {**kept, "attempted_at": attempted_at})


class FakePaidJournal(_FakeLedger[PaidRecord]):
    """A paid job's row. It refuses and keeps what the real one does."""

    def __init__(self, record: PaidRecord | None = None, *, kill: Kill = never, clock: Any = None) -> None:
        super().__init__(kill=kill, clock=clock)
        self.record = record or PaidRecord()

    async def save(
        self,
        state: PaidState,
        *,
        attempt_id: str | None = None,
        remote_id: str | None = None,
        proof: NotBilled | WrittenOff | None = None,
    ) -> PaidRecord:
        check_paid_step(self.record.state, state, proof)
        sent = {PaidState.INTENT: None, PaidState.SENDING: self._now()}
        kept = {
            "attempt_id": attempt_id or self.record.attempt_id,
            "remote_id": None if state is PaidState.INTENT else remote_id or self.record.remote_id,
            "attempted_at": sent.get(state, self.record.attempted_at),
        }
        # As the database refuses them.
        assert state is not PaidState.SENDING or kept["attempt_id"]
        assert state is not PaidState.SUBMITTED or kept["remote_id"]
        return self._save(state, proof, kept)


class MortalTransport(httpx.AsyncBaseTransport):
    """Real requests. `kill` may end the process before one leaves, or after its answer came and before anyone saw it."""

    def __init__(self, inner: httpx.AsyncBaseTransport | None = None, *, kill: Kill = never) -> None:
        # Everything is on this machine and without TLS. Reading the certificates would take most of a test's time.
        self.inner = inner or httpx.AsyncHTTPTransport(verify=False)
        self.kill = kill
        self.count = 0
        self.requests: list[httpx.Request] = []
        self.refuse: dict[str, BaseException] = {}  # by a part of the URL: raised in place of the request, once
        self.served: Callable[[], Awaitable[None]] | None = None  # waits until the other side has dealt with a request

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        self.requests.append(request)
        for part in [part for part in self.refuse if part in str(request.url)]:
            raise self.refuse.pop(part)
        self.kill("before send", self.count)
        if self.served is not None:
            return await self._die_before_the_answer(request, self.served)
        response = await self.inner.handle_async_request(request)
        try:
            self.kill("after answer", self.count)
        except Killed:
            await response.aread()
            await response.aclose()
            raise
        return response

    async def _die_before_the_answer(self, request: httpx.Request, served: Callable[[], Awaitable[None]]) -> httpx.Response:
        """Send the whole request. The process dies when the other side has dealt with it, before an answer is read."""
        self.served = None
        sending = asyncio.create_task(self.inner.handle_async_request(request))
        await served()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        raise Killed("after send")

    async def aclose(self) -> None:
        await self.inner.aclose()


class SandboxClock:
    """The sandbox's time. Sleeping moves it on at once. `offset`: the seconds that our clock is ahead of the sandbox's."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.slept: list[float] = []
        self.offset = 0.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._sandbox.now() + self.offset, UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._sandbox.advance(seconds)
        await asyncio.sleep(0)


class SandboxTokens:
    """Every account is connected, as the sandbox takes it, but the `revoked` ones. `renews`: a refused token is replaced."""

    def __init__(self) -> None:
        self.prefix = "sandbox-"
        self.revoked: set[str] = set()
        self.renews = False
        self.generation = 1

    async def token(self, platform: Platform, account: str) -> str:
        if account in self.revoked:
            return f"revoked-{account}"
        return f"{self.prefix}{account}" + (f"~{self.generation}" if self.generation > 1 else "")

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        if not self.renews:
            return None
        if refused == await self.token(platform, account):
            self.generation += 1
        return await self.token(platform, account)
