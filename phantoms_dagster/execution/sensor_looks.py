"""Skips the daemon's checks of its sensors when there is nothing to start.

Our sensors that request runs are evaluated again as soon as they end. Usually all of them are being evaluated, so there is none to
start. Then the daemon waits until the first one ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from typing import Any

# Sensors with longer intervals, and sensors that a person turns on or off, are noticed within this time.
LOOK_SECONDS = 5.0
# The longest wait. The daemon can stop and send its heartbeat only between two waits.
WAIT_SECONDS = 1.5
# A sensor with an interval of at most this is evaluated again as soon as possible.
PROMPT_SECONDS = 1

Look = Callable[..., Iterator[Any]]


class SensorPolling:
    """Wraps Dagster's check of its sensors, and skips it when nothing can have changed since the last one.

    `prompt` returns the sensors that are evaluated again as soon as they end, as keys of `sensor_tick_futures`.
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
        futures: Mapping[str, Future[Any]] = {} if given is None else given  # keep an empty dict: the check fills it
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
    """Return the selector ids of sensors that are evaluated again within PROMPT_SECONDS."""
    entries = context.create_request_context().get_code_location_entries().values()
    return frozenset(
        sensor.selector_id
        for entry in entries
        if entry.code_location
        for repository in entry.code_location.get_repositories().values()
        for sensor in repository.get_sensors()
        if sensor.min_interval_seconds <= PROMPT_SECONDS
    )
