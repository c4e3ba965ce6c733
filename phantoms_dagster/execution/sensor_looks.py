"""The daemon's looks at its sensors, without those that can find nothing. A sensor that has ended is asked again at once. While all
such sensors are being evaluated, which is nearly always, there is nobody to ask again: then the daemon waits for the first to end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

# Sensors with longer intervals, and what a person turns on or off, are noticed within this time.
LOOK_SECONDS = 5.0
# The daemon ends, and tells that it lives, only between two waits.
WAIT_SECONDS = 1.5
# A sensor with an interval of no more than this should be asked as soon as it may be.
PROMPT_SECONDS = 1

Look = Callable[..., Iterator[Any]]


class SensorLooks:
    """Stands for Dagster's own look, and leaves it out when nothing can have changed since the last one.

    `prompt` names the sensors that are asked again as soon as they have ended, by the keys of `sensor_tick_futures`.
    """

    def __init__(
        self,
        look: Look,
        prompt: Callable[[Any], frozenset[str]],
        *,
        clock: Callable[[], float] = time.monotonic,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        self._wait_seconds = wait_seconds
        self._look = look
        self._prompt = prompt
        self._clock = clock
        self._looked = float("-inf")
        self._left: frozenset[str] = frozenset()
        self._wanted: frozenset[str] = frozenset()

    def __call__(self, context: Any, *arguments: Any, **options: Any) -> Iterator[Any]:
        """See `execute_sensor_iteration` of Dagster's daemon."""
        given = options.get("sensor_tick_futures")
        futures: Mapping[str, Future[Any]] = {} if given is None else given  # one that is empty now is filled by the look
        if self._all_is_under_way(futures):
            wait([futures[key] for key in self._wanted], self._wait_seconds, FIRST_COMPLETED)
            if self._all_is_under_way(futures):
                return
        yield from self._look(context, *arguments, **options)
        self._looked, self._left, self._wanted = self._clock(), _under_way(futures), self._prompt(context)

    def _all_is_under_way(self, futures: Mapping[str, Future[Any]]) -> bool:
        if not self._wanted or self._clock() - self._looked >= LOOK_SECONDS:
            return False
        under_way = _under_way(futures)
        return self._wanted <= under_way and self._wanted <= self._left


def _under_way(futures: Mapping[str, Future[Any]]) -> frozenset[str]:
    return frozenset(key for key, future in futures.items() if not future.done())


def prompt_sensors(context: Any) -> frozenset[str]:
    """The sensors of a workspace that are asked again within a second."""
    entries = context.create_request_context().get_code_location_entries().values()
    return frozenset(
        sensor.selector_id
        for entry in entries
        if entry.code_location
        for repository in entry.code_location.get_repositories().values()
        for sensor in repository.get_sensors()
        if sensor.min_interval_seconds <= PROMPT_SECONDS
    )
