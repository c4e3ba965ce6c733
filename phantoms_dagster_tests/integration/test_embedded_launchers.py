"""Embedded servers whose launcher was killed: they end with it, and what they leave behind does not block the next start."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import make_url

from phantoms_dagster.embedded.binaries import postgres_bin, valkey_server
from phantoms_dagster.embedded.identity import postgres_identity
from phantoms_dagster.embedded.lock import AlreadyRunning
from phantoms_dagster.embedded.postgres import Postgres
from phantoms_dagster.embedded.processes import BOOTSTRAP, SAME, ProcessIdentity
from phantoms_dagster.embedded.servers import EmbeddedServers, read_urls
from phantoms_dagster.embedded.valkey import Valkey

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG and /proc")

Gone = Callable[[int], bool]
# Starts from a thread that ends at once: the kernel ties the death signal to the forking thread.
LAUNCHER = """
import signal, sys, threading
from pathlib import Path
from phantoms_dagster.embedded.servers import EmbeddedServers

servers = EmbeddedServers(Path(sys.argv[1]), durable=False)
thread = threading.Thread(target=servers.start)
thread.start()
thread.join()
print(*servers.pids.values(), flush=True)
signal.pause()
"""


@contextmanager
def launcher(home: Path) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A process that runs the servers of `home`, and their pids."""
    with subprocess.Popen([sys.executable, "-c", LAUNCHER, str(home)], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process, [int(pid) for pid in process.stdout.readline().split()]
        finally:
            process.kill()


def test_servers_end_with_a_killed_launcher_and_the_next_start_takes_over_at_once(tmp_path: Path, gone: Gone) -> None:
    with launcher(tmp_path) as (process, pids):
        assert len(pids) == 2
        with pytest.raises(AlreadyRunning) as refusal:
            EmbeddedServers(tmp_path).start()
        assert refusal.value.pid == process.pid
        urls = read_urls(tmp_path)
        assert urls is not None
        with psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        process.kill()
        process.wait()
        # No waiting for the old servers here: that is the start's own matter.
        with (
            EmbeddedServers(tmp_path, durable=False) as again,
            psycopg.connect(again.database_url.replace("+psycopg", "")) as connection,
        ):
            assert connection.execute("SELECT answer FROM kept").fetchone() == (42,)
        assert all(gone(pid) for pid in pids)


def test_servers_end_with_a_killed_pytest(tmp_path: Path, gone: Gone) -> None:
    test = tmp_path / "test_that_never_ends.py"
    test.write_text(
        "from functools import partial\n"
        "from pathlib import Path\n"
        "from phantoms_dagster_tests import conftest\n"
        "conftest.server_home = partial(conftest.server_home, memory=Path('/nowhere'))\n"  # so that this test finds the data
        "from phantoms_dagster_tests.conftest import servers\n"
        "def test_it(servers, capfd):\n"
        "    import signal\n"
        "    with capfd.disabled():\n"
        "        print('URL', servers.redis_url, flush=True)\n"
        "    signal.pause()\n"
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PHANTOMS_TEST_", "PYTEST_"))}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'base'}", str(test)]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("URL" in line for line in process.stdout)
            pid_files = [*tmp_path.rglob("postmaster.pid"), *tmp_path.rglob("valkey.pid")]
            pids = [int(f.read_text().split()[0]) for f in pid_files]
            assert len(pids) == 2
        finally:
            process.kill()
    assert all(gone(pid) for pid in pids)


def test_servers_that_outlived_their_launcher_are_stopped_by_the_next_start(tmp_path: Path, gone: Gone) -> None:
    """As on macOS, where the kernel sends no death signal."""
    with EmbeddedServers(tmp_path, durable=False) as urls:
        pass
    identity = postgres_identity("auto")
    postgres = Postgres(
        data=tmp_path / "embedded/postgres",
        bin=postgres_bin(identity),
        identity=identity,
        port=make_url(urls.database_url).port or 0,
        password="",
        durable=False,
    )
    valkey = Valkey(
        data=tmp_path / "embedded/valkey",
        program=valkey_server(),
        port=make_url(urls.redis_url).port or 0,
        password="",
        durable=False,
    )
    orphans = [_orphan(s.argv, s.cwd, identity if s.name == "postgres" else SAME) for s in (postgres.spec(), valkey.spec())]
    try:
        for folder, name in (("postgres", "postmaster.pid"), ("valkey", "valkey.pid")):
            while not (tmp_path / "embedded" / folder / name).exists():
                assert all(orphan.poll() is None for orphan in orphans)
        servers = EmbeddedServers(tmp_path, durable=False)
        with servers as again:
            assert all(gone(orphan.pid) for orphan in orphans)
            assert again == urls
            assert not {o.pid for o in orphans} & set(servers.pids.values())
    finally:
        for orphan in orphans:
            orphan.kill()
            orphan.wait()


def test_a_pid_file_that_names_a_stranger_does_not_hinder_a_start_nor_harm_the_stranger(tmp_path: Path) -> None:
    """After a crash of the machine another process has the old server's id."""
    with EmbeddedServers(tmp_path, durable=False):
        pass
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "import signal; signal.pause()"]) as stranger:
        try:
            data, valkey = tmp_path / "embedded" / "postgres", tmp_path / "embedded" / "valkey"
            (data / "postmaster.pid").write_text(
                f"{stranger.pid}\n/proc/self/cwd\n1700000000\n25432\n\n127.0.0.1\n  123 4\nready   \n"
            )
            (valkey / "valkey.pid").write_text(f"{stranger.pid}\n")
            with EmbeddedServers(tmp_path, durable=False):
                assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_pid_file_that_was_cut_short_does_not_hinder_a_start(tmp_path: Path) -> None:
    with EmbeddedServers(tmp_path, durable=False):
        pass
    (tmp_path / "embedded" / "postgres" / "postmaster.pid").write_text("")
    with EmbeddedServers(tmp_path, durable=False):
        pass


def test_the_lock_file_of_a_killed_launcher_is_taken_over(tmp_path: Path) -> None:
    (tmp_path / "embedded").mkdir()
    (tmp_path / "embedded" / "lock").write_text(f"{os.getppid()} ready\n")
    assert read_urls(tmp_path) is None
    with EmbeddedServers(tmp_path, durable=False):
        pass


def _orphan(argv: tuple[str, ...], folder: Path | None, identity: ProcessIdentity) -> subprocess.Popen[bytes]:
    """A server without a death signal."""
    wrapped = [sys.executable, "-I", "-S", str(BOOTSTRAP), str(os.getpid()), "0", str(identity), "--", *argv]
    return subprocess.Popen(wrapped, cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
