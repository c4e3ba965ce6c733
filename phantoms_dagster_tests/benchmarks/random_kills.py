"""*random_kills*: 2,000 posts on five platforms, kill -9 of publishing processes, one call in ten fails, each store restarts twice.

First the workers make the videos, and nothing is wrong. Then a person approves all of them. From that moment on one worker after
another is killed at random moments and replaced, every route of the platforms fails one time in ten (see *storm* for the mix), and
PostgreSQL and Valkey are each taken away twice. No person helps. When all reads of unknown outcomes are done, the ledger of the
sandbox and the folders of the outbox must show every post exactly once, and the tables must say the same.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from phantoms_dagster.domain.models import Platform
from phantoms_dagster_tests.benchmarks import completion, reconciliation
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.storm import CALL_SECONDS, MIX, brew
from phantoms_dagster_tests.benchmarks.workers import Fleet
from phantoms_dagster_tests.benchmarks.world import Bench, Reviewer, open_bench

PLATFORMS = ("youtube", "tiktok", "instagram", "bluesky", "folder")
# When which store is taken away: the share of the posts that are out. Valkey dies by kill -9, PostgreSQL restarts fast.
BLOWS = ((0.15, "valkey"), (0.35, "postgres"), (0.55, "valkey"), (0.75, "postgres"))
# Kills stop here, so that the last posts are not all made by workers that are never killed and yet the run ends.
LAST_KILL = 0.97
POLL_SECONDS = 0.5
LEASE_SECONDS = 10

_OUT = """
    SELECT count(*) FILTER (WHERE state = 'done')::float8 / greatest(1, count(*)) AS share
    FROM phantoms.stages WHERE stage LIKE '%/post'
"""
# A post whose outcome is unknown counts as open, however far ahead its next read is.
_LEFT = """
    SELECT count(*) AS n FROM phantoms.stages WHERE stage <> 'script' AND state IN ('ready', 'running', 'deferred')
"""
_LEDGER = "SELECT p.platform, p.state, count(*) AS n FROM phantoms.posts p GROUP BY 1, 2 ORDER BY 1, 2"
_NEEDS_A_PERSON = "SELECT count(*) AS n FROM phantoms.posts WHERE state = 'unknown'"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--posts", type=int, default=2_000, help="how many posts, a fifth of them on each platform (2000)")
    parser.add_argument("--workers", type=int, default=4, help="publishing processes (4)")
    parser.add_argument("--pause", type=float, default=4.0, help="longest pause between two kills, s; the shortest is 1 (4)")
    parser.add_argument("--share", type=float, default=0.1, help="share of calls to the platforms that fail (0.1)")
    parser.add_argument("--seconds", type=float, default=3_000, help="give up this many seconds after the approvals (3000)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the victims, the pauses and the sandbox's choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Make the videos, then publish them under kills, and compare the tables with what the platforms have."""
    videos = max(1, options.posts // len(PLATFORMS))
    named = ("posts", "workers", "pause", "share", "seed")
    report = Report("random_kills", {name: getattr(options, name) for name in named})
    report.notes += [
        "workers run the product's planner and StageRunner without Dagster; pools are widened, waits shortened by settings",
        "the voice is a prepared sound, and a video's bytes are probed and measured once a world (see `local_stand_ins`)",
        f"the faults are the mix of the storm: {', '.join(MIX)}",
        f"a killed worker is replaced at once; its claims are free when their lease of {LEASE_SECONDS} s is over",
    ]
    settings = {"PHANTOMS_ATTEMPTS": "12", "PHANTOMS_CALL_SECONDS": str(CALL_SECONDS), "PHANTOMS_LEASE_SECONDS": str(LEASE_SECONDS)}
    with open_bench(seed=options.seed, settings=settings) as bench:
        bench.add_videos(videos, platforms=[Platform(name) for name in PLATFORMS])
        fleet = bench.fleet("carry", options.workers, seed=options.seed, replace=True)
        if not _made(bench, videos, options.seconds):
            report.problems.append(f"the videos were not ready for review after {options.seconds:g} s")
            return report
        brew_platforms(bench, options.share)
        storm = _Storm(bench, fleet, random.Random(options.seed), options.pause)
        began = time.monotonic()
        with Reviewer(bench):
            ended = storm.rage(until=lambda: bench.rows(_LEFT)[0]["n"] == 0, seconds=options.seconds)
        seconds = time.monotonic() - began
        fleet.stop()
        if not ended:
            report.problems.append(f"not at its end {options.seconds:g} s after the approvals")
        _weigh(report, bench, storm, videos, seconds)
    return report


def brew_platforms(bench: Bench, share: float) -> None:
    """Let the routes of the platforms fail, and no other."""
    for name in PLATFORMS:
        if Platform(name).spec.remote:
            brew(bench.sandbox, share, route=f"{name}.*")


def _made(bench: Bench, videos: int, seconds: float) -> bool:
    """Wait until every video waits for its review."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if len(bench.services.decisions().undecided(limit=videos + 1)) >= videos:
            return True
        time.sleep(POLL_SECONDS)
    return False


class _Storm:
    """Kills workers and stores while posts go out."""

    def __init__(self, bench: Bench, fleet: Fleet, chance: random.Random, pause: float) -> None:
        self._bench = bench
        self._fleet = fleet
        self._chance = chance
        self._pause = pause
        self._blows = list(BLOWS)
        self.kills = 0
        self.restarts: Counter[str] = Counter()

    def rage(self, *, until: Callable[[], bool], seconds: float) -> bool:
        """Kill until nothing is left to do. Returns whether that came within `seconds`."""
        deadline = time.monotonic() + seconds
        next_kill = time.monotonic() + 1
        while time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
            try:
                share = float(self._bench.rows(_OUT)[0]["share"])
                if share and until():
                    return True
            except DBAPIError:
                continue  # it is being restarted
            self._take_a_store(share)
            if time.monotonic() >= next_kill and share < LAST_KILL:
                self._kill_a_worker()
                next_kill = time.monotonic() + self._chance.uniform(1, self._pause)
        return False

    def _take_a_store(self, share: float) -> None:
        if self._blows and share >= self._blows[0][0]:
            name = self._blows.pop(0)[1]
            pid = self._bench.servers.pids.get(name)
            if pid is None:  # it is not back yet
                self._blows.insert(0, (share, name))
                return
            os.kill(pid, signal.SIGINT if name == "postgres" else signal.SIGKILL)
            self.restarts[name] += 1

    def _kill_a_worker(self) -> None:
        alive = self._fleet.alive
        if alive:
            self._fleet.kill([self._chance.choice(alive)])
            self.kills += 1


def _weigh(report: Report, bench: Bench, storm: _Storm, videos: int, seconds: float) -> None:
    wanted = videos * len(PLATFORMS)
    found, seen, buried = completion.fates(bench), reconciliation.compare(bench), reconciliation.letters(bench)
    outbox = in_outbox(bench.home / "outbox")
    posts = Counter(seen.posts) + Counter({"folder": sum(outbox.values())})
    report.tell("seconds from the approvals", round(seconds, 1))
    report.tell("calls", sum(bench.sandbox.ledger()["calls"].values()))
    report.tell("posts at the platforms", dict(posts))
    report.check("kill -9 of a publishing process", storm.kills, "> 0", ok=storm.kills > 0)
    restarts = dict(storm.restarts)
    report.check("stores restarted", restarts, "twice each", ok=restarts == {"valkey": 2, "postgres": 2})
    report.check("posts, each exactly once", found.counts["posted"], str(wanted), ok=found.counts["posted"] == wanted)
    report.check("posts that the platforms have", posts.total(), str(wanted), ok=posts.total() == wanted)
    for what, times in seen.doubled.items():
        report.check(f"doubled {what}", times, "0", ok=times == 0)
    twice = sum(times - 1 for times in outbox.values())
    report.check("doubled folders", twice, "0", ok=twice == 0)
    untrue = [problem for problem in seen.problems if "is recorded as" in problem]
    untrue += [f"{key} is recorded in the outbox and is not there" for key in _recorded_folders(bench) if not outbox[key]]
    report.check("recorded as posted, and not there", len(untrue), "0", ok=not untrue)
    unknown = bench.rows(_NEEDS_A_PERSON)[0]["n"]
    report.check("left unknown", unknown, "0", ok=unknown == 0)
    report.check("dead letters", len(buried), "0", ok=not buried)
    report.check("stuck", found.counts["stuck"], "0", ok=not found.stuck)
    report.tell("rows of the ledger", {f"{row['platform']} {row['state']}": row["n"] for row in bench.rows(_LEDGER)})
    report.problems += [*found.stuck[:10], *seen.problems[:10], *untrue[:10]]
    report.problems += [f"{x['key']} {x['stage']}: {x['error_class']} {x['code']}: {x['message']}" for x in buried[:10]]


def in_outbox(outbox: Path) -> Counter[str]:
    """How many folders the outbox has of each video. A folder whose name begins with a dot is not a post."""
    facts = [path for path in outbox.glob("*/*/post.json") if not path.parent.name.startswith(".")]
    return Counter(str(_facts(path)["video"]) for path in facts)


def _facts(path: Path) -> Mapping[str, object]:
    found: Mapping[str, object] = json.loads(path.read_text(encoding="utf-8"))
    return found


def _recorded_folders(bench: Bench) -> list[str]:
    statement = """SELECT v.key FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
        WHERE s.stage = 'folder/post' AND s.state = 'done'"""
    return [row["key"] for row in bench.rows(statement)]
