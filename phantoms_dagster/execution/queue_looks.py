"""How the daemon polls Dagster's run queue: at once when this process has queued a run, else from time to time.

Dagster reads all queued and open runs each time. Here one small query comes first, and the full one only when there are any. Only
the fast path `daemon` imports this module; see `private.dagster`.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator
from threading import Event
from typing import Any

from dagster import DagsterInstance, DagsterRun, DagsterRunStatus
from sqlalchemy import TextClause, text

from phantoms_dagster.private.dagster import (
    IN_PROGRESS_RUN_STATUSES,
    DaemonErrorCapture,
    DaemonIterator,
    MonitoringDaemon,
    QueuedRunCoordinator,
    QueuedRunCoordinatorDaemon,
    SpanMarker,
    SqlRunStorage,
    SubmitRunContext,
)

# The polling interval while runs come and go. With a shorter one, each run of a flood would be polled for separately.
BUSY_SECONDS = 0.25
# The polling interval when no run was queued for a while. The first run that another process (the web server) queues waits for it.
IDLE_SECONDS = 1.0
# The time after the last queued run until polling becomes idle.
LIVELY_SECONDS = 10.0

_OPEN = [*IN_PROGRESS_RUN_STATUSES, DagsterRunStatus.CANCELING, DagsterRunStatus.NOT_STARTED]
_ANY_OPEN = text(
    f"SELECT EXISTS (SELECT FROM runs WHERE status IN ({', '.join(repr(status.value) for status in _OPEN)}))"  # noqa: S608 - ours
    " OR EXISTS (SELECT FROM pending_steps)"
)
_ANY_QUEUED = text("SELECT EXISTS (SELECT FROM runs WHERE status = 'QUEUED')")


_log = logging.getLogger("dagster.daemon.QueuedRunCoordinatorDaemon")


class PollingPace:
    """Decides when to poll next. `queued` may be called from any thread; `clock` is monotonic, in seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._queued = Event()
        self._lively_until = float("-inf")

    def queued(self) -> None:
        """Note that this process has queued a run."""
        self._queued.set()

    def found(self) -> None:
        """Note that a poll has found queued runs."""
        self._lively_until = self._clock() + LIVELY_SECONDS

    def wait(self, looked: float, over: Event) -> bool:
        """Wait until the next poll after the one that began at `looked`. Return whether the daemon is stopping (`over`)."""
        while not over.is_set():
            now = self._clock()
            soon = now < self._lively_until or self._queued.is_set()
            left = looked + (BUSY_SECONDS if soon else IDLE_SECONDS) - now
            if left <= 0:
                break
            if self._queued.is_set():
                over.wait(left)
            else:
                self._queued.wait(min(left, BUSY_SECONDS) if soon else left)
        self._queued.clear()
        return over.is_set()


class PromptQueueDaemon(QueuedRunCoordinatorDaemon):
    """Launches runs that this process queues at once, and those of others soon. `ended` is called when the daemon stops."""

    ended: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self, interval_seconds: float) -> None:
        super().__init__(interval_seconds)
        self.pace = PollingPace()

    def core_loop(self, workspace_process_context: Any, shutdown_event: Event) -> DaemonIterator:
        """See the base class, which only waits for multiples of half a second."""
        with notifying_queued(self.pace.queued):
            while True:
                looked = time.monotonic()
                yield SpanMarker.START_SPAN
                try:
                    if any_queued(workspace_process_context.instance):
                        self.pace.found()
                        yield from self.run_iteration(workspace_process_context)
                except Exception:  # noqa: BLE001 - like the base class: the next poll may succeed
                    yield DaemonErrorCapture.process_exception(
                        sys.exc_info(), logger=_log, log_message="Could not read the run queue"
                    )
                yield SpanMarker.END_SPAN
                if self.pace.wait(looked, shutdown_event):
                    self.ended()
                yield None


class CalmMonitoringDaemon(MonitoringDaemon):
    """Does its work only when there are open runs, or steps that still wait for a slot in a pool."""

    def run_iteration(self, workspace_process_context: Any) -> DaemonIterator:
        """See the base class."""
        if any_open(workspace_process_context.instance):
            yield from super().run_iteration(workspace_process_context)


@contextlib.contextmanager
def notifying_queued(queued: Callable[[], None]) -> Iterator[None]:
    """Call `queued` after each run that this process puts into the queue."""
    as_usual = QueuedRunCoordinator.submit_run

    def submit_run(coordinator: QueuedRunCoordinator, context: SubmitRunContext) -> DagsterRun:
        run = as_usual(coordinator, context)
        queued()
        return run

    QueuedRunCoordinator.submit_run = submit_run  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        QueuedRunCoordinator.submit_run = as_usual  # type: ignore[method-assign]


def any_queued(instance: DagsterInstance) -> bool:
    """Whether a run is in Dagster's queue."""
    return _is(_ANY_QUEUED, instance)


def any_open(instance: DagsterInstance) -> bool:
    """Whether a run is open, or a step waits for a slot in a pool."""
    return _is(_ANY_OPEN, instance)


def _is(question: TextClause, instance: DagsterInstance) -> bool:
    storage = instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as connection:
        return bool(connection.execute(question).scalar_one())
