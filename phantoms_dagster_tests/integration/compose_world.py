"""The services of docker-compose.yml as processes of this machine: their own commands and variables, but other paths and ports.

A process gets nothing but what its container would get: no variable of ours, another working directory, secrets as files.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import make_url

from phantoms_dagster.embedded.servers import free_port
from phantoms_dagster_tests.compose_file import Compose, Service, compose
from phantoms_dagster_tests.integration.run_world import wait_for

KEY = "sandbox-of-the-file"
START_SECONDS = 120.0
STOP_SECONDS = 60.0


@dataclass
class ComposeWorld:
    """What `docker compose up` would have made. `places` are the containers' names for things, and what they are here."""

    folder: Path
    file: Compose
    places: dict[str, str]
    extra: dict[str, str]
    secrets: dict[str, str]
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """`/data`."""
        return self.folder / "data"

    def here(self, words: str) -> str:
        """The words with the places of this machine."""
        return re.sub("|".join(map(re.escape, sorted(self.places, key=len, reverse=True))), lambda f: self.places[f[0]], words)

    def environment(self, name: str) -> dict[str, str]:
        """All variables of a service's process. `environment` wins over phantoms.env, as in compose."""
        image = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": str(self.folder / "tmp"), "PHANTOMS_HOME": "/data"}
        given = image | {"PYTHONUNBUFFERED": "1"} | self.extra | self.file.services[name].environment
        return {variable: self.here(value) for variable, value in given.items()}

    def command(self, words: list[str]) -> list[str]:
        """A container's command on this machine."""
        return [self.here(word) for word in words]

    def run(self, name: str, words: list[str] | None = None) -> subprocess.CompletedProcess[str]:
        """`docker compose run NAME`, or `exec NAME WORDS`."""
        return subprocess.run(
            self.command(words or self.file.services[name].command),
            env=self.environment(name),
            cwd=self.data,
            capture_output=True,
            text=True,
            check=False,
            timeout=START_SECONDS,
        )

    def health(self, name: str) -> int:
        """The exit code of the service's health check."""
        check = self.file.services[name].health
        assert check is not None
        return self.run(name, check).returncode

    def start(self, name: str) -> None:
        """Start a service, which is not well before, and wait until its own health check says that it is."""
        service: Service = self.file.services[name]
        assert self.health(name) != 0
        with self.log_file(name).open("ab") as out:
            self.started[name] = subprocess.Popen(
                self.command(service.command),
                env=self.environment(name),
                cwd=self.data,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        wait_for(lambda: self.started[name].poll() is not None or self.health(name) == 0, lambda: self.log(name), START_SECONDS)
        assert self.started[name].poll() is None, self.log(name)

    def stop(self, name: str) -> int:
        """`docker compose stop NAME`; its exit code."""
        process = self.started.pop(name)
        process.send_signal(signal.SIGTERM)
        return process.wait(STOP_SECONDS)

    def log_file(self, name: str) -> Path:
        """Where the service's output goes."""
        return self.folder / f"{name}.log"

    def log(self, name: str) -> str:
        """What the service wrote."""
        path = self.log_file(name)
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def command_lines(self) -> str:
        """What `ps` shows of everything that runs here."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                if os.getpgid(int(entry.name)) in {process.pid for process in self.started.values()}:
                    found.append((entry / "cmdline").read_bytes().decode(errors="replace"))
            except (ProcessLookupError, FileNotFoundError):
                continue
        return "\n".join(found)


@contextmanager
def compose_world(
    folder: Path, database_url: str, redis_url: str, extra: Mapping[str, str], **variables: str
) -> Iterator[ComposeWorld]:
    """A world on those servers. `extra` is the text of phantoms.env. Everything that was started in it is stopped."""
    database, redis = make_url(database_url), make_url(redis_url)
    secrets = {
        "postgres_password": database.password or "",
        "valkey_password": redis.password or "",
        "openai_api_key": KEY,
    }
    for name in ("data", "secrets", "tmp"):
        (folder / name).mkdir()
    file = compose(**variables)
    for name in file.spec["secrets"]:
        content = str(secrets.get(name, ""))
        (folder / "secrets" / name).write_text(f"{content}\n" if content else "", encoding="utf-8")
    code, web, desk, metrics = free_port(0), free_port(0), free_port(0), free_port(0)
    places = {
        "phantoms@postgres:5432/phantoms": f"{database.username}@{database.host}:{database.port}/{database.database}",
        "valkey:6379/0": f"{redis.host}:{redis.port}/{redis.database}",
        "/run/secrets": str(folder / "secrets"),
        "/data": str(folder / "data"),
        "code-server:4000": f"127.0.0.1:{code}",
        "4000": str(code),
        "3000": str(web),
        "4080": str(desk),
        "9464": str(metrics),
        "0.0.0.0": "127.0.0.1",
    }
    given = {**extra, "PHANTOMS_METRICS_PORT": str(metrics)}
    world = ComposeWorld(folder, file, places, given, {name: str(value) for name, value in secrets.items() if value})
    try:
        yield world
    finally:
        for process in world.started.values():
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
