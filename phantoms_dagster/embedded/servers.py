"""The embedded PostgreSQL and Valkey of a data directory, which `phantoms up` starts when no URLs are set.

`<home>/embedded` has the servers' folders, the lock and `servers.json` (ports and password, mode 0600). The logs are in
`<home>/logs`. `store` creates the schema.
"""

from __future__ import annotations

import secrets
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Annotated

from pydantic import Field, ValidationError

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.values import Value
from phantoms_dagster.embedded.binaries import postgres_bin, valkey_server
from phantoms_dagster.embedded.identity import SET_THE_URLS, RootStrategy, postgres_identity
from phantoms_dagster.embedded.lock import LauncherLock, launcher_is_ready
from phantoms_dagster.embedded.postgres import USER, Postgres, stop_leftover_postgres
from phantoms_dagster.embedded.supervisor import ProcessFailed, Supervisor
from phantoms_dagster.embedded.valkey import Valkey, stop_leftover_valkey, write_private

START_TRIES = 3
# Below the ephemeral ports: there, a client that keeps connecting to a stopped server can connect to itself.
PORTS = range(15_000, 30_000)
PORT_TRIES = 50


@dataclass(frozen=True)
class ServerUrls:
    """The servers' URLs. They contain the password, so they are not printed."""

    database_url: str = field(repr=False)
    """`postgresql+psycopg://...`, the database `phantoms`."""
    dagster_database_url: str = field(repr=False)
    """`postgresql+psycopg2://...`, the database `dagster`: dagster-postgres breaks on psycopg 3."""
    redis_url: str = field(repr=False)


class _Kept(Value):
    """The values that are kept between starts."""

    postgres_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    valkey_port: Annotated[int, Field(ge=0, le=65_535)] = 0
    password: Annotated[str, Field(pattern=r"^[0-9a-f]{32,}$")]

    @property
    def urls(self) -> ServerUrls:
        address = f"{USER}:{self.password}@127.0.0.1:{self.postgres_port}"
        return ServerUrls(
            database_url=f"postgresql+psycopg://{address}/phantoms",
            dagster_database_url=f"postgresql+psycopg2://{address}/dagster",
            redis_url=f"redis://:{self.password}@127.0.0.1:{self.valkey_port}/0",
        )


class EmbeddedServers:
    """The servers of one data directory, on 127.0.0.1. They end with this process, even if it is killed.

    That is on Linux; on macOS the next start stops them. A crashed server is restarted, and `notify` is called with a message from
    another thread. `root_strategy`: how root runs PostgreSQL, see `identity`. `durable=False`, for tests: a crash of the machine
    may lose the data.
    """

    def __init__(
        self,
        home: Path,
        *,
        root_strategy: RootStrategy = "auto",
        durable: bool = True,
        notify: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._home = home.expanduser().resolve()
        self._root_strategy = root_strategy
        self._durable = durable
        self._notify = notify
        self._lock: LauncherLock | None = None
        self._supervisor: Supervisor | None = None

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the running servers: `postgres` and `valkey`."""
        return {} if self._supervisor is None else self._supervisor.pids

    def start(self) -> ServerUrls:
        """Start both servers and wait until they answer. The first start creates the data directory and the databases.

        Raises AlreadyRunning with the process id of a launcher that runs here, InvalidInput when servers cannot run here (Windows,
        no write access, data of another version), and ProcessFailed with the tail of a log when a server does not start.
        """
        if self._lock is not None:
            raise RuntimeError("the servers are started already")
        _refuse_windows()
        self._make_folders()
        lock = LauncherLock(self._embedded / "lock")
        lock.acquire()
        self._lock = lock
        try:
            kept = self._start_servers()
            lock.mark_ready()
        except BaseException:
            self.stop()
            raise
        return kept.urls

    def stop(self) -> None:
        """Stop both cleanly, if they run. An interrupt during that kills them."""
        try:
            if self._supervisor is not None:
                self._supervisor.stop()
        finally:
            self._supervisor = None
            if self._lock is not None:
                self._lock.release()
                self._lock = None

    def __enter__(self) -> ServerUrls:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.stop()

    @property
    def _embedded(self) -> Path:
        return self._home / "embedded"

    @property
    def _logs(self) -> Path:
        return self._home / "logs"

    def _make_folders(self) -> None:
        try:
            self._home.mkdir(parents=True, exist_ok=True)
            self._logs.mkdir(mode=0o700, exist_ok=True)
            # macOS has no /proc/self/cwd, so PostgreSQL's account must be able to traverse this folder.
            self._embedded.mkdir(mode=0o711, exist_ok=True)
            (self._embedded / "lock").touch(mode=0o600)
        except OSError as error:
            raise InvalidInput(
                f"{self._home} cannot be used as data directory ({error.strerror}: {error.filename}). "
                f"Set PHANTOMS_HOME to a folder that you may write. {SET_THE_URLS}"
            ) from error

    def _start_servers(self) -> _Kept:
        identity = postgres_identity(self._root_strategy)
        programs, valkey_program = postgres_bin(identity), valkey_server()
        kept = self._kept_or_new()
        # Stop them first, because they may still use the ports.
        stop_leftover_postgres(self._embedded / "postgres")
        stop_leftover_valkey(self._embedded / "valkey")
        for tries_left in reversed(range(START_TRIES)):
            kept = _Kept(
                postgres_port=free_port(kept.postgres_port), valkey_port=free_port(kept.valkey_port), password=kept.password
            )
            write_private(_file(self._embedded), kept.model_dump_json(indent=2) + "\n")
            postgres = Postgres(
                data=self._embedded / "postgres",
                bin=programs,
                identity=identity,
                port=kept.postgres_port,
                password=kept.password,
                durable=self._durable,
            )
            valkey = Valkey(
                data=self._embedded / "valkey",
                program=valkey_program,
                port=kept.valkey_port,
                password=kept.password,
                durable=self._durable,
            )
            postgres.prepare(self._logs / "initdb.log")
            valkey.prepare()
            specs = [postgres.spec(), valkey.spec()]
            self._supervisor = Supervisor(specs, logs=self._logs, notify=self._notify, together=True)
            try:
                self._supervisor.start()
            except ProcessFailed:
                # Another process may have taken a port after it was found free.
                if tries_left == 0 or all(is_free(port) for port in (kept.postgres_port, kept.valkey_port)):
                    raise
            else:
                postgres.make_databases()
                break
        return kept

    def _kept_or_new(self) -> _Kept:
        kept = _read_kept(self._embedded)
        if kept is None and (self._embedded / "postgres").exists():
            raise InvalidInput(
                f"{_file(self._embedded)} is missing, and with it the password of the database. Restore it, or move "
                f"{self._embedded} away to start with an empty database."
            )
        return kept or _Kept(password=secrets.token_hex(24))


def read_urls(home: Path) -> ServerUrls | None:
    """The URLs of the servers that run in this data directory, whichever process started them; None if none are ready."""
    embedded = home.expanduser().resolve() / "embedded"
    if sys.platform == "win32" or not launcher_is_ready(embedded / "lock"):
        return None
    kept = _read_kept(embedded)
    return None if kept is None else kept.urls


def _file(embedded: Path) -> Path:
    return embedded / "servers.json"


def _read_kept(embedded: Path) -> _Kept | None:
    try:
        return _Kept.model_validate_json(_file(embedded).read_text("utf-8"))
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise InvalidInput(f"{_file(embedded)} belongs to another user: run this as the user who started Phantoms.") from error
    except ValidationError as error:
        raise InvalidInput(
            f"{_file(embedded)} is damaged ({error.errors()[0]['msg']}). Restore a copy, or move {embedded} away to start empty."
        ) from error


def _refuse_windows() -> None:
    if sys.platform == "win32":
        raise InvalidInput(
            "There are no embedded servers for Windows. Run PostgreSQL and Redis (Docker, WSL or a service) and set "
            "PHANTOMS_DATABASE_URL and PHANTOMS_REDIS_URL."
        )


def free_port(wanted: int, host: str = "127.0.0.1") -> int:
    """The wanted port if it is free on `host`, else another free one."""
    candidates = [wanted] if wanted else []
    candidates += (PORTS[secrets.randbelow(len(PORTS))] for _ in range(PORT_TRIES))
    return next((port for port in candidates if is_free(port, host)), 0) or _any_port()


def is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether a server could listen on that port now. Another process may take it a moment later."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # The servers set this option too: a port with only lingering connections is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
