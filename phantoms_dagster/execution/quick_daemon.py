"""Dagster's daemon, changed: it looks at its sensors four times a second, and at its run queue as soon as it has queued a run.

Dagster's own asks sensors every five seconds, however short their interval, and looks at the queue once a second at best. A video
is noticed, queued and launched several times on its way.

There are no settings for any of this. Only the fast path `daemon` imports this module: see `private.dagster`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any

from dagster import DagsterInstance

from phantoms_dagster.execution.plain_errors import process_exception
from phantoms_dagster.execution.queue_looks import CalmMonitoringDaemon, PromptQueueDaemon
from phantoms_dagster.execution.sensor_looks import SensorLooks, prompt_sensors
from phantoms_dagster.private.dagster import (
    DaemonErrorCapture,
    DaemonIterator,
    IntervalDaemon,
    asset_daemon,
    controller,
    sensor,
    server_watcher,
)

LOOP_SECONDS = 0.26
# Between two questions which code server answers. Each opens a connection, and the server's end shows by itself: calls to it fail.
WATCH_SECONDS = 5.0
# Between two readings of all definitions, which are read at once whenever another code server answers. Dagster lets a daemon end
# whose definitions are older than its tolerance, so that is as much longer.
RELOAD_SECONDS, TOLERANCE_SECONDS = 300, 540
# Between two looks for automation conditions, of which there are none.
AUTOMATION_SECONDS = 30
# A daemon that looks every half a minute wakes up so often meanwhile, to tell that it lives. Dagster's own wakes twice a second.
CALM_SECONDS = 5.0
# Between two deletions of a sensor's old ticks. Dagster deletes after each tick.
PURGE_SECONDS = 900.0
# A tick that found nothing to do is kept this long: an idle stack writes some 700 an hour, and Dagster keeps them for whole days.
IDLE_TICK_SECONDS = 3_600.0
# See `defs.tags.INTERVAL`.
INTERVAL_TAG = "phantoms/interval_seconds"
_whole_seconds = sensor.is_under_min_interval


def is_under_min_interval(state: Any, remote_sensor: Any, minimum_allowed_min_interval: int | None = None) -> bool:
    """Dagster's own, but for a sensor that says with a tag that it may be asked sooner than a second after the last time."""
    interval, elapsed = remote_sensor.tags.get(INTERVAL_TAG), sensor.get_elapsed(state)
    if interval is None or elapsed is None:
        return _whole_seconds(state, remote_sensor, minimum_allowed_min_interval)
    return elapsed < float(interval)


def now_and_then(
    purge: Callable[..., None], *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
) -> Callable[..., None]:
    """`DagsterInstance.purge_ticks`, left out when the same sensor's ticks of the same kinds were deleted a short while ago.

    Of ticks that found nothing it keeps the last hour's.
    """
    done: dict[tuple[object, ...], float] = {}

    def purge_ticks(instance: DagsterInstance, origin_id: str, selector_id: str, before: float, tick_statuses: Any = None) -> None:
        which = (selector_id, *(tick_statuses or ()))
        if clock() - done.get(which, float("-inf")) >= PURGE_SECONDS:
            idle = [status.value for status in tick_statuses or ()] == ["SKIPPED"]
            purge(instance, origin_id, selector_id, max(before, wall() - IDLE_TICK_SECONDS) if idle else before, tick_statuses)
            done[which] = clock()

    return purge_ticks


class _CalmEvent:
    """An event for which a short wait takes `CALM_SECONDS`, unless the event comes."""

    def __init__(self, event: Event) -> None:
        self._event = event

    def wait(self, timeout: float) -> bool:
        """Whether the event has come."""
        return self._event.wait(max(timeout, CALM_SECONDS))


def calmly(core_loop: Callable[..., DaemonIterator]) -> Callable[..., DaemonIterator]:
    """`IntervalDaemon.core_loop` with longer waits between its looks."""

    def calm_loop(daemon: Any, workspace_process_context: Any, shutdown_event: Event) -> DaemonIterator:
        yield from core_loop(daemon, workspace_process_context, _CalmEvent(shutdown_event))

    return calm_loop


def install(ended: Callable[[], None]) -> None:
    """Change the daemon that this process is about to be. `ended` is called when it ends, before it waits for its sensors."""
    sensor.is_under_min_interval = is_under_min_interval
    sensor.MIN_INTERVAL_LOOP_TIME = LOOP_SECONDS  # type: ignore[assignment]  # it is only ever slept
    sensor.execute_sensor_iteration = SensorLooks(sensor.execute_sensor_iteration, prompt_sensors)  # type: ignore[assignment]
    server_watcher.WATCH_INTERVAL = WATCH_SECONDS  # type: ignore[assignment]  # it is only ever waited for
    controller.RELOAD_WORKSPACE_INTERVAL = RELOAD_SECONDS
    controller.DEFAULT_WORKSPACE_FRESHNESS_TOLERANCE = TOLERANCE_SECONDS
    IntervalDaemon.core_loop = calmly(IntervalDaemon.core_loop)  # type: ignore[method-assign]
    asset_daemon.MIN_INTERVAL_LOOP_SECONDS = AUTOMATION_SECONDS
    DagsterInstance.purge_ticks = now_and_then(DagsterInstance.purge_ticks)  # type: ignore[method-assign]
    PromptQueueDaemon.ended = staticmethod(ended)
    controller.QueuedRunCoordinatorDaemon = PromptQueueDaemon  # type: ignore[attr-defined, assignment]
    controller.MonitoringDaemon = CalmMonitoringDaemon  # type: ignore[attr-defined]
    DaemonErrorCapture.process_exception = staticmethod(process_exception)  # type: ignore[assignment]
