"""Patches Dagster's daemon: it checks its sensors four times a second, and its run queue as soon as it has queued a run.

Unpatched, it evaluates sensors every five seconds, however short their interval, and polls the queue once a second at best. A video
is noticed, queued and launched several times on its way, so that would add up.

Dagster has no settings for this. Only the fast path `daemon` imports this module; see `private.dagster`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Event
from typing import Any

from dagster import DagsterInstance

from phantoms_dagster.execution.plain_errors import process_exception
from phantoms_dagster.execution.queue_looks import CalmMonitoringDaemon, PromptQueueDaemon
from phantoms_dagster.execution.sensor_looks import SensorPolling, prompt_sensors
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
# How often to check whether the code server was replaced. Each check opens a connection. A dead server is noticed anyway, because
# calls to it fail.
WATCH_SECONDS = 5.0
# How often to reload all definitions; a new code server triggers that at once. Dagster stops a daemon whose definitions are older
# than the tolerance, so that is longer.
RELOAD_SECONDS, TOLERANCE_SECONDS = 300, 540
# How often to check for automation conditions. We have none.
AUTOMATION_SECONDS = 30
# Daemons that work every half minute wake up this often in between, for their heartbeats. Dagster's own wake up twice a second.
CALM_SECONDS = 5.0
# How often to delete a sensor's old ticks. Dagster does it after each tick.
PURGE_SECONDS = 900.0
# A tick that found nothing to do is kept this long: an idle stack writes some 700 an hour, and Dagster keeps them for whole days.
IDLE_TICK_SECONDS = 3_600.0
# See `defs.tags.INTERVAL`.
INTERVAL_TAG = "phantoms/interval_seconds"
_whole_seconds = sensor.is_under_min_interval


def is_under_min_interval(state: Any, remote_sensor: Any, minimum_allowed_min_interval: int | None = None) -> bool:
    """Do the same as Dagster's function, but let a sensor set an interval below a second with a tag."""
    interval, elapsed = remote_sensor.tags.get(INTERVAL_TAG), sensor.get_elapsed(state)
    if interval is None or elapsed is None:
        return _whole_seconds(state, remote_sensor, minimum_allowed_min_interval)
    return elapsed < float(interval)


def purging_at_intervals(
    purge: Callable[..., None], *, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
) -> Callable[..., None]:
    """Wrap `DagsterInstance.purge_ticks` so that it runs at most every PURGE_SECONDS for each sensor and kind of tick.

    Ticks that found nothing are kept for only an hour.
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
    """An event whose waits take at least CALM_SECONDS, unless it is set."""

    def __init__(self, event: Event) -> None:
        self._event = event

    def wait(self, timeout: float) -> bool:
        """Wait. Return whether the event is set."""
        return self._event.wait(max(timeout, CALM_SECONDS))


def with_longer_waits(core_loop: Callable[..., DaemonIterator]) -> Callable[..., DaemonIterator]:
    """Wrap `IntervalDaemon.core_loop` so that it wakes up less often."""

    def calm_loop(daemon: Any, workspace_process_context: Any, shutdown_event: Event) -> DaemonIterator:
        yield from core_loop(daemon, workspace_process_context, _CalmEvent(shutdown_event))

    return calm_loop


def install(ended: Callable[[], None]) -> None:
    """Patch the daemon before this process runs it. `ended` is called when it stops, before it waits for its sensors."""
    sensor.is_under_min_interval = is_under_min_interval
    sensor.MIN_INTERVAL_LOOP_TIME = LOOP_SECONDS  # type: ignore[assignment]  # Dagster only passes it to `sleep`
    sensor.execute_sensor_iteration = SensorPolling(sensor.execute_sensor_iteration, prompt_sensors)  # type: ignore[assignment]
    server_watcher.WATCH_INTERVAL = WATCH_SECONDS  # type: ignore[assignment]  # Dagster only passes it to `wait`
    controller.RELOAD_WORKSPACE_INTERVAL = RELOAD_SECONDS
    controller.DEFAULT_WORKSPACE_FRESHNESS_TOLERANCE = TOLERANCE_SECONDS
    IntervalDaemon.core_loop = with_longer_waits(IntervalDaemon.core_loop)  # type: ignore[method-assign]
    asset_daemon.MIN_INTERVAL_LOOP_SECONDS = AUTOMATION_SECONDS
    DagsterInstance.purge_ticks = purging_at_intervals(DagsterInstance.purge_ticks)  # type: ignore[method-assign]
    PromptQueueDaemon.ended = staticmethod(ended)
    controller.QueuedRunCoordinatorDaemon = PromptQueueDaemon  # type: ignore[attr-defined, assignment]
    controller.MonitoringDaemon = CalmMonitoringDaemon  # type: ignore[attr-defined]
    DaemonErrorCapture.process_exception = staticmethod(process_exception)  # type: ignore[assignment]
