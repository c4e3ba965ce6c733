"""*latency*: an idle stack as users have it, one video at a time, every call to a provider 50 ms.

Measures the time from the new brief to the review, and from the approval to the committed posts on three platforms. Each video has
its own accounts. Dagster's event log tells where the time goes. Voice and video are prepared, because the speed of ffmpeg does not
matter here.

With `--realistic` the stand-ins take as long as the real services (see `sandbox.pace`). The waits are then the services' own, and
the benchmark only promises that every post is committed.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Mapping
from typing import Any

from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.stack import STAND_INS, BenchStack, open_stack

TARGETS = {"brief to ready for review": 10.0, "approval to posts committed": 6.0}
CALL_SECONDS = 0.05
MAX_WAIT_SECONDS = 120.0
# YouTube takes up to six minutes, and we ask it less and less often.
REALISTIC_PATIENCE_SECONDS = 900.0
# The bench lets renders be done at once; null takes that back.
REALISTIC = {"processing": "realistic", "shotstack.processing_seconds": None, "shotstack.ingest_seconds": None}
LOOK_SECONDS = 0.02
_EVENTS = """
    SELECT r.run_id, extract(epoch FROM r.create_timestamp AT TIME ZONE 'UTC') AS made, e.dagster_event_type AS event,
        extract(epoch FROM min(e.timestamp) AT TIME ZONE 'UTC') AS at
    FROM runs r JOIN event_logs e ON e.run_id = r.run_id
    WHERE e.dagster_event_type IN ('PIPELINE_ENQUEUED', 'PIPELINE_STARTING', 'PIPELINE_START', 'STEP_START', 'PIPELINE_SUCCESS')
    GROUP BY r.run_id, r.create_timestamp, e.dagster_event_type
"""
# From one event of a run to the next.
LEGS = {
    "run queue (enqueued to dequeued)": ("PIPELINE_ENQUEUED", "PIPELINE_STARTING"),
    "launch (dequeued to run start)": ("PIPELINE_STARTING", "PIPELINE_START"),
    "step start (run start to first step)": ("PIPELINE_START", "STEP_START"),
    "steps (first step to run success)": ("STEP_START", "PIPELINE_SUCCESS"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=15, help="how many, one after the other (15)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the pauses between them, and the realistic waits (1)")
    parser.add_argument(
        "--realistic", action="store_true", help="the stand-ins take as long as the real services: some 5 min a video"
    )


def run(options: argparse.Namespace) -> Report:
    """Make one video after the other, at moments that do not depend on the daemon's rhythm."""
    report = Report("latency", {"videos": options.videos, "seed": options.seed, "call": f"{CALL_SECONDS * 1000:.0f} ms"})
    report.setting["realistic"] = options.realistic
    max_wait = REALISTIC_PATIENCE_SECONDS if options.realistic else MAX_WAIT_SECONDS
    report.notes += [
        "settings are the product's defaults; posts go to the stand-ins of YouTube, TikTok and Instagram",
        "each video has accounts of its own: ten posts in a row would use up what an account may do, and waits would be measured",
    ]
    chance = random.Random(options.seed)
    times: dict[str, list[float]] = {name: [] for name in TARGETS}
    noticed: dict[str, list[float]] = {name: [] for name in TARGETS}
    with open_stack(seed=options.seed, module=STAND_INS) as stack:
        stack.bench.sandbox.fault("*", "latency", seconds=CALL_SECONDS)
        if options.realistic:
            stack.bench.sandbox.configure(**REALISTIC)
        for number in range(options.videos):
            time.sleep(chance.uniform(1, 6))
            for name, (seconds, wait) in _carry(stack, number, max_wait).items():
                times[name].append(seconds)
                noticed[name].append(wait)
        runs = runs_of(stack)
        posts = stack.bench.sandbox.ledger(kind="post")["entries"]
    if options.realistic:
        report.check("posts", len(posts), str(options.videos * 3), ok=len(posts) == options.videos * 3)
    for name, target in TARGETS.items():
        p50 = percentile(times[name], 0.5)
        if options.realistic:
            report.tell(f"{name}: p50 s", round(p50, 2))
        else:
            report.check(f"{name}: p50 s", round(p50, 2), f"< {target:g}", ok=p50 < target)
        report.tell(f"{name}: p95 s", round(percentile(times[name], 0.95), 2))
        report.tell(f"{name}: sensor (until its first run is made) p50 s", round(percentile(noticed[name], 0.5), 2))
    for leg, (first, last) in LEGS.items():
        spans = [at[last] - at[first] for at in runs if first in at and last in at]
        report.tell(f"{leg} p50 s", round(percentile(spans, 0.5), 2))
    report.tell("runs a video", round(len(runs) / options.videos, 1))
    return report


def _carry(stack: BenchStack, number: int, max_wait: float) -> Mapping[str, tuple[float, float]]:
    bench = stack.bench
    decisions = bench.services.decisions()
    added = time.time()
    [key] = bench.add_videos(1, topic="Latency", register=False, first=number)
    first = _until(lambda: key in decisions.undecided(), key, max_wait) - added
    decided = time.time()
    decisions.decide(key, approved=True, reviewer="benchmark", via="cli")
    last = _until(lambda: _posted(bench, key), key, max_wait) - decided
    made = sorted(at["made"] for at in runs_of(stack))
    waits = [min(m for m in made if m >= since) - since for since in (added, decided)]
    return dict(zip(TARGETS, zip((first, last), waits, strict=True), strict=True))


def _posted(bench: Any, key: str) -> bool:
    rows = bench.rows(
        """SELECT s.state FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
        WHERE v.key = :key AND s.stage LIKE '%/post'""",
        key=key,
    )
    return all(row["state"] == "done" for row in rows)


def _until(condition: Callable[[], bool], key: str, max_wait: float) -> float:
    deadline = time.monotonic() + max_wait
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{key} did not get there within {max_wait:g} s")
        time.sleep(LOOK_SECONDS)
    return time.time()


def runs_of(stack: BenchStack) -> list[dict[str, float]]:
    """Return the times of each run by event, in seconds since the epoch. `made`: when its row was written."""
    runs: dict[str, dict[str, float]] = {}
    for row in stack.dagster_rows(_EVENTS):
        runs.setdefault(row["run_id"], {"made": float(row["made"])})[row["event"]] = float(row["at"])
    return list(runs.values())
