"""Writes calendars for other programs: iCalendar, RFC 5545. Pure functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

# Octets of a line, without its end.
LONGEST_LINE = 75
_ESCAPES = str.maketrans({"\\": "\\\\", ";": "\\;", ",": "\\,", "\n": "\\n"})


@dataclass(frozen=True)
class CalendarEvent:
    """One event. `uid` is the same in every version of it, and `sequence` grows with each change. `url` may be empty."""

    uid: str
    at: datetime
    duration: timedelta
    summary: str
    description: str
    status: Literal["TENTATIVE", "CONFIRMED", "CANCELLED"]
    category: str
    changed_at: datetime
    sequence: int = 0
    url: str = ""


def written_calendar(name: str, events: Sequence[CalendarEvent], *, refresh: timedelta) -> bytes:
    """The text of a calendar to subscribe to. Times are in UTC, so no time zone has to be described.

    The same events give the same bytes.
    """
    every = f"PT{int(refresh.total_seconds()) // 60}M"
    lines = [
        "BEGIN:VCALENDAR",
        "VERSION:2.0",
        "PRODID:-//Phantoms//Calendar//EN",
        f"NAME:{_text(name)}",
        f"X-WR-CALNAME:{_text(name)}",
        f"REFRESH-INTERVAL;VALUE=DURATION:{every}",
        f"X-PUBLISHED-TTL:{every}",
    ]
    for event in events:
        lines += _event(event)
    lines.append("END:VCALENDAR")
    return b"".join(_folded(line) for line in lines)


def _event(event: CalendarEvent) -> Iterator[str]:
    yield "BEGIN:VEVENT"
    yield f"UID:{_text(event.uid)}"
    yield f"DTSTAMP:{_time(event.changed_at)}"
    yield f"LAST-MODIFIED:{_time(event.changed_at)}"
    yield f"SEQUENCE:{event.sequence}"
    yield f"DTSTART:{_time(event.at)}"
    yield f"DURATION:PT{int(event.duration.total_seconds()) // 60}M"
    yield f"SUMMARY:{_text(event.summary)}"
    yield f"DESCRIPTION:{_text(event.description)}"
    if event.url:
        yield f"URL:{event.url}"
    yield f"STATUS:{event.status}"
    yield f"CATEGORIES:{_text(event.category)}"
    yield "TRANSP:TRANSPARENT"
    yield "END:VEVENT"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _text(value: str) -> str:
    """Escape a text, and leave out control characters, which no text may have."""
    lines = "\n".join(value.splitlines())
    return "".join(sign for sign in lines if sign == "\n" or sign.isprintable() or sign > "\x9f").translate(_ESCAPES)


def _folded(line: str) -> bytes:
    """A line with its end. A long one continues on lines that begin with a space. No character is split."""
    parts = [b""]
    room = LONGEST_LINE
    for sign in line:
        octets = sign.encode()
        if len(parts[-1]) + len(octets) > room:
            parts.append(b"")
            room = LONGEST_LINE - 1  # for the space
        parts[-1] += octets
    return b"\r\n ".join(parts) + b"\r\n"
