"""*outage*: YouTube is dead for a minute under load, with eight worker processes.

Videos come in at a steady rate before, during and after it. Once the breaker is open, at most one probe a reset window reaches
the sandbox, which notes when each call arrives; the other platforms' posts come out as quickly as before; afterwards every
video finishes, and no dead letter is left. With few calls (`--seconds 900 --rate 0.02`) the breaker may never see enough of them to
open: then only the age of its failures keeps a video from its dead letter.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from phantoms_dagster.resilience.breakers.breaker import Transition
from phantoms_dagster.resilience.pools import SANDBOX
from phantoms_dagster.wiring.limits import limits_of
from phantoms_dagster_tests.benchmarks import completion, reconciliation
from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.world import Bench, Reviewer, open_bench, sleep_until

DEAD = "youtube.*"
BEFORE_SECONDS, AFTER_SECONDS = 20.0, 10.0
# Calls that were let through before it opened may still be on their way.
UNDER_WAY_SECONDS = 1.0
# Fewer latencies than these have no median worth comparing.
ENOUGH = 5
# From this rate on a dead provider gets the calls that a breaker judges by.
ENOUGH_RATE = 0.5
# The product's own budget and first back-off: what an outage does to them is the question here.
SETTINGS = {"PHANTOMS_BACKOFF_SECONDS": "2", "PHANTOMS_BACKOFF_MAX_SECONDS": "20"}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--seconds", type=float, default=60, help="how long the provider is dead (60)")
    parser.add_argument("--rate", type=float, default=1.5, help="videos that come in each second (1.5)")
    parser.add_argument("--workers", type=int, default=8, help="worker processes (8)")
    parser.add_argument("--reset", type=float, default=5, help="seconds between two probes of an open breaker (5)")
    parser.add_argument("--limit", type=float, default=300, help="seconds after the recovery in which all must have finished (300)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's random choices (1)")


@dataclass(frozen=True)
class Times:
    """Seconds since the epoch: when the load began, the provider died, it came back, and the load ended."""

    load: float
    death: float
    recovery: float
    end: float


def run(options: argparse.Namespace) -> Report:
    """Let the provider die under load. Count the calls to it, the times of the others, and the open work at the end."""
    report = Report("outage", {name: getattr(options, name) for name in ("seconds", "rate", "workers", "reset", "seed")})
    report.notes.append("voice and studio are the stand-ins of the storm; a dead provider drops every connection unanswered")
    settings = {**SETTINGS, "PHANTOMS_BREAKER_RESET_SECONDS": str(options.reset)}
    with open_bench(seed=options.seed, settings=settings) as bench:
        count = int(options.rate * (BEFORE_SECONDS + options.seconds + AFTER_SECONDS))
        keys = bench.add_videos(count, register=False)
        fleet = bench.fleet("carry", options.workers, seed=options.seed)
        with Reviewer(bench):
            times = _load(bench, keys, options)
            ended = completion.wait_until_ended(bench, seconds=options.limit, total=count)
        finished = time.time()
        fleet.stop()
        if not ended:
            report.problems.append(f"not at its end {options.limit:g} s after the recovery")
        report.tell("videos", count)
        _probes(report, bench, times, options.reset, finished)
        _others(report, bench, times)
        _outcomes(report, bench, count, finished - times.recovery)
        report.problems += fleet.complaints()[:10]
    return report


def _load(bench: Bench, keys: Sequence[str], options: argparse.Namespace) -> Times:
    """Register the videos one after the other, at the given rate, while the provider dies and comes back."""
    began, wall = time.monotonic(), time.time()
    catalogue = bench.services.catalogue()

    def feed() -> None:
        for place, key in enumerate(keys):
            sleep_until(began + place / options.rate)
            catalogue.registered([key])

    feeder = threading.Thread(target=feed, name="feeder")
    feeder.start()
    sleep_until(began + BEFORE_SECONDS)
    bench.sandbox.fault(DEAD, "drop_before")
    death = time.time()
    sleep_until(began + BEFORE_SECONDS + options.seconds)
    bench.sandbox.heal(DEAD)
    recovery = time.time()
    feeder.join()
    return Times(wall, death, recovery, time.time())


def _probes(report: Report, bench: Bench, times: Times, reset: float, finished: float) -> None:
    """Count the calls to the dead provider after its breaker had opened."""
    history = asyncio.run(_history(bench, f"{SANDBOX}youtube"))
    opened = next((t.at.timestamp() for t in history if t.new == "open" and t.at.timestamp() >= times.death), None)
    arrivals = sorted(at for calls in bench.sandbox.ledger(arrivals=DEAD)["arrivals"].values() for at in calls)
    report.tell("calls while it was dead", sum(times.death <= at < times.recovery for at in arrivals))
    if opened is None:
        if report.setting["rate"] >= ENOUGH_RATE:
            report.problems.append("the breaker never opened")
        report.tell("breaker open after, s", "never")
        return
    closed = next((t.at.timestamp() for t in history if t.new == "closed" and t.at.timestamp() > opened), finished)
    late = [at for at in arrivals if opened + UNDER_WAY_SECONDS < at < closed - 0.001 and at < closed]
    windows = [int((at - opened) / reset) for at in late]
    crowded = len(windows) - len(set(windows))
    gaps = [later - earlier for earlier, later in itertools.pairwise(late)]
    report.tell("breaker open after, s", round(opened - times.death, 2))
    report.tell("calls between death and opening", sum(times.death <= at <= opened + UNDER_WAY_SECONDS for at in arrivals))
    report.tell("breaker closed after recovery, s", round(closed - times.recovery, 2))
    most = int((closed - opened) / reset) + 1
    report.check("calls that reached it while open", len(late), f"<= {most}, one a window", ok=0 < len(late) <= most)
    shortest = round(min(gaps), 2) if gaps else reset
    report.check("shortest time between two of them, s", shortest, f">= {reset:g}, a window", ok=shortest >= reset * 0.98)
    report.tell("windows with more than one", crowded)


async def _history(bench: Bench, name: str) -> list[Transition]:
    services = bench.services
    async with limits_of(services.settings, services.clock) as limits:
        return list(reversed(await limits.breakers.history(name)))


_LATENCY = """
    SELECT extract(epoch FROM v.registered_at)::float8 AS since, extract(epoch FROM max(s.finished_at))::float8 AS until
    FROM phantoms.videos v JOIN phantoms.stages s ON s.video_id = v.id AND s.stage IN ('tiktok/post', 'instagram/post')
    GROUP BY v.id HAVING bool_and(s.state = 'done')
"""


def _others(report: Report, bench: Bench, times: Times) -> None:
    """Return how long posts took on the other platforms, for videos from before and from during the outage."""
    rows = bench.rows(_LATENCY)
    took: dict[str, list[float]] = {"before": [], "during": []}
    for row in rows:
        when = "before" if row["since"] < times.death - 5 else "during" if times.death <= row["since"] < times.recovery else ""
        if when:
            took[when].append(row["until"] - row["since"])
    before, during = (percentile(took[when], 0.5) for when in ("before", "during"))
    out = sum(times.death <= row["until"] < times.recovery for row in rows)
    came = sum(times.death <= row["since"] < times.recovery for row in rows)
    report.tell("others, brief to posts before the outage, p50 s", round(before, 1))
    rate = out / came if came else 0.0
    if min(map(len, took.values())) < ENOUGH:
        report.tell("others, brief to posts during it, p50 s", round(during, 1))
        report.check("others finished during it / come in during it", round(rate, 2), ">= 0.9", ok=rate >= 0.9)
        return
    most = before * 1.25 + 1
    name = "others, brief to posts during it, p50 s"
    report.check(name, round(during, 1), f"<= {most:.1f} (1.25 times + 1 s)", ok=0 < during <= most)
    report.tell("others, p95 before and during, s", [round(percentile(took[when], 0.95), 1) for when in ("before", "during")])
    report.check("others finished during it / come in during it", round(rate, 2), ">= 0.9", ok=rate >= 0.9)


def _outcomes(report: Report, bench: Bench, count: int, seconds: float) -> None:
    found, seen, buried = completion.fates(bench), reconciliation.compare(bench), reconciliation.letters(bench)
    report.tell("all finished after the recovery, s", round(seconds, 1))
    report.check("posted", found.counts["posted"], str(count * 3), ok=found.counts["posted"] == count * 3)
    report.check("dead letters", len(buried), "0", ok=not buried)
    doubled: dict[str, Any] = dict(seen.doubled)
    report.check("doubled", doubled, "none", ok=not any(doubled.values()))
    report.problems += found.stuck[:10] + seen.problems[:10]
