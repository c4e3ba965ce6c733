"""How our daemon starts together with the code server, and what it does not log."""

from __future__ import annotations

import inspect
import logging
import socket
import threading
from pathlib import Path

import dagster._daemon.monitoring.run_monitoring
import dagster._daemon.sensor
import pytest
import yaml

from phantoms_dagster.embedded.servers import free_port
from phantoms_dagster.execution.code_server import await_code_server
from phantoms_dagster.execution.daemon import IDLE_WORDS, says_something


def workspace(folder: Path, port: int) -> list[str]:
    path = folder / "workspace.yaml"
    path.write_text(yaml.safe_dump({"load_from": [{"grpc_server": {"host": "127.0.0.1", "port": port}}]}))
    return ["-h", "127.0.0.1", "-w", str(path)]


def test_it_waits_until_the_code_server_answers(tmp_path: Path) -> None:
    """Dagster loads a code server that is not there yet a minute later, and `phantoms up` started one after the other for that."""
    port = free_port(0)
    arguments, found = workspace(tmp_path, port), []
    waiting = threading.Thread(target=lambda: found.append(await_code_server(arguments)))
    waiting.start()
    waiting.join(0.3)
    assert waiting.is_alive()
    with socket.create_server(("127.0.0.1", port)):
        waiting.join(30)
    assert found == [True]


def test_it_goes_on_when_the_code_server_stays_away_or_none_is_named(tmp_path: Path) -> None:
    assert not await_code_server(workspace(tmp_path, free_port(0)), seconds=0)
    assert await_code_server(["-m", "some.module"], seconds=0)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("Checking for new runs for sensor: advance_sensor", False),
        ("Sensor advance_sensor skipped: no new videos", False),
        ("No run requests returned for advance_sensor, skipping", False),
        ("Collected 2 runs for monitoring", False),
        ("Launching run for advance_sensor", True),
        ("Sensor daemon caught an error for sensor advance_sensor", True),
        ("Run 12 has been running longer than its timeout", True),
    ],
)
def test_a_look_that_finds_nothing_leaves_no_line(line: str, said: bool) -> None:
    record = logging.LogRecord("dagster.daemon.SensorDaemon", logging.INFO, "", 1, line, None, None)
    assert says_something(record) is said


def test_dagster_still_logs_those_words() -> None:
    source = inspect.getsource(dagster._daemon.sensor) + inspect.getsource(dagster._daemon.monitoring.run_monitoring)
    for words in (*IDLE_WORDS, " skipped: "):
        assert words in source
