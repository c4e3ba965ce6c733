"""Posting slots: the times of the week at which a channel posts, and the next one that is free.

Pure functions. `store.bookings` books slots, and a booking is what says when a post goes out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal, Self, TypeAlias, get_args
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, Field, model_validator

from phantoms_dagster.domain.problems import MisplacedError
from phantoms_dagster.domain.values import Value
from phantoms_dagster.registry.platforms import Platform

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = get_args(Day)
# `PostingSlot` has a field called `time`.
TimeOfDay: TypeAlias = time
MissedPolicy = Literal["post", "next", "ask"]

# How far ahead a free slot is looked for.
HORIZON_DAYS = 400
# A slot is missed when its post has not begun this long after it. Until then the post is only late, and goes out.
GRACE = timedelta(minutes=30)
_DAY = timedelta(days=1)
_MINUTE = timedelta(minutes=1)


def booking_stamp(at: datetime | None, state: str) -> str:
    """What identifies a booking as a person saw it: its time and whether it waits for a person. Empty without a booking."""
    return "" if at is None else f"{at.astimezone(UTC).isoformat()} {state or 'booked'}"


def _clock_time(written: object) -> object:
    """Accept 9:05 for 09:05."""
    return written.strip().zfill(5) if isinstance(written, str) else written


def _day(written: object) -> object:
    return written.strip().casefold()[:3] if isinstance(written, str) and written.strip().casefold() in _DAY_NAMES else written


_DAY_NAMES = {
    name for day in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday") for name in (day, day[:3])
}


class PostingSlot(Value):
    """A time at which a channel posts, in its time zone. Without `days` it is every day, without `platforms` all of them."""

    time: Annotated[str, BeforeValidator(_clock_time)]
    days: tuple[Annotated[Day, BeforeValidator(_day)], ...] = DAYS
    platforms: tuple[Platform, ...] = ()

    @model_validator(mode="after")
    def _is_a_time(self) -> Self:
        try:
            read = time.fromisoformat(self.time)
        except ValueError:
            read = None
        if read is None or len(self.time) != len("18:30") or read.tzinfo is not None:
            raise MisplacedError(("time",), f"{self.time[:20]!r} is not a time of day; write it with hours and minutes, like 18:30")
        if not self.days:
            raise MisplacedError(("days",), "name at least one day, or remove this line for every day")
        return self

    @property
    def clock(self) -> TimeOfDay:
        """The local time."""
        return time.fromisoformat(self.time)

    def serves(self, platform: Platform) -> bool:
        """Whether posts on that platform may take it."""
        return not self.platforms or platform in self.platforms


class RepeatRule(Value):
    """Which posts repeat an earlier one of their account: the same file, or words that are alike, within `days` days.

    `percent`: how alike the words must be. 0 days: nothing is compared.
    """

    days: Annotated[int, Field(ge=0, le=365)] = 0
    percent: Annotated[int, Field(ge=50, le=100)] = 85


@dataclass(frozen=True)
class DayLimit:
    """A platform's limit: `posts` per calendar day in `zone`, or, without a zone, per account in any 24 hours."""

    posts: int
    zone: str | None = None


@dataclass(frozen=True)
class PlannedPost:
    """Another post on the platform, published or planned."""

    account: str
    at: datetime


@dataclass(frozen=True)
class FreeSlot:
    """A free slot. `full`: the quotas for which earlier free times were passed over, in words."""

    at: datetime
    full: tuple[str, ...] = ()


def instant(day: date, clock: time, zone: str) -> datetime:
    """The UTC time of a local time on that day.

    A time that the clocks skip is the first instant after the gap. A time that happens twice is the first of the two.
    """
    wall = datetime.combine(day, clock)
    tz = ZoneInfo(zone)
    early, late = (wall.replace(tzinfo=tz, fold=fold).astimezone(UTC) for fold in (1, 0))
    if early >= late:  # every time but a skipped one
        return late
    # The clocks change between the two. Both have whole minutes, and so do the changes of our time.
    offset = early.astimezone(tz).utcoffset()
    while late - early > _MINUTE:
        middle = early + ((late - early) // 2 // _MINUTE) * _MINUTE
        early, late = (middle, late) if middle.astimezone(tz).utcoffset() == offset else (early, middle)
    return late


def slot_times(slots: Collection[PostingSlot], platform: Platform, zone: str, after: datetime) -> Iterator[datetime]:
    """Yield the slots' times after `after` in order, in UTC, for HORIZON_DAYS. Two slots at one time are yielded once."""
    first = after.astimezone(ZoneInfo(zone)).date()
    for number in range(HORIZON_DAYS):
        day = first + timedelta(days=number)
        name = DAYS[day.weekday()]
        found = {instant(day, slot.clock, zone) for slot in slots if slot.serves(platform) and name in slot.days}
        yield from sorted(at for at in found if at > after)


def next_free(
    times: Iterator[datetime],
    platform: Platform,
    account: str,
    *,
    others: Sequence[PlannedPost],
    distance: timedelta,
    limits: Sequence[DayLimit],
) -> FreeSlot | None:
    """The first of `times` that has its distance to the account's other posts and fits into the quotas; None if none does.

    `others`: all posts of the platform around these times. A quota counts what is planned as if it were used.
    """
    quotas = [Quota(limit, account, others) for limit in limits]
    mine = sorted(other.at for other in others if other.account == account)
    full: dict[str, None] = {}
    for at in times:
        if _too_close(mine, at, distance):
            continue
        passed = [said for quota in quotas if (said := quota.full_at(at, platform)) is not None]
        if not passed:
            return FreeSlot(at, tuple(full))
        full.update(dict.fromkeys(passed))
    return None


def earliest_at_distance(account: str, at: datetime, *, others: Sequence[PlannedPost], distance: timedelta) -> datetime:
    """The first time at or after `at` that has its distance to all other posts of the account."""
    mine = sorted(other.at for other in others if other.account == account)
    distance = max(distance, _MINUTE)
    while _too_close(mine, at, distance):
        at = mine[bisect_right(mine, at - distance)] + distance
    return at


def _too_close(times: Sequence[datetime], at: datetime, distance: timedelta) -> bool:
    """Whether one of the sorted `times` is `at`, or nearer to it than `distance`."""
    after = bisect_left(times, at)
    return (after < len(times) and (times[after] == at or times[after] - at < distance)) or (
        after > 0 and at - times[after - 1] < distance
    )


class Quota:
    """Counts what the posts of a platform leave of one of its limits, for another post of `account`."""

    def __init__(self, limit: DayLimit, account: str, others: Sequence[PlannedPost]) -> None:
        self._limit = limit
        self._zone = ZoneInfo(limit.zone) if limit.zone is not None else None
        self._of_day: Counter[date] = Counter()
        self._of_account: list[datetime] = []
        for other in others:
            if self._zone is not None:
                self._of_day[other.at.astimezone(self._zone).date()] += 1
            elif other.account == account:
                insort(self._of_account, other.at)

    def used_at(self, at: datetime) -> int:
        """How many posts count together with one at `at`."""
        if self._zone is not None:
            return self._of_day[at.astimezone(self._zone).date()]
        return self._most_within_a_day(at)

    def full_at(self, at: datetime, platform: Platform) -> str | None:
        """That no post fits at `at`, in words; None when one fits."""
        most = self._limit.posts
        if self.used_at(at) < most:
            return None
        if self._zone is not None:
            day = at.astimezone(self._zone).date()
            return (
                f"{platform.title}'s quota of {day:%a} {day.day} {day:%b} ({self._limit.zone}) is reserved: {most} of {most} posts"
            )
        return f"{platform.title}'s quota of {most} posts in 24 hours is reserved around {at:%a} {at.day} {at:%b}"

    def _most_within_a_day(self, at: datetime) -> int:
        """The most posts in any 24 hours that include `at`."""
        low = bisect_right(self._of_account, at - _DAY)
        high = bisect_left(self._of_account, at + _DAY)
        near = self._of_account[low:high]
        starts = [*(one for one in near if one < at), at]
        return max(sum(start <= one < start + _DAY for one in near) for start in starts)
