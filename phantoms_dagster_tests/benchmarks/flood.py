"""*flood*: twenty approved videos are published as quickly next to two thousand new ones as they are alone.

Both are measured several times in the same stack, in an order that favours neither (alone, flood, flood, alone, ...). In a round
with a flood, the approval comes once Dagster knows all of its videos. After the round, the rest of the flood is removed.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import text

from phantoms_dagster_tests.benchmarks import reconciliation
from phantoms_dagster_tests.benchmarks.report import Report, percentile
from phantoms_dagster_tests.benchmarks.stack import STAND_INS, BenchStack, open_stack, wait_for

MOST_GROWTH = 0.20
READY_SECONDS = 300.0
ROUND_SECONDS = 180.0
# Nothing of a provider's slows the flood down, and no day's quota ends the benchmark; slots are the product's.
WITHOUT_RATES = ("script", "voiceover", "render", "render_serve", "render_ingest", "publish_youtube", "youtube_api")

_NOT_POSTED = """
    SELECT count(*) AS n FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE v.key = ANY(:keys) AND s.stage LIKE '%/post' AND s.state <> 'done'
"""
_TOOK = """
    SELECT extract(epoch FROM max(s.finished_at) - min(a.decided_at))::float8 AS seconds
    FROM phantoms.videos v JOIN phantoms.stages s ON s.video_id = v.id AND s.stage LIKE '%/post'
    JOIN phantoms.approvals a ON a.video_id = v.id WHERE v.key = ANY(:keys) GROUP BY v.id
"""
_KNOWN = "SELECT count(*) AS n FROM phantoms.videos WHERE key = ANY(:keys) AND registered_at IS NOT NULL"
_DONE = """
    SELECT count(*) AS n FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE v.key = ANY(:keys) AND s.state = 'done'
"""
_STOP = text(
    """
    UPDATE phantoms.stages s SET state = 'blocked', ready_at = NULL, retry_at = NULL FROM phantoms.videos v
    WHERE v.id = s.video_id AND v.key = ANY(:keys) AND s.state IN ('ready', 'deferred')
    """
)
_DUE = """
    SELECT count(*) AS n FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE v.key = ANY(:keys) AND s.state IN ('ready', 'deferred', 'running')
"""
_OPEN = "SELECT count(*) AS n FROM runs WHERE status NOT IN ('SUCCESS', 'FAILURE', 'CANCELED')"


@dataclass(frozen=True)
class Round:
    """What one round measured. `seconds`: from the approval to the last post, by video; `cpu`: of the product, in cores."""

    seconds: tuple[float, ...]
    cpu: float
    flooded: int = 0
    """Stages of the flood that were done meanwhile."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--flood", type=int, default=2000, help="script-ready videos (2000)")
    parser.add_argument("--approved", type=int, default=20, help="approved videos in each round (20)")
    parser.add_argument("--rounds", type=int, default=6, help="rounds alone, and as many with a flood (6)")
    parser.add_argument("--latency", type=float, default=0.05, help="what each call to the sandbox takes, s (0.05)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the moments of approval and the sandbox's choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Measure both, in turn."""
    report = Report("flood", {name: getattr(options, name) for name in ("flood", "approved", "rounds", "latency", "seed")})
    report.notes += [
        "the product's default settings, but no daily quotas, and no rates for the flood, so that nothing but us slows it",
        "voice and studio are the stand-ins of the storm; the approved videos of a round have accounts of their own",
    ]
    with open_stack(seed=options.seed, settings={"PHANTOMS_POOLS": pools()}, module=STAND_INS) as stack:
        stack.bench.sandbox.fault("*", "latency", seconds=options.latency)
        groups = _prepare(stack, options.approved, 2 * options.rounds + 1)
        chance = random.Random(options.seed)
        _round(stack, groups.pop(), [], chance)  # the first of everything is slow
        alone: list[Round] = []
        flooded: list[Round] = []
        for number in range(options.rounds):
            for flood in (False, True) if number % 2 == 0 else (True, False):
                keys = _flood(stack, options.flood, number) if flood else []
                (flooded if flood else alone).append(_round(stack, groups.pop(), keys, chance))
                _take_away(stack, keys)
        _figures(report, alone, flooded)
        _weigh(report, stack, options.approved * 3 * (2 * options.rounds + 1))
    return report


def pools() -> str:
    """The setting `PHANTOMS_POOLS`."""
    return json.dumps({name: {"rates": [], "daily": None} for name in WITHOUT_RATES})


def _prepare(stack: BenchStack, size: int, groups: int) -> list[list[str]]:
    """Prepare groups of videos that wait for their review."""
    keys = stack.bench.add_videos(size * groups, register=False)
    decisions = stack.bench.services.decisions()
    wait_for(lambda: len(decisions.undecided()) == len(keys), seconds=READY_SECONDS, what="videos to approve", pause=0.5)
    _drain(stack)
    return [keys[n * size : (n + 1) * size] for n in range(groups)]


def _flood(stack: BenchStack, count: int, number: int) -> list[str]:
    """Add new videos, and wait until Dagster knows all of them."""
    keys = stack.bench.add_videos(count, topic="Flood", register=False, first=1_000_000 * (number + 1))
    wait_for(lambda: stack.bench.rows(_KNOWN, keys=keys)[0]["n"] == count, seconds=READY_SECONDS, what="the flood")
    return keys


def _round(stack: BenchStack, approved: Sequence[str], flood: Sequence[str], chance: random.Random) -> Round:
    """Approve some videos at a random moment of the sensors' rhythm and wait for all of their posts."""
    bench, decisions = stack.bench, stack.bench.services.decisions()
    time.sleep(chance.uniform(0, 2))
    done, cpu, began = bench.rows(_DONE, keys=list(flood))[0]["n"], _used(stack), time.monotonic()
    decisions.decide_all(approved, approved=True, reviewer="benchmark", via="cli")
    posted = list(approved)
    wait_for(lambda: bench.rows(_NOT_POSTED, keys=posted)[0]["n"] == 0, seconds=ROUND_SECONDS, what="the posts", pause=0.2)
    seconds = time.monotonic() - began
    took = tuple(row["seconds"] for row in bench.rows(_TOOK, keys=posted))
    return Round(took, (_used(stack) - cpu) / seconds, bench.rows(_DONE, keys=list(flood))[0]["n"] - done)


def _used(stack: BenchStack) -> float:
    return sum(seconds for name, seconds in stack.cpu().items() if name != "sandbox")


def _take_away(stack: BenchStack, keys: Sequence[str]) -> None:
    """Make sure that no video of the flood is due, and wait until the ones under way have ended."""

    def ended() -> bool:
        with stack.bench.services.engine.begin() as connection:
            connection.execute(_STOP, {"keys": list(keys)})
        due, running = stack.bench.rows(_DUE, keys=list(keys)), stack.dagster_rows(_OPEN)
        return (due[0]["n"], running[0]["n"]) == (0, 0)

    wait_for(ended, seconds=READY_SECONDS, what="the end of the flood", pause=0.5)


def _drain(stack: BenchStack) -> None:
    wait_for(lambda: stack.dagster_rows(_OPEN)[0]["n"] == 0, seconds=READY_SECONDS, what="the end of all runs", pause=0.2)


def _figures(report: Report, alone: Sequence[Round], flooded: Sequence[Round]) -> None:
    for name, rounds in (("alone", alone), ("in the flood", flooded)):
        took = [seconds for one in rounds for seconds in one.seconds]
        report.tell(f"approval to posts {name}, median s", round(statistics.median(took), 2))
        report.tell(f"approval to posts {name}, p90 s", round(percentile(took, 0.9), 2))
        report.tell(f"medians of the rounds {name}, s", [round(statistics.median(one.seconds), 2) for one in rounds])
        report.tell(f"cores that the product used meanwhile {name}", round(statistics.mean(one.cpu for one in rounds), 2))
    before, during = (statistics.median(s for one in rounds for s in one.seconds) for rounds in (alone, flooded))
    growth = during / before - 1
    report.tell("stages of the flood done meanwhile", [one.flooded for one in flooded])
    report.check("the median grows by", f"{growth:+.1%}", f"< {MOST_GROWTH:.0%}", ok=growth < MOST_GROWTH)
    flow = min(one.flooded for one in flooded)
    report.check("the flood flows in every round", flow > 0, "True", ok=flow > 0)


def _weigh(report: Report, stack: BenchStack, wanted: int) -> None:
    seen, buried = reconciliation.compare(stack.bench), reconciliation.letters(stack.bench)
    posted = sum(seen.posts.values())
    report.check("posts", posted, str(wanted), ok=posted == wanted)
    report.check("doubled", dict(seen.doubled), "none", ok=not any(seen.doubled.values()))
    report.check("dead letters", len(buried), "0", ok=not buried)
    report.problems += seen.problems[:10]
