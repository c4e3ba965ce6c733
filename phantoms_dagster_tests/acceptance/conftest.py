"""A running `phantoms up` with a sandbox of its own, as a user has it: real processes, found through its data directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster.cli.graphql import ask
from phantoms_dagster.domain.channels import default_text
from phantoms_dagster.embedded.servers import free_port
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import Services

START_SECONDS = 240
MAX_WAIT_SECONDS = 400


@dataclass
class SandboxProcess:
    """A sandbox in a process of its own, which outlives the stacks of a test."""

    url: str
    process: subprocess.Popen[bytes]

    def ledger(self, kind: str) -> list[dict[str, Any]]:
        """What took effect."""
        entries: list[dict[str, Any]] = httpx.get(f"{self.url}/_sandbox/ledger", params={"kind": kind}).json()["entries"]
        return entries

    def fault(self, **fault: Any) -> None:
        """Make a route fail."""
        httpx.post(f"{self.url}/_sandbox/faults", json=fault).raise_for_status()

    def heal(self) -> None:
        """Lift all faults."""
        httpx.delete(f"{self.url}/_sandbox/faults").raise_for_status()


# Several stacks start at the same time here: two that find a usual port free would both want it.
ANY_PORTS = {"PHANTOMS_DESK_PORT": "0", "PHANTOMS_METRICS_PORT": "0"}


@dataclass
class StackProcess:
    """`phantoms up` in a data directory."""

    home: Path
    environment: dict[str, str]
    process: subprocess.Popen[str] | None = field(default=None)

    def start(self) -> None:
        """Start it and wait until other commands can find it."""
        (self.home / "running.env").unlink(missing_ok=True)  # of a stack that was killed
        self.process = subprocess.Popen(
            [sys.executable, "-m", "phantoms_dagster.cli.main", "up", "--home", str(self.home), "--port", "0"],
            env={**self.environment, **ANY_PORTS},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        wait_for(self._announced, seconds=START_SECONDS)

    def _announced(self) -> bool:
        assert self.process is not None
        if self.process.poll() is not None:
            pytest.fail(f"phantoms up ended with {self.process.returncode}:\n{self.process.communicate()[0]}")
        return (self.home / "running.env").exists()

    def stop(self) -> int:
        """Ctrl-C; its exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        self.process.communicate(timeout=120)
        return self.process.returncode

    def kill_everything(self) -> None:
        """kill -9 of the launcher and of every process it started, all at once: a power cut."""
        assert self.process is not None
        mark = f"PHANTOMS_HOME={self.home}".encode()
        for entry in [e for e in Path("/proc").iterdir() if e.name.isdigit()]:
            try:
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
            except (OSError, PermissionError):
                continue
        self.process.kill()
        self.process.communicate(timeout=30)

    @property
    def settings(self) -> Settings:
        """What the running stack left for other commands."""
        return Settings(_env_file=self.home / "running.env", paths={"home": self.home})

    @property
    def services(self) -> Services:
        """The catalogue and the tables of the running stack; close it."""
        return Services(self.settings)

    def phantoms(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command, as a user types it in another terminal."""
        environment = {**self.environment, "PHANTOMS_HOME": str(self.home)}
        command = [sys.executable, "-m", "phantoms_dagster.cli.main", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    def ask(self, query: str, **variables: Any) -> dict[str, Any]:
        """GraphQL as the UI speaks it."""
        assert self.settings.web.url is not None
        return ask(self.settings.web.url, query, variables)


def wait_for(condition: Callable[[], Any], *, seconds: float = MAX_WAIT_SECONDS, pause: float = 0.5) -> Any:
    """The first true value of `condition`; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(pause)
    return pytest.fail(f"not within {seconds:.0f} s: {condition}")


@contextmanager
def open_sandbox(folder: Path) -> Iterator[SandboxProcess]:
    """A sandbox whose renders are a small prepared video. Its log goes into the folder."""
    port = free_port(0)
    command = [sys.executable, "-m", "phantoms_dagster.cli.main", "sandbox", "--port", str(port), "--fast-renders"]
    with (folder / "sandbox.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
    running = SandboxProcess(f"http://127.0.0.1:{port}", process)
    try:
        wait_for(lambda: _healthy(running.url), seconds=60)
        yield running
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def open_stack(folder: Path, sandbox: SandboxProcess, **settings: str) -> Iterator[StackProcess]:
    """A stack that is not started yet, on that sandbox, with quick retries."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PHANTOMS_", "DAGSTER_"))}
    environment |= {
        "PHANTOMS_SANDBOX_URL": sandbox.url,
        "PHANTOMS_ATTEMPTS": "2",
        "PHANTOMS_GIVE_UP_MINUTES": "0",
        "PHANTOMS_BACKOFF_SECONDS": "0.1",
        "PHANTOMS_LEASE_SECONDS": "10",
        "PHANTOMS_RENDER_POLL_SECONDS": "0.5",
        **settings,
    }
    home = folder / "home"
    home.mkdir(exist_ok=True)
    # A fast sandbox renders the same file for all videos, so nothing is compared.
    channels = default_text().replace("repeats: {days: 30,", "repeats: {days: 0,")
    (home / "channels.yaml").write_text(channels, encoding="utf-8")
    running = StackProcess(home, environment)
    try:
        yield running
    finally:
        if running.process is not None and running.process.poll() is None:
            running.stop()


def _healthy(url: str) -> bool:
    try:
        return httpx.get(f"{url}/_sandbox/health", timeout=2).is_success
    except httpx.HTTPError:
        return False


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[SandboxProcess]:
    """A sandbox for one test."""
    with open_sandbox(tmp_path) as running:
        yield running


@pytest.fixture
def stack(tmp_path: Path, sandbox: SandboxProcess) -> Iterator[StackProcess]:
    """A stack for one test, which starts it."""
    with open_stack(tmp_path, sandbox) as running:
        yield running
