"""How much memory processes take, read from outside through /proc. Linux only."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.2
_KIB = 1024
MB = 1_000_000


@dataclass
class Peak:
    """The most memory that one process took, in bytes. `rss` counts shared pages in full, `pss` in parts."""

    rss: int = 0
    pss: int = 0
    private: int = 0
    looks: int = 0


class MemoryWatch:
    """Looks at the processes that `pids` names, several times a second, and keeps the peaks of each it ever saw.

    `rss` is exact, because the kernel keeps its high-water mark. `pss` and `private` can rise unseen between two looks.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="memory", daemon=True)
        self.peaks: dict[int, Peak] = {}

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            for pid in self._pids():
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    self._look(pid)

    def _look(self, pid: int) -> None:
        now = memory_of(pid)
        peak = self.peaks.setdefault(pid, Peak())
        peak.rss, peak.pss = max(peak.rss, now.rss), max(peak.pss, now.pss)
        peak.private, peak.looks = max(peak.private, now.private), peak.looks + 1


def memory_of(pid: int) -> Peak:
    """Return the memory of a process. `rss` is the most that it ever took. Raises OSError when it has ended."""
    rollup = _fields(Path(f"/proc/{pid}/smaps_rollup"))
    if "Pss" not in rollup:
        raise ProcessLookupError(pid)
    high = _fields(Path(f"/proc/{pid}/status")).get("VmHWM", 0)
    return Peak(max(high, rollup["Rss"]), rollup["Pss"], rollup["Private_Clean"] + rollup["Private_Dirty"], 1)


def children_of(pid: int) -> list[int]:
    """Return the running children of a process, or none when it has ended."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += (int(child) for child in (task / "children").read_text().split())
    return found


def _fields(path: Path) -> dict[str, int]:
    """The lines `Name:  123 kB` of a file of /proc, in bytes."""
    found: dict[str, int] = {}
    for line in path.read_text("utf-8", "replace").splitlines():
        name, _, rest = line.partition(":")
        value, _, unit = rest.strip().partition(" ")
        if unit == "kB":
            found[name] = int(value) * _KIB
    return found
