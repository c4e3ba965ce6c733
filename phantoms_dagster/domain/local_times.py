"""Local times, as people write them. In many time zones, two days a year have 23 or 25 hours."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from phantoms_dagster.domain.errors import InvalidInput


def read_local(written: str, zone: str, *, later: bool = False) -> datetime:
    """Convert a local time such as `2026-12-24T18:00` in that zone to UTC. When it happens twice, `later` selects the second.

    Raises InvalidInput for anything else, and for a time that the clocks skip. The message then names the time that follows.
    """
    try:
        wall = datetime.fromisoformat(written.strip())
    except ValueError:
        wall = None
    if wall is None or wall.tzinfo is not None or not 1971 <= wall.year <= 9998:
        raise InvalidInput(f"{written.strip()[:40]!r} is not a date with a time; write it like 2026-12-24T18:00")
    wall = wall.replace(second=0, microsecond=0)
    moment = wall.replace(tzinfo=ZoneInfo(zone), fold=int(later)).astimezone(UTC)
    back = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    if back != wall:
        # With fold 0 a skipped time uses the offset from before the change, which gives the time that clocks show instead.
        shown = wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).astimezone(ZoneInfo(zone))
        raise InvalidInput(f"the clocks of {zone} skip {wall:%H:%M} on {wall:%Y-%m-%d}; the time after it is {shown:%H:%M}")
    return moment


def happens_twice(wall: datetime, zone: str) -> bool:
    """Whether the local time happens twice in that zone, because clocks are set back. `wall` has no time zone."""
    first, second = (wall.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() for fold in (0, 1))
    return first is not None and second is not None and first > second


def is_skipped(wall: datetime, zone: str) -> bool:
    """Whether clocks in that zone skip the local time, because they are set forward. `wall` has no time zone."""
    first, second = (wall.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() for fold in (0, 1))
    return first is not None and second is not None and first < second


def start_of_day(day: date, zone: str, *, after: int = 0) -> datetime:
    """Local midnight of that day in the zone, or of the day `after` days later, in UTC."""
    wall = datetime.combine(day, time()) + timedelta(days=after)
    return wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
