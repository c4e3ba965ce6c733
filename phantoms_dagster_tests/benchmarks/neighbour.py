"""*neighbour*: one poisoned video among a hundred; the others finish in the same time as a hundred healthy ones.

The same workers on the same servers make batches of both kinds in turn (healthy, poisoned, poisoned, healthy and so on), so that
other load on the machine affects both. The provider refuses the poisoned video's script each time: the fault matches its title in
the request. The noise is the spread of the healthy batches.
"""

from __future__ import annotations

import argparse
import statistics
import time

from phantoms_dagster.domain.models import Platform
from phantoms_dagster_tests.benchmarks import completion, reconciliation
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.world import Bench, Reviewer, open_bench

POISON = '{"error": {"message": "Invalid prompt: it was refused", "type": "invalid_request_error", "code": "invalid_prompt"}}'
# Beyond this a batch took longer for a reason, whatever the healthy ones' spread.
LEAST_NOISE = 0.10


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=100, help="videos in a batch (100)")
    parser.add_argument("--rounds", type=int, default=4, help="pairs of batches (4)")
    parser.add_argument("--workers", type=int, default=3, help="worker processes (3)")
    parser.add_argument("--seconds", type=float, default=300, help="give up on a batch after this many seconds (300)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's random choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Carry the batches and compare how long they took."""
    report = Report("neighbour", {name: getattr(options, name) for name in ("videos", "rounds", "workers", "seed")})
    report.notes.append("one platform a video; voice and studio are the stand-ins of the storm")
    taken: dict[bool, list[float]] = {False: [], True: []}
    with open_bench(seed=options.seed) as bench:
        fleet = bench.fleet("carry", options.workers, seed=options.seed)
        with Reviewer(bench):
            _carry(bench, "Warming up", options.videos // 4, options.seconds)  # ffmpeg's look at the video, connections, caches
            for batch in range(2 * options.rounds):
                poisoned = batch % 4 in (1, 2)
                taken[poisoned].append(_batch(report, bench, options, batch, poisoned=poisoned))
        fleet.stop()
        report.problems += fleet.complaints()[:10]
        _weigh(report, bench, taken)
    return report


def _batch(report: Report, bench: Bench, options: argparse.Namespace, batch: int, *, poisoned: bool) -> float:
    """Return the seconds from the first registration to the last post of the healthy videos."""
    topic = f"Batch {batch}"
    if poisoned:
        title = f"{topic} number {options.videos // 2:04d}"
        bench.sandbox.fault("openai.chat", "status", status=400, body=POISON, match=title)
    seconds, ended = _carry(bench, topic, options.videos, options.seconds)
    if not ended:
        report.problems.append(f"batch {batch} was not at its end after {options.seconds:g} s")
    return seconds


def _carry(bench: Bench, topic: str, count: int, seconds: float) -> tuple[float, bool]:
    started = time.time()
    bench.add_videos(count, platforms=(Platform("youtube"),), topic=topic)
    ended = completion.wait_until_ended(bench, seconds=seconds)
    last = bench.rows("SELECT extract(epoch FROM max(finished_at)) AS at FROM phantoms.stages WHERE stage LIKE '%/post'")[0]["at"]
    return float(last or time.time()) - started, ended


def _weigh(report: Report, bench: Bench, taken: dict[bool, list[float]]) -> None:
    healthy, poisoned = statistics.mean(taken[False]), statistics.mean(taken[True])
    spread = (max(taken[False]) - min(taken[False])) / healthy
    noise = max(spread, LEAST_NOISE)
    ratio = poisoned / healthy
    report.tell("seconds of each healthy batch", [round(seconds, 1) for seconds in taken[False]])
    report.tell("seconds of each poisoned batch", [round(seconds, 1) for seconds in taken[True]])
    report.tell("spread of the healthy ones", round(spread, 3))
    report.check("poisoned / healthy", round(ratio, 3), f"<= {1 + noise:.2f} (1 + noise)", ok=ratio <= 1 + noise)
    found, buried, seen = completion.fates(bench), reconciliation.letters(bench), reconciliation.compare(bench)
    expected = len(taken[True])
    report.check("dead letters", len(buried), f"{expected}, the poisoned", ok=len(buried) == expected)
    true = all(letter["error_class"] == "rejected" and letter["code"] == "invalid_prompt" for letter in buried)
    report.check("dead letters with their cause", true, "true", ok=true)
    healthy_ones = sum(found.counts.values()) - expected
    report.check("posted", found.counts["posted"], f"{healthy_ones}, all others", ok=found.counts["posted"] == healthy_ones)
    report.problems += found.stuck[:10] + seen.problems[:10]
