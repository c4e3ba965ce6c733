"""Embedded servers in folders that people really have: no part of the path may act as a pattern, a URL or a shell word."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest
import redis

from phantoms_dagster.embedded.identity import RootStrategy, can_execute, postgres_identity
from phantoms_dagster.embedded.postgres import Postgres
from phantoms_dagster.embedded.processes import ProcessIdentity, ProcessSpec, command
from phantoms_dagster.embedded.servers import EmbeddedServers, ServerUrls
from phantoms_dagster.embedded.supervisor import ProcessFailed, Supervisor
from phantoms_dagster.embedded.valkey import Valkey

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

# A newline, too: the kernel allows all but / and NUL.
NAMES = ["it's my [studio]", "a*b {c,d}", "what?", '100% "q" \\n $HOME `id`', "日本 é\nsecond line"]


def check_both(urls: ServerUrls, servers: EmbeddedServers) -> None:
    """Both servers answer, only on 127.0.0.1, and only to who knows the password."""
    with psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
    with redis.Redis.from_url(urls.redis_url, decode_responses=True) as client:
        port = client.connection_pool.connection_kwargs["port"]
        assert client.config_get("bind") == {"bind": "127.0.0.1"}
        assert client.info("server")["process_id"] == servers.pids["valkey"]
    with redis.Redis(port=port) as stranger, pytest.raises(redis.AuthenticationError):
        stranger.ping()


@pytest.mark.parametrize("name", NAMES)
def test_no_character_of_the_path_makes_a_server_start_with_its_defaults(tmp_path: Path, name: str) -> None:
    servers = EmbeddedServers(tmp_path / name / "home", durable=False)
    with servers as first:
        check_both(first, servers)
        with redis.Redis.from_url(first.redis_url) as client:
            client.set("kept", "yes")
    with servers as second, redis.Redis.from_url(second.redis_url) as client:
        assert client.get("kept") == b"yes"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("strategy", ["namespace", "nobody"])
def test_root_either_way_can_work_in_such_a_folder(tmp_path: Path, strategy: RootStrategy) -> None:
    servers = EmbeddedServers(tmp_path / NAMES[0] / "home", root_strategy=strategy, durable=False)
    with servers as urls:
        check_both(urls, servers)


PROGRAM = """
import os, sys
from pathlib import Path
import redis
from phantoms_dagster.embedded.servers import EmbeddedServers

with EmbeddedServers(Path(sys.argv[1]), durable=False) as urls, redis.Redis.from_url(urls.redis_url) as client:
    print(os.geteuid() != 0, client.config_get("bind")["bind"])
"""


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can reach and write to, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_an_ordinary_user_can_work_in_such_a_folder(reachable: Path) -> None:
    nobody = postgres_identity("nobody")
    who = ProcessIdentity("become", nobody.uid, nobody.gid)
    if not can_execute(Path(sys.executable), who):
        pytest.skip("that user cannot run this Python")
    argv = command([sys.executable, "-c", PROGRAM, str(reachable / NAMES[0])], death_signal=9, identity=who)  # type: ignore[arg-type]
    made = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (made.returncode, made.stdout.strip()) == (0, "True 127.0.0.1"), made.stderr


def changed(spec: ProcessSpec, *, argv: tuple[str, ...] | None = None, stdin: str | None = None) -> ProcessSpec:
    """The spec of a server that was given something else than was meant."""
    return replace(spec, argv=argv or spec.argv, stdin=spec.stdin if stdin is None else stdin)


def refuse(spec: ProcessSpec, logs: Path, match: str) -> None:
    supervisor = Supervisor([spec], logs=logs)
    with pytest.raises(ProcessFailed, match=match):
        supervisor.start()
    assert supervisor.pids == {}


def test_a_valkey_that_runs_otherwise_than_configured_is_stopped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Valkey] = []
    prepare = Valkey.prepare

    def noted(valkey: Valkey) -> None:
        started.append(valkey)
        prepare(valkey)

    monkeypatch.setattr(Valkey, "prepare", noted)
    with EmbeddedServers(tmp_path, durable=False):
        pass
    valkey = started[0]
    spec = valkey.spec()
    assert valkey.password not in repr(spec)
    refuse(changed(spec, stdin=""), tmp_path, "requires no password")
    everywhere = tuple("*" if word == "127.0.0.1" else word for word in spec.argv)
    refuse(changed(spec, argv=everywhere), tmp_path, r"bind is '\*' instead of '127\.0\.0\.1'")
    refuse(changed(spec, stdin="requirepass another\n"), tmp_path, "does not know our password")


def test_a_postgres_that_runs_otherwise_than_configured_is_stopped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Postgres] = []
    prepare = Postgres.prepare

    def noted(postgres: Postgres, log: Path) -> None:
        started.append(postgres)
        prepare(postgres, log)

    monkeypatch.setattr(Postgres, "prepare", noted)
    with EmbeddedServers(tmp_path, durable=False):
        pass
    postgres = started[0]
    spec = postgres.spec()
    everywhere = tuple("listen_addresses=*" if word.startswith("listen_addresses=") else word for word in spec.argv)
    refuse(changed(spec, argv=everywhere), tmp_path, r"listen_addresses is '\*' instead of '127\.0\.0\.1'")
    rules = postgres.data / "pg_hba.conf"
    rules.write_text(rules.read_text().replace("scram-sha-256", "trust"))
    refuse(spec, tmp_path, r"pg_hba\.conf allows connections without a password")
