"""*guards*: what the guard costs each call: admission to two pools in one round trip, and the check of a closed breaker.

One process makes one request at a time, like a caller without competition. The report also has the floor, a bare PING over the same
kind of connection. Everything above the floor is our cost.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Awaitable, Callable

import redis.asyncio

from phantoms_dagster.resilience.admission.pools import Granted, Request
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope
from phantoms_dagster.resilience.redis.scripts import redis_client
from phantoms_dagster.wiring.limits import limits_of
from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.world import Bench, hurry, open_bench

ADMISSION_MS, BREAKER_MS = 1.0, 0.3
SCOPE = CallScope("youtube", account="account-1", pool="publish_youtube")
POOLS = ("publish_youtube", "publish_youtube:account-1")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--times", type=int, default=3000, help="how often each is measured (3000)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's random choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Measure both."""
    report = Report("guards", {"times": options.times})
    report.notes.append(hurry())
    with open_bench(seed=options.seed) as bench:
        asyncio.run(_measure(report, bench, options.times))
    return report


async def _measure(report: Report, bench: Bench, times: int) -> None:
    services = bench.services
    client: redis.asyncio.Redis
    async with redis_client(bench.urls.redis_url) as client, limits_of(services.settings, services.clock) as limits:

        async def ping() -> None:
            await client.ping()

        async def admission() -> None:
            answer = await limits.admission.acquire(Request(POOLS), max_wait=0)
            assert isinstance(answer, Granted)
            held.append(answer)

        async def released() -> None:
            while held:
                await limits.admission.release(held.pop().lease)

        async def breaker() -> None:
            passes.append(await limits.breakers.admit("youtube"))

        async def settled() -> None:
            while passes:
                await limits.breakers.settle(passes.pop(), CallOutcome.ANSWERED)

        async def whole() -> None:
            permits.append(await limits.admit(SCOPE, max_wait=0, hold_seconds=60))

        async def over() -> None:
            while permits:
                await limits.settle(permits.pop(), CallOutcome.ANSWERED)

        held, passes, permits = [], [], []  # type: ignore[var-annotated]
        floor = await _timed(ping, None, times)
        report.tell("PING p50 ms", round(percentile(floor, 0.5), 3))
        _tell(report, "admission", await _timed(admission, released, times), ADMISSION_MS)
        _tell(report, "breaker check", await _timed(breaker, settled, times), BREAKER_MS)

        async def stale() -> None:
            await settled()
            limits.breakers.invalidate("youtube")

        looked = await _timed(breaker, stale, times)
        report.tell("breaker check that looks at Redis (4 times a second), p50 ms", round(percentile(looked, 0.5), 3))
        both = await _timed(whole, over, times)
        report.tell("both, with two breakers and two pools, p50 ms", round(percentile(both, 0.5), 3))


def _tell(report: Report, what: str, taken: list[float], most: float) -> None:
    half = percentile(taken, 0.5)
    report.check(f"{what} p50 ms", round(half, 3), f"< {most:g}", ok=half < most)
    report.tell(f"{what} p95 ms", round(percentile(taken, 0.95), 3))


async def _timed(work: Callable[[], Awaitable[None]], after: Callable[[], Awaitable[None]] | None, times: int) -> list[float]:
    """Return the milliseconds of each call of `work`. The time of `after` does not count."""
    taken: list[float] = []
    for n in range(times + times // 10):
        began = time.perf_counter()
        await work()
        seconds = time.perf_counter() - began
        if n >= times // 10:  # the first ones load scripts and connect
            taken.append(seconds * 1_000)
        if after is not None:
            await after()
    return taken
