"""`python -m phantoms_dagster.execution.daemon -w workspace.yaml`: Dagster's daemon, which looks at its sensors and at its run
queue four times a second.

Dagster's own asks sensors every five seconds, however short their interval, and looks at the queue once a second at best. A video
is noticed, queued and launched several times on its way.
"""

from __future__ import annotations

import logging
import sys
from threading import Event
from typing import Any

from dagster._daemon import controller, sensor
from dagster._daemon.cli import cli
from dagster._daemon.daemon import DaemonIterator
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._daemon.utils import DaemonErrorCapture
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from phantoms_dagster import settings
from phantoms_dagster.execution.code_server import await_code_server
from phantoms_dagster.execution.plain_errors import process_exception
from phantoms_dagster.execution.sensor_looks import Looks, prompt_sensors
from phantoms_dagster.store.engine import engine as create_engine
from phantoms_dagster.store.planning import STOP

LOOP_SECONDS = 0.26
QUEUE_SECONDS = 0.25
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


class PromptQueueDaemon(QueuedRunCoordinatorDaemon):
    """Launches what is queued within a quarter of a second."""

    def core_loop(self, workspace_process_context: Any, shutdown_event: Event) -> DaemonIterator:
        """See the base class, which waits for whole seconds, in halves."""
        self.interval_seconds = QUEUE_SECONDS
        return super().core_loop(workspace_process_context, _Sooner(shutdown_event))


class _Sooner(Event):
    """The event that it stands for, waited for at most until the next look."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self._event = event

    def wait(self, timeout: float | None = None) -> bool:
        del timeout
        ending = self._event.wait(QUEUE_SECONDS)
        if ending:
            end_listening()
        return ending


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


def says_something(record: logging.LogRecord) -> bool:
    """Whether a line of the daemon tells more than that it has looked."""
    said = record.getMessage()
    return not said.startswith(IDLE_WORDS) and not (said.startswith("Sensor ") and " skipped: " in said)


def main() -> None:
    """`dagster-daemon run` with our intervals. Its arguments are those of `dagster-daemon run`."""
    # There are no settings for them. A test notices when Dagster renames one.
    assert hasattr(sensor, "MIN_INTERVAL_LOOP_TIME")
    assert hasattr(controller, "QueuedRunCoordinatorDaemon")
    sensor.is_under_min_interval = is_under_min_interval
    sensor.MIN_INTERVAL_LOOP_TIME = LOOP_SECONDS  # type: ignore[assignment]  # it is only ever slept
    assert hasattr(sensor, "execute_sensor_iteration")
    sensor.execute_sensor_iteration = Looks(sensor.execute_sensor_iteration, prompt_sensors)  # type: ignore[assignment]
    controller.QueuedRunCoordinatorDaemon = PromptQueueDaemon
    assert hasattr(DaemonErrorCapture, "process_exception")
    DaemonErrorCapture.process_exception = staticmethod(process_exception)  # type: ignore[assignment]
    for name in ("SensorDaemon", "MonitoringDaemon"):
        logging.getLogger(f"dagster.daemon.{name}").addFilter(says_something)
    await_code_server(sys.argv[1:])
    cli(["run", *sys.argv[1:]], prog_name="python -m phantoms_dagster.execution.daemon")


if __name__ == "__main__":
    main()
