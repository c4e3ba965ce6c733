"""The limits of calls, pools and breakers, from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.domain.posting_slots import DayLimit
from phantoms_dagster.resilience.limits import RedisLimits, redis_limits
from phantoms_dagster.resilience.pools import DAY, PoolLimits, Pools
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.redis_connection import breaker_policy
from phantoms_dagster.wiring.up_lock import nothing_runs


def pool_overrides(settings: Settings) -> dict[str, PoolLimits]:
    """The pools whose limits the settings change. A pool that is not registered has only the limits that the settings give."""
    registered = Pools()
    return {
        name: given.applied_to(registered.limits(name) if registered.has(name) else PoolLimits())
        for name, given in settings.pacing.pools.items()
    }


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
