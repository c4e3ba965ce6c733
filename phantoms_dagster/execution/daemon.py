"""`python -m phantoms_dagster.execution.daemon -w workspace.yaml`: Dagster's daemon, which looks at its sensors four times a second
and at its run queue as soon as it has queued a run.

Dagster's own asks sensors every five seconds, however short their interval, and looks at the queue once a second at best. A video
is noticed, queued and launched several times on its way.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

from dagster import DagsterInstance
from dagster._daemon import asset_daemon, controller, sensor
from dagster._daemon.cli import cli
from dagster._daemon.utils import DaemonErrorCapture
from dagster._grpc import server_watcher
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from phantoms_dagster import settings
from phantoms_dagster.execution.code_server import await_code_server
from phantoms_dagster.execution.plain_errors import process_exception
from phantoms_dagster.execution.queue_looks import CalmMonitoringDaemon, PromptQueueDaemon
from phantoms_dagster.execution.sensor_looks import Looks, prompt_sensors
from phantoms_dagster.store.engine import engine as create_engine
from phantoms_dagster.store.planning import STOP

LOOP_SECONDS = 0.26
# Between two questions which code server answers. Each opens a connection, and the server's end shows by itself: calls to it fail.
WATCH_SECONDS = 5.0
# Between two readings of all definitions, which are read at once whenever another code server answers. Dagster lets a daemon end
# whose definitions are older than its tolerance, so that is as much longer.
RELOAD_SECONDS, TOLERANCE_SECONDS = 300, 540
# Between two looks for automation conditions, of which there are none.
AUTOMATION_SECONDS = 30
# Between two deletions of a sensor's old ticks. Dagster deletes after each tick.
PURGE_SECONDS = 900.0
# See `defs.tags.INTERVAL`.
INTERVAL_TAG = "phantoms/interval_seconds"
# What Dagster logs at each look even if nothing is found: 18 MB a day of an idle machine. Each tick is on the sensor's page.
IDLE_WORDS = ("Checking for new runs for sensor", "No run requests returned for", "Collected ", "Checking run ")

_log = logging.getLogger(__name__)

_whole_seconds = sensor.is_under_min_interval


def is_under_min_interval(state: Any, remote_sensor: Any, minimum_allowed_min_interval: int | None = None) -> bool:
    """Dagster's own, but for a sensor that says with a tag that it may be asked sooner than a second after the last time."""
    interval, elapsed = remote_sensor.tags.get(INTERVAL_TAG), sensor.get_elapsed(state)
    if interval is None or elapsed is None:
        return _whole_seconds(state, remote_sensor, minimum_allowed_min_interval)
    return elapsed < float(interval)


def end_listening() -> None:
    """Ask sensors that wait for something to do to return: the daemon ends only after them. Without a database they end by time."""
    url = settings.load().database_url
    if url is None:
        return
    listened_to = create_engine(url.get_secret_value())
    try:
        with listened_to.begin() as connection:
            connection.execute(text(STOP))
    except DBAPIError as error:
        _log.warning("the sensors could not be told that the daemon ends: %s", type(error).__name__)
    finally:
        listened_to.dispose()


def now_and_then(purge: Callable[..., None], *, clock: Callable[[], float] = time.monotonic) -> Callable[..., None]:
    """`DagsterInstance.purge_ticks`, left out when the same sensor's ticks of the same kinds were deleted a short while ago."""
    done: dict[tuple[object, ...], float] = {}

    def purge_ticks(instance: DagsterInstance, origin_id: str, selector_id: str, before: float, tick_statuses: Any = None) -> None:
        which = (selector_id, *(tick_statuses or ()))
        if clock() - done.get(which, float("-inf")) >= PURGE_SECONDS:
            purge(instance, origin_id, selector_id, before, tick_statuses)
            done[which] = clock()

    return purge_ticks


def says_something(record: logging.LogRecord) -> bool:
    """Whether a line of the daemon tells more than that it has looked."""
    said = record.getMessage()
    return not said.startswith(IDLE_WORDS) and not (said.startswith("Sensor ") and " skipped: " in said)


def main() -> None:
    """`dagster-daemon run` with our intervals. Its arguments are those of `dagster-daemon run`."""
    # There are no settings for them. A test notices when Dagster renames one.
    assert hasattr(sensor, "MIN_INTERVAL_LOOP_TIME")
    assert hasattr(controller, "QueuedRunCoordinatorDaemon")
    assert hasattr(controller, "MonitoringDaemon")
    sensor.is_under_min_interval = is_under_min_interval
    sensor.MIN_INTERVAL_LOOP_TIME = LOOP_SECONDS  # type: ignore[assignment]  # it is only ever slept
    for module, name, value in (
        (server_watcher, "WATCH_INTERVAL", WATCH_SECONDS),
        (controller, "RELOAD_WORKSPACE_INTERVAL", RELOAD_SECONDS),
        (controller, "DEFAULT_WORKSPACE_FRESHNESS_TOLERANCE", TOLERANCE_SECONDS),
        (asset_daemon, "MIN_INTERVAL_LOOP_SECONDS", AUTOMATION_SECONDS),
    ):
        assert hasattr(module, name)
        setattr(module, name, value)
    DagsterInstance.purge_ticks = now_and_then(DagsterInstance.purge_ticks)  # type: ignore[method-assign]
    assert hasattr(sensor, "execute_sensor_iteration")
    sensor.execute_sensor_iteration = Looks(sensor.execute_sensor_iteration, prompt_sensors)  # type: ignore[assignment]
    PromptQueueDaemon.ended = staticmethod(end_listening)
    controller.QueuedRunCoordinatorDaemon = PromptQueueDaemon
    controller.MonitoringDaemon = CalmMonitoringDaemon  # type: ignore[attr-defined]
    assert hasattr(DaemonErrorCapture, "process_exception")
    DaemonErrorCapture.process_exception = staticmethod(process_exception)  # type: ignore[assignment]
    for name in ("SensorDaemon", CalmMonitoringDaemon.__name__):
        logging.getLogger(f"dagster.daemon.{name}").addFilter(says_something)
    await_code_server(sys.argv[1:])
    cli(["run", *sys.argv[1:]], prog_name="python -m phantoms_dagster.execution.daemon")


if __name__ == "__main__":
    main()
