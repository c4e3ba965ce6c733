"""Admission seen from several processes at once, some of which die."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkProcess
from multiprocessing.queues import SimpleQueue
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import redis

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.admission.pools import Admission, Granted, Lease, Request
from phantoms_dagster.resilience.pools import PoolLimits, Pools
from phantoms_dagster.resilience.redis.scripts import Scripts, redis_client
from phantoms_dagster_tests.integration.test_admission_redis_lost import Server

SECOND = 1_000_000
_FORK = multiprocessing.get_context("fork")
Start = Callable[..., ForkProcess]
Told = SimpleQueue[list[tuple[int, ...]]]
Gauge: TypeAlias = "Synchronized[int]"


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts processes that end with the test, whatever happens."""
    started: list[ForkProcess] = []

    def run(work: Callable[..., Any], *args: Any) -> ForkProcess:
        process = _FORK.Process(target=lambda: asyncio.run(work(*args)))
        process.start()
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.join()
        process.close()


async def _calls(url: str, limits: PoolLimits, seconds: float, hold: float, gauge: Gauge, told: Told) -> None:
    """Call as often as allowed, four at once, and tell (ticket, granted, in flight then, token) of each call."""
    done: list[tuple[int, ...]] = []
    async with redis_client(url) as client:
        admission = Admission(Scripts(client), Pools({"api": limits}, defaults={}))
        end = time.monotonic() + seconds

        async def admitted(request: Request) -> Lease:
            while True:
                try:
                    answer = await admission.acquire(request, max_wait=60)
                except NotYet:
                    await asyncio.sleep(0.05)
                    continue
                if isinstance(answer, Granted):
                    return answer.lease
                await asyncio.sleep(answer.seconds)

        async def worker() -> None:
            while time.monotonic() < end:
                request = Request(("api",))
                lease = await admitted(request)
                with gauge.get_lock():
                    gauge.value += 1
                    seen = gauge.value
                await asyncio.sleep(hold)
                with gauge.get_lock():
                    gauge.value -= 1
                done.append((request.ticket or lease.granted_at, lease.granted_at, seen, lease.token))
                await admission.release(lease)

        await asyncio.gather(*(worker() for _ in range(4)))
        await admission.aclose()
    told.put(done)


def fleet(
    start: Start,
    url: str,
    limits: PoolLimits,
    *,
    processes: int = 8,
    seconds: float,
    hold: float,
    meanwhile: Callable[[], None] = lambda: None,
) -> list[tuple[int, ...]]:
    """What all processes tell, in the order of being granted."""
    told: Told = _FORK.SimpleQueue()
    gauge = _FORK.Value("i", 0)
    for _ in range(processes):
        start(_calls, url, limits, seconds, hold, gauge, told)
    meanwhile()
    return sorted((call for _ in range(processes) for call in told.get()), key=lambda call: call[1])


def test_eight_processes_never_hold_more_than_the_slots(start: Start, redis_url: str) -> None:
    calls = fleet(start, redis_url, PoolLimits(slots=3), seconds=2, hold=0.02)
    assert len(calls) > 50
    assert max(seen for _, _, seen, _ in calls) == 3


def test_eight_processes_never_exceed_the_rate_and_nearly_reach_it(start: Start, redis_url: str) -> None:
    calls = fleet(start, redis_url, PoolLimits(slots=5, rates=((20, 1.0, 5),)), seconds=3, hold=0.01)
    granted = [at for _, at, _, _ in calls]
    assert max(sum(1 for other in granted if at <= other < at + SECOND) for at in granted) <= 20
    assert len(granted) >= 50


def test_eight_processes_are_served_in_the_order_of_asking(start: Start, redis_url: str) -> None:
    calls = fleet(start, redis_url, PoolLimits(slots=1), seconds=2, hold=0.01)
    tickets = [ticket for ticket, _, _, _ in calls]
    assert len(tickets) > 20
    assert tickets == sorted(tickets)


def test_each_holder_has_a_greater_token_than_the_one_before(start: Start, redis_url: str) -> None:
    tokens = [token for _, _, _, token in fleet(start, redis_url, PoolLimits(slots=2), processes=4, seconds=1, hold=0.01)]
    assert tokens == sorted(set(tokens))


async def _hold_for_ever(url: str, limits: PoolLimits, holding: SimpleQueue[bool]) -> None:
    async with redis_client(url) as client:
        admission = Admission(Scripts(client), Pools({"api": limits}, defaults={}))
        for _ in range(2):
            assert isinstance(await admission.acquire(Request(("api",)), max_wait=0), Granted)
        holding.put(True)
        await asyncio.Event().wait()


def test_a_killed_holder_gives_its_slots_back_when_its_lease_ends_and_not_before(start: Start, redis_url: str) -> None:
    limits = PoolLimits(slots=2, lease_seconds=1.5)
    holding: SimpleQueue[bool] = _FORK.SimpleQueue()
    victim = start(_hold_for_ever, redis_url, limits, holding)
    assert holding.get()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        time.sleep(2)  # longer than the lease: it lives, so it keeps them
        now, _ = client.time()
        assert client.zcount("phantoms:pool:api#h", now * SECOND, "+inf") == 2
        os.kill(victim.pid or 0, signal.SIGKILL)
        victim.join()
        first_lease_ends = min(score for _, score in client.zrange("phantoms:pool:api#h", 0, -1, withscores=True))
    calls = fleet(start, redis_url, limits, processes=2, seconds=2.5, hold=0.01)
    assert calls
    assert calls[0][1] >= first_lease_ends
    assert max(seen for _, _, seen, _ in calls) <= 2


def test_a_flush_in_mid_run_exceeds_no_slots_and_loses_no_caller(start: Start, redis_url: str) -> None:
    def flush() -> None:
        time.sleep(1.5)
        with redis.Redis.from_url(redis_url) as client:
            client.flushall()

    calls = fleet(start, redis_url, PoolLimits(slots=3), processes=4, seconds=5, hold=0.3, meanwhile=flush)
    assert max(seen for _, _, seen, _ in calls) == 3
    granted = [at for _, at, _, _ in calls]
    assert max(granted) - min(granted) > 4 * SECOND


def test_a_restart_in_mid_run_exceeds_no_slots_and_loses_no_caller(start: Start, tmp_path: Path) -> None:
    server = Server(tmp_path)
    server.start()

    def restart() -> None:
        time.sleep(1.5)
        server.kill(forget=True)
        time.sleep(0.5)
        server.start()

    try:
        calls = fleet(start, server.url, PoolLimits(slots=3), processes=4, seconds=6, hold=0.3, meanwhile=restart)
    finally:
        server.kill()
    assert max(seen for _, _, seen, _ in calls) == 3
    granted = [at for _, at, _, _ in calls]
    assert max(granted) - min(granted) > 5 * SECOND
