"""An embedded Valkey: its configuration, how it is started, when it is ready. When servers start belongs to `servers`."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from phantoms_dagster.embedded.leftovers import stop_leftover
from phantoms_dagster.embedded.processes import ProcessSpec, server_environment

START_SECONDS = 60.0
STOP_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class Valkey:
    """A Valkey that keeps its append-only file in `data`. `durable=False` leaves writing it out to the kernel."""

    data: Path
    program: Path
    port: int
    password: str
    durable: bool

    def prepare(self) -> None:
        """Make its folder and its configuration."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        lines = {
            "bind": "127.0.0.1",
            "port": self.port,
            "requirepass": self.password,
            "appendonly": "yes",
            "appendfsync": "everysec" if self.durable else "no",
            "save": '""',
            # Dropping keys would drop queued runs: a full memory must be an error.
            "maxmemory-policy": "noeviction",
            "tcp-backlog": 128,
            "pidfile": "valkey.pid",
            "daemonize": "no",
        }
        # The password is in here and not on the command line, which any user can read.
        write_private(self.data / "valkey.conf", "".join(f"{name} {value}\n" for name, value in lines.items()))

    def spec(self) -> ProcessSpec:
        """How to run it. It writes its append-only file out on SIGTERM."""
        return ProcessSpec(
            name="valkey",
            argv=(str(self.program), "valkey.conf"),
            env=server_environment(),
            cwd=self.data,
            ready=self._answers,
            ready_timeout=START_SECONDS,
            stop_signal=signal.SIGTERM,
            grace_seconds=STOP_SECONDS,
        )

    def _answers(self) -> bool:
        with redis.Redis(
            port=self.port, password=self.password, socket_timeout=5, socket_connect_timeout=5, retry=Retry(NoBackoff(), 0)
        ) as client:
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.TimeoutError):  # includes "loading the dataset"
                return False


def stop_leftover_valkey(data: Path) -> None:
    """Stop the server that a killed launcher may have left behind: two must not write one append-only file."""
    try:
        pid = int((data / "valkey.pid").read_text())
    except (FileNotFoundError, ValueError):
        return
    stop_leftover(pid, folder=data, program="valkey-server", stop_signal=signal.SIGTERM, seconds=STOP_SECONDS)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
