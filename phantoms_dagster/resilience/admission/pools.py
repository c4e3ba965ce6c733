"""Admission to pools: slots, rates and daily quotas of every pool of a call, decided together in one round trip.

The script decides who may call, on Redis' clock. This module asks the script, renews leases and gives them back. The caller sleeps
until its turn. The exception is the last few milliseconds before the send time that the script assigned: this module sleeps through
those, and a call that wakes too late gets a new send time. Late calls and punctual calls together would exceed the rate.
Every script here may be sent twice. An acquire carries its own id, so a repeated one finds the slot it already holds and pays once.
Renewals and releases state the desired result. A penalty during a pause only extends the pause. A grant whose answer never arrives
holds its slot until the lease ends.
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

# How often a holder checks that Redis still knows its lease: well within the recovery, when no new caller is admitted.
KEEPER_SECONDS = lua.RECOVERY_SECONDS / 4
# The pause after a 429 without Retry-After.
PAUSE_SECONDS = 1.0
_MIDNIGHTS_KEPT_SECONDS = 3_600.0
# After this many missed send times in a row the call goes out anyway: a process that is always late would never call.
_MOST_SEND_TIMES = 20
# How fast two good clocks may drift apart, in seconds per second.
_DRIFT = 100e-6


@dataclass(eq=False)
class Lease:
    """One slot in each of `pools`. `token` is a fencing token: within a pool, a later holder always has a greater one.

    `lost` becomes true when the lease ran out before it could be renewed: another call may hold the slot. `known_to` is the epoch
    of Redis' memory that knows this lease, and the number of losses of contact up to then. `at` is the time to send the call, in
    microseconds of Redis' clock.
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
    """The call may be sent. Give `lease` back afterwards."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Wait:
    """The call may not be sent yet. Ask again after `seconds` with the same `Request`, which keeps its place in the queue.

    `pool` and `kind` say which limit was reached: `slots`, `rate`, `daily`, `paused` (the provider said so), `recovery` (Redis
    lost its memory) or `breaker` (`pool` is then the breaker's name).
    """

    seconds: float
    pool: str
    kind: str

    def __str__(self) -> str:
        """The limit that was reached, for people."""
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
    """One call's request for admission. Pass the same object again until it is granted. `cost` counts against daily quotas."""

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
    """A pool's present state. `factor` is the share of its limits left after 429s, `hold_seconds` the average length of a call."""

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
    """Admission to the pools, for one event loop. `aclose` stops the renewal of leases.

    `namespace` separates systems on one Redis.
    """

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
        """Ask for one slot in every pool of the request and a share of their rates and quotas. Grants all of them or none.

        `max_wait`: how many seconds the caller is willing to wait. A request that must wait longer keeps no place in the queue. A
        lease is renewed for at most `hold_seconds`; then it runs out. Raises NotYet while Redis is unavailable.
        """
        for tries in range(_MOST_SEND_TIMES):
            answer = await self._acquire(request, max_wait, hold_seconds)
            if isinstance(answer, Wait):
                return answer
            request.token = answer.lease.token = request.token or answer.lease.token  # a new send time keeps the place in the queue
            if await self._sleep_until_send_time(answer.lease) or tries == _MOST_SEND_TIMES - 1:
                break
            self._held.pop(answer.lease.id, None)  # Redis still has it, under the id that the next request repeats
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

    async def _sleep_until_send_time(self, lease: Lease) -> bool:
        """Sleep until the lease's send time. False when the process woke later than the jitter that its pools allow."""
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
        """How many seconds late a call may be sent: a third of the slack of the pool's shortest window.

        The rest of the slack covers the way to the provider. A pool without short windows tolerates any delay: infinity.
        """
        if pool not in self._jitter:
            short = [seconds for _, seconds, _ in self._pools.limits(pool).rates if seconds <= lua.SHORT_SECONDS]
            self._jitter[pool] = min(short) * lua.SHORT_SLACK_SHARE / 3 if short else math.inf
        return self._jitter[pool]

    def _compare_clocks(self, redis_now: int) -> None:
        """Estimate the offset between Redis' clock and ours. The quickest answer gives the best estimate."""
        now = time.monotonic()
        drifted = self._behind + (now - self._compared_at) * _DRIFT
        self._behind, self._compared_at = min(drifted, now - redis_now / 1e6), now

    async def release(self, lease: Lease) -> None:
        """Give the slots back. While Redis is unavailable, they become free when the lease ends."""
        self.release_soon(lease)
        if self._releasing:
            await asyncio.wait(self._releasing)

    def release_soon(self, lease: Lease) -> None:
        """`release` without waiting, for places that cannot await, such as a cancellation."""
        self._held.pop(lease.id, None)
        self._give_back(lease.id, lease.pools, lease.granted_at, lease.at)

    def forget(self, request: Request) -> None:
        """Give up the request's place in the queue."""
        if request.ticket:
            self._give_back(request.id, request.pools, 0)

    async def renew(self, lease: Lease) -> bool:
        """Start the lease's time again. False when it had already run out. Leases that are held are renewed automatically."""
        leases = [self._microseconds(self._pools.limits(pool).lease_seconds) for pool in lease.pools]
        started = time.monotonic()
        held = await self._check_in(lease.id, lease.pools, leases)
        lease.renewed, lease.known_to, lease.lost = started, (self._epoch, self._losses), not held
        return held

    async def penalise(self, pool: str, retry_after: float | None = None) -> None:
        """React to a 429: admit nothing for `retry_after` seconds, then less than before. The full limits return in ten minutes."""
        pause = self._microseconds(PAUSE_SECONDS if retry_after is None else min(max(retry_after, 0.0), 86_400.0))
        await self._scripts.run(lua.PENALISE, [self._base(pool)], [pause])

    async def look(self) -> list[PoolState]:
        """Every pool that was ever used, sorted by name. Raises NotYet while Redis is unavailable."""
        seen = await self._scripts.run(lua.LOOK, [self._contact], [])
        now, rows = int(seen[0]), [seen[i : i + 8] for i in range(1, len(seen), 8)]
        return sorted((self._state(row, now) for row in rows), key=lambda state: state.pool)

    async def aclose(self) -> None:
        """Stop renewing leases and wait for the releases in progress."""
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
                limits += self._fixed.get(pool) or self._limits(pool, now, self._reserved_for_others(pool, request.pools))
            answer: list[Any] = await self._scripts.run(lua.ACQUIRE, keys, [*head, *limits])
            self._losses = losses
            if answer[0] in (0, 1):
                self._compare_clocks(int(answer[2 if answer[0] else 6]))
            if answer[0] != 2:
                return answer
            # Our clock is days away from Redis' clock. Redis' clock counts.
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

    def _reserved_for_others(self, pool: str, pools: Sequence[str]) -> int:
        """The units of `pool`'s daily quota that a call through `pools` must leave for other calls."""
        asked = map(self._pools.limits, pools)
        return next((limits.leaves for limits in asked if limits.shares == pool), 0)

    def _limits(self, pool: str, now: float, reserved: int = 0) -> list[Argument]:
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
        # Redis takes at least the use that this process saw, so a Redis that lost its memory still knows the day's use.
        units = max(0, limits.daily.units - reserved)
        return [*numbers, units, *self._used.get(pool, (0, 0)), len(midnights), *midnights]

    # --- keeping and giving back

    async def _keep(self) -> None:
        """Renew the leases that are held, and notice within half a second when Redis has lost them."""
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
            await self._check_in("-", (), [])
        now = time.monotonic()
        for lease in list(self._held.values()):
            if lease.keep_until < now:
                del self._held[lease.id]  # longer than any call may take: the holder never gave it back
        known_to = (self._epoch, self._losses)
        due = [
            lease for lease in self._held.values() if lease.known_to != known_to or now - lease.renewed > self._shortest(lease) / 3
        ]
        for held, lease in zip(await asyncio.gather(*map(self.renew, due)), due, strict=True):
            if not held:
                log.warning("a call in %s outlived its lease", ", ".join(lease.pools))
                self._held.pop(lease.id, None)

    async def _check_in(self, lease_id: str, pools: Sequence[str], leases: Sequence[int]) -> bool:
        losses, lost = self._broken()
        keys = [self._contact, *map(self._base, pools)]
        held, self._epoch = await self._scripts.run(lua.RENEW, keys, [lease_id, self._epoch, lost, *leases])
        self._losses = losses
        return int(held) == 1

    def _broken(self) -> tuple[int, str]:
        """The losses of contact, and `"1"` if there was one since the last answer: leases may have run out unnoticed."""
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
            log.debug("slots become free when their lease ends: %s", error)
        elif error is not None:
            log.error("slots could not be given back; they become free when their lease ends", exc_info=error)

    def _short_rates(self, pool: str) -> str:
        """The numbers (from 1, comma-separated) of the pool's rates with a short window, whose calls are spaced."""
        if pool not in self._spaced:
            rates = enumerate(self._pools.limits(pool).rates, start=1)
            self._spaced[pool] = ",".join(str(number) for number, (_, seconds, _) in rates if seconds <= lua.SHORT_SECONDS)
        return self._spaced[pool]

    def _shortest(self, lease: Lease) -> float:
        return min(self._pools.limits(pool).lease_seconds for pool in lease.pools)

    def _state(self, row: Sequence[str], now: int) -> PoolState:
        name = row[0].removeprefix(f"{self._namespace}:pool:")
        # The pool may come from settings that no longer exist.
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
