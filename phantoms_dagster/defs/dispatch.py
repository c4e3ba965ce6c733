"""When a sensor that requests runs looks at the tables, and how long it waits in between. All waiting of sensors is here.

Dagster asks a sensor every few seconds at best, and a video that has to be noticed six times on its way would spend half a minute
on that. So an evaluation that finds nothing listens to the database until something can be found. What to look at is the caller's.
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

    # An evaluation listens this long for something to do. Each leaves a line on the sensor's page, even when nothing happened:
    # short ones would bury the others. Below the minute after which Dagster gives an evaluation up.
    listen: float = 45.0
    # Between two looks at the tables when nobody says anything and nothing becomes due by the clock: a word may have been lost.
    look: float = 20.0
    # Between two looks, however much becomes ready. While no run is open it is short: what comes a little later is gathered while
    # that first run is under way.
    pause: float = 0.2
    idle_pause: float = 0.05
    # Between two looks whether one of the open runs is over.
    busy: float = 0.5
    # What is ready on one platform waits this long for the same on another, whose run is under way: otherwise that gets a run of
    # its own a moment later.
    siblings: float = 0.4
    # Between two looks whether one of them is over meanwhile.
    siblings_look: float = 0.1
    # Between two looks into the inbox folder, which tells nobody that a file has come.
    inbox: float = 7.5
    # New runs of making wait this long while something is being released: requesting and launching each costs processes that both
    # share.
    stand_back: float = 1.5


TIMINGS = Timings()
# A sensor that releases may be asked again after this: what is approved goes through three runs, one after another.
RELEASE_INTERVAL_SECONDS = 0.25


class Ears(Protocol):
    """What listens to the database."""

    stopped: bool

    def wait(self, seconds: float) -> bool:
        """Whether somebody said within that time that something is ready, or asked to stop."""
        ...


class Tables(Protocol):
    """What a sensor looks at."""

    def open_runs(self) -> list[OpenRun]:
        """The planned runs of the chain that have not ended."""
        ...

    def plan(self, open_runs: Sequence[OpenRun]) -> list[PlannedRun]:
        """What could run now beside those."""
        ...

    def next_due(self) -> float | None:
        """In how many seconds something becomes due by the clock alone."""
        ...


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation ends with: what to request, and what was known when it ended."""

    runs: list[PlannedRun]
    open_runs: int
    waited: float

    def reason(self) -> str:
        """Why nothing is requested, for the sensor's page."""
        open_ones = counted(self.open_runs, "run is open", "runs are open") if self.open_runs else "no run is open"
        return f"nothing became ready in {self.waited:.0f} s; {open_ones}"


# --- decisions


def next_look(now: float, *, ends: float, due: float | None, timings: Timings) -> float:
    """The time of the next look if nobody says anything: when something becomes due, and not after the evaluation's end."""
    max_wait = timings.look if due is None else min(due + timings.pause, timings.look)
    return min(now + max_wait, ends)


def batch_wait(open_runs: Sequence[OpenRun], timings: Timings) -> float:
    """How long to wait after a word that something is ready, for what comes right behind it."""
    return timings.pause if open_runs else timings.idle_pause


def listening(left: float, open_runs: Sequence[OpenRun], timings: Timings) -> float:
    """How long to listen at a time. Nobody says when a run is over, so while one is open that is looked at."""
    return min(left, timings.busy) if open_runs else left


def siblings_under_way(chain: Chain, runs: Sequence[PlannedRun], open_runs: Sequence[OpenRun]) -> bool:
    """Whether a run is open of a stage after which comes the like of what is planned, on a platform for which it is not."""
    planned = {run.target for run in runs}
    kinds = {stage.kind for stage in chain.stages if stage.name in planned}
    before = {name for stage in chain.stages if stage.kind in kinds and stage.name not in planned for name in stage.after}
    return any(run.target in before for run in open_runs)


def requested(runs: Sequence[PlannedRun]) -> str:
    """What is requested, in one line: `script for 12 videos (a .. b); make for c`."""
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
        ears: Ears,
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
        """Look, and while there is nothing to run, look again when something became ready or a run has ended."""
        began = self._clock()
        ends = began + self._timings.listen
        while True:
            open_runs = self._tables.open_runs()
            over = self._ears.stopped or self._clock() >= ends
            if (runs := self._tables.plan(open_runs)) or over:
                return Evaluation(self._with_siblings(runs, open_runs), len(open_runs), self._clock() - began)
            self._wait(open_runs, next_look(self._clock(), ends=ends, due=self._tables.next_due(), timings=self._timings))

    def _wait(self, open_runs: Sequence[OpenRun], until: float) -> None:
        """Until somebody says that something is ready, or a run is over: what is gathered may wait for that."""
        while (left := until - self._clock()) > 0:
            if self._ears.wait(listening(left, open_runs, self._timings)):
                if not self._ears.stopped:
                    self._sleep(batch_wait(open_runs, self._timings))
                return
            if open_runs and self._tables.open_runs() != open_runs:
                return

    def _with_siblings(self, runs: list[PlannedRun], open_runs: Sequence[OpenRun]) -> list[PlannedRun]:
        """What is planned when nothing more will soon be ready for the same on another platform, or that took too long."""
        until = self._clock() + self._timings.siblings
        while siblings_under_way(self._chain, runs, open_runs) and (left := until - self._clock()) > 0:
            became_ready, before = self._ears.wait(min(left, self._timings.siblings_look)), open_runs
            open_runs = self._tables.open_runs()
            if became_ready or open_runs != before:  # while the run is open its batch is gathered, and not yet planned
                runs = self._tables.plan(open_runs)
        return runs


def until_found(
    look: Callable[[], str | None],
    ears: Ears,
    *,
    timings: Timings,
    clock: Callable[[], float] = time.monotonic,
) -> str | None:
    """What the first look says that finds something. None when nothing is found while a sensor may listen."""
    ends = clock() + timings.listen
    while (found := look()) is None and not ears.stopped and (left := ends - clock()) > 0:
        ears.wait(min(timings.inbox, left))
    return found


def stand_back(chain: Chain, releasing: Callable[[], bool], *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Let what is approved go first: a sensor of making waits a moment while something is being released."""
    if chain.name == "make" and releasing():
        sleep(TIMINGS.stand_back)
