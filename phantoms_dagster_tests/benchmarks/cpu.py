"""What processes cost: CPU-seconds by service, each with everything it has started, from /proc. Linux only."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

SAMPLE_SECONDS = 1.0
_TICKS = os.sysconf("SC_CLK_TCK")


class _Stat(NamedTuple):
    parent: int
    ticks: int


class CpuMeter:
    """Counts the services that `roots` names by their process ids; never goes backwards.

    The figure of a tree includes living processes and their reaped children, so a child that ends is not lost. Two things are lost:
    the use of a killed service since the last reading (a thread reads every second), and the share of a process that is killed
    together with its parent. Benchmarks that kill nothing are exact to a tick (10 ms) for each process.
    """

    def __init__(self, roots: Callable[[], Mapping[str, int]]) -> None:
        self._roots = roots
        self._lock = threading.Lock()
        self._ended: dict[str, int] = {}
        self._current: dict[str, tuple[int, int]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="cpu", daemon=True)

    def __enter__(self) -> CpuMeter:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def read(self) -> dict[str, float]:
        """CPU-seconds so far, by service."""
        with self._lock:
            self._look()
            names = {**self._ended, **self._current}
            return {name: (self._ended.get(name, 0) + self._current.get(name, (0, 0))[1]) / _TICKS for name in names}

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            with self._lock:
                self._look()

    def _look(self) -> None:
        roots = dict(self._roots())
        children = processes()
        for name in {*roots, *self._current}:
            root, before = self._current.get(name, (0, 0))
            if roots.get(name) != root:
                self._ended[name] = self._ended.get(name, 0) + before
                before = 0
            if name in roots:
                # A reading between a child's end and its parent's notice is too low, never too high: parents are read first.
                self._current[name] = (roots[name], max(before, _ticks(roots[name], children)))
            else:
                del self._current[name]


def processes() -> dict[int, list[int]]:
    """The children of each process of this machine."""
    found: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))) is not None:
            found.setdefault(stat.parent, []).append(int(entry.name))
    return found


def _ticks(root: int, children: Mapping[int, list[int]]) -> int:
    total, queue = 0, [root]
    for pid in queue:
        if (stat := _stat(pid)) is not None:
            total += stat.ticks
        queue += children.get(pid, [])
    return total


def _stat(pid: int) -> _Stat | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rsplit(")", 1)[1].split()
    except OSError:
        return None
    # utime, stime, and of the children that it has reaped cutime, cstime: proc_pid_stat(5), fields 14 to 17.
    return _Stat(int(fields[1]), sum(int(field) for field in fields[11:15]))
