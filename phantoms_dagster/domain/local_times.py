"""Times that people write by the clock on their wall, in a time zone whose days have 23 or 25 hours twice a year."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from phantoms_dagster.domain.errors import InvalidInput


def read_local(written: str, zone: str, *, later: bool = False) -> datetime:
    """The moment, in UTC, of `2026-12-24T18:00` in that zone. A time that happens twice: the first one, or with `later` the second.

    Raises InvalidInput for what is no such time, and for one that the clocks skip; the message names the next one.
    """
    try:
        wall = datetime.fromisoformat(written.strip())
    except ValueError:
        wall = None
    if wall is None or wall.tzinfo is not None or not 1971 <= wall.year <= 9998:
        raise InvalidInput(f"{written.strip()[:40]!r} is no date with a time; write it like 2026-12-24T18:00")
    wall = wall.replace(second=0, microsecond=0)
    moment = wall.replace(tzinfo=ZoneInfo(zone), fold=int(later)).astimezone(UTC)
    back = moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    if back != wall:
        # With fold 0 a skipped time is read by the clock of before the change, which gives the time that clocks show instead.
        shown = wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC).astimezone(ZoneInfo(zone))
        raise InvalidInput(f"the clocks of {zone} skip {wall:%H:%M} on {wall:%Y-%m-%d}; the time after it is {shown:%H:%M}")
    return moment


def happens_twice(wall: datetime, zone: str) -> bool:
    """Whether a time without a zone happens twice there, because clocks are set back."""
    first, second = (wall.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() for fold in (0, 1))
    return first is not None and second is not None and first > second


def is_skipped(wall: datetime, zone: str) -> bool:
    """Whether clocks never show a time without a zone there, because they are set forward."""
    first, second = (wall.replace(tzinfo=ZoneInfo(zone), fold=fold).utcoffset() for fold in (0, 1))
    return first is not None and second is not None and first < second


def start_of_day(day: date, zone: str, *, after: int = 0) -> datetime:
    """Midnight by the wall, in UTC, of that day of the zone, or of the day that is `after` days later."""
    wall = datetime.combine(day, time()) + timedelta(days=after)
    return wall.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
