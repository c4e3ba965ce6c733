"""An embedded Valkey: its configuration, its command line, its readiness check."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
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
    """A Valkey with its append-only file in `data`. `durable=False`: the kernel decides when the file is flushed."""

    data: Path
    program: Path
    port: int
    password: str = field(repr=False)
    durable: bool

    def prepare(self) -> None:
        """Create its folder. There is no configuration file: see `spec`."""
        self.data.mkdir(mode=0o700, exist_ok=True)
        (self.data / "valkey.conf").unlink(missing_ok=True)  # earlier versions wrote one, with the password

    def spec(self) -> ProcessSpec:
        """How to run it. On SIGTERM it flushes its append-only file.

        Valkey treats the path of a configuration file as a glob pattern. In a folder such as `my [studio]` it finds no file and
        silently starts with its defaults: no password, on all addresses. So it gets no path: the options are on the command line,
        and the password, which others could read there, comes through standard input.
        """
        options = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "appendonly": "yes",
            "appendfsync": "everysec" if self.durable else "no",
            "save": "",
            # Evicting keys would lose queued runs, so full memory must be an error.
            "maxmemory-policy": "noeviction",
            "tcp-backlog": "128",
            # Housekeeping runs per second. The default of ten is most of the work of an idle Valkey. Timeouts end up to 0.5 s late.
            "hz": "2",
            "pidfile": "valkey.pid",
            "daemonize": "no",
        }
        return ProcessSpec(
            name="valkey",
            argv=(str(self.program), *(word for name, value in options.items() for word in (f"--{name}", value)), "-"),
            stdin=f"requirepass {self.password}\n",
            env=server_environment(),
            cwd=self.data,
            ready=self._answers,
            ready_timeout=START_SECONDS,
            complaint=self._complaint,
            stop_signal=signal.SIGTERM,
            grace_seconds=STOP_SECONDS,
        )

    def _client(self, password: str | None) -> redis.Redis:
        return redis.Redis(
            host="127.0.0.1",
            port=self.port,
            password=password,
            socket_timeout=5,
            socket_connect_timeout=5,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )

    def _answers(self) -> bool:
        with self._client(self.password) as client:
            try:
                return bool(client.ping())
            except redis.AuthenticationError:
                return True  # a server answers; `_complaint` checks whether it is ours
            except (redis.ConnectionError, redis.TimeoutError):  # includes "loading the dataset"
                return False

    def _complaint(self, pid: int) -> str | None:
        """What is wrong with the server that answers. None if it is process `pid`, on our address, with our password."""
        try:
            with self._client(None) as stranger:
                stranger.ping()
            return f"the Valkey on port {self.port} requires no password"
        except redis.AuthenticationError:
            pass  # as it should be
        except redis.RedisError as error:
            return f"the Valkey on port {self.port} does not answer as it should: {error}"
        try:
            with self._client(self.password) as client:
                answered = int(client.info("server")["process_id"])
                found = {name: str(client.config_get(name).get(name)) for name in ("bind", "port", "dir")}
        except redis.AuthenticationError:
            return f"the server on port {self.port} does not know our password"
        except redis.RedisError as error:
            return f"the Valkey on port {self.port} does not answer as it should: {error}"
        if answered != pid:
            return f"another Valkey (process {answered}) answers on port {self.port}"
        wanted = {"bind": "127.0.0.1", "port": str(self.port), "dir": str(self.data.resolve())}
        wrong = [f"{name} is {found[name]!r} instead of {value!r}" for name, value in wanted.items() if found[name] != value]
        return f"it runs with another configuration than it was given: {', '.join(wrong)}" if wrong else None


def stop_leftover_valkey(data: Path) -> None:
    """Stop the server that a killed launcher may have left running: two servers must not write the same append-only file."""
    try:
        pid = int((data / "valkey.pid").read_text())
    except (FileNotFoundError, ValueError):
        return
    stop_leftover(pid, folder=data, program="valkey-server", stop_signal=signal.SIGTERM, seconds=STOP_SECONDS)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, completely or not at all."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
