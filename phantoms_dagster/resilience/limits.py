"""Whether one call may be made now: breakers first, then pools, and what came of it told to both.

HTTP is none of this module's business; how breakers and pools decide is theirs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.domain.trying import note_end, note_pace, note_sent
from phantoms_dagster.resilience.admission.pools import Admission, Lease, Request, Wait
from phantoms_dagster.resilience.breakers.breaker import BreakerOpen, BreakerPolicy, Breakers, CallOutcome, Pass
from phantoms_dagster.resilience.pools import SANDBOX, PoolLimits, Pools
from phantoms_dagster.resilience.redis.scripts import Scripts, redis_client


@dataclass(frozen=True, slots=True)
class CallScope:
    """Whose limits a call falls under. `commits`: it is the one request of a protocol that makes something public or billable.

    `cost` counts against daily quotas (YouTube: a list 1, an update 50). `sandbox`: the sandbox answers, so the call has
    breakers and pools of its own, and uses up nothing of the real service's.
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
    """Calls made inside, in this task and those it starts, are this account's, unless they name another."""
    token = _account.set(account)
    try:
        yield
    finally:
        _account.reset(token)


def current_account() -> str | None:
    """The account of the innermost `calling_for`."""
    return _account.get()


class PoolFull(NotYet):
    """A pool is full for longer than the caller waits. `pool` and `kind` say which limit it is."""

    def __init__(self, wait: Wait, clock: Clock) -> None:
        # How long somebody else keeps a slot is a guess: who has waited in vain need not be back in milliseconds.
        seconds = max(wait.seconds, 1.0) if wait.kind == "slots" else wait.seconds
        super().__init__(str(wait), retry_after=seconds, until=clock.now() + timedelta(seconds=seconds))
        self.pool = self.waits_for = wait.pool
        self.kind = wait.kind


@dataclass(eq=False)
class Permit:
    """Leave to make one call. `waited`: the seconds that it took to get it."""

    lease: Lease | None = None
    passes: Sequence[Pass] = field(default_factory=tuple)
    waited: float = 0.0


class Limits(Protocol):
    """What the guarded transport asks."""

    async def admit(self, scope: CallScope, *, max_wait: float, hold_seconds: float) -> Permit:
        """Leave to call, slept for up to `max_wait` seconds. Raises NotYet when it takes longer."""
        ...

    async def settle(self, permit: Permit, outcome: CallOutcome) -> None:
        """The call is over. Never raises."""
        ...

    def abandon(self, permit: Permit, outcome: CallOutcome) -> None:
        """`settle` for where nothing can be awaited, as in a cancellation."""
        ...

    async def throttled(self, scope: CallScope, retry_after: float | None) -> None:
        """The provider answered 429. Never raises."""
        ...


class RedisLimits:
    """The real limits, shared by the fleet."""

    def __init__(self, admission: Admission, breakers: Breakers, pools: Pools, clock: Clock) -> None:
        self.admission = admission
        self.breakers = breakers
        self._pools = pools
        self._clock = clock
        self._settling: set[asyncio.Task[None]] = set()

    async def admit(self, scope: CallScope, *, max_wait: float, hold_seconds: float) -> Permit:
        """Breakers, then pools. A breaker that opens while the call waits in line stops it there, before it is sent."""
        names, pools = scope.breakers, self._pools_of(scope)
        request = Request(tuple(pools), cost=scope.cost, breakers=names)
        permit = Permit()
        try:
            permit.passes = await self._pass(names, max_wait + hold_seconds)
            request.probes = _probes(permit.passes)
            while True:
                answer = await self.admission.acquire(request, max_wait=max_wait - permit.waited, hold_seconds=hold_seconds)
                if not isinstance(answer, Wait):
                    permit.lease = answer.lease
                    note_sent()
                    return permit
                if answer.kind == "breaker":
                    await self.settle(permit, CallOutcome.UNSENT)
                    self.breakers.mistrust(answer.pool)
                    permit.passes = await self._pass(names, max_wait + hold_seconds)
                    request.probes = _probes(permit.passes)
                    continue
                if permit.waited + answer.seconds > max_wait:
                    raise PoolFull(answer, self._clock)
                await self._clock.sleep(answer.seconds)
                permit.waited += answer.seconds
                note_pace(answer.pool, answer.seconds)
        except BaseException:
            # Nothing was sent: a probe goes back, and so does the place in line.
            self.admission.forget(request)
            self.abandon(permit, CallOutcome.UNSENT)
            raise

    async def settle(self, permit: Permit, outcome: CallOutcome) -> None:
        """Give the slots back and tell the breakers, to the end even if the caller is cancelled meanwhile.

        What they know then says whether a failed call is one more of an outage; that is noted for the try that made the call.
        """
        passes = permit.passes
        if (task := self._settle_soon(permit, outcome)) is not None:
            await asyncio.shield(task)
        if outcome is not CallOutcome.UNSENT:
            note_end(outage=outcome is CallOutcome.FAILED and any(self.breakers.in_outage(leave) for leave in passes))

    def abandon(self, permit: Permit, outcome: CallOutcome) -> None:
        """The same, in the background."""
        self._settle_soon(permit, outcome)

    def _settle_soon(self, permit: Permit, outcome: CallOutcome) -> asyncio.Task[None] | None:
        """What can be done at once is; the task for the rest, if there is any."""
        lease, passes, permit.lease, permit.passes = permit.lease, permit.passes, None, ()
        if lease is not None:
            self.admission.release_soon(lease)
        left = [leave for leave in passes if not self.breakers.settled(leave, outcome)]
        if not left:
            return None
        task = asyncio.get_running_loop().create_task(self._settle(left, outcome))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def _settle(self, passes: Sequence[Pass], outcome: CallOutcome) -> None:
        for leave in passes:
            await self.breakers.settle(leave, outcome)

    async def throttled(self, scope: CallScope, retry_after: float | None) -> None:
        """The narrowest pool learns: limits per token are the usual ones, and a wider one that is full tells each in turn."""
        if scope.pool:
            try:
                await self.admission.penalise(self._pools_of(scope)[-1], retry_after)
            except NotYet:
                return  # without Redis nobody is let through anyway

    def _pools_of(self, scope: CallScope) -> list[str]:
        return self._pools.of(scope.pool, scope.account, sandbox=scope.sandbox) if scope.pool else []

    async def aclose(self) -> None:
        """Finish what goes on in the background; close the admission after it."""
        if self._settling:
            await asyncio.gather(*self._settling)

    async def _pass(self, names: Sequence[str], probe_seconds: float) -> list[Pass]:
        passes: list[Pass] = []
        try:
            for name in names:
                passes.append(await self.breakers.admit(name, probe_seconds=probe_seconds))
        except BaseException as error:
            if isinstance(error, BreakerOpen):  # by the clock that decisions are made by
                error.until = self._clock.now() + timedelta(seconds=error.retry_after)
            self.abandon(Permit(passes=passes), CallOutcome.UNSENT)
            raise
        return passes


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
    """The limits of one event loop, closed in the right order at the end. `pools` override the defaults by name.

    `policy`, `policies` and `changed` are those of `Breakers`. Redis is not asked before the first call.
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
    """No limits at all and no Redis: for tests of adapters, and for one-off commands."""

    async def admit(self, scope: CallScope, *, max_wait: float, hold_seconds: float) -> Permit:  # noqa: ARG002 - the protocol's
        """Always."""
        note_sent()
        return Permit()

    async def settle(self, permit: Permit, outcome: CallOutcome) -> None:
        """Nothing was held."""

    def abandon(self, permit: Permit, outcome: CallOutcome) -> None:
        """Nothing was held."""

    async def throttled(self, scope: CallScope, retry_after: float | None) -> None:
        """Nothing is learnt."""


def _probes(passes: Sequence[Pass]) -> frozenset[str]:
    return frozenset(leave.name for leave in passes if leave.probe is not None)
