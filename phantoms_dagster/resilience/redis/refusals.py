"""A synchronous client for which a Redis that refuses to work is as good as away, and the kind of Redis that cannot be used at all.

The asynchronous side is `redis_scripts`. What is asked of Redis belongs to who asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from phantoms_dagster.domain.errors import InvalidInput

# What Redis says when it cannot do its work now: a full memory or disk, a missing replica, a failover, a script that runs too long.
_REFUSALS = (
    "BUSY",
    "CLUSTERDOWN",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "NOREPLICAS",
    "OOM",
    "READONLY",
    "TRYAGAIN",
    "UNBLOCKED",
    # redis-py leaves out the first word of those that it knows.
    "maxmemory",
    "read only replica",
)
# redis-py tells Redis its own name and version with each connection. To find the version, it parses its package's metadata as a
# mail: 2 CPU-ms and 1 MB for each client, and two questions to Redis. Give this to `from_url` and it does not.
UNNAMED: dict[str, Any] = {"driver_info": None}
CLUSTER = (
    "Redis runs in cluster mode, which cannot be used: pools, breakers and run queues change several keys at once, and a cluster "
    "spreads those over its nodes. Give PHANTOMS_REDIS_URL a Redis that is not a cluster; it may have replicas"
)


def refuses(said: str) -> bool:
    """Whether an error of Redis' says that it cannot work now, and not that it was asked something wrong."""
    return any(word in said for word in _REFUSALS)


@contextmanager
def refusals_as_absence() -> Iterator[None]:
    """Turns the answer of a Redis that refuses its work into the loss of a connection, which everybody waits out and retries."""
    try:
        yield
    except ResponseError as error:
        if not refuses(str(error)):
            raise
        raise RedisConnectionError(f"Redis refuses its work: {error}") from error


class PatientRedis(Redis):
    """A client to which a refusal is a lost connection."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """See the base class."""
        with refusals_as_absence():
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """See the base class."""
        return _PatientPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _PatientPipeline(Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with refusals_as_absence():
            return super().execute(raise_on_error)

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        with refusals_as_absence():
            return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]


def refuse_cluster(redis: Redis) -> None:
    """Raises InvalidInput when this Redis is a cluster, RedisError when it does not answer."""
    if int(redis.info("cluster").get("cluster_enabled", 0)):
        raise InvalidInput(CLUSTER)


def refuse_cluster_at(url: str) -> str:
    """`refuse_cluster` for an address. What kept it from looking, for people; empty when it looked."""
    try:
        with Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, **UNNAMED) as redis:
            refuse_cluster(redis)
    except RedisError as error:
        return f"Redis does not answer ({type(error).__name__})"
    return ""
