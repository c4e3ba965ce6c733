"""*pools*: sixteen processes on a pool of five slots and twenty calls a second, as the sandbox counts them.

Three parts. First all processes call a slow route as often as the pool admits, for a minute: the sandbox counts what is in flight
and when each call arrives. Then five processes take all slots and are killed with kill -9: others must be admitted within
the lease. Last, waiters that arrive one after the other are admitted in that order.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.workers import Fleet
from phantoms_dagster_tests.benchmarks.world import Bench, hurry, open_bench

ROUTE, PATH = "openai.models", "/models"
LEASE_SECONDS = 4.0
# Processes fork and connect: all begin at the same moment after it.
START_SECONDS = 3.0
EACH_WAITS = 3


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--seconds", type=float, default=60, help="how long they call (60)")
    parser.add_argument("--processes", type=int, default=16, help="processes that call (16)")
    parser.add_argument("--slots", type=int, default=5, help="calls in flight at most (5)")
    parser.add_argument("--rate", type=int, default=20, help="calls a second at most (20)")
    parser.add_argument("--burst", type=int, default=4, help="calls at once at most; the rest is spread evenly (4)")
    parser.add_argument("--latency", type=float, default=0.15, help="seconds that each call takes (0.15)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's random choices (1)")


def run(options: argparse.Namespace) -> Report:
    """The three parts, one after the other."""
    names = ("seconds", "processes", "slots", "rate", "burst", "latency", "seed")
    report = Report("pools", {name: getattr(options, name) for name in names})
    report.notes.append(hurry())
    pool = {"slots": options.slots, "rates": [[options.rate, 1.0, options.burst]], "daily": None, "lease_seconds": LEASE_SECONDS}
    settings = {"PHANTOMS_POOLS": json.dumps({"script": pool}), "PHANTOMS_MAX_WAIT_SECONDS": "30"}
    with open_bench(seed=options.seed, settings=settings) as bench:
        _throughput(report, bench, options)
        _killed_holders(report, bench, options)
        _order(report, bench, options)
    return report


def _throughput(report: Report, bench: Bench, options: argparse.Namespace) -> None:
    bench.sandbox.fault(ROUTE, "latency", seconds=options.latency)
    fleet = bench.fleet("call", options.processes, path=PATH, at_once=2, start_in=START_SECONDS, seconds=options.seconds)
    start = fleet.begin
    told = _wait_for(fleet, "calls", options.processes, seconds=options.seconds + START_SECONDS + 40)
    fleet.stop()
    ledger = bench.sandbox.ledger(arrivals=ROUTE)
    arrivals: list[float] = ledger["arrivals"].get(ROUTE, [])
    within = [at for at in arrivals if start <= at < start + options.seconds]
    most = most_within(arrivals, 1.0)
    in_flight = ledger["max_in_flight"].get(ROUTE, 0)
    limit = min(options.rate, options.slots / options.latency)
    share = len(within) / options.seconds / limit
    shares = [event["calls"]["answered"] for event in told]
    failed = sum(event["calls"]["failed"] for event in told)
    report.tell("calls", len(arrivals))
    report.check("most in flight", in_flight, f"<= {options.slots}", ok=0 < in_flight <= options.slots)
    report.check("most in any second", most, f"<= {options.rate}", ok=0 < most <= options.rate)
    report.tell("calls a second", round(len(within) / options.seconds, 2))
    # A sixth is left free, so that calls which arrive less regularly than they were let in are never too many.
    report.check("share of the limit", round(share, 3), ">= 0.75", ok=share >= 0.75)
    report.tell("calls of the least and the most favoured process", [min(shares, default=0), max(shares, default=0)])
    report.check("failed calls", failed, "0", ok=failed == 0)
    if len(told) != options.processes:
        report.problems.append(f"only {len(told)} of {options.processes} processes came to their end")
    bench.sandbox.heal()


def _killed_holders(report: Report, bench: Bench, options: argparse.Namespace) -> None:
    """Kill the processes that hold all slots. Return how long it takes until others hold all of them."""
    holders = bench.fleet("hold", options.slots, seconds=600, outcome="answered")
    _wait_for(holders, "held", options.slots, seconds=30)
    waiters = bench.fleet("hold", options.slots, seconds=600, outcome="answered")
    time.sleep(1.0)  # they wait in line, and no call may be admitted
    early = len(waiters.events("held"))
    killed = time.time()
    holders.kill(holders.pids)
    let_in = _wait_for(waiters, "held", options.slots, seconds=LEASE_SECONDS * 3)
    waiters.stop()
    holders.stop()
    report.check("let in while all slots were held", early, "0", ok=early == 0)
    last = max((event["held"] for event in let_in), default=float("inf")) - killed
    back = len(let_in) == options.slots
    limit = LEASE_SECONDS + 0.5
    report.check("slots of the killed back after, s", round(last, 2), f"<= {limit:g}, the lease", ok=back and last <= limit)
    time.sleep(LEASE_SECONDS + 0.5)  # the waiters' own slots, too, come back


def _order(report: Report, bench: Bench, options: argparse.Namespace) -> None:
    """Let waiters arrive 50 ms apart, from all processes in turn, while the slots stay taken for longer."""
    processes = options.processes
    spans: dict[str, Any] = {"start_in": START_SECONDS, "spacing": 0.05, "seconds": 0.4}
    fleet = bench.fleet("wait", processes, processes=processes, each=EACH_WAITS, **spans)
    count = processes * EACH_WAITS
    told = _wait_for(fleet, "place", count, seconds=START_SECONDS + count * 0.5 / options.slots + 30)
    fleet.stop()
    served = [event["came"] for event in sorted(told, key=lambda event: event["token"])]
    overtaken = out_of_order(served)
    waited = [(event["granted"] - event["came"]) / 1e6 for event in told]
    report.tell("waiters", len(told))
    report.tell("waited, p50 and longest, s", [round(percentile(waited, 0.5), 2), round(max(waited, default=0.0), 2)])
    report.check("overtakings among them", overtaken, "0: served in order", ok=len(told) == count and overtaken == 0)


def most_within(times: Sequence[float], seconds: float) -> int:
    """Return the largest number of these times in any window of that length."""
    ordered, most, first = sorted(times), 0, 0
    for last, at in enumerate(ordered):
        while ordered[first] <= at - seconds:
            first += 1
        most = max(most, last - first + 1)
    return most


def out_of_order(came: Sequence[int]) -> int:
    """Return how many calls were served before an earlier one. `came`: arrival times in the order of service."""
    return sum(any(later < at for later in came[n + 1 :]) for n, at in enumerate(came))


def _wait_for(fleet: Fleet, name: str, count: int, *, seconds: float) -> list[dict[str, Any]]:
    """Wait until there are that many events of that name, or that long. Return them."""
    deadline = time.monotonic() + seconds
    while len(fleet.events(name)) < count and time.monotonic() < deadline:
        time.sleep(0.05)
    return fleet.events(name)
