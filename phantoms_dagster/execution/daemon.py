"""`python -m phantoms_dagster.execution.daemon -w workspace.yaml`: Dagster's daemon with the changes of `quick_daemon`.

It starts once the code server answers. Without the fast path `daemon` it is Dagster's daemon unchanged.
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

# Lines that Dagster logs at each evaluation even if nothing is found: 18 MB a day on an idle machine. The UI shows each tick.
IDLE_WORDS = ("Checking for new runs for sensor", "No run requests returned for", "Collected ", "Checking run ")

_log = logging.getLogger(__name__)


def end_listening() -> None:
    """Ask waiting sensors to return, because the daemon stops only after them. Without a database they time out by themselves."""
    url = settings.load().database.url
    if url is None:
        return
    listened_to = create_engine(url.get_secret_value())
    try:
        with listened_to.begin() as connection:
            connection.execute(text(STOP))
    except DBAPIError as error:
        _log.warning("could not tell the sensors that the daemon is stopping: %s", type(error).__name__)
    finally:
        listened_to.dispose()


def end_listening_on_signals() -> None:
    """Call `end_listening` on SIGTERM or SIGINT, whatever Dagster does with the signal.

    Dagster's daemon has no hook for this.
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
    """Whether a log line of the daemon says more than that it evaluated something without a result."""
    said = record.getMessage()
    return not said.startswith(IDLE_WORDS) and not (said.startswith("Sensor ") and " skipped: " in said)


def main() -> None:
    """Run the daemon. The arguments are those of `dagster-daemon run`."""
    private.check()
    if private.usable("daemon"):
        from phantoms_dagster.execution import quick_daemon  # noqa: PLC0415 - it imports the private names that the line above checked

        quick_daemon.install(end_listening)
    else:
        end_listening_on_signals()
    for name in ("SensorDaemon", "MonitoringDaemon", "CalmMonitoringDaemon"):
        logging.getLogger(f"dagster.daemon.{name}").addFilter(says_something)
    await_code_server(sys.argv[1:])
    private.command("dagster-daemon", ["run", *sys.argv[1:]])


if __name__ == "__main__":
    main()
