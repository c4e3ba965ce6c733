"""One video's lines in the log files of all processes: which lines are about it, and when each was written.

A line is about a video when it names its key. The lines after it that have no time of their own, such as a traceback, go with it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d:\d\d)(?:[.,](\d{1,6}))?\s?(Z|[+-]\d\d:?\d\d)?")
_OLDEST = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class LogLine:
    """A line and the lines that go with it. `at`: when it was written, or when the last line with a time was."""

    at: datetime
    process: str
    text: str


class LogFiles:
    """The log files of a folder, read on from where they were left. A file that was rotated away is known by its inode."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        self._known: dict[int, _LogFile] = {}
        self._first = True

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._paths())

    def read(self) -> list[LogLine]:
        """What is new about the video, in the order of time."""
        found = [line for path in self._paths() for line in self._read(path)]
        self._first = False
        return sorted(found, key=lambda line: line.at)

    def _paths(self) -> list[Path]:
        return sorted(path for path in self._folder.glob("*.log*") if path.is_file() and path.suffix not in (".gz", ".zip"))

    def _read(self, path: Path) -> list[LogLine]:
        try:
            with path.open("rb") as opened:
                size, inode = (stat := os.fstat(opened.fileno())).st_size, stat.st_ino
                file = self._known.get(inode)
                if file is None:
                    file = self._known[inode] = _LogFile(path.name.partition(".log")[0], self._key)
                    if not self._first and not path.name.endswith(".log"):
                        file.offset = size  # a copy of what was read under its old name
                if size < file.offset:
                    file.offset, file.inside = 0, False
                opened.seek(file.offset)
                return list(file.lines(opened))
        except FileNotFoundError:
            return []  # rotated away just now: it is found under its new name next time


class _LogFile:
    def __init__(self, process: str, key: str) -> None:
        self._process = process
        # Another video's key may begin with this one: `...-7f3a-2`. A post's marker does, too: `...-7f3a-youtube`.
        self._about = re.compile(rf"(?<![A-Za-z0-9_-]){re.escape(key)}(?![A-Za-z0-9_]|-\d)")
        self._key = key.encode()
        self.offset = 0
        self.inside = False
        self._last_time = ""

    def lines(self, opened: Iterable[bytes]) -> Iterator[LogLine]:
        entry: list[str] = []
        at = _OLDEST
        for raw in opened:
            if not raw.endswith(b"\n"):
                break  # still being written
            self.offset += len(raw)
            starts = raw[:1] == b"{" or _TIME.match(head := raw[:40].decode("utf-8", "replace")) is not None
            if starts:
                self._last_time = raw.decode("utf-8", "replace") if raw[:1] == b"{" else head
            if self.inside and not starts:
                entry.append(raw.decode("utf-8", "replace").rstrip())
                at = at if at is not _OLDEST else _time(self._last_time)
                continue
            if entry:
                yield LogLine(at, self._process, "\n".join(entry))
            entry, self.inside = [], False
            if self._key in raw and self._about.search(line := raw.decode("utf-8", "replace")):
                entry, at, self.inside = [line.rstrip()], _time(self._last_time), True
        if entry:
            yield LogLine(at, self._process, "\n".join(entry))


def _time(line: str) -> datetime:
    """When the line was written. A time without a zone is UTC, as all our processes write it."""
    given = line
    if line.startswith("{"):
        try:
            given = str(json.loads(line).get("time", ""))
        except ValueError:
            return _OLDEST
    found = _TIME.search(given)
    if found is None:
        return _OLDEST
    day, clock, fraction, zone = found.groups()
    return datetime.fromisoformat(f"{day}T{clock}.{(fraction or '0').ljust(6, '0')}{'+00:00' if zone in (None, 'Z') else zone}")
