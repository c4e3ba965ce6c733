"""A synchronous Redis client that treats a Redis that refuses to work as unavailable, and the check that rejects a Redis cluster.

The asynchronous client is in `scripts`.
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

# Errors by which Redis says that it cannot work now: full memory or disk, a missing replica, a failover, a script that runs too
# long.
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
    # redis-py drops the first word of the errors that it knows.
    "maxmemory",
    "read only replica",
)
# Pass this to `from_url` to stop redis-py from sending its name and version on each connection. To find the version, it parses its
# package's metadata as an e-mail: 2 CPU-ms and 1 MB per client, and two more commands to Redis.
NO_DRIVER_INFO: dict[str, Any] = {"driver_info": None}
CLUSTER = (
    "Redis runs in cluster mode, which cannot be used: pools, breakers and run queues change several keys at once, and a cluster "
    "spreads those over its nodes. Give PHANTOMS_REDIS_URL a Redis that is not a cluster; it may have replicas"
)


def refuses(said: str) -> bool:
    """Whether an error message of Redis means that it cannot work now, rather than that the command was wrong."""
    return any(word in said for word in _REFUSALS)


@contextmanager
def refusals_as_connection_errors() -> Iterator[None]:
    """Turn a refusal by Redis into a RedisConnectionError, which all callers wait out and retry."""
    try:
        yield
    except ResponseError as error:
        if not refuses(str(error)):
            raise
        raise RedisConnectionError(f"Redis refuses to work: {error}") from error


class OutageAwareRedis(Redis):
    """A client that raises RedisConnectionError when Redis refuses to work."""

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """See the base class."""
        with refusals_as_connection_errors():
            return super().execute_command(*args, **options)  # type: ignore[no-untyped-call]

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """See the base class."""
        return _OutageAwarePipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)


class _OutageAwarePipeline(Pipeline):
    def execute(self, raise_on_error: bool = True) -> list[Any]:
        with refusals_as_connection_errors():
            return super().execute(raise_on_error)

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        with refusals_as_connection_errors():
            return super().immediate_execute_command(*args, **options)  # type: ignore[no-untyped-call]


def refuse_cluster(redis: Redis) -> None:
    """Raise InvalidInput if this Redis is a cluster, RedisError if it does not answer."""
    if int(redis.info("cluster").get("cluster_enabled", 0)):
        raise InvalidInput(CLUSTER)


def refuse_cluster_at(url: str) -> str:
    """`refuse_cluster` for an address. Returns, for people, why it could not check; empty when it could."""
    try:
        with Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3, **NO_DRIVER_INFO) as redis:
            refuse_cluster(redis)
    except RedisError as error:
        return f"Redis does not answer ({type(error).__name__})"
    return ""
