"""Moving a video, or single posts of it, to another time of the calendar."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote
from zoneinfo import ZoneInfo

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.calendar_entries import CalendarEntry, CalendarView, entries_of_video, goes_out, stamp
from phantoms_dagster.desk.render import page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field, visible_text
from phantoms_dagster.domain.brief_changes import BriefChanges
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.local_times import happens_twice, read_local
from phantoms_dagster.domain.models import Brief, Channel, Platform
from phantoms_dagster.store.booking_changes import Changed, ChangedMeanwhile
from phantoms_dagster.store.brief_edits import BriefEdits
from phantoms_dagster.store.calendar import Calendar, Scheduled
from phantoms_dagster.wiring.schedule_warnings import schedule_warnings


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/calendar/{key}", include_in_schema=False)(form_of_move)
    app.post("/calendar/{key}/move", include_in_schema=False)(move)
    app.post("/calendar/{key}/post/{platform}", include_in_schema=False)(change_post)


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
    if was != stamp(video.publish_at):
        if stamp(video.publish_at) == stamp(at):  # the form was sent twice, or two people want the same
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
    goes = goes_out(part or video, channel)
    moment = _twice(wall, channel.timezone)
    return page(
        visit,
        "move.html",
        video=video,
        channel=channel,
        goes=goes,
        wall=wall,
        was=stamp(part.planned_at if part else video.publish_at),
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


def _digest(odd: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(odd).encode()).hexdigest()
