"""A short look at Redis, for those who only watch: a connection, and why there is none. It imports no HTTP client."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from phantoms_dagster.domain.errors import InvalidInput, PhantomsError
from phantoms_dagster.resilience.breakers.mirror import BreakerPolicy
from phantoms_dagster.resilience.redis.scripts import RedisLost, Scripts, redis_client
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.on_the_way import nothing_runs


class RedisAway(PhantomsError):
    """Redis does not answer; the message says why and never where, since a mistyped address may be half a password."""


@asynccontextmanager
async def redis_scripts(settings: Settings) -> AsyncIterator[Scripts]:
    """Scripts on the running event loop. Redis is not asked before the first of them. Raises InvalidInput without a usable URL.

    Inside, RedisAway is raised while Redis does not answer.
    """
    if settings.redis_url is None:
        raise nothing_runs(settings, "Redis")
    try:
        client = redis_client(settings.redis_url.get_secret_value())
    except ValueError:
        # The parser's own words repeat what it took for a port, which may be half of a password.
        raise InvalidInput("PHANTOMS_REDIS_URL cannot be read; it should look like redis://user:password@host:6379/0") from None
    async with client:
        scripts = Scripts(client)
        try:
            yield scripts
        except RedisLost as error:
            raise RedisAway(away(error)) from error
        finally:
            await scripts.aclose()


def away(error: RedisLost) -> str:
    """Why Redis does not answer, and what to do."""
    reason = re.sub(r" to \S+", "", str(error).removeprefix("Redis cannot decide: "))
    return f"Redis does not answer ({reason}); is `phantoms up` running?"


def breaker_policy(settings: Settings) -> BreakerPolicy:
    """When breakers open and for how long."""
    return BreakerPolicy(
        window_seconds=settings.breaker_window_seconds,
        minimum_calls=settings.breaker_minimum_calls,
        failure_rate=settings.breaker_failure_rate,
        reset_seconds=settings.breaker_reset_seconds,
    )
