"""Calendar feeds: the iCalendar file that programs read, and making, listing and revoking the addresses of such files."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta
from urllib.parse import quote

from fastapi import FastAPI
from starlette.responses import PlainTextResponse, Response

from phantoms_dagster.desk.calendar_file import CalendarEvent, written_calendar
from phantoms_dagster.desk.render import page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field
from phantoms_dagster.store.booked_posts import CalendarLine

BACK, DAYS = timedelta(days=30), 180
REFRESH = timedelta(hours=1)
# How long a post takes in a calendar.
SHOWN = timedelta(minutes=15)
_SECRET = re.compile(r"[A-Za-z0-9_-]{20,100}")
_STATES = {
    "booked": "booked",
    "fixed": "at a fixed time",
    "drafted": "waits for its creator",
    "posted": "posted",
    "removed": "posted, but not public any more",
    "late": "not out yet",
    "failed": "failed",
    "missed": "missed its slot and waits for a decision",
    "repeat": "repeats an earlier post and waits for a decision",
    "cancelled": "taken out of the calendar",
}


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/calendar/{secret}.ics", include_in_schema=False)(feed)
    app.get("/calendar-feeds", include_in_schema=False)(feeds)
    app.post("/calendar-feeds", include_in_schema=False)(make)
    app.post("/calendar-feeds/{number}/revoke", include_in_schema=False)(revoke)


def feed(visit: CurrentVisit, secret: str) -> Response:
    """Answer with the calendar, or with 304 when the program has this version already."""
    desk = visit.desk
    if (wait := desk.attempts.guess_wait_seconds(visit.address)) > 0:
        return PlainTextResponse("Too many wrong addresses; try again later.\n", 429, headers={"Retry-After": str(int(wait) + 1)})
    found = desk.services.calendar_feeds().find(secret) if _SECRET.fullmatch(secret) else None
    if found is None:
        desk.attempts.guessed(visit.address)
        return PlainTextResponse("There is no such calendar, or its address was revoked.\n", 404)
    listed = desk.services.booked_posts().coming(days=DAYS, channel=found.channel, back=BACK, free=False)
    base = (desk.settings.desk.url or str(visit.request.base_url)).rstrip("/")
    events = [_event(line, base) for line in listed.lines]
    name = f"Phantoms: {found.channel}" if found.channel else "Phantoms"
    content = written_calendar(name, events, refresh=REFRESH)
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
    if etag in _etags(visit.request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    return Response(content, media_type="text/calendar; charset=utf-8", headers=headers)


def feeds(visit: CurrentVisit) -> Response:
    """List the feeds, newest first, with a form to make one."""
    services = visit.desk.services
    return page(visit, "calendar_feeds.html", feeds=services.calendar_feeds().all(), channels=visit.desk.calendar.channels())


def make(visit: CurrentVisit, form: Form) -> Response:
    """Make a feed and show its address in this response only. A redirect or a flash message would store the secret."""
    made, secret = visit.desk.services.calendar_feeds().add(field(form, "channel", most=60), visit.actor)
    return page(visit, "calendar_feed_made.html", feed=made, address=address(visit, secret))


def revoke(visit: CurrentVisit, number: int) -> Response:
    """Revoke a feed."""
    visit.desk.services.calendar_feeds().revoke(number, visit.actor)
    return redirect_to(visit, "/calendar-feeds", "Revoked: that address no longer works.", "info")


def address(visit: Visit, secret: str) -> str:
    """Return the URL of a feed, based on PHANTOMS_DESK_URL, else on the URL of this request."""
    base = visit.desk.settings.desk.url or str(visit.request.base_url)
    return f"{base.rstrip('/')}/calendar/{secret}.ics"


def _etags(header: str) -> set[str]:
    """Parse If-None-Match. A weak tag is the same here: the file is compared as a whole."""
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


def _event(line: CalendarLine, base: str) -> CalendarEvent:
    """One post as an event. The reason of a failure is not in it: the address is passed on more easily than a log-in."""
    assert line.key is not None
    assert line.title is not None
    said = _STATES[line.state]
    waits = line.state in ("late", "drafted", "failed", "missed", "repeat")
    return CalendarEvent(
        uid=f"{line.key}-{line.platform}@phantoms",
        at=line.at,
        duration=SHOWN,
        summary=f"{line.title} ({line.platform.title}{f', {said}' if waits else ''})",
        description=f"{line.platform.title} account {line.account} of channel {line.channel}: {said}",
        status="CANCELLED" if line.state == "cancelled" else "TENTATIVE" if waits else "CONFIRMED",
        category=line.platform.title,
        changed_at=line.changed_at or line.at,
        sequence=line.sequence,
        url=f"{base}/calendar/{quote(line.key, safe='')}",
    )
