"""A desk in a process of its own, on a real socket, with users who are logged in: for tests that kill it."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from phantoms_dagster_tests.integration.desk_world import Browser

MAX_WAIT = 120.0


@dataclass
class DeskProcess:
    """`phantoms desk` on a database."""

    home: Path
    database_url: str
    redis_url: str
    settings: dict[str, str]
    url: str = ""
    process: subprocess.Popen[str] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the desk, and of commands that run at the same time."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PHANTOMS_", "DAGSTER_"))}
        ours = {"PHANTOMS_HOME": str(self.home), "PHANTOMS_DATABASE_URL": self.database_url, "PHANTOMS_REDIS_URL": self.redis_url}
        return {**kept, **ours, "PYTHONUNBUFFERED": "1", **self.settings}

    @property
    def log(self) -> Path:
        """What it logs."""
        return self.home / "desk.log"

    async def start(self) -> None:
        """Start it, on the port that it had before, and wait until it answers."""
        port = self.url.rpartition(":")[2].rstrip("/") or "0"
        self.process = command(self, "desk", "--port", port, log=self.log)
        assert self.process.stdout is not None
        line = await asyncio.to_thread(self.process.stdout.readline)
        found = re.search(r"http://\S+?(?=/;)", line)
        assert found, line + self.log.read_text()
        self.url = found[0]

    async def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.kill()
        await asyncio.to_thread(self.process.wait, 30)
        self.process.stdout.close()

    async def stop(self) -> None:
        """As Ctrl-C."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            await asyncio.to_thread(self.process.wait, 30)
        if self.process is not None and self.process.stdout is not None:
            self.process.stdout.close()

    @asynccontextmanager
    async def person(self, name: str) -> AsyncIterator[Browser]:
        """A logged-in user with a separate browser."""
        async with httpx.AsyncClient(base_url=self.url, timeout=MAX_WAIT, trust_env=False) as client:
            browser = Browser(client)
            assert (await browser.log_in(name)).status_code == 303
            yield browser


def command(desk: DeskProcess, *arguments: str, log: Path | None = None) -> subprocess.Popen[str]:
    """Run a command while the desk runs. Its standard error goes into `log`."""
    line = [sys.executable, "-W", "ignore", "-m", "phantoms_dagster.cli.main", *arguments]
    with (log or Path(os.devnull)).open("a") as errors:
        error: Any = errors if log else subprocess.PIPE
        return subprocess.Popen(line, env=desk.environment, stdout=subprocess.PIPE, stderr=error, text=True)


@asynccontextmanager
async def open_process(home: Path, database_url: str, redis_url: str, **settings: str) -> AsyncIterator[DeskProcess]:
    """A desk that runs, and is stopped at the end."""
    desk = DeskProcess(home, database_url, redis_url, settings)
    await desk.start()
    try:
        yield desk
    finally:
        await desk.stop()


def plain(database_url: str) -> psycopg.Connection:
    """A connection of the test's own, which sees each change at once."""
    return psycopg.connect(re.sub(r"^postgresql\+\w+", "postgresql", database_url), autocommit=True)


async def until(condition: Callable[[], Any], what: str) -> Any:
    """The first true value of the condition."""
    ends = time.monotonic() + MAX_WAIT
    while time.monotonic() < ends:
        if found := condition():
            return found
        await asyncio.sleep(0.02)
    return pytest.fail(f"never: {what}")


def waiting_for_locks(connection: psycopg.Connection) -> int:
    """How many statements wait for another transaction's lock in this database."""
    statement = """SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND state = 'active' AND wait_event_type = 'Lock'"""
    row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0
