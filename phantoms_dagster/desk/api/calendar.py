"""The publication calendar, and moving a video to another time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import FastAPI, Query, Request
from pydantic import Field

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import ApiModel, KeyInPath, Limit, Masked, Moment, RequestModel, TextInQuery
from phantoms_dagster.desk.calendar_entries import CalendarEntry, Timed, entries_of, entries_of_video, timed_between
from phantoms_dagster.desk.errors import problem
from phantoms_dagster.desk.pages.calendar_moves import move_posts, part_of, video_of, warnings_of
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.brief_changes import BriefChanges
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Brief, Platform
from phantoms_dagster.store.booking_changes import ChangedMeanwhile
from phantoms_dagster.store.brief_edits import BriefEdits
from phantoms_dagster.store.calendar import Calendar

TAG = "calendar"
MOST_DAYS = 62
Day = Annotated[str | None, Query(pattern=r"^20[0-9]{2}-[01][0-9]-[0-3][0-9]$", description="A day such as 2026-12-24, in UTC")]


_PLACE = r"^[0-9]{8}T[0-9]{12}-"
CursorParameter = Annotated[str | None, Query(max_length=300, pattern=_PLACE, description="`next_cursor` of the previous page")]


class CalendarPostResource(ApiModel):
    """A post of a video. `at` is when it was published, `booked_at` when it is booked.

    `waits` is why it waits for a person: missed, repeat or cancelled; empty when it does not. `note` says more.
    `after` is what happened to it since it was published, such as taken_down; empty when nothing did.
    """

    platform: str
    state: str
    cause: Masked
    account: str | None
    at: datetime | None
    url: str | None
    booked_at: datetime | None
    waits: str
    note: Masked
    after: str


class CalendarSlotResource(ApiModel):
    """A time of a video in the calendar, with the posts of that time: a video is listed once for each time at which posts go out.

    `at` is when they will be or were published. `tone` is plan, late, out (published) or bad (failed). Posts of a video that are
    out already are one entry, at the time of the first.
    """

    key: str
    title: str
    channel: str
    publish_at: datetime | None
    at: datetime
    tone: str
    outings: list[CalendarPostResource]


class Entries(ApiModel):
    """A page of the calendar, earliest first. `complete` is false when the period has more videos than can be listed."""

    entries: list[CalendarSlotResource]
    next_cursor: str | None
    complete: bool


class Move(RequestModel):
    """A new time for a video. `publish_at` null means as soon as it is approved.

    `platforms` moves only its posts on these; then `publish_at` must be a time. `expected` is the time that the caller believes is
    set for the video, or for those posts; when it differs, the answer is a 409. When omitted, it is not checked. `accept_warnings`
    moves the video despite warnings about the new time.
    """

    publish_at: Moment | None
    platforms: Annotated[list[Platform], Field(default_factory=list, max_length=20)]
    expected: Moment | None = None
    accept_warnings: bool = False


class Moved(ApiModel):
    """The video's new time, and notes for a person. `publish_at` is the time in its brief, which a move of some posts leaves alone.

    `at` is when its next post goes out; null means as soon as it is approved.
    """

    key: str
    publish_at: datetime | None
    at: datetime | None
    notes: list[str]


class _Changed(Exception):
    """The video was moved by somebody else in the meantime."""


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/calendar", list_calendar, tag=TAG)
    add(app, "POST", "/calendar/{key}/move", move_video, tag=TAG)


def list_calendar(  # noqa: PLR0917 - FastAPI calls it by keyword
    visit: CurrentVisit,
    start: Day = None,
    until: Day = None,
    channel: TextInQuery = "",
    cursor: CursorParameter = None,
    limit: Limit = 50,
) -> Entries:
    """List what is or was published from `start` (default: today) until before `until` (default: a week later)."""
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
    shown = entries_of(plan, channels, found[:limit]).values()
    following = _place(found[limit - 1]) if len(found) > limit else None
    return Entries(entries=[_shown(entry) for entry in shown], next_cursor=following, complete=not cut)


def move_video(request: Request, visit: CurrentVisit, key: KeyInPath, body: Move) -> Moved:
    """Move a video or some of its posts. When there are warnings, the answer is a 409 that lists them, unless they are accepted."""
    plan = visit.desk.calendar
    video, channel = video_of(plan, key)
    if not video.waits:
        raise InvalidInput(f"{video.title} is already posted and cannot be moved.")
    checked = "expected" in body.model_fields_set
    part = part_of(video, " ".join(body.platforms))
    if body.platforms and body.publish_at is None:
        raise InvalidInput("`publish_at` must be a time when `platforms` is given")
    odd = warnings_of(visit, plan, part, channel, body.publish_at) if body.publish_at is not None else []
    if odd and not body.accept_warnings:
        return _refused(request, "There are warnings about this time; send `accept_warnings` to move the video anyway.", odd)

    def unchanged(before: Brief) -> None:
        if checked and before.publish_at != body.expected:
            raise _Changed

    if body.platforms and body.publish_at is not None:
        was = body.expected if checked else None
        try:
            changed = move_posts(visit, part, body.publish_at, was)
        except ChangedMeanwhile as error:
            return _refused(request, str(error), [])
        told = [*(f"{one.said}." for one in changed.booked), *(f"{problem}." for problem in changed.refused)]
        return _moved(plan, key, told)
    changes = BriefChanges(publish_at=body.publish_at, publish_now=body.publish_at is None)
    edits = BriefEdits(visit.desk.services.engine)
    try:
        edited = edits.edit(key, changes, by=visit.name, actor=visit.actor, check=unchanged)
    except _Changed:
        return _refused(request, f"Somebody else moved {video.title} in the meantime. Nothing was changed.", [])
    return _moved(plan, key, edited.notes)


def _moved(plan: Calendar, key: str, notes: Sequence[str]) -> Moved:
    video, channel = video_of(plan, key)
    waiting = [entry.at for entry in entries_of_video(video, channel, datetime.now(UTC)) if entry.movable]
    return Moved(key=key, publish_at=video.publish_at, at=min(waiting, default=None), notes=list(notes))


def _place(one: Timed) -> str:
    """Return the cursor of a video. Cursors sort in the order of the list."""
    return f"{one.at.astimezone(UTC):%Y%m%dT%H%M%S%f}-{one.key}"


def _refused(request: Request, said: str, errors: Sequence[str]) -> Moved:
    return problem(request, 409, said, errors=errors)  # type: ignore[return-value]


def _day(given: str) -> date:
    try:
        return date.fromisoformat(given)
    except ValueError:
        raise InvalidInput(f"{given} is not a valid day; write it like 2026-12-24") from None


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
