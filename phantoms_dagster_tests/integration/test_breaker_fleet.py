"""One breaker, eight processes: exactly one probe."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import time
from collections.abc import Iterator
from multiprocessing.context import ForkProcess
from multiprocessing.queues import SimpleQueue

import pytest
import redis

from phantoms_dagster.resilience.breakers.breaker import BreakerOpen, BreakerPolicy, Breakers, CallOutcome
from phantoms_dagster.resilience.redis.scripts import Scripts, redis_client

_FORK = multiprocessing.get_context("fork")
POLICY = BreakerPolicy(minimum_calls=5, reset_seconds=0.8, probe_seconds=30)


@pytest.fixture
def processes() -> Iterator[list[ForkProcess]]:
    """Those put in here end with the test."""
    started: list[ForkProcess] = []
    yield started
    for process in started:
        process.kill()
        process.join()
        process.close()


async def _keep_calling(url: str, seconds: float, told: SimpleQueue[int]) -> None:
    """Call a dead integration for a while, four at once; `calls` in Redis counts what reaches it."""
    async with redis_client(url) as client:
        breakers = Breakers(Scripts(client), policy=POLICY)
        refused, end = 0, time.monotonic() + seconds

        async def worker() -> None:
            nonlocal refused
            while time.monotonic() < end:
                try:
                    leave = await breakers.admit("dead")
                except BreakerOpen:
                    refused += 1
                    await asyncio.sleep(0.01)
                    continue
                await client.rpush("calls", time.monotonic_ns())
                await asyncio.sleep(0.02)
                alive = await client.exists("alive")
                await breakers.settle(leave, CallOutcome.ANSWERED if alive else CallOutcome.FAILED)

        await asyncio.gather(*(worker() for _ in range(4)))
    told.put(refused)


def test_eight_processes_make_exactly_one_probe_in_each_reset_time(processes: list[ForkProcess], redis_url: str) -> None:
    told: SimpleQueue[int] = _FORK.SimpleQueue()
    for _ in range(8):
        processes.append(_FORK.Process(target=lambda: asyncio.run(_keep_calling(redis_url, 4.0, told))))
        processes[-1].start()
    refused = sum(told.get() for _ in range(8))
    assert refused > 100
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        calls = [int(at) / 1e9 for at in client.lrange("calls", 0, -1)]
        changes = client.lrange("phantoms:breaker:dead#log", 0, -1)
    # All that reached it were the calls before it opened, at once, and then one probe after each reset time.
    probes = sorted(at for at in calls if at > min(calls) + 0.7)
    assert 2 <= len(probes) <= 5
    assert all(later - earlier >= POLICY.reset_seconds for earlier, later in itertools.pairwise(probes))
    assert sum("probe sent" in change for change in changes) == len(probes)
    assert sum("too many failures" in change for change in changes) == 1


def test_when_it_lives_again_one_answer_brings_all_processes_back(processes: list[ForkProcess], redis_url: str) -> None:
    told: SimpleQueue[int] = _FORK.SimpleQueue()
    for _ in range(4):
        processes.append(_FORK.Process(target=lambda: asyncio.run(_keep_calling(redis_url, 3.0, told))))
        processes[-1].start()
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        while client.hget("phantoms:breaker:dead", "state") != "open":
            time.sleep(0.01)
        client.set("alive", 1)
        for _ in range(4):
            told.get()
        assert client.hget("phantoms:breaker:dead", "state") == "closed"
        assert client.llen("calls") > 50
        changes = client.lrange("phantoms:breaker:dead#log", 0, -1)
    assert sum("probe answered" in change for change in changes) == 1
    assert sum("probe sent" in change for change in changes) == 1
