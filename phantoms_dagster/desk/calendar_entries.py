"""What the calendar shows of a video: one entry for each time at which posts of it go out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple
from urllib.parse import quote, urlencode
from zoneinfo import ZoneInfo

from markupsafe import Markup

from phantoms_dagster.domain.local_times import start_of_day
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.production.stages.post import next_opening
from phantoms_dagster.store.calendar import Calendar, CalendarSlot, Scheduled

# A brief's time may be outside the channel's posting hours. Then the post goes out within a day after it.
_MARGIN = timedelta(days=1)


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
        return dots_of(tuple(one.platform for one in self.video.outings))

    @property
    def was(self) -> str:
        """The time that a person saw, as forms send it back: the time of its bookings, or of the video's brief."""
        return stamp(self.video.planned_at if self.partial else self.video.publish_at)

    @property
    def on(self) -> str:
        """The platforms that a move of this entry is about, as forms send them back; empty for all of the video."""
        return " ".join(self.video.waits) if self.partial else ""

    @property
    def path(self) -> str:
        """The path of the page to move it."""
        page = f"/calendar/{quote(self.video.key, safe='')}"
        return f"{page}?{urlencode({'on': self.on})}" if self.on else page


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
        if slot.channel in zones and (at := goes_out(slot, channels[slot.channel])) is not None:
            found.append(Timed(slot.id, slot.key, at, at.astimezone(zones[slot.channel])))
    found.sort(key=itemgetter(2, 1))
    return found, cut


def entries_of(plan: Calendar, channels: Mapping[str, Channel], wanted: Sequence[Timed]) -> dict[Timed, CalendarEntry]:
    """Return the calendar entries of these times, in the same order. A time that a video just left has none."""
    known, now = plan.these(list({one.id for one in wanted})), datetime.now(UTC)
    found = {key: entries_of_video(video, channels[video.channel], now) for key, video in known.items()}
    entries = {one: next((entry for entry in found.get(one.id, ()) if entry.at == one.at), None) for one in wanted}
    return {one: entry for one, entry in entries.items() if entry is not None}


def entries_of_video(video: Scheduled, channel: Channel, now: datetime) -> list[CalendarEntry]:
    """Return the calendar entries of a video, earliest first: one for each time at which posts of it go out."""
    parts, zone, entries = video.parts, ZoneInfo(channel.timezone), []
    for part in parts:
        at = goes_out(part, channel)
        if at is not None:
            tone = "bad" if part.cause else "out" if not part.waits else "late" if at < now or part.person else "plan"
            entries.append(CalendarEntry(part, at, at.astimezone(zone), tone, partial=len(parts) > 1))
    return sorted(entries, key=lambda entry: entry.at)


@lru_cache(maxsize=64)
def dots_of(platforms: tuple[Platform, ...]) -> Markup:
    """Return the markup with a dot per platform, and their names for screen readers."""
    dots = Markup("").join(Markup('<span class="dot {}" title="{}"></span>').format(str(one), one.title) for one in platforms)
    return dots + Markup('<span class="hide">{}</span>').format(", ".join(one.title for one in platforms))


def goes_out(video: Scheduled | CalendarSlot, channel: Channel) -> datetime | None:
    """Return when it was published, or should be by its brief and the channel's hours. None means as soon as it is approved."""
    if video.out_at is not None:
        return video.out_at
    planned = video.planned_at if isinstance(video, Scheduled) else video.publish_at
    return next_opening(channel, planned) if planned is not None else None


def stamp(at: datetime | None) -> str:
    """Return the time as forms send it back; empty for none."""
    return at.astimezone(UTC).isoformat() if at is not None else ""
