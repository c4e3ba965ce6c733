"""Decides when a sensor that requests runs queries the tables, and how long it waits in between. All waiting of sensors is here.

Dagster evaluates a sensor every few seconds at best. A video must be noticed six times on its way, which would take half a minute
in all. So an evaluation that finds nothing listens for database notifications until there is something to do.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.planning import OpenRun, PlannedRun
from phantoms_dagster.domain.stages import Chain


@dataclass(frozen=True)
class Timings:
    """All in seconds."""

    # An evaluation listens this long for something to do. Every evaluation leaves a line on the sensor's page, even an idle one, so
    # short ones would hide the others. Dagster aborts an evaluation after a minute.
    listen: float = 45.0
    # The time between two queries without a notification and without anything due: a notification may have been lost.
    look: float = 20.0
    # The wait after a notification, to batch what follows. It is shorter while no run is open: what comes a little later is batched
    # while that first run is executing.
    pause: float = 0.2
    idle_pause: float = 0.05
    # The time between two checks whether an open run has ended.
    busy: float = 0.5
    # Stages that are ready on one platform wait this long for the same stage on another whose run is still open. Otherwise that
    # one would get a run of its own a moment later.
    siblings: float = 0.4
    # The time between two checks whether such a run has ended.
    siblings_look: float = 0.1
    # The time between two reads of the inbox folder, which sends no notifications.
    inbox: float = 7.5
    # New runs of the chain `make` wait this long while a `release` run is open: both share the processes that request and launch.
    stand_back: float = 1.5


TIMINGS = Timings()
# The interval of the release sensor. It is short because an approved video goes through three runs, one after the other.
RELEASE_INTERVAL_SECONDS = 0.25


class NotificationListener(Protocol):
    """Listens for database notifications."""

    stopped: bool

    def wait(self, seconds: float) -> bool:
        """Wait up to `seconds`. Return whether a notification came, or a request to stop."""
        ...


class Tables(Protocol):
    """The data that a sensor reads."""

    def open_runs(self) -> list[OpenRun]:
        """Return the planned runs of the chain that have not ended."""
        ...

    def plan(self, open_runs: Sequence[OpenRun]) -> list[PlannedRun]:
        """Return the runs that could start now, besides the open ones."""
        ...

    def next_due(self) -> float | None:
        """Return the seconds until something becomes due by the clock; None when nothing will."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation: the runs to request, the number of open runs, and the seconds waited."""

    runs: list[PlannedRun]
    open_runs: int
    waited: float

    def reason(self) -> str:
        """Return why nothing is requested, for the sensor's page."""
        open_ones = counted(self.open_runs, "run is open", "runs are open") if self.open_runs else "no run is open"
        return f"nothing became ready in {self.waited:.0f} s; {open_ones}"


# --- decisions


def next_look(now: float, *, ends: float, due: float | None, timings: Timings) -> float:
    """Return when to query next if no notification comes: when something becomes due, but not after the end of the evaluation."""
    max_wait = timings.look if due is None else min(due + timings.pause, timings.look)
    return min(now + max_wait, ends)


def batch_wait(open_runs: Sequence[OpenRun], timings: Timings) -> float:
    """Return how long to wait after a notification, to batch what follows right behind it."""
    return timings.pause if open_runs else timings.idle_pause


def listening(left: float, open_runs: Sequence[OpenRun], timings: Timings) -> float:
    """Return how long to listen at a time. The end of a run sends no notification, so open runs are polled."""
    return min(left, timings.busy) if open_runs else left


def siblings_under_way(chain: Chain, runs: Sequence[PlannedRun], open_runs: Sequence[OpenRun]) -> bool:
    """Whether an open run will soon make the planned kind of stage ready on another platform, for which it is not planned yet."""
    planned = {run.target for run in runs}
    kinds = {stage.kind for stage in chain.stages if stage.name in planned}
    before = {name for stage in chain.stages if stage.kind in kinds and stage.name not in planned for name in stage.after}
    return any(run.target in before for run in open_runs)


def requested(runs: Sequence[PlannedRun]) -> str:
    """Describe the requested runs in one line: `script for 12 videos (a .. b); make for c`."""
    return "; ".join(
        f"{run.target} for {run.first}"
        if len(run.keys) == 1
        else f"{run.target} for {len(run.keys)} videos ({run.first} .. {run.last})"
        for run in runs
    )


# --- waiting


class Dispatcher:
    """One evaluation of a sensor. `clock` is monotonic, in seconds."""

    def __init__(
        self,
        chain: Chain,
        tables: Tables,
        ears: NotificationListener,
        *,
        timings: Timings,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._chain = chain
        self._tables = tables
        self._ears = ears
        self._timings = timings
        self._clock = clock
        self._sleep = sleep

    def found(self) -> Evaluation:
        """Query until there is something to run or the time is over. Query again when something becomes ready or a run ends."""
        began = self._clock()
        ends = began + self._timings.listen
        while True:
            open_runs = self._tables.open_runs()
            over = self._ears.stopped or self._clock() >= ends
            if (runs := self._tables.plan(open_runs)) or over:
                return Evaluation(self._with_siblings(runs, open_runs), len(open_runs), self._clock() - began)
            self._wait(open_runs, next_look(self._clock(), ends=ends, due=self._tables.next_due(), timings=self._timings))

    def _wait(self, open_runs: Sequence[OpenRun], until: float) -> None:
        """Wait until a notification comes or an open run ends, because a batch may be waiting for that run."""
        while (left := until - self._clock()) > 0:
            if self._ears.wait(listening(left, open_runs, self._timings)):
                if not self._ears.stopped:
                    self._sleep(batch_wait(open_runs, self._timings))
                return
            if open_runs and self._tables.open_runs() != open_runs:
                return

    def _with_siblings(self, runs: list[PlannedRun], open_runs: Sequence[OpenRun]) -> list[PlannedRun]:
        """Return the plan once no other platform will soon have the same kind of stage ready, or after `Timings.siblings`."""
        until = self._clock() + self._timings.siblings
        while siblings_under_way(self._chain, runs, open_runs) and (left := until - self._clock()) > 0:
            became_ready, before = self._ears.wait(min(left, self._timings.siblings_look)), open_runs
            open_runs = self._tables.open_runs()
            if became_ready or open_runs != before:  # its batch is planned only after the open run has ended
                runs = self._tables.plan(open_runs)
        return runs


def until_found(
    look: Callable[[], str | None],
    ears: NotificationListener,
    *,
    timings: Timings,
    clock: Callable[[], float] = time.monotonic,
) -> str | None:
    """Call `look` until it returns something or the listening time is over; then return None."""
    ends = clock() + timings.listen
    while (found := look()) is None and not ears.stopped and (left := ends - clock()) > 0:
        ears.wait(min(timings.inbox, left))
    return found


def stand_back(chain: Chain, releasing: Callable[[], bool], *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Give approved videos priority: the sensor of `make` waits a moment while a `release` run is open."""
    if chain.name == "make" and releasing():
        sleep(TIMINGS.stand_back)
