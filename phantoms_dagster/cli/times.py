"""Times as the reader's wall shows them, with the name of the zone: a time without one is read wrongly in a log or a chat."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SOON = timedelta(hours=20)
# A rule in POSIX words, such as `CET-1CEST` or `<-03>3`: name, offset and more.
_RULE = re.compile(r":?(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)[+-]?\d.*")


def local(moment: datetime | None) -> str:
    """`2026-11-26 10:40 CET`; empty for no time."""
    if moment is None:
        return ""
    there = moment.astimezone()
    return f"{there:%Y-%m-%d %H:%M} {zone(there)}"


def exact(moment: datetime) -> str:
    """`2026-11-26 10:40:07 CET`."""
    there = moment.astimezone()
    return f"{there:%Y-%m-%d %H:%M:%S} {zone(there)}"


def soon(moment: datetime, now: datetime | None = None) -> str:
    """`10:40 CET` when that is clear, within 20 hours; else with the day."""
    there = moment.astimezone()
    near = abs(moment - (now or datetime.now(UTC))) < _SOON
    return f"{there:%H:%M} {zone(there)}" if near else local(moment)


def zone(there: datetime) -> str:
    """The zone's name. Zones without letters say how far they are from UTC: `UTC-03`."""
    name = "UTC" if unknown_zone() else there.tzname() or "UTC"
    return f"UTC{name}" if name[:1] in "+-" else name


def unknown_zone() -> str | None:
    """What TZ says when this system knows no such time zone. Times are then in UTC, and the system would call them by that name."""
    return _unknown(os.environ.get("TZ", ""))


@cache
def _unknown(given: str) -> str | None:
    name = given.removeprefix(":")
    if not name or _RULE.fullmatch(given) or name.startswith("/"):
        return None
    try:
        there = datetime.now(ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return given
    # Python may know zones that the system does not.
    return given if there.utcoffset() != timedelta(seconds=time.localtime().tm_gmtoff) else None
