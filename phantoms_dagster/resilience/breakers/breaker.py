"""Circuit breakers shared by all processes: one per integration, and one per integration and account.

pybreaker decides when a breaker opens and closes, Redis holds the state, and this module connects the two. pybreaker is synchronous
and knows no network, so its storage (`MirrorStorage`) is an in-memory copy of Redis' state, at most 250 ms old:
- Before a call, `admit` refreshes a stale copy, with one round trip for all callers that wait for it. When the breaker is open and
  its reset time has passed, `admit` also claims the fleet's single probe, by a lease.
- After a call, `settle` reports a failure to Redis at once and successes with the next refresh. It puts the fleet's totals into the
  copy and lets pybreaker judge by `breaker.call(...)`. If pybreaker changes the state, the change goes to Redis, which applies it
  only if no other process was faster.
A check therefore usually costs microseconds, nothing blocks the event loop, and one library holds the rules for opening and
closing. The caller says which errors count as failures.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import pybreaker

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.breakers import scripts as lua
from phantoms_dagster.resilience.breakers.mirror import CACHE_SECONDS, BreakerPolicy, MirrorStorage, ProbeOnly
from phantoms_dagster.resilience.pools import SANDBOX
from phantoms_dagster.resilience.redis.scripts import Scripts

__all__ = [
    "CACHE_SECONDS",
    "BreakerOpen",
    "BreakerPermit",
    "BreakerPolicy",
    "BreakerState",
    "Breakers",
    "CallOutcome",
    "Transition",
]

log = logging.getLogger(__name__)

# How often callers ask again about a breaker that a person opened without a time limit, so that they notice its reset.
ASK_AGAIN_SECONDS = 60.0


class CallOutcome(StrEnum):
    """The outcome of a call as a breaker sees it.

    `FAILED`: the integration did not work (5xx, time-out, lost connection). `ANSWERED`: it worked; a 404 or a 429 proves that too.
    `NONE`: our side cut the call short, which proves nothing. `UNSENT`: the request was never sent.
    """

    ANSWERED = "answered"
    FAILED = "failed"
    NONE = "none"
    UNSENT = "unsent"


class BreakerOpen(NotYet):
    """The breaker is open. No call is sent before the next probe."""

    kind = "breaker"

    def __init__(self, name: str, *, retry_after: float, until: datetime) -> None:
        super().__init__(f"the breaker of {name} is open", retry_after=retry_after, until=until)
        self.name = self.waits_for = name


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state.

    `why` is `too many failures`, `probe sent`, `probe failed`, `probe answered`, or the reason that a person gave.
    """

    at: datetime
    old: str
    new: str
    why: str


@dataclass(frozen=True, slots=True)
class BreakerState:
    """The shared state of a breaker. `until` is the time of the next probe, while the breaker is not closed."""

    name: str
    state: str
    calls: int
    failures: int
    since: datetime | None = None
    until: datetime | None = None
    manual: bool = False


@dataclass(eq=False)
class BreakerPermit:
    """Permission for one call: `admit` returns it, `settle` takes it. `probe` is the id of the probe if this call is the probe."""

    name: str
    probe: str | None = None


class _Failed(Exception):
    """Tells pybreaker that the call failed."""


def _fail() -> None:
    raise _Failed


def _succeed() -> None:
    """Tells pybreaker that the call was answered."""


@dataclass
class _Breaker:
    """One breaker, as this process holds it."""

    policy: BreakerPolicy
    remote: lua.RemoteBreaker
    storage: MirrorStorage
    circuit: pybreaker.CircuitBreaker
    looking: asyncio.Task[None] | None = field(default=None)


class Breakers:
    """All breakers, for one event loop. `policies` overrides `policy` for some names (`shotstack`, `youtube`, `youtube:main`).

    `changed(name, old, new)` is called for each change of state that this process notices.
    """

    def __init__(
        self,
        scripts: Scripts,
        *,
        policy: BreakerPolicy | None = None,
        policies: Mapping[str, BreakerPolicy] | None = None,
        changed: Callable[[str, str, str], None] | None = None,
        namespace: str = "phantoms",
    ) -> None:
        self._scripts = scripts
        self._policy = policy or BreakerPolicy()
        self._policies = dict(policies or {})
        self._changed = changed
        self._prefix = f"{namespace}:breaker"
        self._breakers: dict[str, _Breaker] = {}

    @staticmethod
    def of(integration: str, account: str | None) -> tuple[str, ...]:
        """The breakers of one call: the account's own first, then the integration's."""
        return (integration,) if account is None else (f"{integration}:{account}", integration)

    async def admit(self, name: str, *, probe_seconds: float | None = None) -> BreakerPermit:
        """Return permission for one call. Raises BreakerOpen with the next probe's time, or NotYet while Redis is unavailable.

        `probe_seconds`: the longest this call may take. If the call becomes the probe, no other probe starts within that time.
        """
        breaker = self._breaker(name)
        storage = breaker.storage
        if time.monotonic() - storage.looked_at > CACHE_SECONDS:
            await self._look(breaker)
        if breaker.circuit.current_state == pybreaker.STATE_CLOSED:
            return BreakerPermit(name)
        remaining = storage.wait - (time.monotonic() - storage.looked_at)
        if remaining <= 0:
            probe = uuid.uuid4().hex
            lease = max(probe_seconds or 0.0, breaker.policy.probe_seconds)
            got, look = await breaker.remote.probe(probe, lease_seconds=lease)
            self._apply(breaker, look)
            if got:
                return BreakerPermit(name, probe)
            if look.state == pybreaker.STATE_CLOSED:
                return BreakerPermit(name)
            remaining = look.wait
        if storage.manual or breaker.circuit.current_state == pybreaker.STATE_HALF_OPEN:
            # It may close at any moment: the probe is answered, or a person resets it.
            remaining = min(remaining, ASK_AGAIN_SECONDS if storage.manual else breaker.policy.reset_seconds)
        remaining = max(remaining, CACHE_SECONDS)
        raise BreakerOpen(name, retry_after=remaining, until=datetime.now(UTC) + timedelta(seconds=remaining))

    def invalidate(self, name: str) -> None:
        """Mark our copy of this breaker as stale, because Redis just said otherwise. The next `admit` refreshes it."""
        self._breaker(name).storage.looked_at = -CACHE_SECONDS * 2

    def settled(self, permit: BreakerPermit, outcome: CallOutcome) -> bool:
        """Settle without I/O in the usual case: the call was answered and the breaker is closed. False when `settle` is needed."""
        if outcome is not CallOutcome.ANSWERED or permit.probe is not None:
            return False
        breaker = self._breaker(permit.name)
        if breaker.storage.state != pybreaker.STATE_CLOSED:
            return False
        self._judge(breaker, permit, _succeed)
        return breaker.storage.proposed is None

    async def settle(self, permit: BreakerPermit, outcome: CallOutcome) -> None:
        """Report the call's outcome. Raises nothing while Redis is unavailable: that outcome is then lost."""
        breaker = self._breaker(permit.name)
        try:
            if permit.probe is not None and outcome in (CallOutcome.NONE, CallOutcome.UNSENT):
                await breaker.remote.drop_probe(permit.probe, sent=outcome is CallOutcome.NONE)
            elif outcome is CallOutcome.FAILED:
                successes, breaker.storage.unreported_successes = breaker.storage.unreported_successes, 0
                self._apply(breaker, await breaker.remote.record(successes=successes, failures=1))
                self._judge(breaker, permit, _fail)
                await self._propose(breaker, permit)
            elif outcome is CallOutcome.ANSWERED:
                self._judge(breaker, permit, _succeed)
                await self._propose(breaker, permit)
        except NotYet as error:
            log.debug("the outcome of a call to %s was not reported to its breaker: %s", permit.name, error)

    def in_outage(self, permit: BreakerPermit) -> bool:
        """Whether a failed, settled call is part of an outage: it was a probe, or its breaker is no longer closed."""
        return permit.probe is not None or self._breaker(permit.name).storage.state != pybreaker.STATE_CLOSED

    async def trip(self, name: str, *, seconds: float | None = None, why: str) -> None:
        """Open the breaker by hand: for `seconds`, after which it is probed, or until `reset`."""
        breaker = self._breaker(name)
        self._apply(breaker, await breaker.remote.trip(seconds, why))

    async def reset(self, name: str, *, why: str) -> None:
        """Close the breaker by hand and clear its failures."""
        breaker = self._breaker(name)
        self._apply(breaker, await breaker.remote.reset(why))

    async def look(self) -> list[BreakerState]:
        """Every breaker that was ever used, read from Redis now. Raises NotYet while Redis is unavailable."""
        names = await lua.names(self._scripts, self._prefix)
        return list(await asyncio.gather(*(self.state(name) for name in names)))

    async def state(self, name: str) -> BreakerState:
        """One breaker, read from Redis now. Raises NotYet while Redis is unavailable."""
        look = await self._breaker(name).remote.look()
        now = datetime.now(UTC)
        return BreakerState(
            name=name,
            state=look.state,
            calls=look.calls,
            failures=look.failures,
            since=None if look.since_ago is None else now - timedelta(seconds=look.since_ago),
            until=None if look.state == pybreaker.STATE_CLOSED else now + timedelta(seconds=look.wait),
            manual=look.manual,
        )

    async def history(self, name: str) -> list[Transition]:
        """The breaker's last hundred changes of state, newest first."""
        rows = await self._breaker(name).remote.history()
        return [Transition(at=datetime.fromtimestamp(at / 1e6, UTC), old=old, new=new, why=why) for at, old, new, why in rows]

    # --- inside

    def _policy_of(self, name: str) -> BreakerPolicy:
        real = name.removeprefix(SANDBOX)  # the sandbox's breaker opens as the real one would
        return self._policies.get(name) or self._policies.get(real) or self._policies.get(real.split(":", 1)[0]) or self._policy

    def _breaker(self, name: str) -> _Breaker:
        breaker = self._breakers.get(name)
        if breaker is None:
            policy = self._policy_of(name)
            storage = MirrorStorage(name, policy)
            remote = lua.RemoteBreaker(self._scripts, self._prefix, name, policy)
            circuit = pybreaker.CircuitBreaker(
                name=name,
                fail_max=1,
                reset_timeout=policy.reset_seconds,
                listeners=[ProbeOnly(storage, self._changed)],
                state_storage=storage,
                throw_new_error_on_trip=False,
            )
            breaker = self._breakers[name] = _Breaker(policy, remote, storage, circuit)
        return breaker

    async def _look(self, breaker: _Breaker) -> None:
        """Refresh the copy, with one round trip for all callers that wait for it."""
        if breaker.looking is None or breaker.looking.done():
            breaker.looking = asyncio.get_running_loop().create_task(self._look_once(breaker), context=Context())
        await asyncio.shield(breaker.looking)

    async def _look_once(self, breaker: _Breaker) -> None:
        storage = breaker.storage
        successes, storage.unreported_successes = storage.unreported_successes, 0
        if successes:
            look = await breaker.remote.record(successes=successes, failures=0)
        else:
            look = await breaker.remote.look()
        if look.since_ago is None and storage.state == pybreaker.STATE_OPEN:
            # Redis has no change on record, but we saw the breaker open. Redis lost its memory; the integration is still down.
            look = await breaker.remote.move(pybreaker.STATE_OPEN, None)
        self._apply(breaker, look)

    def _apply(self, breaker: _Breaker, look: lua.BreakerSnapshot) -> None:
        breaker.storage.apply(look)
        _ = breaker.circuit.state  # reading it makes pybreaker follow the copy and call its listeners
        breaker.storage.proposed = None

    def _judge(self, breaker: _Breaker, permit: BreakerPermit, outcome: Callable[[], None]) -> None:
        """Let pybreaker judge the outcome and perhaps propose a new state."""
        storage, circuit = breaker.storage, breaker.circuit
        if permit.probe is not None:
            # The copy may have been refreshed meanwhile. We still hold the probe; if not, Redis will refuse the proposed state.
            storage.assume(pybreaker.STATE_HALF_OPEN)
        elif storage.state == pybreaker.STATE_OPEN:
            return  # this call began before the breaker opened
        storage.probing, storage.proposed = permit.probe is not None, None
        try:
            circuit.call(outcome)
        except (_Failed, pybreaker.CircuitBreakerError):
            pass
        finally:
            storage.probing = False

    async def _propose(self, breaker: _Breaker, permit: BreakerPermit) -> None:
        """Send the state that pybreaker proposed to Redis."""
        if breaker.storage.proposed is not None:
            self._apply(breaker, await breaker.remote.move(breaker.storage.proposed, permit.probe))
