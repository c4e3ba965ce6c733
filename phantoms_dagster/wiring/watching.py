"""Read access to the shared pools and breakers, for commands and pages. `limits` admits calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.resilience.admission.pools import Admission
from phantoms_dagster.resilience.breakers.breaker import Breakers
from phantoms_dagster.resilience.pools import SANDBOX, PoolLimits, Pools
from phantoms_dagster.resilience.redis.scripts import Scripts
from phantoms_dagster.resilience.scopes import ROUTES
from phantoms_dagster.resilience.usage import RateUse, rates_used
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.media import INTEGRATION as MEDIA
from phantoms_dagster.wiring.pool_limits import pool_overrides
from phantoms_dagster.wiring.redis_connection import breaker_policy, redis_scripts


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool's present state. `slots` None: no limit. `quota_left` None: no daily quota.

    `factor` (0..1] is the share of the limits left after 429s; `paused_seconds` is how long the provider still wants no calls. A
    name that ends with `:*` is the pool of each account that has not called yet. `used`: the pool was used before.
    """

    pool: str
    in_use: int
    slots: int | None
    waiting: int
    rates: tuple[RateUse, ...]
    quota: int | None
    quota_left: int | None
    factor: float
    paused_seconds: float
    used: bool


class Watcher:
    """Reads the state that all processes share in Redis. Every method raises RedisAway while Redis does not answer."""

    def __init__(self, scripts: Scripts, settings: Settings) -> None:
        self._scripts = scripts
        self._pools = Pools(pool_overrides(settings))
        self._admission = Admission(scripts, self._pools)
        self.breakers = Breakers(scripts, policy=breaker_policy(settings))

    async def pools(self, wanted: str | None = None) -> list[PoolView]:
        """All pools, or one with its accounts' pools (`publish_youtube` and `publish_youtube:main`). Raises NotFound.

        The sandbox's pools (`sandbox/publish_youtube`) exist once they were used, and are listed with the real ones.
        """
        states = {state.pool: state for state in await self._admission.look()}
        # An account's own pool replaces the pattern in the list.
        seen = {f"{name.split(':', 1)[0]}:*" for name in states if ":" in name}
        names = sorted({*states, *(name for name in self._pools.names() if name not in seen)})
        if wanted is not None:
            names = [name for name in names if _meant(wanted, name)]
            if not names:
                raise NotFound(f"no pool {wanted!r}; `phantoms pools` lists them")
        # A used pool may come from settings that no longer exist.
        limits = {name: self._pools.limits(name) if self._pools.has(name) else PoolLimits() for name in names}
        rates = await rates_used(self._scripts, limits)
        views = []
        for name in names:
            state, daily = states.get(name), limits[name].daily
            quota = daily.units if daily else None
            views.append(
                PoolView(
                    pool=name,
                    in_use=state.in_flight if state else 0,
                    slots=limits[name].slots,
                    waiting=state.waiting if state else 0,
                    rates=rates[name],
                    quota=quota,
                    quota_left=None if quota is None else max(0, quota - (state.used_today if state else 0)),
                    factor=state.factor if state else 1.0,
                    paused_seconds=state.paused_seconds if state else 0.0,
                    used=state is not None,
                )
            )
        return views


def _meant(wanted: str, name: str) -> bool:
    """Whether a request for the pool `wanted` includes `name`: also the pools of its accounts and of the sandbox."""
    return any(wanted in (of, of.split(":", 1)[0]) for of in (name, name.removeprefix(SANDBOX)))


def known_breaker(name: str) -> str:
    """Return the name if such a breaker may exist: `integration` or `integration:account`. Raises NotFound otherwise.

    A name that begins with `sandbox/` is the breaker for calls to the sandbox.
    """
    integration, _, account = name.removeprefix(SANDBOX).partition(":")
    of_routes = {route.integration for routes in ROUTES.values() for route in routes if route.integration}
    known = sorted({MEDIA, *(name for name, routes in ROUTES.items() if routes), *of_routes})
    if integration not in known or (":" in name and not account):
        raise NotFound(f"no breaker {name!r}; they are {', '.join(known)}, and one for each account, such as youtube:main")
    return name


@asynccontextmanager
async def watching(settings: Settings) -> AsyncIterator[Watcher]:
    """A watcher on the running event loop. Redis is contacted with the first call. Raises InvalidInput without a usable URL."""
    async with redis_scripts(settings) as scripts:
        yield Watcher(scripts, settings)
