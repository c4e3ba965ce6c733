"""The inbox folder: the sensor takes files with briefs, then moves them aside with a report of what was refused.

Nothing in the inbox is ignored: what cannot be taken is moved to `refused/` with the reason. A file counts as taken when it has
been moved. Briefs that are there already are not added twice, so a crash in between loses nothing and doubles nothing.
How a file is read is the business of `intake`.
"""

from __future__ import annotations

import os
import shlex
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from os import stat_result
from pathlib import Path

from phantoms_dagster.domain.attention import Attention
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Brief, Channel
from phantoms_dagster.production.intake import Refusal, load, printable, read

# A file that was touched a moment ago may still be on its way into the folder.
QUIET_SECONDS = 2.0
# A name that says "still being written" is believed for this long after the last change.
ARRIVING_SECONDS = 3_600.0
_ARRIVING = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".swp")
# What operating systems and file servers leave in every folder. Nobody put it there, and it comes back.
_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".directory", "taken", "refused")
_SYSTEM_PREFIXES = ("._", ".nfs", ".fuse_hidden", ".Trash", ".~lock.")
_LONGEST_NAME_BYTES = 200
# Dagster ends a sensor's evaluation after a minute: a large file is taken in several, page by page.
LOOK_SECONDS = 20.0
PAGE = 2_000
# Reading that many takes ten seconds, each time.
MOST_BRIEFS = 30_000

Channels = Callable[[], Mapping[str, Channel]]
Add = Callable[[Sequence[Brief], str], tuple[int, int]]


@dataclass(frozen=True)
class InboxReport:
    """What became of one file. `taken` counts the briefs that were new; `known` those that were there already.

    `left`: briefs for the next look at the inbox. Then the file is still there, and `refused` is empty. `held`: see `Batch`.
    """

    file: str
    taken: int
    known: int
    refused: Sequence[Refusal]
    left: int = 0
    held: int = 0

    @property
    def rows_refused(self) -> int:
        """How many rows are not taken, whatever the reason."""
        return self.held + sum(not refusal.header for refusal in self.refused)


def take_inbox(
    inbox: Path,
    channels: Channels,
    add: Add,
    *,
    quiet_seconds: float = QUIET_SECONDS,
    arriving_seconds: float = ARRIVING_SECONDS,
    look_seconds: float = LOOK_SECONDS,
) -> list[InboxReport]:
    """Take every file at rest in `inbox`. `add` stores briefs under a source and returns how many were new and known.

    Files end up in `inbox/taken/` or, when something was refused, in `inbox/refused/` beside a `.errors.txt`. So do links,
    folders and files of other types, with the reason. A file that takes long to arrive is best written as `.name` or
    `name.part` and then renamed: such names are left alone for an hour after their last change, and refused then. A file
    that cannot be read or moved is reported each time and stays; the others are taken. After `look_seconds` the rest is left to
    the next call.
    """
    reports = []
    until = time.monotonic() + look_seconds
    for path in sorted(inbox.iterdir()) if inbox.is_dir() else []:
        if path.name in _SYSTEM or path.name.startswith(_SYSTEM_PREFIXES):
            continue
        try:
            report = _take(path, channels, add, quiet_seconds, arriving_seconds, until)
        except FileNotFoundError:
            continue  # another daemon took it, or a person took it back
        except OSError as error:
            report = _left(path, f"stays in the inbox: {error.strerror or error}")
        if report:
            reports.append(report)
        if time.monotonic() >= until:
            break
    return reports


def _take(  # noqa: PLR0917  all of them are those of `take_inbox`
    path: Path, channels: Channels, add: Add, quiet_seconds: float, arriving_seconds: float, until: float
) -> InboxReport | None:
    before = path.lstat()
    arriving = path.name.startswith((".", "~$")) or path.suffix.lower() in _ARRIVING
    # The change time, because copies may bring along the modification time of their original.
    if time.time() - before.st_ctime < (arriving_seconds if arriving else quiet_seconds):
        return None
    problem = _no_brief_file(before, arriving=arriving)
    if problem:
        return _put_aside(path, 0, 0, [_refusal(path, problem)])
    try:
        content = load(path)
    except InvalidInput as error:
        return _left(path, str(error))
    if _changed(before, path):
        return None
    batch = read(path.name, content, channels())
    if len(batch.accepted) > MOST_BRIEFS:
        most = (
            f"holds {len(batch.accepted):,} briefs, and an inbox file at most {MOST_BRIEFS:,}; split it, or use `phantoms import`"
        )
        return _put_aside(path, 0, 0, [_refusal(path, most)])
    new = known = done = 0
    while done < len(batch.accepted):
        page = batch.accepted[done : done + PAGE]
        added, there = add([row.brief for row in page], f"inbox:{printable(path.name, 200)}")
        new, known, done = new + added, known + there, done + len(page)
        if done < len(batch.accepted) and time.monotonic() >= until:
            return InboxReport(path.name, new, known, (), left=len(batch.accepted) - done)
    if _changed(before, path):
        return None  # still growing after all: the next look reads it whole, and knows what was added now
    return _put_aside(path, new, known, batch.refused, held=batch.held)


def _no_brief_file(found: stat_result, *, arriving: bool) -> str | None:
    """Why this cannot be a file with briefs, when it cannot. The next step is part of the reason."""
    if stat.S_ISDIR(found.st_mode):
        return "is a folder; put the files themselves into the inbox"
    if stat.S_ISLNK(found.st_mode):
        return "is a link; put the file itself into the inbox"
    if not stat.S_ISREG(found.st_mode):
        return "is not a regular file"
    if arriving:
        return "its name says that it is still being written, and it has not changed for an hour; rename it and put it back"
    return None


def _put_aside(path: Path, new: int, known: int, refused: Sequence[Refusal], *, held: int = 0) -> InboxReport:
    target = path.parent / ("refused" if refused else "taken")
    target.mkdir(exist_ok=True)
    place = _free(target / _short_name(path))
    if refused:
        errors = "".join(f"{refusal}\n" for refusal in refused)
        if held:
            rows = counted(held, "row has", "rows have")
            errors += f"{rows} no other fault: correct the names of the columns, then put the file back\n"
        place.with_name(place.name + ".errors.txt").write_text(errors, encoding="utf-8")
    path.rename(place)
    return InboxReport(path.name, new, known, refused, held=held)


def _short_name(path: Path) -> str:
    """The name, cut so that `-2` and `.errors.txt` still fit behind it: file systems take 255 bytes."""
    if len(os.fsencode(path.name)) <= _LONGEST_NAME_BYTES:
        return path.name
    suffix = path.suffix if len(os.fsencode(path.suffix)) < 16 else ""
    stem = os.fsencode(path.stem)[: _LONGEST_NAME_BYTES - len(os.fsencode(suffix))]
    return stem.decode("utf-8", errors="ignore") + suffix


def _changed(before: stat_result, path: Path) -> bool:
    now = path.lstat()
    return (before.st_ino, before.st_size, before.st_ctime_ns) != (now.st_ino, now.st_size, now.st_ctime_ns)


def _left(path: Path, reason: str) -> InboxReport:
    return InboxReport(path.name, 0, 0, [_refusal(path, reason)])


def _refusal(path: Path, reason: str) -> Refusal:
    return Refusal(printable(path.name, 1_000), 1, printable(reason, 300))


def _free(path: Path) -> Path:
    candidate, number = path, 2
    while os.path.lexists(candidate):  # a dangling link is there too
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


def refused_files(inbox: Path) -> list[Attention]:
    """The refused files that lie in the inbox until a person deletes them or puts them back, as one thing to look at."""
    refused = inbox / "refused"
    reports = sorted(refused.glob("*.errors.txt"), key=lambda path: path.stat().st_mtime) if refused.is_dir() else []
    if not reports:
        return []
    files = counted(len(reports), "file of the inbox was", "files of the inbox were")
    name = printable(reports[-1].name, 200)
    what = f"{files} refused, in part or as a whole; the newest report is {name}"
    since = datetime.fromtimestamp(reports[0].stat().st_mtime, UTC)
    # Another file is news again.
    return [
        Attention(
            f"inbox:{name}",
            what,
            f"read {shlex.quote(str(refused))}, put the corrected files back, delete the old ones",
            since,
            len(reports),
        )
    ]
