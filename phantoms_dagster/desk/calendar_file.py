"""Writes calendars for other programs: iCalendar, RFC 5545."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal


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
    # Few desks have a feed, and the library takes a tenth of a second and 10 MB.
    from icalendar import Calendar, Event, vDuration  # noqa: PLC0415

    calendar = Calendar()
    calendar.add("version", "2.0")
    calendar.add("prodid", "-//Phantoms//Calendar//EN")
    calendar.add("name", _text(name))
    calendar.add("x-wr-calname", _text(name))
    calendar.add("refresh-interval", vDuration(refresh), parameters={"VALUE": "DURATION"})
    calendar.add("x-published-ttl", vDuration(refresh))
    for one in events:
        event = Event()
        event.add("uid", _text(one.uid))
        event.add("dtstamp", one.changed_at.astimezone(UTC))
        event.add("last-modified", one.changed_at.astimezone(UTC))
        event.add("sequence", one.sequence)
        event.add("dtstart", one.at.astimezone(UTC))
        event.add("duration", one.duration)
        event.add("summary", _text(one.summary))
        event.add("description", _text(one.description))
        if one.url:
            event.add("url", one.url)
        event.add("status", one.status)
        event.add("categories", [_text(one.category)])
        event.add("transp", "TRANSPARENT")
        calendar.add_component(event)
    return bytes(calendar.to_ical(sorted=False))


def _text(value: str) -> str:
    """Leave out control characters, which no text of a calendar may have. Every kind of line break becomes the same one."""
    lines = "\n".join(value.splitlines())
    return "".join(sign for sign in lines if sign == "\n" or sign.isprintable() or sign > "\x9f")
