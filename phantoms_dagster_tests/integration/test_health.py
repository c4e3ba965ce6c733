"""The health checks of containers, on real servers, with Dagster's own heartbeats and real workers."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from dagster._daemon.types import DaemonHeartbeat

from phantoms_dagster.embedded.servers import free_port
from phantoms_dagster.execution import health
from phantoms_dagster_tests.integration.run_world import RunWorld, run_world

SECRET = "5ecr3tW0rd"


@pytest.fixture
def world(tmp_path: Path, dagster_database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunWorld]:
    with run_world(tmp_path, dagster_database_url, redis_url, monkeypatch) as running:
        yield running


@pytest.fixture
def server() -> Iterator[int]:
    """A web server that knows no page; its port."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Nothing) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found.server_port
        found.shutdown()


class _Nothing(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/server_info" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def beat(world: RunWorld, seconds_ago: float = 0.0, *names: str) -> None:
    """What Dagster's daemon writes."""
    for name in names or health.DAEMONS:
        world.instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - seconds_ago, name, "the daemon", []))


def test_a_daemon_is_well_while_all_of_it_is_heard_of(world: RunWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["daemon"]) == 1
    assert capsys.readouterr().err == "SENSOR has not started\n"
    beat(world)
    assert health.main(["daemon"]) == 0
    beat(world, health.SILENT_SECONDS - 20)
    assert health.main(["daemon"]) == 0
    beat(world, health.SILENT_SECONDS + 5, "QUEUED_RUN_COORDINATOR")
    assert health.main(["daemon"]) == 1
    assert capsys.readouterr().err.startswith("the last heartbeat of QUEUED_RUN_COORDINATOR was 12")


def test_a_worker_is_well_while_a_worker_of_this_machine_reports(world: RunWorld, capsys: pytest.CaptureFixture[str]) -> None:
    assert health.main(["worker"]) == 1
    elsewhere = "rq:worker:script-1-0123456789-17-1"
    world.queues.redis.hset(elsewhere, mapping={"birth": "2026-11-22T00:00:00Z"})
    world.queues.redis.sadd("rq:workers", elsewhere)
    assert health.main(["worker"]) == 1
    assert capsys.readouterr().err == "no run worker of this machine reports to Redis\n" * 2
    parent = world.start_workers()
    assert health.main(["worker"]) == 0
    parent.kill()
    parent.wait(30)
    world.queues.redis.delete(elsewhere)
    deadline = time.monotonic() + 30
    while health.main(["worker"]) == 0:
        assert time.monotonic() < deadline


def test_a_page_and_a_port_are_asked_for(server: int, capsys: pytest.CaptureFixture[str]) -> None:
    nobody = free_port(0)
    assert health.main(["page", f"{server}/server_info"]) == health.main(["port", str(server)]) == 0
    assert capsys.readouterr().err == ""
    assert health.main(["page", f"{server}/x"]) == 1
    assert capsys.readouterr().err == f"port {server} answered /x with 404\n"
    assert health.main(["page", f"{nobody}/server_info"]) == health.main(["port", str(nobody)]) == 1
    assert capsys.readouterr().err == "[Errno 111] Connection refused\n" * 2


@pytest.mark.parametrize("what", ["daemon", "worker"])
@pytest.mark.parametrize("url", [f"x://u:p@127.0.0.1:{SECRET}/0", f"x://u:{SECRET}@127.0.0.1:1/0", "", f"x://{SECRET}"])
def test_servers_that_are_away_or_mistyped_are_no_health_and_show_no_password(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, what: str, url: str
) -> None:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.delenv("PHANTOMS_DAGSTER_DATABASE_URL", raising=False)
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", url.replace("x:", "postgresql:"))
    monkeypatch.setenv("PHANTOMS_REDIS_URL", url.replace("x:", "redis:"))
    assert health.main([what]) == 1
    assert SECRET.lower() not in capsys.readouterr().err.lower()


def test_asking_imports_neither_dagster_nor_the_command_line() -> None:
    """A check that is made every few seconds must not cost what the process itself costs."""
    code = "import sys; from phantoms_dagster.execution import health; health.main(['daemon']); health.main(['worker']); "
    code += "print([name for name in ('dagster', 'typer', 'openai', 'sqlalchemy') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
