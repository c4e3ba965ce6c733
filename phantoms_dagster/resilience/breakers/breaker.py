"""Circuit breakers that a whole fleet shares: one per integration, and one per integration and account.

pybreaker judges, Redis keeps, this module carries. pybreaker is synchronous and knows nothing of a network, so its storage
(`MirrorStorage`) is a copy in memory of what Redis says, at most 250 ms old:

- before a call, `admit` brings the copy up to date when it is stale (one round trip for all who wait for it) and, when the
  breaker is open and its time has come, claims the fleet's single probe by a lease;
- after a call, `settle` tells Redis of a failure at once (successes wait for the next look), puts the fleet's totals into the
  copy and lets pybreaker judge by `breaker.call(...)`. The state that pybreaker sets is sent to Redis, which applies it only
  if nobody else was quicker.

So a check in the middle of things costs microseconds, nothing blocks the event loop, and the rules of opening and closing
stand in one place. Which errors count belongs to the caller, which says what came of the call.
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
    "BreakerPolicy",
    "BreakerState",
    "Breakers",
    "CallOutcome",
    "Pass",
    "Transition",
]

log = logging.getLogger(__name__)

# A breaker that a person opened without saying for how long is asked about this often: a reset is then noticed in time.
ASK_AGAIN_SECONDS = 60.0


class CallOutcome(StrEnum):
    """What came of a call, as far as a breaker is concerned.

    `FAILED`: the integration did not do its work (5xx, time-out, connection lost). `ANSWERED`: it did, whatever it said: a 429
    or a 404 proves that it lives. `NONE`: cut short from our side, which proves nothing. `UNSENT`: nothing reached it.
    """

    ANSWERED = "answered"
    FAILED = "failed"
    NONE = "none"
    UNSENT = "unsent"


class BreakerOpen(NotYet):
    """The breaker is open: nothing is sent before the next probe."""

    kind = "breaker"

    def __init__(self, name: str, *, retry_after: float, until: datetime) -> None:
        super().__init__(f"the breaker of {name} is open", retry_after=retry_after, until=until)
        self.name = self.waits_for = name


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state. `why` is `too many failures`, `probe sent`, `probe failed`, `probe answered`, or a person's words."""

    at: datetime
    old: str
    new: str
    why: str


@dataclass(frozen=True, slots=True)
class BreakerState:
    """A breaker as the fleet sees it. `until` is the next probe's time while it is open."""

    name: str
    state: str
    calls: int
    failures: int
    since: datetime | None = None
    until: datetime | None = None
    manual: bool = False


@dataclass(eq=False)
class Pass:
    """Leave to make one call, given by `admit`, taken back by `settle`. `probe`: this call is the fleet's probe."""

    name: str
    probe: str | None = None


class _Failed(Exception):
    """Stands for a failed call inside pybreaker."""


def _fail() -> None:
    raise _Failed


def _fine() -> None:
    """A call that was answered."""


@dataclass
class _Breaker:
    """One breaker in this process."""

    policy: BreakerPolicy
    remote: lua.Remote
    storage: MirrorStorage
    circuit: pybreaker.CircuitBreaker
    looking: asyncio.Task[None] | None = field(default=None)


class Breakers:
    """All breakers, for one event loop. `policies` gives some names (`shotstack`, `youtube:main`, `youtube`) rules of their own.

    `changed(name, old, new)` is called in this process for each change that it notices.
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

    async def admit(self, name: str, *, probe_seconds: float | None = None) -> Pass:
        """Leave to call. Raises BreakerOpen with the next probe's time, or NotYet while Redis is away.

        `probe_seconds`: how long this call may take at most; should it be the probe, nobody else probes before.
        """
        breaker = self._breaker(name)
        storage = breaker.storage
        if time.monotonic() - storage.looked_at > CACHE_SECONDS:
            await self._look(breaker)
        if breaker.circuit.current_state == pybreaker.STATE_CLOSED:
            return Pass(name)
        remaining = storage.wait - (time.monotonic() - storage.looked_at)
        if remaining <= 0:
            probe = uuid.uuid4().hex
            lease = max(probe_seconds or 0.0, breaker.policy.probe_seconds)
            got, look = await breaker.remote.probe(probe, lease_seconds=lease)
            self._see(breaker, look)
            if got:
                return Pass(name, probe)
            if look.state == pybreaker.STATE_CLOSED:
                return Pass(name)
            remaining = look.wait
        if storage.manual or breaker.circuit.current_state == pybreaker.STATE_HALF_OPEN:
            # It may close at any moment: the probe's answer, or a person's word.
            remaining = min(remaining, ASK_AGAIN_SECONDS if storage.manual else breaker.policy.reset_seconds)
        remaining = max(remaining, CACHE_SECONDS)
        raise BreakerOpen(name, retry_after=remaining, until=datetime.now(UTC) + timedelta(seconds=remaining))

    def mistrust(self, name: str) -> None:
        """Somebody just learnt from Redis that this breaker is not what our copy says: the next `admit` looks."""
        self._breaker(name).storage.looked_at = -CACHE_SECONDS * 2

    def settled(self, leave: Pass, outcome: CallOutcome) -> bool:
        """`settle` at once, for the usual end: an answer while the breaker is closed. False when it takes `settle`."""
        if outcome is not CallOutcome.ANSWERED or leave.probe is not None:
            return False
        breaker = self._breaker(leave.name)
        if breaker.storage.state != pybreaker.STATE_CLOSED:
            return False
        self._judge(breaker, leave, _fine)
        return breaker.storage.proposed is None

    async def settle(self, leave: Pass, outcome: CallOutcome) -> None:
        """Say what came of the call. Nothing is raised when Redis is away: what it would have learnt is lost with its state."""
        breaker = self._breaker(leave.name)
        try:
            if leave.probe is not None and outcome in (CallOutcome.NONE, CallOutcome.UNSENT):
                await breaker.remote.drop_probe(leave.probe, sent=outcome is CallOutcome.NONE)
            elif outcome is CallOutcome.FAILED:
                successes, breaker.storage.untold_successes = breaker.storage.untold_successes, 0
                self._see(breaker, await breaker.remote.record(successes=successes, failures=1))
                self._judge(breaker, leave, _fail)
                await self._propose(breaker, leave)
            elif outcome is CallOutcome.ANSWERED:
                self._judge(breaker, leave, _fine)
                await self._propose(breaker, leave)
        except NotYet as error:
            log.debug("the breaker of %s was not told: %s", leave.name, error)

    def in_outage(self, leave: Pass) -> bool:
        """Whether a call that failed and is settled belongs to an outage: it was a probe, or its breaker is not closed now."""
        return leave.probe is not None or self._breaker(leave.name).storage.state != pybreaker.STATE_CLOSED

    async def trip(self, name: str, *, seconds: float | None = None, why: str) -> None:
        """Open it by hand: for `seconds`, after which it is probed, or until `reset`."""
        breaker = self._breaker(name)
        self._see(breaker, await breaker.remote.trip(seconds, why))

    async def reset(self, name: str, *, why: str) -> None:
        """Close it by hand and forget its failures."""
        breaker = self._breaker(name)
        self._see(breaker, await breaker.remote.reset(why))

    async def look(self) -> list[BreakerState]:
        """Every breaker that anybody used, fresh from Redis. Raises NotYet while it is away."""
        names = await lua.names(self._scripts, self._prefix)
        return list(await asyncio.gather(*(self.state(name) for name in names)))

    async def state(self, name: str) -> BreakerState:
        """One breaker, fresh from Redis."""
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
        """Its last hundred changes, the newest first."""
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
            remote = lua.Remote(self._scripts, self._prefix, name, policy)
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
        """One look at Redis for all who wait for it."""
        if breaker.looking is None or breaker.looking.done():
            breaker.looking = asyncio.get_running_loop().create_task(self._look_once(breaker), context=Context())
        await asyncio.shield(breaker.looking)

    async def _look_once(self, breaker: _Breaker) -> None:
        storage = breaker.storage
        successes, storage.untold_successes = storage.untold_successes, 0
        if successes:
            look = await breaker.remote.record(successes=successes, failures=0)
        else:
            look = await breaker.remote.look()
        if look.since_ago is None and storage.state == pybreaker.STATE_OPEN:
            # It never changed, says Redis, and we saw it open: Redis lost its memory, not the integration its illness.
            look = await breaker.remote.move(pybreaker.STATE_OPEN, None)
        self._see(breaker, look)

    def _see(self, breaker: _Breaker, look: lua.BreakerSnapshot) -> None:
        breaker.storage.see(look)
        _ = breaker.circuit.state  # lets pybreaker follow, and its listeners know
        breaker.storage.proposed = None

    def _judge(self, breaker: _Breaker, leave: Pass, outcome: Callable[[], None]) -> None:
        """Let pybreaker draw its conclusion."""
        storage, circuit = breaker.storage, breaker.circuit
        if leave.probe is not None:
            # The copy may have been refreshed since; the fleet's probe is ours all the same, or Redis will refuse the verdict.
            storage.assume(pybreaker.STATE_HALF_OPEN)
        elif storage.state == pybreaker.STATE_OPEN:
            return  # the late end of a call that began before it opened
        storage.probing, storage.proposed = leave.probe is not None, None
        try:
            circuit.call(outcome)
        except (_Failed, pybreaker.CircuitBreakerError):
            pass
        finally:
            storage.probing = False

    async def _propose(self, breaker: _Breaker, leave: Pass) -> None:
        """Carry what pybreaker concluded to Redis."""
        if breaker.storage.proposed is not None:
            self._see(breaker, await breaker.remote.move(breaker.storage.proposed, leave.probe))
