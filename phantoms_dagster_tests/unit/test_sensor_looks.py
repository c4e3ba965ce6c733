"""When the daemon looks at its sensors, and when it does not have to."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from phantoms_dagster.execution.sensor_looks import LOOK_SECONDS, SensorPolling

PROMPT = frozenset({"advance", "release"})


@dataclass
class World:
    """A daemon whose looks are counted, under a clock of its own."""

    now: float = 0.0
    looks: int = 0
    futures: dict[str, Future[None]] = field(default_factory=dict)
    started_by_look: tuple[str, ...] = ()
    wait_seconds: float = 0.0

    def __post_init__(self) -> None:
        self.look = SensorPolling(self._look, lambda _: PROMPT, clock=lambda: self.now, wait_seconds=self.wait_seconds)

    def _look(self, *_: Any, **__: Any) -> Iterator[None]:
        self.looks += 1
        for name in self.started_by_look:
            if name not in self.futures or self.futures[name].done():
                self.futures[name] = Future()
        yield

    def turn(self) -> None:
        self.now += 0.26
        list(self.look(object(), sensor_tick_futures=self.futures))


def test_while_the_prompt_sensors_are_evaluated_the_daemon_looks_now_and_then() -> None:
    world = World(started_by_look=("advance", "release"))
    for _ in range(40):
        world.turn()
    assert world.looks <= 40 * 0.26 / LOOK_SECONDS + 1


def test_the_turn_after_a_sensor_has_ended_looks() -> None:
    world = World(started_by_look=("advance", "release"))
    world.turn()
    for name in ("release", "advance"):
        before = world.looks
        world.futures[name].set_result(None)
        world.turn()
        assert world.looks == before + 1


def test_a_prompt_sensor_that_may_not_be_asked_yet_is_looked_at_every_turn() -> None:
    world = World(started_by_look=("advance",))
    for _ in range(10):
        world.turn()
    assert world.looks == 10


def test_the_end_of_another_sensor_costs_no_look_of_its_own_and_is_noticed_with_the_next() -> None:
    """It may not be asked again for ten seconds or a minute."""
    world = World(started_by_look=("advance", "release", "intake"))
    world.turn()
    world.futures["intake"].set_result(None)
    world.turn()
    assert world.looks == 1
    while world.now < LOOK_SECONDS + 2 * 0.26:
        world.turn()
    assert world.looks == 2
    assert not world.futures["intake"].done()


def test_a_sensor_that_ends_while_the_daemon_waits_is_looked_at_in_the_same_turn() -> None:
    world = World(started_by_look=("advance", "release"), wait_seconds=60.0)
    world.turn()
    assert world.looks == 1
    ended = world.futures["release"]
    with ThreadPoolExecutor(1) as beside:
        turn = beside.submit(world.turn)
        assert not turn.done()
        ended.set_result(None)
        turn.result(timeout=30)
    assert world.looks == 2
