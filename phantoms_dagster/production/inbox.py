"""The inbox folder: the sensor imports files with briefs and moves them aside with a report of what was refused.

Nothing in the inbox is ignored: a file that cannot be imported is moved to `refused/` with the reason. A file counts as imported
when it has been moved. Existing briefs are not added twice, so a crash in between neither loses nor duplicates anything. `intake`
parses the files.
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

# A file that changed a moment ago may still be being copied into the folder.
QUIET_SECONDS = 2.0
# A file whose name says that it is still being written is left alone for this long after its last change.
ARRIVING_SECONDS = 3_600.0
_ARRIVING = (".part", ".partial", ".tmp", ".temp", ".crdownload", ".download", ".filepart", ".swp")
# Files that operating systems and file servers create in every folder, again and again.
_SYSTEM = (".DS_Store", "Thumbs.db", "desktop.ini", ".gitkeep", ".directory", "taken", "refused")
_SYSTEM_PREFIXES = ("._", ".nfs", ".fuse_hidden", ".Trash", ".~lock.")
_LONGEST_NAME_BYTES = 200
# Dagster ends a sensor's evaluation after a minute, so a large file is imported page by page over several evaluations.
LOOK_SECONDS = 20.0
PAGE = 2_000
# Reading this many briefs takes ten seconds, each time.
MOST_BRIEFS = 30_000

Channels = Callable[[], Mapping[str, Channel]]
Add = Callable[[Sequence[Brief], str], tuple[int, int]]


@dataclass(frozen=True)
class InboxReport:
    """The result of importing one file. `taken`: the number of new briefs. `known`: the number of briefs that existed already.

    `left`: briefs left for the next call. Then the file is still in the inbox and `refused` is empty. `held`: see `Batch`.
    """

    file: str
    taken: int
    known: int
    refused: Sequence[Refusal]
    left: int = 0
    held: int = 0

    @property
    def rows_refused(self) -> int:
        """How many rows were not imported, for any reason."""
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
    """Import every file in `inbox` that is completely written. `add` stores briefs under a source and returns (new, known) counts.

    Files are moved to `inbox/taken/` or, when something was refused, to `inbox/refused/` with an `.errors.txt`. Links, folders and
    files of other types are refused with the reason. Large files are best written as `.name` or `name.part` and then renamed: such
    names are left alone for an hour after their last change and refused after that. A file that cannot be read or moved stays and
    is reported each time; the others are imported. After `look_seconds` the rest is left for the next call.
    """
    reports = []
    until = time.monotonic() + look_seconds
    for path in sorted(inbox.iterdir()) if inbox.is_dir() else []:
        if path.name in _SYSTEM or path.name.startswith(_SYSTEM_PREFIXES):
            continue
        try:
            report = _take(path, channels, add, quiet_seconds, arriving_seconds, until)
        except FileNotFoundError:
            continue  # another process imported it, or a person removed it
        except OSError as error:
            report = _left(path, f"stays in the inbox: {error.strerror or error}")
        if report:
            reports.append(report)
        if time.monotonic() >= until:
            break
    return reports


def _take(  # noqa: PLR0917  the arguments are those of `take_inbox`
    path: Path, channels: Channels, add: Add, quiet_seconds: float, arriving_seconds: float, until: float
) -> InboxReport | None:
    before = path.lstat()
    arriving = path.name.startswith((".", "~$")) or path.suffix.lower() in _ARRIVING
    # The change time, because a copy may keep the modification time of its original.
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
        return None  # it is still growing: the next call reads all of it, and briefs added now are known then
    return _put_aside(path, new, known, batch.refused, held=batch.held)


def _no_brief_file(found: stat_result, *, arriving: bool) -> str | None:
    """Why this cannot be a file with briefs, with the next step; None when it can be one."""
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
    destination = _free(target / _short_name(path))
    if refused:
        errors = "".join(f"{refusal}\n" for refusal in refused)
        if held:
            rows = counted(held, "row has", "rows have")
            errors += f"{rows} no other mistake: correct the column names, then put the file back\n"
        destination.with_name(destination.name + ".errors.txt").write_text(errors, encoding="utf-8")
    path.rename(destination)
    return InboxReport(path.name, new, known, refused, held=held)


def _short_name(path: Path) -> str:
    """The name, shortened so that `-2` and `.errors.txt` still fit after it. File systems allow 255 bytes."""
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
    while os.path.lexists(candidate):  # true for a dangling link, too
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


def refused_files(inbox: Path) -> list[Attention]:
    """The refused files in the inbox, as one item that waits until a person deletes them or puts them back."""
    refused = inbox / "refused"
    reports = sorted(refused.glob("*.errors.txt"), key=lambda path: path.stat().st_mtime) if refused.is_dir() else []
    if not reports:
        return []
    files = counted(len(reports), "file of the inbox was", "files of the inbox were")
    name = printable(reports[-1].name, 200)
    what = f"{files} refused, in part or as a whole; the newest report is {name}"
    since = datetime.fromtimestamp(reports[0].stat().st_mtime, UTC)
    # The id names the newest report, so that another refused file is reported again.
    return [
        Attention(
            f"inbox:{name}",
            what,
            f"read {shlex.quote(str(refused))}, put the corrected files back, delete the old ones",
            since,
            len(reports),
        )
    ]
