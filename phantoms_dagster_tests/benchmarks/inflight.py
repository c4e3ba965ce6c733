"""*inflight*: 500 slow calls of 30 s in flight in one worker process, under 300 MB.

The whole stack as users have it, with one worker on the queue `script` and settings that let one run hold all videos. The
daemon's sensors register the videos and request the run, the worker forks a process for it, and that process holds a call for
each video at once: the sandbox lets every call wait before it answers. Memory is the kernel's figure for the run's process. As
a fork it shares the program with its parent. PSS counts a shared page in parts and RSS in full. Both have a limit.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from phantoms_dagster.execution.slots import QUEUES
from phantoms_dagster_tests.benchmarks.memory import MB, MemoryWatch, children_of
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.stack import BenchStack, NotReady, open_stack, wait_for
from phantoms_dagster_tests.benchmarks.world import wide_pools

ROUTE = "openai.chat"
MOST_BYTES = 300 * MB
# Far below one after the other, far above the wait itself: the rest is the run's own work on a machine that may be busy.
SPARE_SECONDS = 30.0

_RUNS = """
    SELECT r.run_id, r.status, r.start_time, r.end_time FROM runs r JOIN run_tags t ON t.run_id = r.run_id
    WHERE t.key = 'phantoms/stage' AND t.value = 'script' ORDER BY r.id
"""
_STATES = "SELECT state, count(*) AS n FROM phantoms.stages WHERE stage = 'script' GROUP BY 1"
_ATTEMPTS = """
    SELECT min(extract(epoch FROM finished_at - started_at)) AS shortest FROM phantoms.attempts
    WHERE stage = 'script' AND state = 'done'
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=500, help="videos, each with one slow call (500)")
    parser.add_argument("--latency", type=float, default=30.0, help="seconds that each call takes (30)")
    parser.add_argument("--seconds", type=float, default=240, help="give up after this many seconds (240)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's random choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Let one run hold all calls and look at its process meanwhile."""
    report = Report("inflight", {name: getattr(options, name) for name in ("videos", "latency", "seed")})
    report.notes.append("the product's own settings, with batch size, videos in flight and pools raised; one worker, queue script")
    with open_stack(seed=options.seed, settings=_settings(options.videos), webserver=False) as stack:
        stack.bench.sandbox.fault(ROUTE, "latency", seconds=options.latency)
        before = stack.cpu()
        with MemoryWatch(lambda: _horses(stack)) as watch:
            stack.bench.add_videos(options.videos, register=False)
            try:
                wait_for(lambda: _ended(stack, options.videos), seconds=options.seconds, what="the scripts", pause=0.5)
            except NotReady as error:
                report.problems.append(str(error))
        after = stack.cpu()
        _weigh(report, stack, watch, options)
        report.tell("CPU-seconds", {name: round(after[name] - before.get(name, 0.0), 1) for name in sorted(after)})
    return report


def _settings(videos: int) -> dict[str, str]:
    return {
        "PHANTOMS_BATCH_SIZE": str(videos),
        "PHANTOMS_IN_FLIGHT": str(videos),
        "PHANTOMS_RUNS_PER_STAGE": "1",
        "PHANTOMS_POOLS": wide_pools(videos),
        # The later stages are not measured, so nothing runs them.
        "PHANTOMS_WORKER_SLOTS": json.dumps(dict.fromkeys(QUEUES, 0) | {"script": 1}),
    }


def _horses(stack: BenchStack) -> list[int]:
    """The processes of runs: children of the workers, which are children of their parent."""
    return [horse for worker in children_of(stack.pids().get("workers", 0)) for horse in children_of(worker)]


def _ended(stack: BenchStack, videos: int) -> bool:
    """Whether every script is written, and the run has reported that to Dagster."""
    states = {row["state"]: row["n"] for row in stack.bench.rows(_STATES)}
    ended = sum(states.get(state, 0) for state in ("done", "failed")) == videos
    return ended and all(row["end_time"] for row in stack.dagster_rows(_RUNS))


def _weigh(report: Report, stack: BenchStack, watch: MemoryWatch, options: argparse.Namespace) -> None:
    ledger = stack.bench.sandbox.ledger(arrivals=ROUTE)
    runs = stack.dagster_rows(_RUNS)
    done = next((row["n"] for row in stack.bench.rows(_STATES) if row["state"] == "done"), 0)
    attempts = stack.bench.rows(_ATTEMPTS)[0]
    most = ledger["max_in_flight"].get(ROUTE, 0)
    arrivals = ledger.get("arrivals", {}).get(ROUTE, [])
    report.check("calls in flight at once", most, str(options.videos), ok=most == options.videos)
    report.check("processes that made them", len(watch.peaks), "1", ok=len(watch.peaks) == 1)
    held = {name: max((getattr(peak, name) for peak in watch.peaks.values()), default=0) for name in ("rss", "pss", "private")}
    for name in ("rss", "pss"):
        ok = 0 < held[name] < MOST_BYTES
        report.check(f"most {name.upper()} of it, MB", round(held[name] / MB, 1), f"< {MOST_BYTES // MB}", ok=ok)
    report.tell("most private memory of it, MB", round(held["private"] / MB, 1))
    report.tell("a call's share of its private memory, KB", round(held["private"] / options.videos / 1000, 1))
    report.check("scripts written", done, str(options.videos), ok=done == options.videos)
    report.check("calls made", len(arrivals), str(options.videos), ok=len(arrivals) == options.videos)
    shortest = float(attempts["shortest"] or 0.0)
    report.check(
        "shortest call with all around it, s", round(shortest, 1), f">= {options.latency:g}", ok=shortest >= options.latency
    )
    if arrivals:
        report.tell("first call to last call sent, s", round(max(arrivals) - min(arrivals), 1))
    _weigh_run(report, runs, options.latency)


def _weigh_run(report: Report, runs: Any, latency: float) -> None:
    succeeded = [row for row in runs if row["status"] == "SUCCESS"]
    report.check("runs, all successful", len(runs), "1", ok=len(runs) == len(succeeded) == 1)
    if succeeded:
        seconds = float(succeeded[0]["end_time"] - succeeded[0]["start_time"])
        most = latency + SPARE_SECONDS
        report.check("the run, from start to end, s", round(seconds, 1), f"< {most:g}", ok=seconds < most)
