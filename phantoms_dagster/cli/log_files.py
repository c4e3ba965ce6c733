"""Finds a video's lines in the log files of all processes.

A line is about a video when it contains its key. Following lines without a timestamp, such as a traceback, belong to it.
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
    """A log line with its continuation lines. `at` is its timestamp, else that of the last line with one."""

    at: datetime
    process: str
    text: str


class LogFiles:
    """The log files of a folder. Each read continues where the last one stopped. Rotated files are recognised by inode."""

    def __init__(self, folder: Path, key: str) -> None:
        self._folder = folder
        self._key = key
        self._known: dict[int, _LogFile] = {}
        self._first = True

    def __bool__(self) -> bool:
        """Whether there are any log files."""
        return bool(self._paths())

    def read(self) -> list[LogLine]:
        """Return the new lines about the video, in time order."""
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
                        file.offset = size  # a rotated copy; its lines were read under the old name
                if size < file.offset:
                    file.offset, file.inside = 0, False
                opened.seek(file.offset)
                return list(file.lines(opened))
        except FileNotFoundError:
            return []  # it was just rotated; the next read finds it under its new name


class _LogFile:
    def __init__(self, process: str, key: str) -> None:
        self._process = process
        # `...-7f3a-2` is another video's key and must not match. `...-7f3a-youtube` marks a post of this video and must match.
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
    """Return the timestamp of a line. Without a zone it is UTC, as all our processes log it."""
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
