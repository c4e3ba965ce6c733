"""Admission to pools: slots, rates and daily quotas of every pool of a call, decided together in one round trip.

Who may call now is decided by the script alone, on Redis' clock; this module only asks, keeps leases alive and gives them
back. Sleeping until it is one's turn belongs to the caller, except for the last few milliseconds before the instant that was
dealt to it: who would miss that gets another one, because late calls and punctual ones together would be too many.

What may be sent twice: every script here. An acquire carries its own id, so that a repeated one finds the slot it already
holds and pays once; renewals and releases say how it shall be; a penalty within a pause only prolongs it. A grant whose
answer is lost for good holds its slot until the lease ends.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
import uuid
from collections.abc import Sequence
from contextvars import Context
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.admission import scripts as lua
from phantoms_dagster.resilience.pools import PoolLimits, Pools
from phantoms_dagster.resilience.redis.scripts import Argument, Scripts

log = logging.getLogger(__name__)

# How soon a holder notices that Redis forgot it: well within the recovery in which nobody else is let in.
KEEPER_SECONDS = lua.RECOVERY_SECONDS / 4
# A refusal without Retry-After.
PAUSE_SECONDS = 1.0
_MIDNIGHTS_KEPT_SECONDS = 3_600.0
# A process that is late for so many instants, one after another, would never get to call.
_MOST_INSTANTS = 20
# How far two good clocks may drift apart.
_DRIFT = 100e-6


@dataclass(eq=False)
class Lease:
    """One slot in each of `pools`. `token` only ever grows, per pool: a later holder's is greater.

    `lost` turns true when the lease ran out before it could be renewed: somebody else may hold the slot. `known_to` is the
    life of Redis' memory that has it, and the losses of contact until then. `at`: the instant to send at, by Redis' clock.
    """

    id: str
    pools: tuple[str, ...]
    token: int
    granted_at: int
    renewed: float
    keep_until: float
    known_to: tuple[str, int] = ("", 0)
    lost: bool = False
    at: int = 0


@dataclass(frozen=True, slots=True)
class Granted:
    """Go ahead; give `lease` back when done."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Wait:
    """Not now: ask again after `seconds`, with the same `request`, which keeps the place in line.

    `pool` and `kind` name what is in the way: `slots`, `rate`, `daily`, `paused` (the provider said so), `recovery` (Redis
    lost its memory) or `breaker` (`pool` is then the breaker's name).
    """

    seconds: float
    pool: str
    kind: str

    def __str__(self) -> str:
        """For people: what is waited for."""
        said = {
            "slots": "all slots are taken",
            "rate": "the rate is used up",
            "daily": "the daily quota is used up",
            "paused": "the provider asked us to wait",
            "recovery": "leases are being re-registered",
            "breaker": "the breaker is open",
        }
        return f"{self.pool}: {said.get(self.kind, self.kind)}"


@dataclass(eq=False)
class Request:
    """One call's wish to be admitted; asked with again until it is granted. `cost` counts against daily quotas."""

    pools: tuple[str, ...]
    cost: int = 1
    breakers: tuple[str, ...] = ()
    probes: frozenset[str] = frozenset()
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    ticket: int = 0
    missed: int = 0
    token: int = 0


@dataclass(frozen=True, slots=True)
class PoolState:
    """A pool as it is now. `factor` is what 429s have left of its limits; `hold_seconds` the usual length of a call."""

    pool: str
    slots: int | None
    in_flight: int
    waiting: int
    factor: float
    paused_seconds: float
    hold_seconds: float
    quota: int | None
    used_today: int


class Admission:
    """The pools, for one event loop. Close it to stop its keeper; `namespace` keeps systems on one Redis apart."""

    def __init__(self, scripts: Scripts, pools: Pools, *, namespace: str = "phantoms") -> None:
        self._scripts = scripts
        self._pools = pools
        self._namespace = namespace
        self._contact = f"{namespace}:contact"
        self._epoch = ""
        self._losses = 0
        self._held: dict[str, Lease] = {}
        self._keeper: asyncio.Task[None] | None = None
        self._releasing: set[asyncio.Future[Any]] = set()
        self._used: dict[str, tuple[int, int]] = {}
        self._fixed: dict[str, list[Argument]] = {}
        self._midnights: dict[str, tuple[float, list[int]]] = {}
        self._jitter: dict[str, float] = {}
        self._spaced: dict[str, str] = {}
        self._behind, self._compared_at = math.inf, 0.0

    async def acquire(self, request: Request, *, max_wait: float, hold_seconds: float = 600.0) -> Granted | Wait:
        """Ask for one slot in every pool of the request, and for its share of their rates and quotas: all or nothing.

        `max_wait`: seconds the caller would wait here; a longer wait keeps no place in line. A lease is renewed for at most
        `hold_seconds`, then it runs out. Raises NotYet while Redis is away.
        """
        for tries in range(_MOST_INSTANTS):
            answer = await self._acquire(request, max_wait, hold_seconds)
            if isinstance(answer, Wait):
                return answer
            request.token = answer.lease.token = request.token or answer.lease.token  # another instant is no later place in line
            if await self._punctual(answer.lease) or tries == _MOST_INSTANTS - 1:
                break
            self._held.pop(answer.lease.id, None)  # it is still ours, and asked for with the same id
            request.missed = answer.lease.at
        request.missed = request.token = 0
        return answer

    async def _acquire(self, request: Request, max_wait: float, hold_seconds: float) -> Granted | Wait:
        try:
            answer = await self._ask(request, max_wait)
        except asyncio.CancelledError:
            self._give_back(request.id, request.pools, 0)  # it may have been granted meanwhile
            raise
        if answer[0] == 3:
            return Wait(int(answer[1]) / 1e6, request.breakers[int(answer[2]) - 1], "breaker")
        if answer[0] == 0:
            request.ticket = int(answer[2])
            self._epoch = answer[3]
            pool = request.pools[int(answer[4]) - 1] if int(answer[4]) else "Redis"
            return Wait(int(answer[1]) / 1e6, pool, answer[5])
        return Granted(self._granted(request, answer, hold_seconds))

    async def _punctual(self, lease: Lease) -> bool:
        """Sleep until the lease's instant; whether it is not over yet, but for what the pools allow as jitter."""
        allowed = min((self._allowed_jitter(pool) for pool in lease.pools), default=math.inf)
        if allowed == math.inf:
            return True
        instant = lease.at / 1e6 + self._behind
        try:
            await asyncio.sleep(max(0.0, instant - time.monotonic()))
        except asyncio.CancelledError:
            self.release_soon(lease)
            raise
        return time.monotonic() - instant <= allowed

    def _allowed_jitter(self, pool: str) -> float:
        """Seconds by which a call may miss its instant: a third of the slack of its shortest window; the rest is for the way to
        the provider. A window that is not short has slack for everything."""
        if pool not in self._jitter:
            short = [seconds for _, seconds, _ in self._pools.limits(pool).rates if seconds <= lua.SHORT_SECONDS]
            self._jitter[pool] = min(short) * lua.SHORT_SLACK_SHARE / 3 if short else math.inf
        return self._jitter[pool]

    def _compare_clocks(self, redis_now: int) -> None:
        """Redis' clock against ours. The quickest answer says best how far they are apart."""
        now = time.monotonic()
        drifted = self._behind + (now - self._compared_at) * _DRIFT
        self._behind, self._compared_at = min(drifted, now - redis_now / 1e6), now

    async def release(self, lease: Lease) -> None:
        """Give the slots back. When Redis is away they come back with the end of the lease."""
        self.release_soon(lease)
        if self._releasing:
            await asyncio.wait(self._releasing)

    def release_soon(self, lease: Lease) -> None:
        """`release` for where nothing can be awaited, as in a cancellation."""
        self._held.pop(lease.id, None)
        self._give_back(lease.id, lease.pools, lease.granted_at, lease.at)

    def forget(self, request: Request) -> None:
        """Leave the line: this request will not be asked with again."""
        if request.ticket:
            self._give_back(request.id, request.pools, 0)

    async def renew(self, lease: Lease) -> bool:
        """Begin the lease anew; False when it had run out. Kept leases are renewed by themselves."""
        leases = [self._microseconds(self._pools.limits(pool).lease_seconds) for pool in lease.pools]
        started = time.monotonic()
        held = await self._hello(lease.id, lease.pools, leases)
        lease.renewed, lease.known_to, lease.lost = started, (self._epoch, self._losses), not held
        return held

    async def penalise(self, pool: str, retry_after: float | None = None) -> None:
        """Learn from a 429: nothing for `retry_after` seconds, and less than before after it, restored within ten minutes."""
        pause = self._microseconds(PAUSE_SECONDS if retry_after is None else min(max(retry_after, 0.0), 86_400.0))
        await self._scripts.run(lua.PENALISE, [self._base(pool)], [pause])

    async def look(self) -> list[PoolState]:
        """Every pool that was used in the last days. Raises NotYet while Redis is away."""
        seen = await self._scripts.run(lua.LOOK, [self._contact], [])
        now, rows = int(seen[0]), [seen[i : i + 8] for i in range(1, len(seen), 8)]
        return sorted((self._state(row, now) for row in rows), key=lambda state: state.pool)

    async def aclose(self) -> None:
        """Stop renewing, and finish the releases that are under way."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._releasing:
            await asyncio.gather(*self._releasing, return_exceptions=True)

    # --- asking

    async def _ask(self, request: Request, max_wait: float) -> list[Any]:
        losses, lost = self._broken()
        keys = [self._contact, *map(self._breaker, request.breakers), *map(self._base, request.pools)]
        head: list[Argument] = [request.id, request.ticket, self._microseconds(max_wait), self._epoch]
        head += [lost, request.cost, request.missed, len(request.breakers)]
        head += ["1" if name in request.probes else "0" for name in request.breakers]
        now = time.time()
        for _ in range(2):
            limits: list[Argument] = []
            for pool in request.pools:
                limits += self._fixed.get(pool) or self._limits(pool, now, self._left_to_others(pool, request.pools))
            answer: list[Any] = await self._scripts.run(lua.ACQUIRE, keys, [*head, *limits])
            self._losses = losses
            if answer[0] in (0, 1):
                self._compare_clocks(int(answer[2 if answer[0] else 6]))
            if answer[0] != 2:
                return answer
            # Our clock is days away from Redis': its is the one that counts.
            self._midnights.clear()
            now = int(answer[1]) / 1e6
        raise RuntimeError("no midnights around Redis' own time")

    def _granted(self, request: Request, answer: list[Any], hold_seconds: float) -> Lease:
        self._epoch = answer[3]
        for n, pool in enumerate(request.pools):
            self._used[pool] = (int(answer[4 + 2 * n]), int(answer[5 + 2 * n]))
        now = time.monotonic()
        known_to = (self._epoch, self._losses)
        at = int(answer[-1])
        lease = Lease(request.id, request.pools, int(answer[1]), int(answer[2]), now, now + hold_seconds, known_to, at=at)
        if not lease.pools:
            return lease
        self._held[lease.id] = lease
        if self._keeper is None or self._keeper.done():
            self._keeper = asyncio.get_running_loop().create_task(self._keep(), context=Context())
        return lease

    def _left_to_others(self, pool: str, pools: Sequence[str]) -> int:
        """What a call through `pools` leaves of that pool's day to others."""
        asked = map(self._pools.limits, pools)
        return next((limits.leaves for limits in asked if limits.shares == pool), 0)

    def _limits(self, pool: str, now: float, left_to_others: int = 0) -> list[Argument]:
        limits = self._pools.limits(pool)
        numbers: list[Argument] = [-1 if limits.slots is None else limits.slots, self._microseconds(limits.lease_seconds)]
        numbers.append(len(limits.rates))
        for calls, seconds, burst in limits.rates:
            numbers += [calls, self._microseconds(seconds), burst]
        if limits.daily is None:
            self._fixed[pool] = [*numbers, -1]
            return self._fixed[pool]
        cached_at, midnights = self._midnights.get(pool, (0.0, []))
        if not midnights or abs(now - cached_at) > _MIDNIGHTS_KEPT_SECONDS:
            midnights = [second * 1_000_000 for second in limits.daily.midnights(datetime.fromtimestamp(now, UTC))]
            self._midnights[pool] = (now, midnights)
        # What this process saw used is a floor: a Redis that forgot the day's use learns it from us.
        units = max(0, limits.daily.units - left_to_others)
        return [*numbers, units, *self._used.get(pool, (0, 0)), len(midnights), *midnights]

    # --- keeping and giving back

    async def _keep(self) -> None:
        """Renew what is held, and notice within half a second when Redis has forgotten it."""
        while self._held:
            await asyncio.sleep(KEEPER_SECONDS)
            try:
                await self._keep_once()
            except NotYet as error:
                log.debug("leases cannot be renewed: %s", error)
            except Exception:  # without its keeper every lease would run out
                log.exception("leases could not be renewed this time")

    async def _keep_once(self) -> None:
        if self._held:
            await self._hello("-", (), [])
        now = time.monotonic()
        for lease in list(self._held.values()):
            if lease.keep_until < now:
                del self._held[lease.id]  # longer than any call may take: whoever held it never gave it back
        known_to = (self._epoch, self._losses)
        due = [
            lease for lease in self._held.values() if lease.known_to != known_to or now - lease.renewed > self._shortest(lease) / 3
        ]
        for held, lease in zip(await asyncio.gather(*map(self.renew, due)), due, strict=True):
            if not held:
                log.warning("a call in %s outlived its lease", ", ".join(lease.pools))
                self._held.pop(lease.id, None)

    async def _hello(self, lease_id: str, pools: Sequence[str], leases: Sequence[int]) -> bool:
        losses, lost = self._broken()
        keys = [self._contact, *map(self._base, pools)]
        held, self._epoch = await self._scripts.run(lua.RENEW, keys, [lease_id, self._epoch, lost, *leases])
        self._losses = losses
        return int(held) == 1

    def _broken(self) -> tuple[int, str]:
        """The losses of contact so far, and `1` if one came between two answers: leases may have run out unseen."""
        losses = self._scripts.losses
        return losses, "1" if self._epoch and losses != self._losses else "0"

    def _give_back(self, lease_id: str, pools: Sequence[str], granted_at: int, at: int = 0) -> None:
        if not pools:
            return
        short = [self._short_rates(pool) for pool in pools]
        answer = self._scripts.send(lua.RELEASE, [self._base(pool) for pool in pools], [lease_id, granted_at, at, *short])
        self._releasing.add(answer)
        answer.add_done_callback(self._given_back)

    def _given_back(self, answer: asyncio.Future[Any]) -> None:
        self._releasing.discard(answer)
        if answer.cancelled():
            return
        error = answer.exception()
        if isinstance(error, NotYet):
            log.debug("slots come back with their lease: %s", error)
        elif error is not None:
            log.error("slots could not be given back; they come back with their lease", exc_info=error)

    def _short_rates(self, pool: str) -> str:
        """The numbers, from 1, of its rates whose calls are spaced."""
        if pool not in self._spaced:
            rates = enumerate(self._pools.limits(pool).rates, start=1)
            self._spaced[pool] = ",".join(str(number) for number, (_, seconds, _) in rates if seconds <= lua.SHORT_SECONDS)
        return self._spaced[pool]

    def _shortest(self, lease: Lease) -> float:
        return min(self._pools.limits(pool).lease_seconds for pool in lease.pools)

    def _state(self, row: Sequence[str], now: int) -> PoolState:
        name = row[0].removeprefix(f"{self._namespace}:pool:")
        # It may have been defined by settings that are gone.
        limits = self._pools.limits(name) if self._pools.has(name) else PoolLimits()
        today = limits.daily.midnights(datetime.fromtimestamp(now / 1e6, UTC)) if limits.daily else []
        current = int(row[6]) // 1_000_000 == max((second for second in today if second * 1_000_000 <= now), default=-1)
        return PoolState(
            pool=name,
            slots=limits.slots,
            in_flight=int(row[1]),
            waiting=int(row[2]),
            factor=float(row[3]),
            paused_seconds=max(0.0, (int(row[4]) - now) / 1e6),
            hold_seconds=int(row[5]) / 1e6,
            quota=limits.daily.units if limits.daily else None,
            used_today=int(row[7]) if current else 0,
        )

    def _base(self, pool: str) -> str:
        return f"{self._namespace}:pool:{pool}"

    def _breaker(self, name: str) -> str:
        return f"{self._namespace}:breaker:{name}"

    @staticmethod
    def _microseconds(seconds: float) -> int:
        return int(min(seconds, 1e8) * 1e6)
