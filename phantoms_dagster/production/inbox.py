"""The inbox folder: files with briefs are taken, then moved aside with a report of what was refused.

A file counts as taken when it has been moved; briefs that are there already are not added twice, so a crash in between
loses nothing and doubles nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from phantoms_dagster.domain.models import Brief, Channel
from phantoms_dagster.production.intake import SUFFIXES, Refusal, read

# A file that was touched a moment ago may still be on its way into the folder.
QUIET_SECONDS = 1.0


@dataclass(frozen=True)
class InboxReport:
    """What became of one file. `taken` counts the briefs that were new; `known` those that were there already."""

    file: str
    taken: int
    known: int
    refused: Sequence[Refusal]


def take_inbox(
    inbox: Path, channels: Callable[[], Mapping[str, Channel]], add: Callable[[Sequence[Brief], str], tuple[int, int]]
) -> list[InboxReport]:
    """Take every file at rest in `inbox`. `add` stores briefs under a source and returns how many were new and known.

    Files end up in `inbox/taken/` or, when something was refused, in `inbox/refused/` beside a `.errors.txt`.
    """
    if not inbox.is_dir():
        return []
    reports = []
    for path in sorted(inbox.iterdir()):
        if not path.is_file() or path.name.startswith(".") or path.suffix.lower() not in SUFFIXES:
            continue
        if time.time() - path.stat().st_mtime < QUIET_SECONDS:
            continue
        batch = read(path.name, path.read_bytes(), channels())
        new, known = add([a.brief for a in batch.accepted], f"inbox:{path.name}")
        target = inbox / ("refused" if batch.refused else "taken")
        target.mkdir(exist_ok=True)
        place = _free(target / path.name)
        if batch.refused:
            place.with_name(place.name + ".errors.txt").write_text("".join(f"{r}\n" for r in batch.refused), encoding="utf-8")
        path.rename(place)
        reports.append(InboxReport(path.name, new, known, batch.refused))
    return reports


def _free(path: Path) -> Path:
    candidate, number = path, 2
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate
