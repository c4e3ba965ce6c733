"""`python -m phantoms_dagster.execution.daemon -w workspace.yaml`: Dagster's daemon, as `quick_daemon` changes it.

Without the fast path `daemon` it is Dagster's own, once the code server answers.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from phantoms_dagster import settings
from phantoms_dagster.execution.code_server import await_code_server
from phantoms_dagster.private import dagster as private
from phantoms_dagster.store.engine import engine as create_engine
from phantoms_dagster.store.planning import STOP

# What Dagster logs at each look even if nothing is found: 18 MB a day of an idle machine. Each tick is on the sensor's page.
IDLE_WORDS = ("Checking for new runs for sensor", "No run requests returned for", "Collected ", "Checking run ")

_log = logging.getLogger(__name__)


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


def end_listening_on_signals() -> None:
    """Call `end_listening` when SIGTERM or SIGINT arrives, whatever Dagster does with it.

    A stock daemon has no place from which it could be called.
    """
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    os.set_blocking(reading, True)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def listen() -> None:
        while (told := os.read(reading, 1)) and told[0] not in (signal.SIGTERM, signal.SIGINT):
            pass
        end_listening()

    threading.Thread(target=listen, name="end of the daemon", daemon=True).start()


def says_something(record: logging.LogRecord) -> bool:
    """Whether a line of the daemon tells more than that it has looked."""
    said = record.getMessage()
    return not said.startswith(IDLE_WORDS) and not (said.startswith("Sensor ") and " skipped: " in said)


def main() -> None:
    """The command. Its arguments are those of `dagster-daemon run`."""
    private.check()
    if private.usable("daemon"):
        from phantoms_dagster.execution import quick_daemon  # noqa: PLC0415 - it needs what the line above looked for

        quick_daemon.install(end_listening)
    else:
        end_listening_on_signals()
    for name in ("SensorDaemon", "MonitoringDaemon", "CalmMonitoringDaemon"):
        logging.getLogger(f"dagster.daemon.{name}").addFilter(says_something)
    await_code_server(sys.argv[1:])
    private.command("dagster-daemon", ["run", *sys.argv[1:]])


if __name__ == "__main__":
    main()
