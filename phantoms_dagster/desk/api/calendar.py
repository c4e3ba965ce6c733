"""The calendar: what goes out when and where, and moving a video."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import FastAPI, Query, Request

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import ApiModel, Given, KeyInPath, Limit, Masked, Moment, TextInQuery
from phantoms_dagster.desk.errors import problem
from phantoms_dagster.desk.pages.calendar import CalendarEntry, Timed, entries_of, entry_of, timed_between, video_of, warnings_of
from phantoms_dagster.desk.visits import Seen
from phantoms_dagster.domain.brief_changes import BriefChanges
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Brief
from phantoms_dagster.store.brief_edits import BriefEdits

TAG = "calendar"
MOST_DAYS = 62
Day = Annotated[str | None, Query(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$", description="A day such as 2026-12-24, in UTC")]


_PLACE = r"^[0-9]{8}T[0-9]{12}-"
CursorParameter = Annotated[str | None, Query(max_length=300, pattern=_PLACE, description="`next_cursor` of the page before")]


class CalendarPostResource(ApiModel):
    """A post of a video. `at`: when it went out."""

    platform: str
    state: str
    cause: Masked
    account: str | None
    at: datetime | None
    url: str | None


class CalendarSlotResource(ApiModel):
    """A video at its time. `at`: when it goes out, or went out. `tone`: plan, late, out or bad."""

    key: str
    title: str
    channel: str
    publish_at: datetime | None
    at: datetime
    tone: str
    outings: list[CalendarPostResource]


class Entries(ApiModel):
    """A page of what goes out, the earliest first. `complete`: false when there is more in that time than can be listed."""

    entries: list[CalendarSlotResource]
    next_cursor: str | None
    complete: bool


class Move(Given):
    """Another time for a video. `publish_at` null: as soon as it is approved.

    `expected`: the time that it has now, as far as the caller knows; another one is a 409. Left out: not checked.
    `accept_warnings`: move it although its new time is odd.
    """

    publish_at: Moment | None
    expected: Moment | None = None
    accept_warnings: bool = False


class Moved(ApiModel):
    """The video's time now, and what a person should know about it. `at` null: as soon as it is approved."""

    key: str
    publish_at: datetime | None
    at: datetime | None
    notes: list[str]


class _Changed(Exception):
    """Somebody gave the video another time meanwhile."""


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/calendar", list_calendar, tag=TAG)
    add(app, "POST", "/calendar/{key}/move", move_video, tag=TAG)


def list_calendar(  # noqa: PLR0917 - FastAPI calls it by keyword
    visit: Seen, start: Day = None, until: Day = None, channel: TextInQuery = "", cursor: CursorParameter = None, limit: Limit = 50
) -> Entries:
    """What goes out and went out from `start` (today) to before `until` (a week later)."""
    first = _day(start) if start else datetime.now(UTC).date()
    last = _day(until) if until else first + timedelta(days=7)
    if not first < last <= first + timedelta(days=MOST_DAYS):
        raise InvalidInput(f"`until` should be 1 to {MOST_DAYS} days after `start`")
    plan = visit.desk.calendar
    channels = plan.channels()
    if channel and channel not in channels:
        raise NotFound(f"There is no channel {channel}.")
    timed, cut = timed_between(plan, channels, first, last, channel)
    found = [one for one in timed if first <= one.at.astimezone(UTC).date() < last and (cursor is None or _place(one) > cursor)]
    shown = entries_of(plan, channels, found[:limit])
    following = _place(found[limit - 1]) if len(found) > limit else None
    return Entries(entries=[_shown(entry) for entry in shown], next_cursor=following, complete=not cut)


def move_video(request: Request, visit: Seen, key: KeyInPath, body: Move) -> Moved:
    """Give a video another time. What is odd about that is a 409 that lists it, until it is accepted."""
    plan = visit.desk.calendar
    video, channel = video_of(plan, key)
    if not video.waits:
        raise InvalidInput(f"{video.title} is posted already, and what is posted stays posted.")
    checked = "expected" in body.model_fields_set
    odd = warnings_of(visit, plan, video, channel, body.publish_at) if body.publish_at is not None else []
    if odd and not body.accept_warnings:
        return _refused(request, "That time is odd; send `accept_warnings` to move it all the same.", odd)

    def unchanged(before: Brief) -> None:
        if checked and before.publish_at != body.expected:
            raise _Changed

    changes = BriefChanges(publish_at=body.publish_at, publish_now=body.publish_at is None)
    edits = BriefEdits(visit.desk.services.engine)
    try:
        edited = edits.edit(key, changes, by=visit.name, actor=visit.actor, check=unchanged)
    except _Changed:
        return _refused(request, f"Somebody gave {video.title} another time meanwhile. Nothing was changed.", [])
    moved, channel = video_of(plan, key)
    entry = entry_of(moved, channel, datetime.now(UTC))
    return Moved(key=key, publish_at=edited.after.publish_at, at=entry.at if entry else None, notes=list(edited.notes))


def _place(one: Timed) -> str:
    """Where a video is in the list, as text that sorts as the list does."""
    return f"{one.at.astimezone(UTC):%Y%m%dT%H%M%S%f}-{one.key}"


def _refused(request: Request, said: str, errors: Sequence[str]) -> Moved:
    return problem(request, 409, said, errors=errors)  # type: ignore[return-value]


def _day(given: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise InvalidInput(f"{given} is no day; write it like 2026-12-24") from None


def _shown(entry: CalendarEntry) -> CalendarSlotResource:
    video = entry.video
    return CalendarSlotResource(
        key=video.key,
        title=video.title,
        channel=video.channel,
        publish_at=video.publish_at,
        at=entry.at,
        tone=entry.tone,
        outings=[CalendarPostResource(**{**vars(one), "platform": str(one.platform)}) for one in video.outings],
    )
