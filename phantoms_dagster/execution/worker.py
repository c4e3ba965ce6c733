"""`python -m phantoms_dagster.execution.worker --queues script=2,...`: the parent of all run workers of a machine.

It imports Dagster and the definitions once, then forks the reaper and one worker per slot, and restarts those that end. It opens no
connections and starts no threads, so forking is safe and memory is shared. `run_worker` is what a worker does.

SIGTERM or SIGINT stops it: runs get the grace period and are then handed back; a second signal stops at once. SIGHUP reloads the
code; current runs finish with the old code.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

from phantoms_dagster import settings as settings_module
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.stages import CHAINS
from phantoms_dagster.execution.fork_memory import prepare_for_forks
from phantoms_dagster.execution.preload import MODULE, load
from phantoms_dagster.execution.processes import die_with
from phantoms_dagster.execution.slots import redis_url, slots_of
from phantoms_dagster.resilience.redis.refusals import refuse_cluster_at
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import logs

REAPER = "reaper"
BACKOFF = (0.5, 30.0)
STEADY_SECONDS = 30.0
CHECK_SECONDS = 120
# The nice values of workers. When CPU time is short, they yield to the processes that decide what runs next (daemon, code server,
# stores). Workers of the stages before the approval also yield to those that publish: a flood of scripts must not delay a post.
NICENESS, MAKING_NICENESS = 1, 14
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WorkerSlot:
    """A slot for a child process: worker `number` of a queue, or the reaper."""

    queue: str
    number: int = 0

    def __str__(self) -> str:
        return self.queue if self.queue == REAPER else f"{self.queue}-{self.number}"


class WorkerParent:
    """Keeps one child process in every slot. `bodies` are the functions that the children run; they return an exit code.

    `adopted` are children of the program that this process ran before a reload. They were told to finish, and are then replaced.
    `reload` replaces this program, given the children. It returns only when that fails.
    """

    def __init__(
        self,
        bodies: Mapping[WorkerSlot, Callable[[], int]],
        *,
        adopted: Mapping[int, WorkerSlot],
        reload: Callable[[Mapping[int, WorkerSlot]], None],
        backoff: tuple[float, float] = BACKOFF,
    ) -> None:
        self._bodies = bodies
        self._reload = reload
        self._backoff = backoff
        self._children = dict(adopted)
        self._born: dict[int, float] = {}
        self._delays: dict[WorkerSlot, float] = {}
        self._due = {slot: 0.0 for slot in bodies if slot not in set(adopted.values())}
        self._stops_asked = 0
        self._reload_asked = False
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def run(self) -> None:
        """Run until told to stop and all children have ended."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, self._signalled)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        stops_heeded = 0
        while True:
            self._collect()
            if self._stops_asked > stops_heeded:
                stops_heeded = self._stops_asked
                self._stop_children(signal.SIGTERM if stops_heeded == 1 else signal.SIGKILL)
            if self._stops_asked and not self._children:
                return
            if not self._stops_asked:
                if self._reload_asked:
                    self._reload_asked = False
                    self._reload(self._children)
                self._start_due()
            self._sleep()

    def _signalled(self, number: int, _: FrameType | None) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            self._stops_asked += 1
        elif number == signal.SIGHUP:
            # With a terminal, SIGHUP means that it was closed, not that the code should be reloaded.
            if os.isatty(0):
                self._stops_asked += 1
            else:
                self._reload_asked = True

    def _start_due(self) -> None:
        for slot in [slot for slot, due in self._due.items() if due <= time.monotonic()]:
            del self._due[slot]
            pid = self._fork(self._bodies[slot])
            self._children[pid] = slot
            self._born[pid] = time.monotonic()

    def _fork(self, body: Callable[[], int]) -> int:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            die_with(parent)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            os.close(self._wake)
            os.close(self._waker)
            code = body()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
        except BaseException:
            log.exception("a child of the workers' parent has failed")
        finally:
            logging.shutdown()
            # A child must never return into the parent's code.
            os._exit(code)

    def _collect(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            slot = self._children.pop(pid, None)
            if slot is None or self._stops_asked or slot not in self._bodies:
                continue
            code = os.waitstatus_to_exitcode(status)
            self._due[slot] = time.monotonic() + self._delay(slot, pid, code)
            if code:
                log.warning("%s (process %d) ended with exit code %d and will be restarted", slot, pid, code)

    def _delay(self, slot: WorkerSlot, pid: int, code: int) -> float:
        lived = time.monotonic() - self._born.pop(pid, 0.0)
        if code == 0 or lived >= STEADY_SECONDS:
            self._delays.pop(slot, None)
            return 0.0
        first, longest = self._backoff
        self._delays[slot] = min(self._delays[slot] * 2, longest) if slot in self._delays else first
        return self._delays[slot]

    def _stop_children(self, number: signal.Signals) -> None:
        for pid, slot in self._children.items():
            # The reaper has nothing to hand back, so it can be killed.
            os.kill(pid, signal.SIGKILL if slot.queue == REAPER else number)

    def _sleep(self) -> None:
        due = min(self._due.values(), default=None) if not self._stops_asked else None
        select.select([self._wake], [], [], None if due is None else max(0.0, due - time.monotonic()))
        try:
            while os.read(self._wake, 512):
                pass
        except BlockingIOError:
            return


def bodies(settings: Settings, slots: Mapping[str, int]) -> dict[WorkerSlot, Callable[[], int]]:
    """Return the function that each child runs."""
    from phantoms_dagster.execution import reaper, run_worker  # noqa: PLC0415 - see `load`
    from phantoms_dagster.private.dagster import instance_ref  # noqa: PLC0415

    ref = instance_ref(os.environ["DAGSTER_HOME"])
    run_worker.use_instance(ref)
    run_worker.set_log_levels()
    for data in (ref.storage_data, ref.run_launcher_data, ref.run_coordinator_data, ref.compute_logs_data):
        if data is not None:
            importlib.import_module(data.module_name)
    url, lease = redis_url(settings), settings.workers.lease_seconds

    def reap() -> int:
        _say_what_is_wrong(settings)
        reaper.reap(ref, url, lease_seconds=lease)
        return 1

    found: dict[WorkerSlot, Callable[[], int]] = {WorkerSlot(REAPER): reap}
    for queue, count in slots.items():
        for number in range(1, count + 1):
            found[WorkerSlot(queue, number)] = functools.partial(
                _work, queue, number, url=url, lease_seconds=lease, grace_seconds=settings.workers.grace_seconds
            )
    return found


def _say_what_is_wrong(settings: Settings) -> None:
    """Log a warning about a model that is missing or deprecated. This needs connections, so a child does it, not the parent."""
    from phantoms_dagster.wiring.models import model_warning  # noqa: PLC0415 - see `load`

    try:
        warning = model_warning(settings)
    except PhantomsError as error:
        warning = str(error)
    if warning is not None:
        log.warning("%s", warning)


def niceness(queue: str) -> int:
    """Return the nice value of a queue's workers."""
    making = {CHAINS["make"].name, *(stage.slug for stage in CHAINS["make"].stages)}
    return MAKING_NICENESS if queue in making else NICENESS


def _work(queue: str, number: int, **options: Any) -> int:
    from phantoms_dagster.execution import run_worker  # noqa: PLC0415 - see `load`

    os.nice(niceness(queue))
    return run_worker.work(queue, number, **options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Return its exit code."""
    given = _parser().parse_args(arguments)
    # OpenBLAS's threads would not survive the fork, and none of our runs needs more than one core for it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    settings = settings_module.load()
    settings_module.pin(settings)
    logs.configure(settings)
    try:
        slots = slots_of(settings, given.queues)
        if trouble := refuse_cluster_at(redis_url(settings)):
            log.warning("%s; workers wait for it", trouble)
    except PhantomsError as error:
        log.error("%s", error)
        return 2
    load(given.module)
    children = bodies(settings, slots)
    from phantoms_dagster.execution import run_worker  # noqa: PLC0415 - see `load`

    if given.check:  # everything that the parent and its children import has been imported
        return 0
    if not trouble:
        run_worker.warm_up(redis_url(settings))
    prepare_for_forks()
    adopted = {int(pid): WorkerSlot(queue, int(number)) for pid, queue, number in (a.split("/") for a in given.adopt)}
    log.info("workers: %s", ", ".join(f"{queue}={count}" for queue, count in slots.items()))
    WorkerParent(children, adopted=adopted, reload=functools.partial(_become_new, given.module, given.queues)).run()
    return 0


def _become_new(module: str, queues: str | None, children: Mapping[int, WorkerSlot]) -> None:
    """Run this program again in this process and keep the children, unless the new code cannot be loaded."""
    program = [sys.executable, "-P", "-m", "phantoms_dagster.execution.worker", "--module", module]
    try:
        check = [*program, "--check", *(["--queues", queues] if queues else [])]
        tried = subprocess.run(check, capture_output=True, text=True, check=False, timeout=CHECK_SECONDS)
        problem = "" if tried.returncode == 0 else tried.stderr.strip() or f"it ended with exit code {tried.returncode}"
    except subprocess.TimeoutExpired:
        problem = f"it did not load within {CHECK_SECONDS} s"
    if problem:
        log.error("the new code cannot be loaded, so the old code keeps running:\n%s", problem)
        return
    log.info("reloading the code; current runs finish with the old code")
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for pid, slot in children.items():
        os.kill(pid, signal.SIGKILL if slot.queue == REAPER else signal.SIGHUP)
    adopt = [word for pid, slot in children.items() for word in ("--adopt", f"{pid}/{slot.queue}/{slot.number}")]
    logging.shutdown()
    os.execv(sys.executable, [*program, *(["--queues", queues] if queues else []), *adopt])  # noqa: S606


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m phantoms_dagster.execution.worker", description="Executes Dagster runs.")
    parser.add_argument("--queues", help="workers by queue, such as script=2,rendered_video=1; default: PHANTOMS_WORKER_SLOTS")
    parser.add_argument("--module", default=MODULE, help="the module of the definitions")
    parser.add_argument("--check", action="store_true", help="only check whether everything that workers need can be loaded")
    parser.add_argument("--adopt", action="append", default=[], help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
