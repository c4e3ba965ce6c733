"""The embedded servers as the user who runs the tests: data, ports, secrets, databases, crashes and refusals."""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import time
from pathlib import Path

import psycopg
import pytest
import redis

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.embedded.lock import AlreadyRunning
from phantoms_dagster.embedded.servers import EmbeddedServers, ServerUrls, read_urls
from phantoms_dagster.embedded.supervisor import ProcessFailed

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no embedded servers for Windows")

MAX_WAIT = 120.0


def query(url: str, statement: str) -> object:
    """The first value that the statement gives."""
    plain = url.replace("+psycopg2", "").replace("+psycopg", "")
    with psycopg.connect(plain, autocommit=True) as connection:
        row = connection.execute(statement).fetchone()
        return None if row is None else row[0]


def write_something(urls: ServerUrls) -> None:
    with psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'in PostgreSQL' AS words")
    with redis.Redis.from_url(urls.redis_url) as client:
        client.set("kept", "in Valkey")


def what_was_kept(urls: ServerUrls) -> tuple[object, object]:
    with redis.Redis.from_url(urls.redis_url, decode_responses=True) as client:
        return query(urls.database_url, "SELECT words FROM kept"), client.get("kept")


KEPT = ("in PostgreSQL", "in Valkey")


def test_data_ports_and_password_are_kept_between_starts(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, durable=False) as first:
        write_something(first)
    with EmbeddedServers(tmp_path, durable=False) as second:
        assert second == first
        assert what_was_kept(second) == KEPT


def test_the_servers_are_set_up_as_promised(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path) as urls:
        assert urls.database_url.startswith("postgresql+psycopg://")
        assert urls.dagster_database_url.startswith("postgresql+psycopg2://")
        assert query(urls.database_url, "SELECT current_database()") == "phantoms"
        assert query(urls.dagster_database_url, "SELECT current_database()") == "dagster"
        wanted = {"max_connections": "300", "shared_buffers": "128MB", "fsync": "on", "synchronous_commit": "on"}
        wanted |= {"listen_addresses": "127.0.0.1", "unix_socket_directories": "", "TimeZone": "UTC", "server_encoding": "UTF8"}
        assert {name: query(urls.database_url, f"SHOW {name}") for name in wanted} == wanted
        assert query(urls.database_url, "SELECT datcollate FROM pg_database WHERE datname = 'phantoms'") == "C"
        # One round of hashing is enough for a password of 192 random bits, and each connection pays for it.
        kept = str(query(urls.database_url, "SELECT rolpassword FROM pg_authid WHERE rolname = 'phantoms'"))
        assert kept.startswith("SCRAM-SHA-256$1:")
        with redis.Redis.from_url(urls.redis_url, decode_responses=True) as client:
            settings = client.config_get("appendonly", "maxmemory-policy", "bind")
        assert settings == {"appendonly": "yes", "maxmemory-policy": "noeviction", "bind": "127.0.0.1"}


def test_the_password_is_asked_for_and_only_the_owner_can_read_it(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, durable=False) as urls:
        secret = json.loads((tmp_path / "embedded" / "servers.json").read_text())["password"]
        assert "valkey.conf" not in {p.name for p in (tmp_path / "embedded").rglob("*") if p.is_file()}
        for path in (tmp_path / "embedded" / "servers.json",):
            assert path.stat().st_mode & 0o777 == 0o600
        assert secret not in repr(urls)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            query(urls.database_url.replace(secret, "guess"), "SELECT 1")
        with redis.Redis.from_url(urls.redis_url.replace(secret, "guess")) as client, pytest.raises(redis.AuthenticationError):
            client.ping()
        if sys.platform == "linux":
            lines = [p.read_bytes() for p in Path("/proc").glob("[0-9]*/cmdline") if _readable(p)]
            assert not any(secret.encode() in line for line in lines)


def _readable(path: Path) -> bool:
    try:
        path.read_bytes()
    except OSError:
        return False
    return True


def test_a_second_start_in_the_same_directory_names_the_process_that_runs_there(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, durable=False) as urls:
        with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}") as refusal:
            EmbeddedServers(tmp_path, durable=False).start()
        assert refusal.value.pid == os.getpid()
        assert query(urls.database_url, "SELECT 1") == 1


def test_other_processes_learn_the_urls_while_the_servers_run_and_only_then(tmp_path: Path) -> None:
    assert read_urls(tmp_path / "nowhere") is None
    assert read_urls(tmp_path) is None
    with EmbeddedServers(tmp_path, durable=False) as urls:
        assert read_urls(tmp_path) == urls
    assert read_urls(tmp_path) is None


def test_nothing_runs_after_a_stop_and_stopping_twice_is_harmless(tmp_path: Path) -> None:
    servers = EmbeddedServers(tmp_path, durable=False)
    urls = servers.start()
    pids = servers.pids
    assert set(pids) == {"postgres", "valkey"}
    servers.stop()
    servers.stop()
    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    with pytest.raises(psycopg.OperationalError):
        query(urls.database_url, "SELECT 1")
    assert not (tmp_path / "embedded" / "postgres" / "postmaster.pid").exists()


def test_a_port_that_another_program_took_is_replaced(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, durable=False) as first:
        write_something(first)
    taken = json.loads((tmp_path / "embedded" / "servers.json").read_text())["postgres_port"]
    with socket.socket() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        stranger.bind(("127.0.0.1", taken))
        stranger.listen()
        with EmbeddedServers(tmp_path, durable=False) as second:
            assert f":{taken}/" not in second.database_url
            assert second.redis_url == first.redis_url
            assert what_was_kept(second) == KEPT


@pytest.mark.parametrize("name", ["postgres", "valkey"])
def test_a_server_that_crashed_is_started_again_where_it_was(tmp_path: Path, name: str) -> None:
    said: queue.SimpleQueue[str] = queue.SimpleQueue()
    servers = EmbeddedServers(tmp_path, durable=False, notify=said.put)
    with servers as urls:
        write_something(urls)
        os.kill(servers.pids[name], signal.SIGKILL)
        assert said.get(timeout=MAX_WAIT).startswith(f"{name} has stopped (SIGKILL)")
        assert _in_the_end(urls) == KEPT


def _in_the_end(urls: ServerUrls) -> object:
    for _ in range(2_400):
        try:
            return what_was_kept(urls)
        except (psycopg.OperationalError, redis.ConnectionError):
            time.sleep(0.05)
    return None


def test_a_start_that_fails_says_why_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, durable=False):
        pass
    (tmp_path / "embedded" / "postgres" / "postgresql.auto.conf").write_text("no_such_setting = on\n")
    servers = EmbeddedServers(tmp_path, durable=False)
    with pytest.raises(ProcessFailed, match="no_such_setting"):
        servers.start()
    assert servers.pids == {}
    assert read_urls(tmp_path) is None
    (tmp_path / "embedded" / "postgres" / "postgresql.auto.conf").write_text("")
    with servers as urls:
        assert query(urls.database_url, "SELECT 1") == 1


def test_an_initdb_that_was_cut_short_is_not_taken_for_a_data_directory(tmp_path: Path) -> None:
    half_made = tmp_path / "embedded" / "postgres.new"
    half_made.mkdir(parents=True)
    (half_made / "PG_VERSION").write_text("18\n")
    with EmbeddedServers(tmp_path, durable=False) as urls:
        assert query(urls.database_url, "SELECT 1") == 1


def test_a_data_directory_of_another_version_is_refused(tmp_path: Path) -> None:
    data = tmp_path / "embedded" / "postgres"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("17\n")
    (tmp_path / "embedded" / "servers.json").write_text(json.dumps({"password": "0" * 48}))
    with pytest.raises(InvalidInput, match=r"PostgreSQL 17, this is 18.*PHANTOMS_HOME"):
        EmbeddedServers(tmp_path).start()


def test_a_lost_or_damaged_password_file_is_said_and_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "embedded" / "postgres").mkdir(parents=True)
    with pytest.raises(InvalidInput, match=r"servers\.json is missing"):
        EmbeddedServers(tmp_path).start()
    (tmp_path / "embedded" / "servers.json").write_text("{")
    with pytest.raises(InvalidInput, match=r"servers\.json is damaged"):
        EmbeddedServers(tmp_path).start()
    assert (tmp_path / "embedded" / "servers.json").read_text() == "{"


def test_windows_is_told_to_set_the_urls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "platform", "win32")
        with pytest.raises(InvalidInput, match=r"PHANTOMS_DATABASE_URL and PHANTOMS_REDIS_URL"):
            EmbeddedServers(tmp_path / "home").start()
        assert read_urls(tmp_path / "home") is None
    assert not (tmp_path / "home").exists()
