"""Formats times in the reader's time zone, with the zone's name: without it a time is misread once it is copied elsewhere."""

from __future__ import annotations

import os
import re
import time
from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_SOON = timedelta(hours=20)
# A POSIX time zone rule, such as `CET-1CEST` or `<-03>3`: name, offset and more.
_RULE = re.compile(r":?(?:[A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)[+-]?\d.*")


def local(moment: datetime | None) -> str:
    """Format as `2026-11-26 10:40 CET`; empty for None."""
    if moment is None:
        return ""
    there = moment.astimezone()
    return f"{there:%Y-%m-%d %H:%M} {zone(there)}"


def exact(moment: datetime) -> str:
    """Format as `2026-11-26 10:40:07 CET`."""
    there = moment.astimezone()
    return f"{there:%Y-%m-%d %H:%M:%S} {zone(there)}"


def soon(moment: datetime, now: datetime | None = None) -> str:
    """Format as `10:40 CET` when it is within 20 hours of now; else with the date."""
    there = moment.astimezone()
    near = abs(moment - (now or datetime.now(UTC))) < _SOON
    return f"{there:%H:%M} {zone(there)}" if near else local(moment)


def zone(there: datetime) -> str:
    """Return the zone's name. Zones that have only a number are shown as an offset: `UTC-03`."""
    name = "UTC" if unknown_zone() else there.tzname() or "UTC"
    return f"UTC{name}" if name[:1] in "+-" else name


def unknown_zone() -> str | None:
    """Return the value of TZ when this system does not know that time zone, else None.

    Times are then really UTC, although the system labels them with the unknown name.
    """
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
    # Python may know a zone that the system's C library does not.
    return given if there.utcoffset() != timedelta(seconds=time.localtime().tm_gmtoff) else None
