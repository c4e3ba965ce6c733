"""The shared limits in Redis, from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.resilience.limits import RedisLimits, redis_limits
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.pool_limits import pool_overrides
from phantoms_dagster.wiring.redis_connection import breaker_policy
from phantoms_dagster.wiring.up_lock import nothing_runs


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
