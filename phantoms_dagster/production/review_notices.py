"""Notices of films that wait for approval: when one is due, and how it is worded. Pure: no clock, no table, no network.

Films that become ready within a while are told of together. What still waits after a set time is told of again, in one reminder.
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
    """A film that waits for a decision since `ready_at`. `told_at`: when this destination was told of it last; None: never."""

    id: int
    key: str
    title: str
    channel: str
    publish_at: datetime | None
    ready_at: datetime
    told_at: datetime | None


@dataclass(frozen=True)
class Due:
    """What a destination is told now: films that are new to it, or a reminder of those that still wait."""

    films: tuple[WaitingFilm, ...]
    reminder: bool = False


def due(films: Sequence[WaitingFilm], now: datetime, *, group_for: timedelta, remind: timedelta) -> Due | None:
    """What is to be told now, if anything. `group_for`: how long the first film waits for others; `remind` zero: no reminders."""
    new = tuple(film for film in films if film.told_at is None)
    if new and min(film.ready_at for film in new) <= now - group_for:
        return Due(new)
    told = [(film, film.told_at) for film in films if film.told_at is not None]
    if remind and told and min(at for _, at in told) <= now - remind:
        return Due(tuple(film for film, _ in told), reminder=True)
    return None


def message(found: Due, desk_url: str) -> Message:
    """The one message, with a link that opens each film at the desk."""
    desk, count = desk_url.rstrip("/"), len(found.films)
    films = counted(count, "film")
    if found.reminder:
        title = f"Phantoms: reminder, {films} still {'waits' if count == 1 else 'wait'} for approval"
        oldest = min(film.ready_at for film in found.films)
        lines = [f"The longest since {_time(oldest)}."]
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
