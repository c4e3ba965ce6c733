"""Redis answers but refuses to work: every process treats that like a Redis that is away."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis.asyncio
from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from phantoms_dagster.domain.errors import InvalidInput, NotYet
from phantoms_dagster.embedded.servers import free_port
from phantoms_dagster.execution.queues import connect
from phantoms_dagster.resilience.admission.pools import Admission, Granted, Request
from phantoms_dagster.resilience.admission.scripts import RECOVERY_SECONDS
from phantoms_dagster.resilience.breakers.breaker import Breakers, CallOutcome
from phantoms_dagster.resilience.limits import CallScope, RedisLimits
from phantoms_dagster.resilience.pools import PoolLimits, Pools
from phantoms_dagster.resilience.redis.refusals import refuse_cluster_at
from phantoms_dagster.resilience.redis.scripts import Scripts, redis_client
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster_tests.integration.test_admission_redis_lost import Server

LIMITS = {"render": PoolLimits(slots=3, lease_seconds=20)}
SCOPE = CallScope("shotstack", pool="render")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = Server(folder)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def client(server: Server) -> AsyncIterator[redis.asyncio.Redis]:
    async with redis_client(server.url) as opened:
        yield opened


def _no_replicas(server: Server) -> None:
    _set(server, "min-replicas-to-write", 1)


def _no_memory(server: Server) -> None:
    _set(server, "maxmemory", 1)


def _replica(server: Server) -> None:
    with Redis.from_url(server.url) as admin:
        admin.execute_command("REPLICAOF", "127.0.0.1", 1)


def _disk_full(server: Server) -> None:
    _set(server, "appendonly", "no")
    _set(server, "save", "1 1")
    shutil.rmtree(server._folder)
    with Redis.from_url(server.url) as admin:
        admin.bgsave()
        while admin.info("persistence")["rdb_last_bgsave_status"] == "ok":
            time.sleep(0.02)


def _busy(server: Server) -> None:
    _set(server, "busy-reply-threshold", 10)

    def loop() -> None:
        with Redis.from_url(server.url) as admin:
            try:
                admin.eval("while true do end", 0)
            except RedisError:
                return  # killed, as it is meant to be

    threading.Thread(target=loop, daemon=True).start()
    with Redis.from_url(server.url) as admin:
        for _ in range(3_000):
            try:
                admin.ping()
            except RedisError:
                return
            time.sleep(0.02)


def _set(server: Server, name: str, value: object) -> None:
    with Redis.from_url(server.url) as admin:
        admin.config_set(name, value)


WAYS = {"NOREPLICAS": _no_replicas, "OOM": _no_memory, "READONLY": _replica, "MISCONF": _disk_full, "BUSY": _busy}


@contextmanager
def refusing(server: Server, way: str) -> Iterator[None]:
    WAYS[way](server)
    try:
        yield
    finally:
        with Redis.from_url(server.url) as admin:
            if way == "BUSY":
                admin.execute_command("SCRIPT", "KILL")
                while True:
                    try:
                        admin.ping()
                        break
                    except RedisError:
                        time.sleep(0.02)
            admin.execute_command("REPLICAOF", "NO", "ONE")
            for name, value in (("min-replicas-to-write", 0), ("maxmemory", 0), ("save", "")):
                admin.config_set(name, value)


def limits_on(client: redis.asyncio.Redis) -> RedisLimits:
    scripts, pools = Scripts(client), Pools(LIMITS, defaults={})
    return RedisLimits(Admission(scripts, pools), Breakers(scripts), pools, SystemClock())


@pytest.mark.parametrize("way", WAYS)
async def test_a_redis_that_refuses_admits_no_call_and_fails_nothing_that_is_under_way(
    server: Server, client: redis.asyncio.Redis, way: str
) -> None:
    limits = limits_on(client)
    kept = await limits.admit(SCOPE, max_wait=0, hold_seconds=600)
    outcome = await limits.admit(SCOPE, max_wait=0, hold_seconds=600)
    keeper = limits.admission._keeper
    with refusing(server, way):
        if way == "OOM":  # it lets a script go on that has made room already, as that of an admission does
            refused = limits.breakers.trip("shotstack", why="test")
        else:
            refused = limits.admit(SCOPE, max_wait=0, hold_seconds=600)  # type: ignore[assignment]
        with pytest.raises(NotYet, match="Redis"):
            await refused
        await limits.settle(outcome, CallOutcome.FAILED)  # never raises: its call has an answer already
        await limits.throttled(SCOPE, 1.0)
        await asyncio.sleep(1.2)  # the keeper looks twice
        assert keeper is not None
        assert not keeper.done()
    assert kept.lease is not None
    for _ in range(100):
        try:
            if await limits.admission.renew(kept.lease):
                break
        except NotYet:
            pass
        await asyncio.sleep(0.1)
    assert not kept.lease.lost
    await asyncio.sleep(RECOVERY_SECONDS)
    await limits.settle(kept, CallOutcome.ANSWERED)
    answer = await limits.admission.acquire(Request(("render",)), max_wait=60)
    assert isinstance(answer, Granted)
    await limits.aclose()
    await limits.admission.aclose()


@pytest.mark.parametrize("way", WAYS)
def test_run_queues_take_a_refusal_for_a_lost_connection(server: Server, way: str) -> None:
    queues = connect(server.url)
    with refusing(server, way):
        for ask in _writes(queues):
            with pytest.raises(RedisConnectionError, match="refuses"):
                ask()
    for ask in _writes(queues):
        ask()
    queues.close()


def _writes(client: Redis) -> list[Callable[[], object]]:
    def several() -> object:
        with client.pipeline() as pipe:
            pipe.set("a", "1")
            pipe.set("b", "1")
            return pipe.execute()

    return [lambda: client.set("a", "1"), several]


class Cluster(Server):
    """A Valkey in cluster mode."""

    def start(self, *config: str) -> None:
        file = self._folder / "valkey.conf"
        # By default its second port is 10,000 above the first, which may be above 65,535 or taken.
        file.write_text(f"cluster-enabled yes\ncluster-port {free_port(0)}\n")
        super().start(str(file), *config)


def test_a_cluster_is_refused_at_the_start_with_the_reason(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    cluster.start()
    try:
        with pytest.raises(InvalidInput, match="cluster mode"):
            refuse_cluster_at(cluster.url)
        environment = {**os.environ, "PHANTOMS_REDIS_URL": cluster.url, "PHANTOMS_HOME": str(tmp_path)}
        command = [sys.executable, "-m", "phantoms_dagster.execution.worker", "--queues", "script=1"]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert (ended.returncode, "cluster mode" in ended.stderr, "Traceback" in ended.stderr) == (2, True, False)
    finally:
        cluster.kill()
