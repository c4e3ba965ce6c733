"""*throughput*: 1,000 videos through all stages on a whole stack, with answers at once and with 50 ms a call.

It measures orchestration: voice and video are prepared, the render API's file is small and probed once, posts go to the stand-ins
of YouTube, TikTok and Instagram, and a reviewer in this process approves all rendered videos, a batch at a time. A video has ten
stages on three platforms. The clock runs from the briefs in the table until the last post is confirmed. CPU is that of all our
processes, including Dagster's daemon, code server, web server and the metrics; PostgreSQL, Valkey and the sandbox are counted
separately.
"""

from __future__ import annotations

import argparse
import json
import time

from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster_tests.benchmarks import completion, reconciliation
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.stack import STAND_INS, open_stack
from phantoms_dagster_tests.benchmarks.world import Reviewer, wide_pools

CPU_MS_TARGET = 3.0
RATE_TARGET = 430.0
VIDEOS_PER_CHANNEL = 2
OURS = ("workers", "code-server", "daemon", "webserver", "metrics")
STORES = ("postgres", "valkey")
SETTINGS = {
    "PHANTOMS_BATCH_SIZE": "500",
    # Two runs of a stage, but one worker for each stage except the longest: the second run is in the queue when the first ends, and
    # two batches of videos are made at once. Posts of one account wait for one another: two workers would only meet there.
    "PHANTOMS_RUNS_PER_STAGE": "2",
    "PHANTOMS_WORKER_SLOTS": json.dumps({"rendered_video": 2}),
    "PHANTOMS_BATCH_WAIT_SECONDS": "30",
    "PHANTOMS_IN_FLIGHT": "500",
    "PHANTOMS_LOG_LEVEL": "WARNING",
    "PHANTOMS_POOLS": wide_pools(500),
}

STAGES_EACH = sum(stage.usual for stage in STAGES.values())


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=1000, help="how many videos (1000)")
    parser.add_argument("--seconds", type=float, default=300, help="give up after this many seconds (300)")
    parser.add_argument("--batch", type=int, default=int(SETTINGS["PHANTOMS_BATCH_SIZE"]), help="videos a run")
    parser.add_argument("--latency", type=float, nargs="*", default=[0.0, 0.05], help="seconds of each call, one leg each (0 0.05)")


def run(options: argparse.Namespace) -> Report:
    """One leg for each latency."""
    report = Report(
        "throughput",
        {"videos": options.videos, "batch": options.batch, "stages a video": STAGES_EACH},
    )
    for latency in options.latency:
        _leg(report, options, latency)
    return report


def _leg(report: Report, options: argparse.Namespace, latency: float) -> None:
    name, work = f"{latency * 1000:.0f} ms", options.videos * STAGES_EACH
    settings = {**SETTINGS, "PHANTOMS_BATCH_SIZE": str(options.batch)}
    with open_stack(module=STAND_INS, settings=settings, durable=True) as stack:
        bench = stack.bench
        if latency:
            bench.sandbox.fault("*", "latency", seconds=latency)
        before = stack.cpu()
        bench.add_videos(options.videos, register=False, per_channel=VIDEOS_PER_CHANNEL)
        started = time.monotonic()
        with Reviewer(bench, every_seconds=0.25, page=options.batch):
            ended = completion.wait_until_posted(bench, seconds=options.seconds, posts=options.videos * 3)
            seconds = time.monotonic() - started
        completion.wait_until_ended(bench, seconds=30, total=options.videos)
        cpu = {service: used - before.get(service, 0.0) for service, used in stack.cpu().items()}
        found, seen, letters = completion.fates(bench), reconciliation.compare(bench), reconciliation.letters(bench)
        runs = stack.dagster_rows("SELECT count(*) AS n FROM runs")[0]["n"]
    if not ended:
        report.problems.append(f"{name}: not at its end after {options.seconds:g} s")
    report.problems += [*found.stuck[:5], *seen.problems[:5], *(json.dumps(x, default=str)[:300] for x in letters[:5])]
    posted, wanted = found.counts["posted"], options.videos * 3
    report.check(f"{name}: posted exactly once", posted, str(wanted), ok=posted == wanted and not any(seen.doubled.values()))
    each = {service: round(used * 1000 / work, 3) for service, used in cpu.items()}
    ours = sum(each[service] for service in OURS if service in each)
    if latency:
        report.check(
            f"{name}: video-stages a second", round(work / seconds, 1), f">= {RATE_TARGET:g}", ok=work / seconds >= RATE_TARGET
        )
        report.tell(f"{name}: CPU-ms a video and stage, ours", round(ours, 2))
    else:
        report.tell(f"{name}: video-stages a second", round(work / seconds, 1))
        report.check(f"{name}: CPU-ms a video and stage, ours", round(ours, 2), f"<= {CPU_MS_TARGET:g}", ok=ours <= CPU_MS_TARGET)
    report.tell(f"{name}: seconds", round(seconds, 1))
    report.tell(f"{name}: videos a second", round(options.videos / seconds, 1))
    report.tell(f"{name}: ours by service, CPU-ms", {service: each[service] for service in OURS if service in each})
    report.tell(f"{name}: stores and sandbox, CPU-ms", {service: value for service, value in each.items() if service not in OURS})
    report.tell(f"{name}: runs", runs)
