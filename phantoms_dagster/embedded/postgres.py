"""An embedded PostgreSQL: its data directory, its command line, its readiness check, its databases.

On Linux its data directory is `/proc/self/cwd`: an account that cannot traverse the path to the directory (a home below root's
0700) can still work in it as the current directory. So the data stays where the user put it.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from phantoms_dagster.domain.errors import InvalidInput, PhantomsError
from phantoms_dagster.embedded.identity import SET_THE_URLS
from phantoms_dagster.embedded.leftovers import stop_leftover
from phantoms_dagster.embedded.processes import ProcessIdentity, ProcessSpec, command, server_environment

MAJOR_VERSION = "18"
USER = "phantoms"
DATABASES = ("phantoms", "dagster")
START_SECONDS = 120.0  # includes crash recovery
STOP_SECONDS = 60.0
# A random password cannot be guessed however cheap a guess is, and the default of 4096 costs each connection 2 CPU-ms. The value
# applies to passwords set later; a data directory's password is set when the directory is created.
SCRAM_ITERATIONS = 1
# No process ever has this id (Linux stops at 2**22, macOS at 99998).
NO_PROCESS = 2**31 - 2


@dataclass(frozen=True, kw_only=True)
class Postgres:
    """A PostgreSQL in `data`, run as `identity` with the programs in `bin`. `durable=False` trades safety for speed."""

    data: Path
    bin: Path
    identity: ProcessIdentity
    port: int
    password: str = field(repr=False)
    durable: bool

    def prepare(self, log: Path) -> None:
        """Create the data directory, or correct the owner of an existing one. No server may be running in it.

        Raises InvalidInput for a directory of another version, PhantomsError when initdb fails.
        """
        if not self.data.exists():
            self._make_cluster(log)
        version = (self.data / "PG_VERSION").read_text().strip()
        if version != MAJOR_VERSION:
            raise InvalidInput(
                f"{self.data} was created by PostgreSQL {version}, this is {MAJOR_VERSION}. Dump it with the old version, or set "
                "PHANTOMS_HOME to another folder."
            )
        self._give(self.data)

    def spec(self) -> ProcessSpec:
        """How to run it. SIGINT is a \"fast\" shutdown: it ends open sessions and loses nothing."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": "",
            "max_connections": 300,
            "shared_buffers": "128MB",
            "log_checkpoints": "off",
        }
        if not self.durable:
            options |= {"fsync": "off", "full_page_writes": "off"}
        return ProcessSpec(
            name="postgres",
            argv=(
                str(self.bin / "postgres"),
                "-D",
                _seen_from_inside(self.data),
                *(word for name, value in options.items() for word in ("-c", f"{name}={value}")),
            ),
            env=server_environment(),
            cwd=self.data,
            identity=self.identity,
            ready=self._answers,
            ready_timeout=START_SECONDS,
            complaint=self._complaint,
            stop_signal=signal.SIGINT,
            grace_seconds=STOP_SECONDS,
        )

    def make_databases(self) -> None:
        """Create the missing databases. The server must be ready."""
        with self._connect() as connection:
            there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
            for name in DATABASES:
                if name not in there:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=USER,
            password=self.password,
            dbname="postgres",
            autocommit=True,
            connect_timeout=5,
        )

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def _complaint(self, pid: int) -> str | None:
        """What is wrong with the server that answers. None if it is process `pid`, on our address, and requires passwords."""
        names = {"listen_addresses": "127.0.0.1", "port": str(self.port), "unix_socket_directories": ""}
        try:
            with self._connect() as connection:
                found = {name: _one(connection, sql.SQL("SHOW {}").format(sql.Identifier(name))) for name in names}
                # The path is relative to the server's data directory, so a server on other data reports another process.
                answered = _one(connection, sql.SQL("SELECT split_part(pg_read_file('postmaster.pid'), chr(10), 1)"))
                open_to_all = _one(connection, sql.SQL("SELECT count(*) FROM pg_hba_file_rules WHERE auth_method = 'trust'"))
        except psycopg.Error as error:
            return f"the PostgreSQL on port {self.port} does not answer as it should: {error}"
        if answered != str(pid):
            return f"another PostgreSQL (process {answered}) answers on port {self.port}"
        if open_to_all != "0":
            return f"{self.data / 'pg_hba.conf'} allows connections without a password (trust): remove these lines"
        wrong = [f"{name} is {found[name]!r} instead of {value!r}" for name, value in names.items() if found[name] != value]
        return f"it runs with another configuration than it was given: {', '.join(wrong)}" if wrong else None

    def _make_cluster(self, log: Path) -> None:
        # Created in a temporary folder first, so that a killed initdb leaves nothing that looks like a data directory.
        fresh = self.data.with_name(f"{self.data.name}.new")
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        self._give(fresh)
        argv = [str(self.bin / "initdb"), "-D", _seen_from_inside(fresh), "-U", USER, "--pwfile=/dev/stdin", "-A", "scram-sha-256"]
        argv += [
            "-E",
            "UTF8",
            "--locale=C",
            "--no-instructions",
            "-c",
            f"scram_iterations={SCRAM_ITERATIONS}",
            *([] if self.durable else ["--no-sync"]),
        ]
        with tempfile.TemporaryFile(dir=fresh.parent) as password, log.open("wb") as out:
            # A file and not a pipe, because initdb opens /dev/stdin again, which requires that it owns it. The file has no name.
            password.write(self.password.encode())
            password.seek(0)
            if self.identity.kind == "become":
                os.fchown(password.fileno(), self.identity.uid, self.identity.gid)
            made = subprocess.run(
                command(argv, death_signal=signal.SIGKILL, identity=self.identity),
                stdin=password,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=server_environment(),
                cwd=fresh,
                check=False,
                start_new_session=True,  # Ctrl-C must only reach the launcher
            )
        if made.returncode != 0:
            said = log.read_text("utf-8", "replace").strip()[-2_000:]
            if "No space left on device" in said:
                raise PhantomsError(
                    f"the disk of {self.data.parent} is full: PostgreSQL needs about 40 MB at first. Free some space there, or set "
                    f"PHANTOMS_HOME to a folder on a larger disk. {SET_THE_URLS}"
                )
            raise PhantomsError(f"PostgreSQL's data directory could not be created. The end of {log}:\n{said}\n{SET_THE_URLS}")
        fresh.rename(self.data)

    def _give(self, folder: Path) -> None:
        """Give the files to PostgreSQL's account: an earlier start may have used another one. Only root can do that."""
        uid, gid = (self.identity.uid, self.identity.gid) if self.identity.kind == "become" else (os.geteuid(), os.getegid())
        if folder.stat().st_uid == uid:
            return
        if os.geteuid() != 0:
            raise InvalidInput(
                f"{folder} belongs to another user. Start Phantoms as that user, or set PHANTOMS_HOME to another folder."
            )
        # The folder itself comes last: if this is interrupted, the folder's old owner makes the next start repeat it.
        for path in [*folder.rglob("*"), folder]:
            os.chown(path, uid, gid, follow_symlinks=False)


def _one(connection: psycopg.Connection, query: sql.SQL | sql.Composed) -> str:
    row = connection.execute(query).fetchone()
    return "" if row is None else str(row[0])


def stop_leftover_postgres(data: Path) -> None:
    """Stop the server of a killed launcher, by its `postmaster.pid`, and replace a process id that another process has by now.

    The file is kept, because PostgreSQL uses its other lines to detect old backends that still run.
    """
    pid_file = data / "postmaster.pid"
    try:
        first, rest = pid_file.read_text().split("\n", 1)
        pid = int(first)
    except FileNotFoundError:
        return
    except ValueError:  # truncated by a full disk or a crash: PostgreSQL would always refuse to start
        pid_file.unlink()
        return
    stop_leftover(pid, folder=data, program="postgres", stop_signal=signal.SIGINT, seconds=STOP_SECONDS)
    if pid_file.exists():
        pid_file.write_text(f"{NO_PROCESS}\n{rest}")


def _seen_from_inside(folder: Path) -> str:
    return "/proc/self/cwd" if sys.platform == "linux" else str(folder)
