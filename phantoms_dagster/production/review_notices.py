"""Review notices: messages about videos that wait for approval. Decides when one is due and what it says. Pure functions.

Videos that become ready within a short time share one message. Videos that still wait after a set time get one reminder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from phantoms_dagster.domain.counting import counted
from phantoms_dagster.production.alerts import Message, one_line

SHOWN_FILMS = 20


@dataclass(frozen=True)
class WaitingFilm:
    """A video that has waited for a decision since `ready_at`.

    `told_at`: this destination's last message about it; None: none yet.
    """

    id: int
    key: str
    title: str
    channel: str
    publish_at: datetime | None
    ready_at: datetime
    told_at: datetime | None


@dataclass(frozen=True)
class DueNotice:
    """The notice that a destination gets now: videos that are new to it, or a reminder of those that still wait."""

    films: tuple[WaitingFilm, ...]
    reminder: bool = False


def due(films: Sequence[WaitingFilm], now: datetime, *, group_for: timedelta, remind: timedelta) -> DueNotice | None:
    """The notice that is due now, or None. `group_for`: how long the first video waits for others.

    `remind` of zero: no reminders.
    """
    new = tuple(film for film in films if film.told_at is None)
    if new and min(film.ready_at for film in new) <= now - group_for:
        return DueNotice(new)
    told = [(film, film.told_at) for film in films if film.told_at is not None]
    if remind and told and min(at for _, at in told) <= now - remind:
        return DueNotice(tuple(film for film, _ in told), reminder=True)
    return None


def message(found: DueNotice, desk_url: str) -> Message:
    """The message, with a link to each video's review page at the desk."""
    desk, count = desk_url.rstrip("/"), len(found.films)
    films = counted(count, "film")
    if found.reminder:
        title = f"Phantoms: reminder, {films} still {'waits' if count == 1 else 'wait'} for approval"
        oldest = min(film.ready_at for film in found.films)
        lines = [f"The oldest has waited since {_time(oldest)}."]
    else:
        title, lines = f"Phantoms: {films} {'waits' if count == 1 else 'wait'} for approval", []
    for film in found.films[:SHOWN_FILMS]:
        slot = f", goes out {_time(film.publish_at)}" if film.publish_at else ""
        lines += [f"{one_line(film.title)} ({film.channel}){slot}", f"  {desk}/review/{film.key}"]
    if count > SHOWN_FILMS:
        lines.append(f"... and {count - SHOWN_FILMS} more")
    lines += ["", f"All: {desk}/review"]
    return Message(title, "\n".join(lines), urgent=found.reminder)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
