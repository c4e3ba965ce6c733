"""The inbox folder: files with briefs are taken, then moved aside with a report of what was refused.

A file counts as taken when it has been moved; briefs that are there already are not added twice, so a crash in between
loses nothing and doubles nothing. How a file is read belongs in `intake`.
"""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from os import stat_result
from pathlib import Path

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Brief, Channel
from phantoms_dagster.production.intake import SUFFIXES, Refusal, load, printable, read

# A file that was touched a moment ago may still be on its way into the folder.
QUIET_SECONDS = 2.0

Channels = Callable[[], Mapping[str, Channel]]
Add = Callable[[Sequence[Brief], str], tuple[int, int]]


@dataclass(frozen=True)
class InboxReport:
    """What became of one file. `taken` counts the briefs that were new; `known` those that were there already."""

    file: str
    taken: int
    known: int
    refused: Sequence[Refusal]


def take_inbox(inbox: Path, channels: Channels, add: Add, *, quiet_seconds: float = QUIET_SECONDS) -> list[InboxReport]:
    """Take every file at rest in `inbox`. `add` stores briefs under a source and returns how many were new and known.

    Files end up in `inbox/taken/` or, when something was refused, in `inbox/refused/` beside a `.errors.txt`. A file that
    cannot be read or moved is reported each time and stays; the others are taken. Hidden files, links, folders and other
    types are left alone, so a file that takes long to arrive is best written as `.name` or `name.part` and then renamed.
    """
    reports = []
    for path in sorted(inbox.iterdir()) if inbox.is_dir() else []:
        if path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        try:
            report = _take(path, channels, add, quiet_seconds)
        except FileNotFoundError:
            continue  # another daemon took it, or a person took it back
        except OSError as error:
            report = _left(path, f"stays in the inbox: {error.strerror or error}")
        if report:
            reports.append(report)
    return reports


def _take(path: Path, channels: Channels, add: Add, quiet_seconds: float) -> InboxReport | None:
    before = path.lstat()
    # The change time, because copies may bring along the modification time of their original.
    if not stat.S_ISREG(before.st_mode) or time.time() - before.st_ctime < quiet_seconds:
        return None
    try:
        content = load(path)
    except InvalidInput as error:
        return _left(path, str(error))
    if _changed(before, path):
        return None
    batch = read(path.name, content, channels())
    new, known = add([a.brief for a in batch.accepted], f"inbox:{printable(path.name, 200)}") if batch.accepted else (0, 0)
    if _changed(before, path):
        return None  # still growing after all: the next look reads it whole, and knows what was added now
    target = path.parent / ("refused" if batch.refused else "taken")
    target.mkdir(exist_ok=True)
    place = _free(target / path.name)
    if batch.refused:
        errors = "".join(f"{refusal}\n" for refusal in batch.refused)
        place.with_name(place.name + ".errors.txt").write_text(errors, encoding="utf-8")
    path.rename(place)
    return InboxReport(path.name, new, known, batch.refused)


def _changed(before: stat_result, path: Path) -> bool:
    now = path.lstat()
    return (before.st_ino, before.st_size, before.st_ctime_ns) != (now.st_ino, now.st_size, now.st_ctime_ns)


def _left(path: Path, reason: str) -> InboxReport:
    return InboxReport(path.name, 0, 0, [Refusal(printable(path.name, 1_000), 1, printable(reason, 300))])


def _free(path: Path) -> Path:
    candidate, number = path, 2
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate
