"""*storm*: every route of every provider fails three times in ten, but nothing gets stuck, doubled or lost.

The faults are a mix in equal parts of 429 with Retry-After, 500, 503, a time-out, a connection dropped before and one dropped
after acceptance, and an answer that is not JSON. They last until the end.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from phantoms_dagster_tests.benchmarks import completion, reconciliation
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.world import Bench, Reviewer, Sandbox, open_bench

CALL_SECONDS = 5.0
MIX: dict[str, dict[str, Any]] = {
    "429": {"kind": "status", "status": 429, "retry_after": 0.3},
    "500": {"kind": "status", "status": 500},
    "503": {"kind": "status", "status": 503},
    "timeout": {"kind": "timeout", "seconds": CALL_SECONDS * 4},
    "drop_before": {"kind": "drop_before"},
    "drop_after": {"kind": "drop_after"},
    "malformed": {"kind": "malformed"},
}
# The last two are what a video or an upload that was cut is found to be at the next look.
TRUE_CODES = ("500", "503", "ReadTimeout", "ReadError", "RemoteProtocolError", "WriteError", "malformed", "damaged", "in_progress")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=300, help="how many videos (300)")
    parser.add_argument("--workers", type=int, default=4, help="worker processes (4)")
    parser.add_argument("--share", type=float, default=0.3, help="share of calls that fail, on every route (0.3)")
    said = f"what goes wrong, comma-separated; all of {','.join(MIX)}"
    parser.add_argument("--kinds", type=_kinds, default=list(MIX), help=said)
    parser.add_argument("--attempts", type=int, default=8, help="attempts that a stage has before its dead letter (8)")
    parser.add_argument("--seconds", type=float, default=1500, help="give up after this many seconds (1500)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's random choices (1)")


def _kinds(text: str) -> list[str]:
    kinds = text.split(",")
    if unknown := set(kinds) - set(MIX):
        raise argparse.ArgumentTypeError(f"unknown kind {sorted(unknown)[0]!r}; there are {', '.join(MIX)}")
    return kinds


def run(options: argparse.Namespace) -> Report:
    """Make all videos during the storm, and compare the tables with the ledger."""
    report = Report("storm", {name: getattr(options, name) for name in ("videos", "workers", "share", "attempts", "seed")})
    if options.kinds != list(MIX):
        report.setting["kinds"] = " ".join(options.kinds)
    report.notes += [
        "workers run the product's planner and StageRunner without Dagster; pools are widened, waits shortened by settings",
        "the voice is a prepared sound, and a video's bytes are probed and measured once a world (see `local_stand_ins`)",
    ]
    # By attempts alone: the storm does not last the half hour in which nothing is given up.
    settings = {
        "PHANTOMS_ATTEMPTS": str(options.attempts),
        "PHANTOMS_GIVE_UP_MINUTES": "0",
        "PHANTOMS_CALL_SECONDS": str(CALL_SECONDS),
    }
    with open_bench(seed=options.seed, settings=settings) as bench:
        brew(bench.sandbox, options.share, options.kinds)
        bench.add_videos(options.videos)
        started = time.monotonic()
        fleet = bench.fleet("carry", options.workers, seed=options.seed)
        with Reviewer(bench):
            ended = completion.wait_until_ended(bench, seconds=options.seconds)
        seconds = time.monotonic() - started
        fleet.stop()
        if not ended:
            report.problems.append(f"not at its end after {options.seconds:g} s")
        _weigh(report, bench, seconds)
        report.problems += fleet.complaints()[:10]
    return report


def brew(sandbox: Sandbox, share: float, kinds: Sequence[str] = tuple(MIX), *, route: str = "*") -> None:
    """Let every matching route fail with that probability, each kind of the mix as often as the others."""
    each = share / len(kinds)
    for place, fault in enumerate([MIX[kind] for kind in kinds]):
        # The first fault that hits wins, so later ones must hit more often to come as often.
        sandbox.fault(route, **fault, probability=each / (1 - place * each))


def _weigh(report: Report, bench: Bench, seconds: float) -> None:
    found, seen, buried = completion.fates(bench), reconciliation.compare(bench), reconciliation.letters(bench)
    calls = sum(bench.sandbox.ledger()["calls"].values())
    report.tell("seconds", round(seconds, 1))
    report.tell("calls", calls)
    report.tell("posts wanted", sum(found.counts.values()))
    report.tell("posted exactly once", found.counts["posted"])
    report.tell("ended in a dead letter", found.counts["letters"])
    report.tell("ended as unknown, never sent again", found.counts["unknown"])
    report.tell("unknown by stage", dict(found.unknown))
    report.tell("dead letters by stage", dict(Counter(letter["stage"] for letter in buried)))
    report.tell("dead letters by cause", dict(Counter(f"{letter['error_class']} {letter['code']}" for letter in buried)))
    report.tell("posts in the ledger", dict(seen.posts))
    report.tell("in the ledger, their stage not done", seen.unrecorded)
    report.tell("longest way of a video through a stage, s", _longest(bench))
    report.check("stuck", found.counts["stuck"], "0", ok=found.counts["stuck"] == 0)
    for what, times in seen.doubled.items():
        report.check(f"doubled {what}", times, "0", ok=times == 0)
    untrue = [letter for letter in buried if not is_true(letter)]
    report.check("dead letters with an untrue cause", len(untrue), "0", ok=not untrue)
    report.problems += found.stuck[:10] + seen.problems[:20]
    report.problems += [f"{x['key']} {x['stage']}: {x['error_class']} {x['code']}: {x['message']}" for x in untrue[:10]]


def _longest(bench: Bench) -> dict[str, float]:
    """Return the longest time by stage, for stages in which a video took more than ten seconds."""
    statement = """SELECT stage, extract(epoch FROM max(finished_at - ready_at))::float8 AS seconds
        FROM phantoms.stages WHERE finished_at IS NOT NULL GROUP BY 1 ORDER BY 2 DESC"""
    return {row["stage"]: round(row["seconds"], 1) for row in bench.rows(statement) if row["seconds"] > 10}


def is_true(letter: dict[str, Any]) -> bool:
    """Whether the letter names the real cause: a temporary fault that used up the whole budget."""
    named = letter["code"] in TRUE_CODES or (letter["evidence"] or {}).get("status") in (500, 503)
    return letter["error_class"] == "transient" and named and len(letter["attempts"]) > 1
