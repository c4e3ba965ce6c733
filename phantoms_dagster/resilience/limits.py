"""Admit one call through its breakers and pools, and report its outcome to both. This module knows nothing of HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from phantoms_dagster.domain.attempt_context import note_call_ended, note_paced_wait, note_sent
from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.resilience.admission.pools import Admission, Lease, Request, Wait
from phantoms_dagster.resilience.breakers.breaker import BreakerOpen, BreakerPermit, BreakerPolicy, Breakers, CallOutcome
from phantoms_dagster.resilience.pools import SANDBOX, PoolLimits, Pools
from phantoms_dagster.resilience.redis.scripts import Scripts, redis_client


@dataclass(frozen=True, slots=True)
class CallScope:
    """The integration, account and pool whose limits apply to a call.

    `commits`: this is the one request of a protocol that makes something public or billable. `cost` counts against daily quotas
    (YouTube: a list 1, an update 50). `sandbox`: the sandbox answers, so the call has its own breakers and pools and uses up
    nothing of the real service's limits.
    """

    integration: str
    account: str | None = None
    pool: str = ""
    commits: bool = False
    cost: int = 1
    sandbox: bool = False

    @property
    def breakers(self) -> tuple[str, ...]:
        """The breakers of the call: the account's own first, then the integration's."""
        return Breakers.of(f"{SANDBOX if self.sandbox else ''}{self.integration}", self.account)


_account: ContextVar[str | None] = ContextVar("phantoms_account", default=None)


@contextmanager
def calling_for(account: str) -> Iterator[None]:
    """Calls inside the `with` block count for this account unless they name another. Tasks started inside inherit it."""
    token = _account.set(account)
    try:
        yield
    finally:
        _account.reset(token)


def current_account() -> str | None:
    """The account of the innermost `calling_for`; None outside of one."""
    return _account.get()


class PoolFull(NotYet):
    """A pool stays full for longer than the caller is willing to wait. `pool` and `kind` say which limit was reached."""

    def __init__(self, wait: Wait, clock: Clock) -> None:
        # How long another call keeps its slot is a guess, so a caller should not return within milliseconds.
        seconds = max(wait.seconds, 1.0) if wait.kind == "slots" else wait.seconds
        super().__init__(str(wait), retry_after=seconds, until=clock.now() + timedelta(seconds=seconds))
        self.pool = self.waits_for = wait.pool
        self.kind = wait.kind


@dataclass(eq=False)
class Permit:
    """Permission for one call: its lease in the pools and its permits of the breakers. `waited`: seconds until it was granted."""

    lease: Lease | None = None
    breaker_permits: Sequence[BreakerPermit] = field(default_factory=tuple)
    waited: float = 0.0


class Limits(Protocol):
    """The limits that the guarded transport applies to each call."""

    async def admit(self, scope: CallScope, *, max_wait: float, hold_seconds: float) -> Permit:
        """Wait up to `max_wait` seconds for permission to call. Raises NotYet when it would take longer."""
        ...

    async def settle(self, permit: Permit, outcome: CallOutcome) -> None:
        """Give the permission back and report the call's outcome. Never raises."""
        ...

    def abandon(self, permit: Permit, outcome: CallOutcome) -> None:
        """`settle` without waiting, for places that cannot await, such as a cancellation."""
        ...

    async def throttled(self, scope: CallScope, retry_after: float | None) -> None:
        """Report that the provider answered 429. Never raises."""
        ...


class RedisLimits:
    """The real limits, shared by all processes through Redis."""

    def __init__(self, admission: Admission, breakers: Breakers, pools: Pools, clock: Clock) -> None:
        self.admission = admission
        self.breakers = breakers
        self._pools = pools
        self._clock = clock
        self._settling: set[asyncio.Task[None]] = set()

    async def admit(self, scope: CallScope, *, max_wait: float, hold_seconds: float) -> Permit:
        """Ask the breakers, then the pools. A breaker that opens while the call waits for its pools stops it before it is sent."""
        names, pools = scope.breakers, self._pools_of(scope)
        request = Request(tuple(pools), cost=scope.cost, breakers=names)
        permit = Permit()
        try:
            permit.breaker_permits = await self._admit_breakers(names, max_wait + hold_seconds)
            request.probes = _probes(permit.breaker_permits)
            while True:
                answer = await self.admission.acquire(request, max_wait=max_wait - permit.waited, hold_seconds=hold_seconds)
                if not isinstance(answer, Wait):
                    permit.lease = answer.lease
                    note_sent()
                    return permit
                if answer.kind == "breaker":
                    await self.settle(permit, CallOutcome.UNSENT)
                    self.breakers.invalidate(answer.pool)
                    permit.breaker_permits = await self._admit_breakers(names, max_wait + hold_seconds)
                    request.probes = _probes(permit.breaker_permits)
                    continue
                if permit.waited + answer.seconds > max_wait:
                    raise PoolFull(answer, self._clock)
                await self._clock.sleep(answer.seconds)
                permit.waited += answer.seconds
                note_paced_wait(answer.pool, answer.seconds)
        except BaseException:
            # Nothing was sent: give back the probe and the place in the queue.
            self.admission.forget(request)
            self.abandon(permit, CallOutcome.UNSENT)
            raise

    async def settle(self, permit: Permit, outcome: CallOutcome) -> None:
        """Give the slots back and report to the breakers. This completes even if the caller is cancelled.

        Afterwards the breakers know whether a failed call was part of an outage; that is noted for the attempt that made the call.
        """
        permits = permit.breaker_permits
        if (task := self._settle_soon(permit, outcome)) is not None:
            await asyncio.shield(task)
        if outcome is not CallOutcome.UNSENT:
            note_call_ended(outage=outcome is CallOutcome.FAILED and any(self.breakers.in_outage(each) for each in permits))

    def abandon(self, permit: Permit, outcome: CallOutcome) -> None:
        """`settle` in the background."""
        self._settle_soon(permit, outcome)

    def _settle_soon(self, permit: Permit, outcome: CallOutcome) -> asyncio.Task[None] | None:
        """Do at once what needs no I/O. Returns the task for the rest, or None."""
        lease, permits, permit.lease, permit.breaker_permits = permit.lease, permit.breaker_permits, None, ()
        if lease is not None:
            self.admission.release_soon(lease)
        left = [each for each in permits if not self.breakers.settled(each, outcome)]
        if not left:
            return None
        task = asyncio.get_running_loop().create_task(self._settle(left, outcome))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def _settle(self, permits: Sequence[BreakerPermit], outcome: CallOutcome) -> None:
        for each in permits:
            await self.breakers.settle(each, outcome)

    async def throttled(self, scope: CallScope, retry_after: float | None) -> None:
        """Penalise the narrowest pool. Providers mostly limit per token; a full wider pool answers 429 to each account in turn."""
        if scope.pool:
            try:
                await self.admission.penalise(self._pools_of(scope)[-1], retry_after)
            except NotYet:
                return  # without Redis no call is admitted anyway

    def _pools_of(self, scope: CallScope) -> list[str]:
        return self._pools.of(scope.pool, scope.account, sandbox=scope.sandbox) if scope.pool else []

    async def aclose(self) -> None:
        """Wait for the background work. Close the admission afterwards."""
        if self._settling:
            await asyncio.gather(*self._settling)

    async def _admit_breakers(self, names: Sequence[str], probe_seconds: float) -> list[BreakerPermit]:
        permits: list[BreakerPermit] = []
        try:
            for name in names:
                permits.append(await self.breakers.admit(name, probe_seconds=probe_seconds))
        except BaseException as error:
            if isinstance(error, BreakerOpen):  # on the clock that decisions use
                error.until = self._clock.now() + timedelta(seconds=error.retry_after)
            self.abandon(Permit(breaker_permits=permits), CallOutcome.UNSENT)
            raise
        return permits


@asynccontextmanager
async def redis_limits(
    url: str,
    *,
    clock: Clock,
    pools: Mapping[str, PoolLimits] | None = None,
    policy: BreakerPolicy | None = None,
    policies: Mapping[str, BreakerPolicy] | None = None,
    changed: Callable[[str, str, str], None] | None = None,
    namespace: str = "phantoms",
) -> AsyncIterator[RedisLimits]:
    """The limits of one event loop, closed in the right order at exit. `pools` overrides the defaults by name.

    `policy`, `policies` and `changed` go to `Breakers`. Redis is contacted with the first call.
    """
    async with redis_client(url) as client:
        scripts, kept = Scripts(client), Pools(pools)
        admission = Admission(scripts, kept, namespace=namespace)
        breakers = Breakers(scripts, policy=policy, policies=policies, changed=changed, namespace=namespace)
        limits = RedisLimits(admission, breakers, kept, clock)
        try:
            yield limits
        finally:
            await limits.aclose()
            await admission.aclose()
            await scripts.aclose()


class UnguardedLimits:
    """No limits and no Redis: for tests of adapters and one-off commands."""

    async def admit(self, scope: CallScope, *, max_wait: float, hold_seconds: float) -> Permit:  # noqa: ARG002 - the protocol's
        """Permit every call at once."""
        note_sent()
        return Permit()

    async def settle(self, permit: Permit, outcome: CallOutcome) -> None:
        """Do nothing: there is nothing to give back."""

    def abandon(self, permit: Permit, outcome: CallOutcome) -> None:
        """Do nothing: there is nothing to give back."""

    async def throttled(self, scope: CallScope, retry_after: float | None) -> None:
        """Do nothing: there are no limits to lower."""


def _probes(permits: Sequence[BreakerPermit]) -> frozenset[str]:
    return frozenset(each.name for each in permits if each.probe is not None)
