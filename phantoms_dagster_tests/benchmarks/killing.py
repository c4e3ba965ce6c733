"""kill -9 of a running stack's processes, and when their work continues. Only the product's own supervision restarts them.

The benchmark decides which process is killed when, and evaluates the figures.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import grpc
import redis
import yaml
from grpc_health.v1 import health_pb2, health_pb2_grpc

from phantoms_dagster.execution.slots import slots_of
from phantoms_dagster_tests.benchmarks.cpu import processes
from phantoms_dagster_tests.benchmarks.stack import BenchStack

HORSE, WORKER, PARENT, CODE_SERVER, DAEMON = "work-horse", "worker", "workers' parent", "code server", "daemon"
KINDS = (HORSE, WORKER, PARENT, CODE_SERVER, DAEMON)
# How long to wait for a run to strike at, or for a service that is down to be there again.
TARGET_SECONDS = 30.0
LOOK_SECONDS = 0.1

Value = TypeVar("Value")

# Of runs that lost their process: when their step began again, or, what also ends the matter, when they ended.
_WENT_ON = """
    SELECT run_id, extract(epoch FROM min(timestamp) AT TIME ZONE 'UTC')::float8 AS at FROM event_logs
    WHERE run_id = ANY(:runs) AND timestamp > to_timestamp(:since) AT TIME ZONE 'UTC'
        AND dagster_event_type IN ('STEP_START', 'PIPELINE_SUCCESS', 'PIPELINE_FAILURE', 'PIPELINE_CANCELED')
    GROUP BY run_id
"""
# Of the runs that were seen under way, those that had just ended when the kill fell.
_OVER = """
    SELECT DISTINCT run_id FROM event_logs
    WHERE run_id = ANY(:runs) AND timestamp <= to_timestamp(:since) AT TIME ZONE 'UTC'
        AND dagster_event_type IN ('PIPELINE_SUCCESS', 'PIPELINE_FAILURE', 'PIPELINE_CANCELED')
"""
_TICKED = """
    SELECT extract(epoch FROM min({column}) AT TIME ZONE 'UTC')::float8 AS at FROM job_ticks
    WHERE timestamp > to_timestamp(:since) AT TIME ZONE 'UTC' AND status IN ({statuses})
"""

# Which time of which ticks.
_BEGUN = ("timestamp", "'STARTED', 'SKIPPED', 'SUCCESS', 'FAILURE'")
_WELL_DONE = ("update_timestamp", "'SKIPPED', 'SUCCESS'")


@dataclass
class Kill:
    """A kill. Times are seconds since the epoch; `runs` were under way in what was killed."""

    kind: str
    at: float
    runs: tuple[str, ...] = ()
    again: float | None = None
    """When it went on: every run's step began again or the run ended; without a run, the slot or the service lives again."""
    ticked: float | None = None
    """Of a code server or daemon: when a sensor's tick that began after the kill had ended well."""

    @property
    def seconds(self) -> float | None:
        """The seconds from the kill until work continued."""
        return None if self.again is None else self.again - self.at


class _Carried(NamedTuple):
    """A run that is under way, and its processes."""

    run_id: str
    worker: int
    horse: int


@dataclass
class Killer:
    """Kills processes, and watches in separate threads until they are back. `chance` makes every choice."""

    stack: BenchStack
    chance: random.Random
    kills: list[Kill] = field(default_factory=list)
    _watchers: list[threading.Thread] = field(default_factory=list)

    def strike(self, kind: str) -> Kill | None:
        """Kill one process of that kind at once, or some time after one exists again. Returns None if none appeared in time.

        Work-horses, workers and their parent are killed during a run, if there is one; code server and daemon while they work.
        """
        if kind in (CODE_SERVER, DAEMON):
            if not self._works(kind):
                _first(lambda: self._works(kind), TARGET_SECONDS)
                time.sleep(self.chance.uniform(0.5, 3))
            return self._kill(kind, lambda: self.stack.pids().get(kind.replace(" ", "-")), ())
        carried = _first(self._carried, TARGET_SECONDS)
        if not carried and kind == HORSE:
            return None
        if kind == PARENT:
            return self._kill(kind, lambda: self.stack.pids().get("workers"), [run.run_id for run in carried or ()])
        if not carried:
            worker = self.chance.choice(processes()[self.stack.pids()["workers"]])
            return self._kill(kind, lambda: worker, ())
        target = self.chance.choice(carried)
        return self._kill(kind, lambda: target.horse if kind == HORSE else target.worker, [target.run_id])

    def settle(self, seconds: float) -> None:
        """Wait until everything has come back, and note when. Runs are read from Dagster's events."""
        deadline = time.monotonic() + seconds
        for watcher in self._watchers:
            watcher.join(max(0.0, deadline - time.monotonic()))
        for kill in self.kills:
            if kill.runs:
                went_on = {row["run_id"]: row["at"] for row in self.stack.dagster_rows(_WENT_ON, runs=[*kill.runs], since=kill.at)}
                over = {row["run_id"] for row in self.stack.dagster_rows(_OVER, runs=[*kill.runs], since=kill.at)}
                lost = [run for run in kill.runs if run not in over]
                if all(run in went_on for run in lost):
                    kill.again = max((went_on[run] for run in lost), default=kill.at)
            if kill.kind == DAEMON:
                kill.again = self._tick(kill, *_BEGUN)
            if kill.kind in (CODE_SERVER, DAEMON):
                kill.ticked = self._tick(kill, *_WELL_DONE)

    def _works(self, kind: str) -> bool:
        if kind == CODE_SERVER:
            return serves(code_port(self.stack))
        last = next((kill for kill in reversed(self.kills) if kill.kind == DAEMON), None)
        return last is None or self._tick(last, *_BEGUN) is not None

    def _tick(self, kill: Kill, column: str, statuses: str) -> float | None:
        at: float | None = self.stack.dagster_rows(_TICKED.format(column=column, statuses=statuses), since=kill.at)[0]["at"]
        return at

    def _kill(self, kind: str, find: Callable[[], int | None], runs: Iterable[str]) -> Kill | None:
        pid = _first(find, TARGET_SECONDS)
        if pid is None:
            return None
        kill = Kill(kind, time.time(), tuple(runs))
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return None
        self.kills.append(kill)
        if not kill.runs and kind != DAEMON:
            watcher = threading.Thread(target=self._watch, args=(kill, pid), name=f"watch-{kind}", daemon=True)
            watcher.start()
            self._watchers.append(watcher)
        return kill

    def _watch(self, kill: Kill, killed: int) -> None:
        slots = slots_of(self.stack.settings)

        def all_listen() -> bool:
            try:
                return all(self.stack.workers_alive()[queue] >= count for queue, count in slots.items())
            except redis.RedisError:
                return False

        def answers() -> bool:
            return self.stack.pids().get("code-server") not in (None, killed) and serves(code_port(self.stack))

        if _first(answers if kill.kind == CODE_SERVER else all_listen, 600):
            kill.again = time.time()

    def _carried(self) -> list[_Carried]:
        jobs = [job for queue in slots_of(self.stack.settings) for job in self.stack.queues.carried(queue)]
        workers = {job_id.rsplit("-", 1)[0]: int(name.rsplit("-", 2)[1]) for job_id, _, name in jobs if name}
        started = self.stack.dagster_rows(
            "SELECT run_id FROM runs WHERE status = 'STARTED' AND run_id = ANY(:runs) ORDER BY id", runs=[*workers]
        )
        children = processes()
        found = [(row["run_id"], workers[row["run_id"]]) for row in started]
        return [_Carried(run, worker, children[worker][0]) for run, worker in found if children.get(worker)]


def code_port(stack: BenchStack) -> int:
    """The port of the code server."""
    workspace = yaml.safe_load((stack.running.home / "dagster" / "workspace.yaml").read_text("utf-8"))
    return int(workspace["load_from"][0]["grpc_server"]["port"])


def serves(port: int) -> bool:
    """Whether the code server reports that it serves, so its definitions are loaded."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            request = health_pb2.HealthCheckRequest(service="DagsterApi")
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=2)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def _first(look: Callable[[], Value], seconds: float) -> Value | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := look():
            return value
        time.sleep(LOOK_SECONDS)
    return None
