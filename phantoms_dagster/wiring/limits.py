"""The limits of calls, pools and breakers, from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.production.rescheduling import DayLimit
from phantoms_dagster.resilience.limits import RedisLimits, redis_limits
from phantoms_dagster.resilience.pools import DAY, DailyQuota, PoolLimits, Pools, Rate
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.redis_connection import breaker_policy
from phantoms_dagster.wiring.up_lock import nothing_runs


def pool_overrides(settings: Settings) -> dict[str, PoolLimits]:
    """The pools whose limits the settings change. Raises InvalidInput that names the pool and the field."""
    return {name: _limits(name, given) for name, given in settings.pacing.pools.items()}


def post_limits(settings: Settings) -> dict[Platform, list[DayLimit]]:
    """Each platform's limits of posts per day, from its publishing pools. Platforms without a limit are left out."""
    pools = Pools(pool_overrides(settings))
    found: dict[Platform, list[DayLimit]] = {}
    for platform in Platform:
        names = [name for name in (f"publish_{platform}", f"publish_{platform}:*") if pools.has(name)]
        limits = [pools.limits(name) for name in names]
        found[platform] = [
            *(DayLimit(each.daily.units, each.daily.zone) for each in limits if each.daily is not None),
            *(DayLimit(calls) for each in limits for calls, seconds, _ in each.rates if seconds == DAY),
        ]
    return {platform: limits for platform, limits in found.items() if limits}


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


@asynccontextmanager
async def limits_of(settings: Settings, clock: Clock, given: RedisLimits | None = None) -> AsyncIterator[RedisLimits]:
    """The shared limits, on this event loop. Redis is contacted with the first call. Raises InvalidInput without a URL.

    `given`: limits that are already open. They are returned and stay open.
    """
    if given is not None:
        yield given
        return
    if settings.redis.url is None:
        raise nothing_runs(settings, "Redis")
    url = settings.redis.url.get_secret_value()
    async with redis_limits(url, clock=clock, pools=pool_overrides(settings), policy=breaker_policy(settings)) as limits:
        yield limits
