"""The calendar: when and where videos are published, in the channel's time zone. `calendar_moves` moves them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from fastapi import FastAPI
from markupsafe import Markup
from starlette.responses import Response

from phantoms_dagster.desk.calendar_entries import CalendarEntry, CalendarView, Timed, dots_of, entries_of, timed_between
from phantoms_dagster.desk.render import page
from phantoms_dagster.desk.visits import CurrentVisit, Visit
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.local_times import happens_twice, is_skipped, start_of_day
from phantoms_dagster.domain.models import Channel, Platform

VIEWS = ("week", "list", "month")
LIST_DAYS = 28
# How many videos to show per hour in the week view (fewer in a full week), per day in the month view, and in the list view
# before it ends with a link.
OF_HOUR, OF_DAY, OF_LIST = (6, 3, 2, 1), 3, 150


def register(app: FastAPI) -> None:
    """Add the route."""
    app.get("/calendar", include_in_schema=False)(calendar)


@dataclass(frozen=True)
class Cell:
    """An hour of a day. `wall` is the local time as forms send it. `open`: the channel posts in this hour.

    `skipped`: the hour does not exist because the clocks change; `twice`: it exists twice. `more` counts videos not in `entries`.
    `free`: the slots that the next videos can take.
    """

    wall: str
    open: bool
    skipped: bool
    twice: bool
    entries: Sequence[CalendarEntry]
    more: int = 0
    free: Sequence[FreeTime] = ()


@dataclass(frozen=True)
class FreeTime:
    """A slot that is free on these platforms. `clock` is its time in its channel's time zone, `zone` the short name of that."""

    clock: str
    zone: str
    channel: str
    platforms: tuple[Platform, ...]

    @property
    def where(self) -> Markup:
        """The markup with a dot per platform, and their names for screen readers."""
        return dots_of(self.platforms)


@dataclass(frozen=True)
class CalendarDay:
    """A day with its videos in order. `count` is their number; `entries` may have fewer."""

    day: date
    today: bool
    entries: Sequence[CalendarEntry]
    count: int


def calendar(visit: CurrentVisit, view: str = "week", channel: str = "") -> Response:
    """Show a week, four weeks as a list, or a month."""
    plan = visit.desk.calendar
    channels = plan.channels()
    if channel and channel not in channels:
        raise NotFound(f"There is no channel {channel}.")
    zones = {each.timezone for name, each in channels.items() if not channel or name == channel}
    zone = zones.pop() if len(zones) == 1 else ""
    today = datetime.now(ZoneInfo(zone or "UTC")).date()
    shown = _shown(view, visit.request.query_params.get("from", ""), channel, today)
    first, last = _range(shown)
    timed, cut = timed_between(plan, channels, first, last, channel)
    by_day: dict[date, list[Timed]] = {first + timedelta(days=n): [] for n in range((last - first).days)}
    for one in timed:
        if one.local.date() in by_day:
            by_day[one.local.date()].append(one)
    wanted, following = _wanted(shown.view, by_day)
    entries = entries_of(plan, channels, wanted)
    days = [
        CalendarDay(day, day == today, [entries[one] for one in found if one in entries], len(found))
        for day, found in by_day.items()
        if following is None or day < following
    ]
    counted = Counter((one.local.date(), one.local.hour) for one in timed)
    return page(
        visit,
        "calendar.html",
        shown=shown,
        views=VIEWS,
        moves=visit.may("reviewer"),
        channels=channels,
        zone=zone,
        days=days,
        hours=_hours(days, channels, channel, counted, _free(visit, first, last, channel)) if shown.view == "week" else [],
        slotted=any(each.slots for name, each in channels.items() if channel in ("", name)),
        weeks=[days[n : n + 7] for n in range(0, len(days), 7)] if shown.view == "month" else [],
        title=_title(shown, first, last),
        earlier=shown.path(start=_step(shown, -1)),
        later=shown.path(start=_step(shown, 1)),
        today=shown.path(start=today),
        count=len({one.key for found in by_day.values() for one in found}),
        cut=cut,
        following=shown.path(start=following) if following else None,
    )


def _shown(view: str, start: str, channel: str, today: date) -> CalendarView:
    if view not in VIEWS:
        raise InvalidInput(f"the views are {', '.join(VIEWS)}")
    try:
        day = date.fromisoformat(start) if start else today
    except ValueError:
        day = None
    if day is None or not 1972 <= day.year <= 9990:
        raise InvalidInput(f"{start[:40]!r} is not a valid day; write it like 2026-12-24")
    return CalendarView(view, day, channel)


def _range(shown: CalendarView) -> tuple[date, date]:
    """Return the first day, and the day after the last one."""
    monday = shown.start - timedelta(days=shown.start.weekday())
    if shown.view == "week":
        return monday, monday + timedelta(days=7)
    if shown.view == "list":
        return shown.start, shown.start + timedelta(days=LIST_DAYS)
    first = shown.start.replace(day=1)
    after = (first + timedelta(days=32)).replace(day=1)
    return first - timedelta(days=first.weekday()), after + timedelta(days=-after.weekday() % 7)


def _step(shown: CalendarView, by: int) -> date:
    if shown.view == "month":
        first = shown.start.replace(day=1)
        return (first + timedelta(days=32 if by > 0 else -1)).replace(day=1)
    return shown.start + timedelta(days=by * (7 if shown.view == "week" else LIST_DAYS))


def _title(shown: CalendarView, first: date, last: date) -> str:
    if shown.view == "month":
        return f"{shown.start:%B %Y}"
    end = last - timedelta(days=1)
    return f"{first.day} {first:%b} to {end.day} {end:%b %Y}"


def _wanted(view: str, by_day: Mapping[date, Sequence[Timed]]) -> tuple[list[Timed], date | None]:
    """Return the videos to show in detail, and the day on which the next page of a list starts; None without one."""
    if view == "month":
        return [one for found in by_day.values() for one in found[:OF_DAY]], None
    if view == "week":
        # Group first: with several time zones the videos of one local hour are not next to each other.
        hours: dict[tuple[date, int], list[Timed]] = {}
        for day, found in by_day.items():
            for one in found:
                hours.setdefault((day, one.local.hour), []).append(one)
        most = next((n for n in OF_HOUR if sum(min(n, len(hour)) for hour in hours.values()) <= OF_LIST), OF_HOUR[-1])
        return [one for hour in hours.values() for one in hour[:most]], None
    wanted: list[Timed] = []
    for day, found in by_day.items():
        if wanted and len(wanted) + len(found) > OF_LIST:
            return wanted, day
        wanted += found
    return wanted, None


def _free(visit: Visit, first: date, last: date, channel: str) -> Mapping[tuple[date, int], Sequence[FreeTime]]:
    """Return the free slots of these days by day and local hour."""
    low, high = start_of_day(first, "UTC", after=-1), start_of_day(last, "UTC", after=1)
    found: dict[tuple[datetime, str], list[Platform]] = {}
    for line in visit.desk.services.booked_posts().free(low, high, channel=channel):
        found.setdefault((line.at.astimezone(ZoneInfo(line.timezone)), line.channel), []).append(line.platform)
    by_hour: dict[tuple[date, int], list[FreeTime]] = {}
    for (local, name), platforms in sorted(found.items()):
        by_hour.setdefault((local.date(), local.hour), []).append(
            FreeTime(f"{local:%H:%M}", local.tzname() or "", name, tuple(platforms))
        )
    return by_hour


def _hours(
    days: Sequence[CalendarDay],
    channels: Mapping[str, Channel],
    channel: str,
    counted: Mapping[tuple[date, int], int],
    free: Mapping[tuple[date, int], Sequence[FreeTime]],
) -> list[tuple[int, list[Cell]]]:
    """Return the rows of the week view: the channels' posting hours with one hour around them, and all hours with videos."""
    shown = [each for name, each in channels.items() if not channel or name == channel]
    used = {entry.local.hour for day in days for entry in day.entries} | {hour for _, hour in free}
    near = {(hour + by) % 24 for hour in range(24) for by in (-1, 0, 1) if any(hour in each.posting_hours for each in shown)}
    rows = sorted(used | near)
    zone = shown[0].timezone if len({each.timezone for each in shown}) == 1 else ""
    by_hour: dict[tuple[date, int], list[CalendarEntry]] = {}
    for day in days:
        for entry in day.entries:
            by_hour.setdefault((day.day, entry.local.hour), []).append(entry)
    table = []
    for hour in rows:
        cells = []
        is_open = any(hour in each.posting_hours for each in shown)
        for day in days:
            wall = datetime.combine(day.day, time(hour))
            skipped = bool(zone) and is_skipped(wall, zone)
            twice = bool(zone) and happens_twice(wall, zone)
            entries = by_hour.get((day.day, hour), [])
            more = counted.get((day.day, hour), 0) - len(entries)
            cells.append(
                Cell(
                    f"{wall:%Y-%m-%dT%H}",
                    is_open and not skipped,
                    skipped,
                    twice,
                    entries,
                    max(0, more),
                    free.get((day.day, hour), ()),
                )
            )
        table.append((hour, cells))
    return table
