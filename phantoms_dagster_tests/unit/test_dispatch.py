"""When a sensor looks, what it waits for, and what it logs. No time passes here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest

from phantoms_dagster.defs.dispatch import (
    Dispatcher,
    Evaluation,
    Timings,
    batch_wait,
    listening,
    next_look,
    requested,
    siblings_under_way,
    stand_back,
)
from phantoms_dagster.domain.planning import OpenRun, PlannedRun
from phantoms_dagster.domain.stages import CHAINS

RELEASE, MAKE = CHAINS["release"], CHAINS["make"]
T = Timings(listen=45, look=9, pause=0.2, idle_pause=0.05, busy=0.5, siblings=0.4, siblings_look=0.1)


def planned(target: str, *keys: str) -> PlannedRun:
    return PlannedRun(target, keys[0], keys[-1], keys, f"{target}-{keys[0]}")


@dataclass
class World:
    """Tables and ears under a clock of their own, which only waits move on. `events` happen at their time."""

    now: float = 0.0
    open: list[OpenRun] = field(default_factory=list)
    ready: list[PlannedRun] = field(default_factory=list)
    due: float | None = None
    events: list[tuple[float, Callable[[], None]]] = field(default_factory=list)
    said: bool = False
    stopped: bool = False
    looks: list[float] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def open_runs(self) -> list[OpenRun]:
        return list(self.open)

    def plan(self, open_runs: Sequence[OpenRun]) -> list[PlannedRun]:
        self.looks.append(self.now)
        return list(self.ready)

    def next_due(self) -> float | None:
        return None if self.due is None else max(0.0, self.due - self.now)

    def wait(self, seconds: float) -> bool:
        self._pass(seconds, until_said=True)
        heard, self.said = self.said or self.stopped, False
        return heard

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._pass(seconds)

    def _pass(self, seconds: float, *, until_said: bool = False) -> None:
        until = self.now + seconds
        for event in sorted(self.events, key=lambda event: event[0]):
            if event[0] <= until and not (until_said and (self.said or self.stopped)):
                self.events.remove(event)
                self.now = max(self.now, event[0])
                event[1]()
        if not (until_said and (self.said or self.stopped)):
            self.now = until

    def say(self) -> None:
        self.said = True

    def found(self, chain: object = RELEASE) -> Evaluation:
        dispatcher = Dispatcher(chain, self, self, timings=T, clock=lambda: self.now, sleep=self.sleep)  # type: ignore[arg-type]
        return dispatcher.found()


# --- decisions


@pytest.mark.parametrize(("due", "at"), [(None, 109.0), (3.0, 103.2), (30.0, 109.0), (0.0, 100.2)])
def test_the_next_look_is_when_something_becomes_due_and_else_after_the_longest_pause(due: float | None, at: float) -> None:
    assert next_look(100.0, ends=1_000.0, due=due, timings=T) == pytest.approx(at)


def test_no_look_is_after_the_end_of_the_evaluation() -> None:
    assert next_look(100.0, ends=102.0, due=None, timings=T) == 102.0


def test_while_no_run_is_open_what_comes_behind_a_word_is_hardly_waited_for() -> None:
    assert batch_wait([], T) == 0.05
    assert batch_wait([OpenRun("approval", "a", "a")], T) == 0.2


def test_only_while_a_run_is_open_is_its_end_looked_for() -> None:
    assert listening(9.0, [], T) == 9.0
    assert listening(9.0, [OpenRun("approval", "a", "a")], T) == 0.5
    assert listening(0.1, [OpenRun("approval", "a", "a")], T) == 0.1


def test_the_same_on_another_platform_is_waited_for_while_the_stage_before_it_runs() -> None:
    runs = [planned("youtube/post", "a")]
    assert siblings_under_way(RELEASE, runs, [OpenRun("tiktok/variant", "a", "a")])
    assert not siblings_under_way(RELEASE, runs, [OpenRun("youtube/variant", "a", "a")])
    assert not siblings_under_way(RELEASE, [], [OpenRun("tiktok/variant", "a", "a")])


def test_what_is_requested_is_one_line() -> None:
    assert requested([planned("script", "a", "b", "c"), planned("make", "d")]) == "script for 3 videos (a .. c); make for d"


def test_the_chain_make_yields_while_the_chain_release_runs_and_not_the_other_way_round() -> None:
    slept: list[float] = []
    for chain in (MAKE, RELEASE):
        for releasing in (True, False):
            stand_back(chain, lambda releasing=releasing: releasing, sleep=slept.append)  # type: ignore[misc]
    assert slept == [Timings().stand_back]


# --- an evaluation


def test_an_evaluation_that_finds_nothing_looks_now_and_then_and_says_how_long_it_listened() -> None:
    world = World()
    found = world.found()
    assert found.reason() == "nothing became ready in 45 s; no run is open"
    assert world.looks == [0, 9, 18, 27, 36, 45]


def test_what_becomes_ready_is_planned_a_moment_after_the_word() -> None:
    world = World()
    run = planned("approval", "a")
    world.events.append((3.0, lambda: (world.ready.append(run), world.say())))  # type: ignore[arg-type, func-returns-value]
    found = world.found()
    assert found.runs == [run]
    assert world.now == pytest.approx(3.05)


def test_what_becomes_due_by_the_clock_is_planned_then() -> None:
    world = World(due=4.0)
    world.events.append((4.0, lambda: world.ready.append(planned("approval", "a"))))
    assert world.found().runs
    assert world.now == pytest.approx(4.2)


def test_the_end_of_a_run_is_found_within_half_a_second() -> None:
    world = World(open=[OpenRun("approval", "a", "a")])
    world.events.append((3.3, lambda: (world.open.clear(), world.ready.append(planned("youtube/post", "a")))))  # type: ignore[arg-type, func-returns-value]
    assert world.found().runs
    assert world.now == pytest.approx(3.5)


def test_a_daemon_that_ends_is_not_waited_for() -> None:
    world = World()
    world.events.append((2.0, lambda: setattr(world, "stopped", True)))
    assert world.found().runs == []
    assert world.now == 2.0
    assert world.slept == []


def test_siblings_are_waited_for_and_not_for_long() -> None:
    ready = planned("youtube/post", "a")
    world = World(open=[OpenRun("tiktok/variant", "a", "a")], ready=[ready])
    both = [ready, planned("tiktok/post", "a")]
    world.events.append((0.15, lambda: (world.open.clear(), world.ready.extend(both[1:]))))  # type: ignore[arg-type, func-returns-value]
    assert world.found().runs == both
    assert world.now == pytest.approx(0.2)
    alone = World(open=[OpenRun("tiktok/variant", "a", "a")], ready=[ready])
    assert alone.found().runs == [ready]
    assert alone.now == pytest.approx(0.4)
