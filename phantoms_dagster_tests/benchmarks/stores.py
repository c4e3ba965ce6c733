"""*stores*: in mid-run Redis is killed (and comes back with its data), then emptied by FLUSHALL, then PostgreSQL is restarted.

All videos finish, and none is lost or doubled. The supervisor of the embedded servers restarts them.
"""

from __future__ import annotations

import argparse
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from phantoms_dagster_tests.benchmarks import completion, reconciliation
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.world import Bench, Reviewer, open_bench

BLOWS = ((0.25, "Redis killed"), (0.45, "FLUSHALL"), (0.65, "PostgreSQL restarted"))


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=100, help="how many videos (100)")
    parser.add_argument("--workers", type=int, default=3, help="worker processes (3)")
    parser.add_argument("--seconds", type=float, default=600, help="give up after this many seconds (600)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's random choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Carry all videos while the stores go away one after the other."""
    report = Report("stores", {name: getattr(options, name) for name in ("videos", "workers", "seed")})
    report.notes.append("voice and studio are the stand-ins of the storm; a blow falls when its share of all stages is done")
    with open_bench(seed=options.seed) as bench:
        bench.add_videos(options.videos)
        fleet = bench.fleet("carry", options.workers, seed=options.seed)
        blows = _Blows(bench)
        started = time.monotonic()
        with Reviewer(bench):
            ended = completion.wait_until_ended(bench, seconds=options.seconds, during=blows.at)
        seconds = time.monotonic() - started
        fleet.stop()
        if not ended:
            report.problems.append(f"not at its end after {options.seconds:g} s")
        report.tell("seconds", round(seconds, 1))
        report.tell("runs that broke off", len(fleet.complaints()))
        report.tell("said by the supervisor", len(bench.warnings))
        _weigh(report, bench, blows, options.videos)
    return report


class _Blows:
    """Strikes each store once, when its share of the work is done."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._left = list(BLOWS)
        self.fallen: dict[str, str] = {}
        self._how: dict[str, Callable[[], Any]] = {
            "Redis killed": lambda: os.kill(bench.servers.pids["valkey"], signal.SIGKILL),
            "FLUSHALL": self._flush,
            "PostgreSQL restarted": lambda: os.kill(bench.servers.pids["postgres"], signal.SIGINT),
        }

    def at(self, share: float) -> None:
        """Strike if it is time, and the store that was struck before is back."""
        if self._left and share >= self._left[0][0] and self._redis_answers():
            name = self._left.pop(0)[1]
            self._how[name]()
            self.fallen[name] = f"at {share:.0%}"

    def _redis_answers(self) -> bool:
        with redis.Redis.from_url(self._bench.urls.redis_url, retry=Retry(NoBackoff(), 0)) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):
                return False

    def _flush(self) -> None:
        with redis.Redis.from_url(self._bench.urls.redis_url) as client:
            client.flushall()


def _weigh(report: Report, bench: Bench, blows: _Blows, videos: int) -> None:
    for _, name in BLOWS:
        report.check(name, blows.fallen.get(name, "never"), "in mid-run", ok=name in blows.fallen)
    found, seen, buried = completion.fates(bench), reconciliation.compare(bench), reconciliation.letters(bench)
    report.check("posted exactly once", found.counts["posted"], str(videos * 3), ok=found.counts["posted"] == videos * 3)
    report.check("lost", videos * 3 - sum(found.counts.values()) + found.counts["stuck"], "0", ok=not found.stuck)
    report.check("dead letters", len(buried), "0", ok=not buried)
    for what, times in seen.doubled.items():
        report.check(f"doubled {what}", times, "0", ok=times == 0)
    report.problems += found.stuck[:10] + seen.problems[:10]
    report.problems += [f"{x['key']} {x['stage']}: {x['error_class']} {x['code']}: {x['message']}" for x in buried[:10]]
