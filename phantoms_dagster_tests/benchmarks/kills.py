"""*kills*: kill -9 of work-horse, run worker, workers' parent, code server and daemon, in turn, while videos go through the stack.

The whole stack runs as users have it, and only the product's own supervision restarts the killed processes. The moments are random,
with the pause `--pause` between kills. Processes that execute runs are killed during a run. Every post comes out exactly once,
nothing is stuck, and no person has to help.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence

from phantoms_dagster_tests.benchmarks import completion, reconciliation
from phantoms_dagster_tests.benchmarks.killing import CODE_SERVER, DAEMON, KINDS, Kill, Killer
from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.stack import STAND_INS, BenchStack, NotReady, open_stack, wait_for
from phantoms_dagster_tests.benchmarks.world import Reviewer, wide_pools

PORTIONS = 10
# The last portion of videos comes in when this share of the kills has fallen.
LAST_PORTION = 0.75
TARGET_SECONDS = 20.0
# What is still to come when all videos have ended: ends of runs, restarts of processes.
SETTLE_SECONDS = 90.0
LOST_RENDER_SECONDS = 20
RENDER_SLOTS = 4
OPEN = "SELECT run_id, status FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"
_DONE = "SELECT count(*) AS n FROM phantoms.stages WHERE state = 'done'"
_SHOWN = """
    SELECT count(*) AS n FROM (SELECT DISTINCT asset_key, partition FROM event_logs
    WHERE dagster_event_type = 'ASSET_MATERIALIZATION' AND partition IS NOT NULL) shown
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=300, help="how many videos, each for three platforms (300)")
    parser.add_argument("--kills", type=int, default=50, help="how many kills (50)")
    parser.add_argument("--pause", type=float, default=6, help="longest pause between two kills, s; the shortest is 1 (6)")
    parser.add_argument("--latency", type=float, default=0.5, help="what each call to the sandbox takes, s (0.5)")
    parser.add_argument("--seconds", type=float, default=240, help="give up this many seconds after the last kill (240)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the victims, the pauses and the sandbox's choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Kill processes, and count the results."""
    report = Report("kills", {name: getattr(options, name) for name in ("videos", "kills", "pause", "latency", "seed")})
    report.notes += [
        "the product's default settings (batches, workers, leases, supervision), but pools without rates and daily quotas",
        f"a render whose submission got no answer is made again after {LOST_RENDER_SECONDS} s, not half an hour: the API has no "
        f"read that would find it; the pool render has {RENDER_SLOTS} slots, so that a kill loses at most so many answers",
        "voice and studio are the stand-ins of the storm; a person's approvals come at once",
        f"videos come in in {PORTIONS} portions, so that there is work for all stages while the kills fall",
        "resumed: the step of every killed run began again or the run ended, by Dagster's event log; of an idle worker: all slots "
        "live again; of the code server: it serves again; of the daemon: its next sensor tick begins",
    ]
    with open_stack(seed=options.seed, settings=settings(), module=STAND_INS) as stack:
        stack.bench.sandbox.fault("*", "latency", seconds=options.latency)
        killer = Killer(stack, random.Random(options.seed))
        began = time.monotonic()
        with Reviewer(stack.bench):
            fell = _rain(stack, killer, options)
            last = time.monotonic()
            ended = completion.wait_until_ended(stack.bench, seconds=options.seconds, total=options.videos)
        seconds = time.monotonic() - began
        if not ended:
            report.problems.append(f"not at its end {options.seconds:g} s after the last kill")
        _settle(report, stack, killer)
        report.tell("seconds", round(seconds, 1))
        report.tell("of them after the last kill", round(seconds - (last - began), 1))
        report.check("kills while videos were on their way", fell, str(options.kills), ok=fell == options.kills)
        _resumptions(report, killer.kills)
        _weigh(report, stack, options.videos)
        report.tell("restarts by the supervisor", dict(Counter(notice.text.split(" has ")[0] for notice in stack.notices)))
    return report


def settings() -> dict[str, str]:
    """Settings that differ from the product's defaults. See the notes."""
    pools = {**json.loads(wide_pools()), "render": {"slots": RENDER_SLOTS, "rates": [], "daily": None}}
    return {"PHANTOMS_POOLS": json.dumps(pools), "PHANTOMS_LOST_RENDER_SECONDS": str(LOST_RENDER_SECONDS)}


def _rain(stack: BenchStack, killer: Killer, options: argparse.Namespace) -> int:
    """Kill, and add videos in between. Return how many kills came while some video was under way."""
    fell, fed = 0, 0
    for number in range(options.kills):
        due = min(PORTIONS, 1 + int(number / max(1, options.kills * LAST_PORTION) * PORTIONS))
        if (upto := options.videos * due // PORTIONS) > fed:
            stack.bench.add_videos(upto - fed, register=False, first=fed)
            fed = upto
        time.sleep(killer.chance.uniform(1, options.pause))
        unfinished = completion.done_share(stack.bench) < 1 or fed < options.videos
        fell += killer.strike(KINDS[number % len(KINDS)]) is not None and unfinished
    if fed < options.videos:
        stack.bench.add_videos(options.videos - fed, register=False, first=fed)
    return fell


def _settle(report: Report, stack: BenchStack, killer: Killer) -> None:
    """Let runs end and processes come back."""
    try:
        wait_for(lambda: not stack.dagster_rows(OPEN), seconds=SETTLE_SECONDS, what="the end of all runs", pause=0.5)
    except NotReady:
        report.problems += [f"run {row['run_id']} is {row['status']} forever" for row in stack.dagster_rows(OPEN)[:10]]
    killer.settle(SETTLE_SECONDS)


def _resumptions(report: Report, kills: Sequence[Kill]) -> None:
    carrying_runs = [kill for kill in kills if kill.kind not in (CODE_SERVER, DAEMON)]
    report.tell("horses, workers, parents struck while busy", f"{sum(bool(w.runs) for w in carrying_runs)} of {len(carrying_runs)}")
    report.tell("runs that lost their process", sum(len(kill.runs) for kill in kills))
    for kind in KINDS:
        report.tell(f"{kind}: kill to resumption, s", _figures([w.seconds for w in kills if w.kind == kind]))
    ticked = [None if w.ticked is None else w.ticked - w.at for w in kills if w.kind in (CODE_SERVER, DAEMON)]
    report.tell("code server, daemon: kill to the end of a good tick, s", _figures(ticked))
    never = [kill for kill in kills if kill.seconds is None]
    report.check("kills without a resumption", len(never), "0", ok=not never)
    report.problems += [f"{kill.kind} (runs {', '.join(kill.runs) or 'none'}) never came back" for kill in never[:10]]
    took = [kill.seconds for kill in kills if kill.seconds is not None]
    median = round(statistics.median(took), 2) if took else 0.0
    report.check("kill to resumption, median s", median, f"< {TARGET_SECONDS:g}", ok=0 < median < TARGET_SECONDS)


def _figures(seconds: Sequence[float | None]) -> dict[str, float]:
    took = [value for value in seconds if value is not None]
    if not took:
        return {}
    return {"p50": round(statistics.median(took), 2), "p90": round(percentile(took, 0.9), 2), "max": round(max(took), 2)}


def _weigh(report: Report, stack: BenchStack, videos: int) -> None:
    bench = stack.bench
    found, seen, buried = completion.fates(bench), reconciliation.compare(bench), reconciliation.letters(bench)
    wanted = videos * 3
    report.check("posts, each exactly once", found.counts["posted"], str(wanted), ok=found.counts["posted"] == wanted)
    report.check("posts that the platforms have", sum(seen.posts.values()), str(wanted), ok=sum(seen.posts.values()) == wanted)
    for what, times in seen.doubled.items():
        report.check(f"doubled {what}", times, "0", ok=times == 0)
    report.tell("renders given up as lost and made again", seen.given_up)
    report.check("stuck", found.counts["stuck"], "0", ok=not found.stuck)
    report.check("dead letters", len(buried), "0", ok=not buried)
    left = wanted - found.counts["posted"]
    report.check("posts that are still to come", left, "0", ok=left == 0)
    report.tell("of them with an unknown outcome", dict(found.unknown))
    rows = stack.dagster_rows("SELECT status, count(*) AS n FROM runs GROUP BY status ORDER BY status")
    report.tell("Dagster runs", {row["status"]: row["n"] for row in rows})
    # A process may die between the commit of a row and its event: then the row is right and the UI does not know it.
    missing = bench.rows(_DONE)[0]["n"] - stack.dagster_rows(_SHOWN)[0]["n"]
    report.tell("stages done that the Dagster UI does not show", missing)
    report.problems += found.stuck[:10] + seen.problems[:10]
    report.problems += [f"{x['key']} {x['stage']}: {x['error_class']} {x['code']}: {x['message']}" for x in buried[:10]]
