"""The guard of every call: pools and breakers from the settings, and one guarded HTTP client for each integration."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import httpx

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.resilience.limits import CallScope, RedisLimits, redis_limits
from phantoms_dagster.resilience.pools import DailyQuota, PoolLimits, Pools, Rate
from phantoms_dagster.resilience.scopes import scope_of
from phantoms_dagster.resilience.transport import CallObserver, Deadlines, build_client
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.endpoints import INTEGRATIONS
from phantoms_dagster.wiring.redis_looks import breaker_policy


def pool_overrides(settings: Settings) -> dict[str, PoolLimits]:
    """The limits that the settings change. Raises InvalidInput that names pool and field."""
    return {name: _limits(name, given) for name, given in settings.pools.items()}


def _limits(name: str, given: Mapping[str, Any]) -> PoolLimits:
    known = {"slots", "rates", "daily", "lease_seconds", "leaves"}
    if unknown := set(given) - known:
        raise InvalidInput(
            f"PHANTOMS_POOLS: pool {name}: unknown field {sorted(unknown)[0]!r}; there are {', '.join(sorted(known))}"
        )
    try:
        default = Pools().limits(name) if Pools().has(name) else PoolLimits()
        daily = given.get("daily", default.daily)
        return PoolLimits(
            slots=given.get("slots", default.slots),
            rates=tuple(Rate(*rate) for rate in given.get("rates", default.rates)),
            daily=DailyQuota(*daily) if isinstance(daily, list) else daily,
            lease_seconds=given.get("lease_seconds", default.lease_seconds),
            shares=default.shares,
            leaves=given.get("leaves", default.leaves),
        )
    except (TypeError, ValueError, KeyError) as error:
        raise InvalidInput(f"PHANTOMS_POOLS: pool {name}: {error}") from error


def deadlines_of(settings: Settings, integration: str) -> Deadlines:
    """How long a call of the integration may take. A model is silent until its whole answer is written; no other service is."""
    deadlines = Deadlines(total=settings.call_seconds, patience=settings.patience_seconds)
    if integration == "openai":
        return replace(deadlines, read=settings.openai_seconds, total=settings.openai_seconds)
    return replace(deadlines, read=min(deadlines.read, settings.call_seconds))


@asynccontextmanager
async def limits_of(settings: Settings, clock: Clock) -> AsyncIterator[RedisLimits]:
    """The fleet's limits on this event loop. Redis is not asked before the first call. Raises InvalidInput without a URL."""
    if settings.redis_url is None:
        raise InvalidInput("no Redis is running here: start `phantoms up`, or set PHANTOMS_REDIS_URL")
    url = settings.redis_url.get_secret_value()
    async with redis_limits(url, clock=clock, pools=pool_overrides(settings), policy=breaker_policy(settings)) as limits:
        yield limits


@asynccontextmanager
async def guarded_clients(
    settings: Settings, clock: Clock, observer: CallObserver | None = None, *, sandboxed: Callable[[str], bool]
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """One client for each integration, behind the fleet's breakers and pools.

    `sandboxed`: whether the sandbox answers for an integration; its calls then have breakers and pools of their own. It is asked
    at the first call, when all that it depends on is known.
    """
    async with AsyncExitStack() as stack:
        limits = await stack.enter_async_context(limits_of(settings, clock))
        yield {
            name: await stack.enter_async_context(
                build_client(
                    limits=limits, scope=_scope(name, sandboxed), deadlines=deadlines_of(settings, name), observer=observer
                )
            )
            for name in INTEGRATIONS
        }


def _scope(integration: str, sandboxed: Callable[[str], bool]) -> Callable[[httpx.Request], CallScope]:
    """What a request of the integration falls under."""
    of_path = scope_of(integration)
    in_sandbox = cache(lambda: sandboxed(integration))

    def scope(request: httpx.Request) -> CallScope:
        found = of_path(request)
        return replace(found, sandbox=True) if in_sandbox() else found

    return scope
