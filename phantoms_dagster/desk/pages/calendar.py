"""The calendar: when and where videos are published, in the channel's time zone, and moving a video to another time."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from fastapi import FastAPI
from markupsafe import Markup
from starlette.responses import Response

from phantoms_dagster.desk.render import page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field, visible_text
from phantoms_dagster.domain.brief_changes import BriefChanges
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.local_times import happens_twice, is_skipped, read_local, start_of_day
from phantoms_dagster.domain.models import Brief, Channel, Platform
from phantoms_dagster.production.stages.post import next_opening
from phantoms_dagster.store.booking_changes import Changed, ChangedMeanwhile
from phantoms_dagster.store.brief_edits import BriefEdits
from phantoms_dagster.store.calendar import Calendar, CalendarSlot, Scheduled
from phantoms_dagster.wiring.schedule_warnings import schedule_warnings

VIEWS = ("week", "list", "month")
LIST_DAYS = 28
# How many videos to show per hour in the week view (fewer in a full week), per day in the month view, and in the list view
# before it ends with a link.
OF_HOUR, OF_DAY, OF_LIST = (6, 3, 2, 1), 3, 150
# A brief's time may be outside the channel's posting hours. Then the post goes out within a day after it.
_MARGIN = timedelta(days=1)


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/calendar", include_in_schema=False)(calendar)
    app.get("/calendar/{key}", include_in_schema=False)(form_of_move)
    app.post("/calendar/{key}/move", include_in_schema=False)(move)
    app.post("/calendar/{key}/post/{platform}", include_in_schema=False)(change_post)


@dataclass(frozen=True)
class CalendarEntry:
    """A video in the calendar, with those of its posts that go out at the same time. `local` is `at` in its channel's time zone.

    `tone` is `bad` (failed), `out`, `late` or `plan`. `partial`: its other posts go out at other times.
    """

    video: Scheduled
    at: datetime
    local: datetime
    tone: str
    partial: bool = False

    @property
    def movable(self) -> bool:
        """Whether at least one of its posts is not published yet."""
        return bool(self.video.waits)

    @property
    def clock(self) -> str:
        """The local time, such as 09:05."""
        return f"{self.local.hour:02}:{self.local.minute:02}"

    @property
    def minute(self) -> str:
        """The minute of the local time, two digits."""
        return f"{self.local.minute:02}"

    @property
    def where(self) -> Markup:
        """The markup with a dot per platform, and their names for screen readers."""
        return _where(tuple(one.platform for one in self.video.outings))

    @property
    def was(self) -> str:
        """The time that a person saw, as forms send it back: the time of its bookings, or of the video's brief."""
        return _stamp(self.video.planned_at if self.partial else self.video.publish_at)

    @property
    def on(self) -> str:
        """The platforms that a move of this entry is about, as forms send them back; empty for all of the video."""
        return " ".join(self.video.waits) if self.partial else ""

    @property
    def path(self) -> str:
        """The path of the page to move it."""
        page = f"/calendar/{quote(self.video.key, safe='')}"
        return f"{page}?{urlencode({'on': self.on})}" if self.on else page


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
        return _where(self.platforms)


@dataclass(frozen=True)
class CalendarDay:
    """A day with its videos in order. `count` is their number; `entries` may have fewer."""

    day: date
    today: bool
    entries: Sequence[CalendarEntry]
    count: int


class Timed(NamedTuple):
    """A video and a time at which posts of it go out, without further details. `local` is `at` in its channel's time zone."""

    id: int
    key: str
    at: datetime
    local: datetime


@dataclass(frozen=True)
class CalendarView:
    """What the page shows, as in its URL. `start` is a day in the period to show."""

    view: str
    start: date
    channel: str

    def path(self, **changes: object) -> str:
        """Return the path with changes."""
        other = replace(self, **changes)  # type: ignore[arg-type]
        given = {"view": other.view, "from": str(other.start), "channel": other.channel}
        return f"/calendar?{urlencode({name: value for name, value in given.items() if value})}"


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


def form_of_move(visit: CurrentVisit, key: str, at: str = "", on: str = "") -> Response:
    """Show when a video is published, with a form to move it, or only its posts on these platforms."""
    plan = visit.desk.calendar
    video, channel = video_of(plan, key)
    part = part_of(video, on)
    planned = part.planned_at
    wall = at or (f"{planned.astimezone(ZoneInfo(channel.timezone)):%Y-%m-%dT%H:%M}" if planned else "")
    return _form(visit, plan, video, channel, wall=wall, part=part if on else None)


def move(visit: CurrentVisit, key: str, form: Form) -> Response:
    """Move a video, or its posts on the platforms of `on`, to another time. Warnings about the new time are shown first."""
    plan = visit.desk.calendar
    video, channel = video_of(plan, key)
    if not video.waits:
        raise InvalidInput(f"{video.title} is already posted and cannot be moved.")
    wall, was = field(form, "at", most=40), field(form, "was", most=40)
    soon = field(form, "when") == "now"
    later = field(form, "later") == "1"
    at = None if soon else read_local(wall, channel.timezone, later=later)
    on = field(form, "on", most=200)
    if on and at is not None:
        return _move_part(visit, video, part_of(video, on), at, form)
    moved = InvalidInput(f"Somebody else moved {video.title} in the meantime. Nothing was changed; look at the calendar again.")
    if was != _stamp(video.publish_at):
        if _stamp(video.publish_at) == _stamp(at):  # the form was sent twice, or two people want the same
            return redirect_to(visit, f"/calendar/{quote(key, safe='')}", f"{video.title} already has that time.", "info")
        raise moved
    odd = warnings_of(visit, plan, video, channel, at) if at is not None else []
    if odd and field(form, "seen", most=64) != _digest(odd):
        return _form(visit, plan, video, channel, wall=wall, odd=odd, later=later)

    def unchanged(before: Brief) -> None:
        if before.publish_at != video.publish_at:
            raise moved

    changes = BriefChanges(publish_at=at, publish_now=soon)
    edits = BriefEdits(visit.desk.services.engine)
    edited = edits.edit(key, changes, by=visit.name, actor=visit.actor, check=unchanged)
    if at is None:
        then = "takes the next free slots" if channel.slots else "goes out as soon as it is approved"
        return redirect_to(visit, f"/calendar/{quote(key, safe='')}", f"{video.title} {then}.")
    local = at.astimezone(ZoneInfo(channel.timezone))
    said = f"{video.title}: {local:%a} {local.day} {local:%b} {local:%H:%M} {local.tzname()}."
    back = CalendarView("week", local.date(), video.channel if field(form, "channel") else "")
    return redirect_to(visit, back.path(), " ".join([said, *edited.notes]))


def _move_part(visit: Visit, video: Scheduled, part: Scheduled, at: datetime, form: Form) -> Response:
    """Move only some posts of a video."""
    plan = visit.desk.calendar
    channel = plan.channels()[video.channel]
    wall, was = field(form, "at", most=40), _moment(field(form, "was", most=40))
    later = field(form, "later") == "1"
    odd = warnings_of(visit, plan, part, channel, at)
    if odd and field(form, "seen", most=64) != _digest(odd):
        return _form(visit, plan, video, channel, wall=wall, odd=odd, later=later, part=part)
    changed = move_posts(visit, part, at, was)
    local = at.astimezone(ZoneInfo(channel.timezone))
    back = CalendarView("week", local.date(), video.channel if field(form, "channel") else "")
    told = [f"{video.title}:", *(f"{one.said}." for one in changed.booked), *(f"{problem}." for problem in changed.refused)]
    return redirect_to(visit, back.path(), " ".join(told))


def move_posts(visit: Visit, part: Scheduled, at: datetime, was: datetime | None) -> Changed:
    """Move these posts of a video. Raises ChangedMeanwhile when one is no longer booked for `was`, unless that is None."""
    times = {one.booked_at or part.publish_at for one in part.outings} - {None}
    if was is not None and times != {was}:
        raise ChangedMeanwhile(
            f"Somebody else moved {part.title} in the meantime. Nothing was changed; look at the calendar again."
        )
    seen = {one.platform: one.booking for one in part.outings} if was is not None else None
    return visit.desk.services.booking_changes().move(part.key, at, visit.actor, platforms=part.waits, seen=seen)


def change_post(visit: CurrentVisit, key: str, platform: str, form: Form) -> Response:
    """Move one post to the next free slot or to now, take it out of the calendar, or allow it although it repeats another one."""
    if platform not in tuple(Platform):
        raise NotFound(f"There is no platform {platform[:40]}.")
    on, answer = (Platform(platform),), field(form, "answer")
    changes, back = visit.desk.services.booking_changes(), f"/calendar/{quote(key, safe='')}"
    reason, seen = visible_text(form, "note", most=300), {on[0]: field(form, "booking", most=80)}
    try:
        if answer == "override":
            changed = changes.override(key, visit.actor, platforms=on, reason=reason, seen=seen)
        elif answer == "cancel":
            changed = changes.cancel(key, visit.actor, platforms=on, reason=reason, seen=seen)
        elif answer in ("next", "now"):
            changed = changes.move(key, "next" if answer == "next" else "now", visit.actor, platforms=on, seen=seen)
        else:
            raise InvalidInput("Choose one of the buttons.")
    except ChangedMeanwhile:
        # The form was sent twice, or another person was faster. `next` would otherwise move the post by two slots.
        told = f"The post on {on[0].title} was changed after this page was loaded. Nothing was changed now. This is its booking."
        return redirect_to(visit, back, told, "info")
    said = {"cancel": "was taken out of the calendar", "now": "goes out as soon as it is ready"}.get(answer)
    plain = said and changed.booked[0].state != "repeat"
    told = f"The post on {on[0].title} {said}." if plain else f"{changed.booked[0].said}."
    return redirect_to(visit, back, told)


# --- what is shown


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


def timed_between(
    plan: Calendar, channels: Mapping[str, Channel], first: date, last: date, channel: str
) -> tuple[list[Timed], bool]:
    """Return the videos of these days, earliest first, and whether there are too many to return all.

    It includes a day before and after, because time zones differ.
    """
    low = start_of_day(first, "UTC", after=-1)
    high = start_of_day(last, "UTC", after=1)
    slots, cut = plan.slots(low - _MARGIN, high, channel=channel)
    zones = {name: ZoneInfo(each.timezone) for name, each in channels.items()}
    found = []
    for slot in slots:
        if slot.channel in zones and (at := _goes_out(slot, channels[slot.channel])) is not None:
            found.append(Timed(slot.id, slot.key, at, at.astimezone(zones[slot.channel])))
    found.sort(key=itemgetter(2, 1))
    return found, cut


def entries_of(plan: Calendar, channels: Mapping[str, Channel], wanted: Sequence[Timed]) -> dict[Timed, CalendarEntry]:
    """Return the calendar entries of these times, in the same order. A time that a video just left has none."""
    known, now = plan.these(list({one.id for one in wanted})), datetime.now(UTC)
    found = {key: entries_of_video(video, channels[video.channel], now) for key, video in known.items()}
    entries = {one: next((entry for entry in found.get(one.id, ()) if entry.at == one.at), None) for one in wanted}
    return {one: entry for one, entry in entries.items() if entry is not None}


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


def entries_of_video(video: Scheduled, channel: Channel, now: datetime) -> list[CalendarEntry]:
    """Return the calendar entries of a video, earliest first: one for each time at which posts of it go out."""
    parts, zone, entries = video.parts, ZoneInfo(channel.timezone), []
    for part in parts:
        at = _goes_out(part, channel)
        if at is not None:
            tone = "bad" if part.cause else "out" if not part.waits else "late" if at < now or part.person else "plan"
            entries.append(CalendarEntry(part, at, at.astimezone(zone), tone, partial=len(parts) > 1))
    return sorted(entries, key=lambda entry: entry.at)


@lru_cache(maxsize=64)
def _where(platforms: tuple[Platform, ...]) -> Markup:
    dots = Markup("").join(Markup('<span class="dot {}" title="{}"></span>').format(str(one), one.title) for one in platforms)
    return dots + Markup('<span class="hide">{}</span>').format(", ".join(one.title for one in platforms))


def _goes_out(video: Scheduled | CalendarSlot, channel: Channel) -> datetime | None:
    """Return when it was published, or should be by its brief and the channel's hours. None means as soon as it is approved."""
    if video.out_at is not None:
        return video.out_at
    planned = video.planned_at if isinstance(video, Scheduled) else video.publish_at
    return next_opening(channel, planned) if planned is not None else None


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


# --- moving


def video_of(plan: Calendar, key: str) -> tuple[Scheduled, Channel]:
    """Return a video with its channel. Raises NotFound."""
    video = plan.one(key)
    if video is None:
        raise NotFound(f"There is no video {key}.")
    return video, plan.channels()[video.channel]


def part_of(video: Scheduled, on: str) -> Scheduled:
    """Return the video with only those posts that wait on these platforms, all of them when none is named. Raises InvalidInput."""
    if not on:
        return video
    wanted = on.split()
    if strange := [name for name in wanted if name not in video.waits]:
        raise InvalidInput(f"{video.title} has no post that waits on {strange[0][:40]}; look at the calendar again.")
    return replace(video, outings=tuple(one for one in video.outings if one.platform in wanted))


def _form(
    visit: Visit,
    plan: Calendar,
    video: Scheduled,
    channel: Channel,
    *,
    wall: str,
    odd: Sequence[str] = (),
    later: bool = False,
    part: Scheduled | None = None,
) -> Response:
    goes = _goes_out(part or video, channel)
    moment = _twice(wall, channel.timezone)
    return page(
        visit,
        "move.html",
        video=video,
        channel=channel,
        goes=goes,
        wall=wall,
        was=_stamp(part.planned_at if part else video.publish_at),
        on=" ".join(part.waits) if part else "",
        odd=odd,
        seen=_digest(odd) if odd else "",
        later=later,
        twice=moment,
        near=_near(plan, video, goes) if goes else [],
        back=CalendarView("week", (goes or datetime.now(UTC)).astimezone(ZoneInfo(channel.timezone)).date(), "").path(),
    )


def _twice(wall: str, zone: str) -> bool:
    try:
        written = datetime.fromisoformat(wall)
    except ValueError:
        return False
    return written.tzinfo is None and happens_twice(written, zone)


def _near(plan: Calendar, video: Scheduled, goes: datetime) -> list[CalendarEntry]:
    """Return up to 20 other videos of the channel that go out, or went out, within twelve hours of that time."""
    channels = plan.channels()
    low, high = goes - timedelta(hours=12), goes + timedelta(hours=12)
    others = [other for other in plan.between(low, high, channel=video.channel) if other.key != video.key]
    entries = [entry for other in others for entry in entries_of_video(other, channels[other.channel], goes)]
    shown = (entry for entry in entries if low <= entry.at < high and any(not one.waits for one in entry.video.outings))
    return sorted(shown, key=lambda entry: entry.at)[:20]


def warnings_of(visit: Visit, plan: Calendar, video: Scheduled, channel: Channel, at: datetime) -> list[str]:
    """Return the warnings about this time for this video."""
    return schedule_warnings(plan, visit.desk.settings, video, channel, at)


def _moment(stamp: str) -> datetime | None:
    try:
        return datetime.fromisoformat(stamp) if stamp else None
    except ValueError:
        raise InvalidInput("This form is not complete; open the calendar again.") from None


def _stamp(at: datetime | None) -> str:
    return at.astimezone(UTC).isoformat() if at is not None else ""


def _digest(odd: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(odd).encode()).hexdigest()
