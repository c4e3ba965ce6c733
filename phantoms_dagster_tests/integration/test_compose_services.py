"""The services of docker-compose.yml, started by its own commands on real servers, make a video, and their health checks work."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
from sqlalchemy import make_url

from phantoms_dagster.embedded.servers import free_port
from phantoms_dagster.execution.slots import QUEUES
from phantoms_dagster.sandbox.openai.gate import digest
from phantoms_dagster_tests.integration.compose_world import KEY, compose_world
from phantoms_dagster_tests.integration.run_world import wait_for

IN_ORDER = ("code-server", "worker", "daemon", "webserver", "desk", "metrics")
ENDED_BY_SIGNAL = ("code-server", "daemon", "webserver", "desk")


@pytest.fixture
def sandbox_url(tmp_path: Path) -> Iterator[str]:
    """A sandbox in a process of its own."""
    port = free_port(0)
    command = [sys.executable, "-m", "phantoms_dagster.cli.main", "sandbox", "--port", str(port)]
    with (tmp_path / "sandbox.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: _answers(f"http://127.0.0.1:{port}/_sandbox/health"), (tmp_path / "sandbox.log").read_text)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2, trust_env=False).is_success
    except httpx.HTTPError:
        return False


def test_the_services_started_by_their_own_commands_carry_a_video_with_the_key_of_its_file(
    tmp_path: Path, empty_database_url: str, redis_url: str, sandbox_url: str
) -> None:
    extra = {
        "PHANTOMS_OPENAI_BASE_URL": f"{sandbox_url}/openai/v1",
        # One worker is enough for the one stage that is looked at.
        "PHANTOMS_CHAIN_VIDEOS": "0",
        "PHANTOMS_WORKER_SLOTS": json.dumps({queue: int(queue == "script") for queue in QUEUES}),
    }
    with compose_world(tmp_path, empty_database_url, redis_url, extra, WORKERS="3") as world:
        prepared = world.run("init")
        assert prepared.returncode == 0, prepared.stderr
        assert set(world.file.services) - {"postgres", "valkey", "init", "proxy"} == set(IN_ORDER)
        (tmp_path / "password").write_text("a long enough password")
        user = ["phantoms", "users", "add", "kim", "--role", "operator", "--password-file", str(tmp_path / "password")]
        assert world.run("desk", user).returncode == 0
        for name in IN_ORDER:
            world.start(name)
        added = world.run("worker", ["phantoms", "add", "Why octopuses have three hearts", "--platforms", "youtube"])
        assert added.returncode == 0, added.stderr

        database = make_url(empty_database_url).set(drivername="postgresql").render_as_string(hide_password=False)
        with psycopg.connect(database, autocommit=True) as connection:

            def script() -> tuple[object, ...] | None:
                query = "SELECT state, run_id, reason FROM phantoms.stages WHERE stage = 'script'"
                return connection.execute(query).fetchone()

            wait_for(lambda: (script() or ("",))[0] in ("done", "failed"), lambda: world.log("worker") + world.log("daemon"))
            state, run_id, reason = script() or ("", "", "")
            assert (state, reason) == ("done", None)
            ended = "SELECT status FROM public.runs WHERE run_id = %s"
            wait_for(lambda: connection.execute(ended, [run_id]).fetchone() == ("SUCCESS",), lambda: world.log("worker"))
        # What was written with the key that only the worker's file has.
        [bought] = httpx.get(f"{sandbox_url}/_sandbox/ledger", params={"kind": "script"}).json()["entries"]
        assert bought["account"] == digest(KEY.removeprefix("sandbox-"))[:12]

        desk = f"http://127.0.0.1:{world.places['4080']}"
        assert httpx.get(f"{desk}/review", timeout=10, trust_env=False).headers["location"] == "/login?next=%2Freview"
        assert httpx.get(f"{desk}/health", headers={"Host": "desk.localhost"}, timeout=10, trust_env=False).text == "ok\n"
        assert httpx.get(f"{desk}/health", headers={"Host": "evil.example"}, timeout=10, trust_env=False).status_code == 400

        again = world.run("init")
        assert again.returncode == 0, again.stderr
        scraped = httpx.get(f"http://127.0.0.1:{world.places['9464']}/metrics", timeout=10).text
        assert 'phantoms_up{store="postgresql"} 1.0' in scraped
        assert 'phantoms_up{store="redis"} 1.0' in scraped

        seen = world.command_lines()
        assert "phantoms_dagster.execution.worker" in seen
        seen += prepared.stdout + prepared.stderr + added.stdout + "".join(world.log(name) for name in IN_ORDER)
        assert all(secret not in seen for secret in world.secrets.values())

        for name in reversed(IN_ORDER):
            code = world.stop(name)
            assert code == 0 or name in ("code-server", "daemon", "webserver", "desk"), (
                f"{name} ended with {code}: {world.log(name)}"
            )
            assert name == "daemon" or world.health(name) == 1


def test_a_missing_secret_file_is_what_a_service_says_and_nothing_else(
    tmp_path: Path, empty_database_url: str, redis_url: str
) -> None:
    with compose_world(tmp_path, empty_database_url, redis_url, {}) as world:
        (tmp_path / "secrets" / "postgres_password").unlink()
        refused = world.run("init")
    assert (refused.returncode, refused.stdout) == (2, "")
    said = "the file that PHANTOMS_DATABASE_PASSWORD_FILE names cannot be read: No such file or directory"
    assert refused.stderr == f"error: PHANTOMS_DATABASE_PASSWORD: {said}\n"
