"""*hosts*: workers on two hosts share the load; one is cut off from the network and comes back, then the other dies.

Two hosts of the benchmark's own making (`namespaces`), each with its own network, host name, process table and data directory, run
`phantoms worker`; PostgreSQL, Valkey, the sandbox, the daemon and the code server are on a third. First both share the load.

Then host-a's cable is pulled while it works, for longer than any lease, so that it comes back to runs that were resumed elsewhere.
The workers with these runs are halted for some more seconds: nothing stops the runs there, so their late writes do arrive.

Then host-b loses its power while it works, inside a transaction that has rows locked: all its processes end at once, and no
other machine notices. Every video must be posted exactly once, without a person.
"""

from __future__ import annotations

import argparse
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from phantoms_dagster_tests.benchmarks import completion, reconciliation
from phantoms_dagster_tests.benchmarks.claim_log import Held, Noted, Record, overwritten, runs_by_host, taken_over
from phantoms_dagster_tests.benchmarks.namespaces import Host, obstacles
from phantoms_dagster_tests.benchmarks.network_world import NetworkWorld, open_world
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.world import Reviewer

HOSTS = ("host-a", "host-b")
LEAST_SHARE = 0.25
# A blow falls when its victim has so many runs in hand, and half of the videos' stages so far are done.
RUNS_IN_HAND = 2
SHARE_BEFORE_CUT = 0.45
# The returned host has shown that it works again when it has carried so many runs more.
RUNS_AFTER_RETURN = 4
# Longer than the kernel waits before it sends again what was lost in a cut.
STALL_SECONDS = 12.0
# What the dead host has locked must be free when its runs are resumed, which they are when its workers' leases are over.
LONGEST_LOCK_SECONDS = 45.0
VIDEOS_LOCKED = 4
LOOK_SECONDS = 0.05
SETTINGS = {
    "PHANTOMS_BATCH_SIZE": "4",
    "PHANTOMS_RUNS_PER_STAGE": "4",
    # The render API's stand-in is quick.
    "PHANTOMS_RENDER_POLL_SECONDS": "0.5",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--videos", type=int, default=80, help="videos: half at first, half when the first host is back (80)")
    parser.add_argument("--latency", type=float, default=1.0, help="seconds that each call to a provider takes (1)")
    parser.add_argument("--cut", type=float, default=45.0, help="seconds without network; leases last 30 (45)")
    parser.add_argument("--seconds", type=float, default=420, help="give up after this many seconds (420)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's random choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Carry all videos while one host is cut off and the other dies. Exit code 2 where hosts cannot be simulated."""
    if found := obstacles():
        sys.stderr.write("the benchmark hosts cannot run here:\n" + "".join(f"  {obstacle}\n" for obstacle in found))
        raise SystemExit(2)
    report = Report("hosts", {name: getattr(options, name) for name in ("videos", "latency", "cut", "seed")})
    report.notes += [
        "voice and studio are the stand-ins of the storm; of the product's settings only batches are smaller and pools wider",
        "the request that orders a render is answered at once: nobody can tell whether one took effect whose answer was lost",
    ]
    with open_world(HOSTS, seed=options.seed, settings=SETTINGS) as world:
        record = Record(world.bench)
        world.bench.sandbox.fault("shotstack.render", "latency", seconds=0.0)  # the first that applies is the one
        world.bench.sandbox.fault("*", "latency", seconds=options.latency)
        first, second = options.videos // 2, options.videos - options.videos // 2
        world.bench.add_videos(first, topic="Ocean facts", register=False)
        play = _Play(world, record, options.cut, second)
        began = time.monotonic()
        with Reviewer(world.bench):
            ended = completion.wait_until_ended(world.bench, seconds=options.seconds, during=play.go_on, total=options.videos)
        report.tell("seconds", round(time.monotonic() - began, 1))
        if not ended:
            report.problems.append(f"not at its end after {options.seconds:g} s")
        _weigh_hosts(report, world, play, record.all())
        _weigh_videos(report, world, options.videos)
    return report


@dataclass
class _Blow:
    """What happened to a host, when, and what it held then."""

    host: Host
    at: float
    held: list[Held]

    @property
    def runs(self) -> int:
        """The number of runs that it held."""
        return len({held.run_id for held in self.held})


@dataclass
class _Play:
    """What happens to the hosts, one after the other."""

    world: NetworkWorld
    record: Record
    cut_seconds: float
    second_wave: int
    begin: float = field(default_factory=time.time)
    cut: _Blow | None = None
    returned: float | None = None
    killed: _Blow | None = None
    stalled: list[int] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    freed: float | None = None

    def go_on(self, share: float) -> None:
        """Do the next step if it is due. `share`: the share of existing stages that are done."""
        first, second = self.world.hosts
        if self.cut is None:
            if share >= SHARE_BEFORE_CUT:
                self.cut = self._strike(first, self._cut_off)
        elif self.returned is None:
            if time.time() - self.cut.at >= self.cut_seconds:
                first.reconnect()
                self.returned = time.time()
                added = self.world.bench.add_videos(self.second_wave, topic="Desert facts", register=False)
                self.waiting = added[-VIDEOS_LOCKED:]
        elif self.stalled:
            if time.time() - self.returned >= STALL_SECONDS:
                self._signal(signal.SIGCONT)
                self.stalled = []
        elif self.killed is None:
            carried = runs_by_host(self.record.all(), begin=self.returned, end=time.time())
            if carried.get(first.name, 0) >= RUNS_AFTER_RETURN:
                if self.waiting:
                    self.world.catch_inside_a_transaction(second, self.waiting)
                    self.waiting = []
                self.killed = self._strike(second, second.power_off)
        elif self.freed is None and not self.world.transactions_of(second):
            self.freed = time.time()

    def _cut_off(self) -> None:
        host = self.world.hosts[0]
        host.cut_off()
        self.stalled = self.world.busy_workers(host)
        self._signal(signal.SIGSTOP)

    def _signal(self, number: signal.Signals) -> None:
        for worker in self.stalled:
            os.kill(worker, number)

    def _strike(self, host: Host, blow: Callable[[], None]) -> _Blow | None:
        """Strike once the host holds enough runs. It may hold too few right now."""
        until = time.monotonic() + completion.POLL_SECONDS
        while time.monotonic() < until:
            if len({held.run_id for held in self.record.held_by(host.name)}) >= RUNS_IN_HAND:
                blow()
                return _Blow(host, time.time(), self.record.held_by(host.name))
            time.sleep(LOOK_SECONDS)
        return None


def _weigh_hosts(report: Report, world: NetworkWorld, play: _Play, record: list[Noted]) -> None:
    cut, killed = play.cut, play.killed
    if cut is None or play.returned is None or killed is None:
        report.problems.append("the work was done before every blow had fallen: more videos, or slower calls")
        return
    well = runs_by_host(record, begin=play.begin, end=cut.at)
    least = min(well.get(name, 0) for name in HOSTS) / max(1, sum(well.values()))
    report.check("runs carried while both were well", well, f"each > {LEAST_SHARE:.0%}", ok=least > LEAST_SHARE)
    _weigh_blow(report, f"{cut.host.name} cut off", cut, record)
    report.tell("seconds without network", round(play.returned - cut.at, 1))
    said = world.log_of(cut.host)
    refused = sum(": StaleClaim: " in line for line in said)
    stopped = sum("carries" in line and "stopping it here" in line for line in said)
    report.check("on its return: outcomes refused as stale", refused, "> 0", ok=refused > 0)
    report.tell("on its return: runs stopped because another carries them", stopped)
    over = overwritten(record)
    report.check("newer claims that it wrote over", len(over), "0", ok=not over)
    after = runs_by_host(record, begin=play.returned, end=killed.at)
    report.check("runs carried after its return", after, "both", ok=all(after.get(name, 0) > 0 for name in HOSTS))
    _weigh_blow(report, f"{killed.host.name} dead", killed, record)
    locked = (play.freed or time.time()) - killed.at
    free = play.freed is not None and locked < LONGEST_LOCK_SECONDS
    report.check(f"{killed.host.name} dead: seconds until its locks were gone", round(locked, 1), "< 45", ok=free)
    report.problems += over[:10]


def _weigh_blow(report: Report, what: str, blow: _Blow, record: list[Noted]) -> None:
    became = taken_over(record, blow.held, blow.at)
    times = sorted(became.resumed.values())
    report.tell(f"{what}: runs in its hands", blow.runs)
    report.tell(f"{what}: ended by itself all the same", len(became.ended_there))
    report.check(f"{what}: resumed on the other", len(times), "all others", ok=not became.lost and len(times) > 0)
    if times:
        told = {"p50": round(statistics.median(times), 1), "last": round(times[-1], 1)}
        report.tell(f"{what}: seconds until they were resumed", told)
    report.problems += [f"{what}: run {run_id} was never taken up" for run_id in sorted(became.lost)[:10]]


def _weigh_videos(report: Report, world: NetworkWorld, videos: int) -> None:
    found, seen, buried = completion.fates(world.bench), reconciliation.compare(world.bench), reconciliation.letters(world.bench)
    report.check("posted exactly once", found.counts["posted"], str(videos * 3), ok=found.counts["posted"] == videos * 3)
    lost = videos * 3 - sum(found.counts.values()) + found.counts["stuck"]
    report.check("lost or stuck", lost, "0", ok=lost == 0)
    report.check("waiting for a person", len(buried) + found.counts["unknown"], "0", ok=not buried and not found.counts["unknown"])
    for what, times in seen.doubled.items():
        report.check(f"doubled {what}", times, "0", ok=times == 0)
    report.tell("Dagster runs", world.runs())
    report.tell("said by the supervisor", len(world.notices))
    report.problems += found.stuck[:10] + seen.problems[:10]
    report.problems += [f"{x['key']} {x['stage']}: {x['error_class']} {x['code']}: {x['message']}" for x in buried[:10]]
