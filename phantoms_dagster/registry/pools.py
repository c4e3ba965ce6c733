"""Pools: the limits of external services. The numbers are in the record of each platform and provider."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import NamedTuple
from zoneinfo import ZoneInfo

PACIFIC = "America/Los_Angeles"
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0


class Rate(NamedTuple):
    """At most `calls` in any period of `seconds`, and at most `burst` of them at once. The others are spread evenly."""

    calls: int
    seconds: float
    burst: int


@dataclass(frozen=True, slots=True)
class DailyQuota:
    """`units` per calendar day in the provider's own time zone. Two days a year have 23 or 25 hours."""

    units: int
    zone: str = "UTC"

    def midnights(self, now: datetime) -> list[int]:
        """Return when the days around `now` (aware) start, from two days before to three days after, in seconds since the epoch."""
        zone = ZoneInfo(self.zone)
        today = now.astimezone(zone).date()
        days = (today + timedelta(days=n) for n in range(-2, 4))
        # Local midnight, which is not always 24 hours after the last one.
        return [int(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).timestamp()) for day in days]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """All limits of one pool. `slots`: calls in flight (None: no limit). `rates`: each is `(calls, seconds, burst)`.

    When the holder of a slot dies, the slot is free again after `lease_seconds`. `shares`: these calls also use the daily quota of
    that other pool. They leave the last `leaves` units of it to that pool's own calls.
    """

    slots: int | None = None
    rates: tuple[Rate | tuple[int, float, int], ...] = ()
    daily: DailyQuota | None = None
    lease_seconds: float = 30.0
    shares: str | None = None
    leaves: int = 0

    def __post_init__(self) -> None:
        """Refuse limits that would block every call forever, or that would limit nothing."""
        if self.slots is not None and self.slots < 1:
            raise ValueError("a pool needs at least one slot")
        for calls, seconds, burst in self.rates:
            if calls < 1 or seconds <= 0 or not 1 <= burst <= calls:
                raise ValueError(f"not a valid rate: {calls} calls in {seconds} s, {burst} at once")
        if self.daily is not None and self.daily.units < 0:
            raise ValueError("a quota cannot be negative")
        if self.leaves < 0:
            raise ValueError("`leaves` cannot be negative")
        if self.lease_seconds <= 0:
            raise ValueError("a lease must last longer than 0 seconds")
