"""The faults of the benchmark *weather*: how each begins and how it ends. `weather` says when.

They are as real as this machine allows: PostgreSQL is stopped and stays away, Valkey refuses writes by one of its own rules, and
the media folder is a small file system that is full.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis
from sqlalchemy import make_url

from phantoms_dagster_tests.benchmarks.world import Bench

MEDIA_MEGABYTES = 256
START_TRIES = 10
WRITABLE, READ_ONLY = 0o755, 0o555


class Postgres:
    """PostgreSQL goes away and comes back only on request, although the embedded servers' supervisor starts it at once."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._port = make_url(bench.urls.database_url).port or 0
        self._held: int | None = None

    def stop(self) -> None:
        """Stop it. Its successor is halted before it listens, so connections are refused as if there were no server."""
        for _ in range(START_TRIES):
            before = self._bench.servers.pids["postgres"]
            os.kill(before, signal.SIGINT)
            while self._bench.servers.pids.get("postgres", before) == before:
                time.sleep(0.002)
            self._held = self._bench.servers.pids["postgres"]
            os.killpg(self._held, signal.SIGSTOP)
            if not self._listens():
                return
            self.start()
        raise RuntimeError("PostgreSQL listens before it can be halted")

    def start(self) -> None:
        """Let the successor continue."""
        if self._held is not None:
            os.killpg(self._held, signal.SIGCONT)
            self._held = None

    def _listens(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1)
            return probe.connect_ex(("127.0.0.1", self._port)) == 0


class Valkey:
    """Valkey answers every write with NOREPLICAS, and every read as before."""

    def __init__(self, bench: Bench) -> None:
        self._url = bench.urls.redis_url

    def refuse(self) -> None:
        """Require a replica, although there is none."""
        self._want(1)

    def serve(self) -> None:
        """Require no replica."""
        self._want(0)

    def _want(self, replicas: int) -> None:
        with redis.Redis.from_url(self._url) as client:
            client.config_set("min-replicas-to-write", replicas)


class Media:
    """A media folder whose disk can be filled. `small`: it is a separate file system; otherwise its folders become read-only."""

    def __init__(self, root: Path, *, small: bool) -> None:
        self.root = root
        self.small = small
        self._ballast = root / ".ballast"

    def fill(self) -> None:
        """Leave no byte free."""
        if not self.small:
            self._let(READ_ONLY)
            return
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(b"\0" * (1 << 20))
        with contextlib.suppress(OSError), self._ballast.open("ab", buffering=0) as file:
            while True:
                file.write(b"\0" * 512)

    def empty(self) -> None:
        """Give the space back."""
        if not self.small:
            self._let(WRITABLE)
        self._ballast.unlink(missing_ok=True)

    def _let(self, mode: int) -> None:
        for folder in [self.root, *(path for path in self.root.rglob("*") if path.is_dir())]:
            folder.chmod(mode)


@contextlib.contextmanager
def media_disk(root: Path) -> Iterator[Media]:
    """A small file system at `root` for root, else a plain folder."""
    root.mkdir(parents=True, exist_ok=True)
    mount = shutil.which("mount")
    size = f"size={MEDIA_MEGABYTES}m,mode=0755"
    small = mount is not None and subprocess.run([mount, "-t", "tmpfs", "-o", size, "tmpfs", root], check=False).returncode == 0
    media = Media(root, small=small)
    try:
        yield media
    finally:
        media.empty()
        if small:
            subprocess.run(["umount", "-l", root], check=False)
