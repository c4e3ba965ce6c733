"""A connection to Redis for commands and pages that only read, and the reason when there is none. Imports no HTTP client."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from phantoms_dagster.domain.errors import InvalidInput, PhantomsError
from phantoms_dagster.resilience.breakers.mirror import BreakerPolicy
from phantoms_dagster.resilience.redis.scripts import RedisLost, Scripts, redis_client
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.up_lock import nothing_runs


class RedisAway(PhantomsError):
    """Redis does not answer. The message gives the reason but no address, since a mistyped address may contain a password."""


@asynccontextmanager
async def redis_scripts(settings: Settings) -> AsyncIterator[Scripts]:
    """Scripts on the running event loop. Redis is contacted with the first one. Raises InvalidInput without a usable URL.

    Inside the block, RedisAway is raised when Redis does not answer.
    """
    if settings.redis.url is None:
        raise nothing_runs(settings, "Redis")
    try:
        client = redis_client(settings.redis.url.get_secret_value())
    except ValueError:
        # The parser's message quotes what it took for a port, which may be part of a password.
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
    """Why Redis does not answer and what to do, for people."""
    reason = re.sub(r" to \S+", "", str(error).removeprefix("Redis cannot decide: "))
    return f"Redis does not answer ({reason}); is `phantoms up` running?"


def breaker_policy(settings: Settings) -> BreakerPolicy:
    """The breaker policy in the settings."""
    return BreakerPolicy(
        window_seconds=settings.breakers.window_seconds,
        minimum_calls=settings.breakers.minimum_calls,
        failure_rate=settings.breakers.failure_rate,
        reset_seconds=settings.breakers.reset_seconds,
    )
