"""The limits of other people's services: what a pool is. The numbers are where the service is known: a platform's in its rules."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

PACIFIC = "America/Los_Angeles"
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0


class Rate(NamedTuple):
    """Never more than `calls` in any `seconds`, and no more than `burst` of them at once: the rest is spread evenly."""

    calls: int
    seconds: float
    burst: int


@dataclass(frozen=True, slots=True)
class DailyQuota:
    """`units` a calendar day of the provider's own time zone, whose days last 23 or 25 hours twice a year."""

    units: int
    zone: str = "UTC"

    def midnights(self, now: datetime) -> list[int]:
        """The starts of the days around `now` (aware), in seconds since the epoch: two days before to three after."""
        zone = ZoneInfo(self.zone)
        today = now.astimezone(zone).date()
        days = (today + timedelta(days=n) for n in range(-2, 4))
        # Midnight by the wall, not 24 hours later: only the zone knows how long a day is.
        return [int(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).timestamp()) for day in days]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """All limits of one pool. `slots`: calls in flight (None: any number); `rates`: `(calls, seconds, burst)` each.

    A dead holder's slot comes back after `lease_seconds`. `shares`: another pool whose daily quota these calls use, too; they
    stop while less than `leaves` of it would be left, which is then there for that pool's own calls.
    """

    slots: int | None = None
    rates: tuple[Rate | tuple[int, float, int], ...] = ()
    daily: DailyQuota | None = None
    lease_seconds: float = 30.0
    shares: str | None = None
    leaves: int = 0

    def __post_init__(self) -> None:
        """Refuse limits that would let nothing through for ever, or everything."""
        if self.slots is not None and self.slots < 1:
            raise ValueError("a pool has at least one slot")
        for calls, seconds, burst in self.rates:
            if calls < 1 or seconds <= 0 or not 1 <= burst <= calls:
                raise ValueError(f"no rate: {calls} calls in {seconds} s, {burst} at once")
        if self.daily is not None and self.daily.units < 0:
            raise ValueError("a quota cannot be negative")
        if self.leaves < 0:
            raise ValueError("what is left to others cannot be negative")
        if self.lease_seconds <= 0:
            raise ValueError("a lease lasts some time")
