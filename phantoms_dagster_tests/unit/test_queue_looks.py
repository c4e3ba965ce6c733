"""When the daemon looks at the run queue: at once after it queued a run, soon while runs come, and otherwise once a second."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from phantoms_dagster.execution.queue_looks import BUSY_SECONDS, IDLE_SECONDS, LIVELY_SECONDS, PollingPace


class World:
    """A pace under a clock of its own, which waits move on. `events` happen at their time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.events: list[tuple[float, Callable[[], None]]] = []
        self.over = Waited(self)
        self.pace = PollingPace(clock=lambda: self.now)
        self.pace._queued = Waited(self)

    def next_look(self) -> float:
        """How long after a look that begins now the next one does."""
        looked = self.now
        self.pace.wait(looked, self.over)
        return self.now - looked


class Waited(Event):
    """An event whose waits move the world's clock on, until it is set."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        until = self._world.now + timeout
        for event in sorted(self._world.events, key=lambda event: event[0]):
            if event[0] <= until:
                self._world.events.remove(event)
                self._world.now = max(self._world.now, event[0])
                event[1]()
                if self.is_set():
                    return True
        self._world.now = until
        return self.is_set()


def test_an_idle_daemon_looks_once_a_second() -> None:
    world = World()
    assert [world.next_look() for _ in range(3)] == [IDLE_SECONDS] * 3


def test_a_run_that_it_has_queued_is_looked_at_at_once() -> None:
    world = World()
    world.events.append((0.7, world.pace.queued))
    assert world.next_look() == 0.7


def test_of_a_flood_no_run_costs_a_look_of_its_own() -> None:
    world = World()
    for number in range(100):
        world.events.append((0.01 * number, world.pace.queued))
    looks = 0
    while world.now < 1:
        world.next_look()
        looks += 1
    assert looks <= 1 / BUSY_SECONDS + 1


def test_a_run_queued_while_it_looked_is_not_forgotten() -> None:
    world = World()
    world.pace.queued()
    assert world.next_look() == BUSY_SECONDS
    assert world.next_look() == IDLE_SECONDS


def test_while_runs_come_and_go_it_looks_four_times_a_second_and_for_a_while_after() -> None:
    world = World()
    world.pace.found()
    looks = [world.next_look() for _ in range(int(LIVELY_SECONDS / BUSY_SECONDS) - 1)]
    assert set(looks) == {BUSY_SECONDS}
    assert world.next_look() == IDLE_SECONDS


def test_the_end_is_noticed_with_the_next_look() -> None:
    world = World()
    world.events.append((0.3, world.over.set))
    assert world.next_look() <= IDLE_SECONDS
    assert world.pace.wait(world.now, world.over)
