"""The guest's page: one video, its texts, and two answers. A guest link opens nothing else of the desk.

A GET changes nothing, because chat programs open links to show a preview.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.pages.media import address
from phantoms_dagster.desk.render import page
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field, visible_text
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import PostWords
from phantoms_dagster.store.decisions import DecidedFirst
from phantoms_dagster.store.guest_links import GuestLink

_SECRET = re.compile(r"[A-Za-z0-9_-]{20,100}")


@dataclass(frozen=True)
class GuestVideo:
    """The video that the guest decides on. `words` are the words of each post."""

    video: str
    poster: str
    words: Sequence[PostWords]


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/guest/{secret}", include_in_schema=False)(look)
    app.post("/guest/{secret}", include_in_schema=False)(answer)


def look(visit: CurrentVisit, secret: str) -> Response:
    """Show the video and the question, or why there is nothing to answer."""
    if (wait := visit.desk.attempts.guess_wait_seconds(visit.address)) > 0:
        return _too_many(visit, wait)
    link = _found(visit, secret)
    return _nothing(visit) if link is None else _shown(visit, link)


def answer(visit: CurrentVisit, secret: str, form: Form) -> Response:
    """Take the guest's answer. A link takes one answer."""
    if (wait := visit.desk.attempts.guess_wait_seconds(visit.address)) > 0:
        return _too_many(visit, wait)
    link = _found(visit, secret)
    if link is None:
        return _nothing(visit)
    said = field(form, "answer")
    try:
        reason = visible_text(form, "note", most=1_000)
    except InvalidInput as error:
        return _shown(visit, link, status=422, problem=f"Please write it again: {error}.")
    if said not in ("approve", "reject"):
        return _shown(visit, link, status=422, problem="Choose one of the two answers.")
    if said == "reject" and not reason:
        return _shown(visit, link, status=422, problem="Please say why. The next version is based on your reason.")
    try:
        visit.desk.guests.decide(secret, "approve" if said == "approve" else "reject", reason=reason, address=visit.address)
    except DecidedFirst:
        return _shown(
            visit, _again(visit, secret, link), status=409, problem="Somebody else was first. Your answer was not recorded."
        )
    except InvalidInput:
        # The error's own message is for users of the desk. The page tells the guest what to do instead.
        return _shown(visit, _again(visit, secret, link), status=409, problem="Your answer was not recorded.")
    return _shown(visit, _again(visit, secret, link))


def _found(visit: Visit, secret: str) -> GuestLink | None:
    link = visit.desk.guests.find(secret) if _SECRET.fullmatch(secret) else None
    if link is None:
        visit.desk.attempts.guessed(visit.address)
    return link


def _again(visit: Visit, secret: str, link: GuestLink) -> GuestLink:
    """Return the link in its current state."""
    return visit.desk.guests.find(secret) or link


def _shown(visit: Visit, link: GuestLink, *, status: int = 200, problem: str = "") -> Response:
    shown = _shared(visit, link) if link.state == "open" else None
    return _page(visit, status, link=link, shown=shown, problem=problem, wait=0)


def _shared(visit: Visit, link: GuestLink) -> GuestVideo | None:
    """Return the video, if the current version is still the one that the link is about; else None."""
    review, screen = visit.desk.decisions.review(link.key), visit.desk.queue.screen(link.key)
    if review is None or screen is None or screen.master is None or review.content != link.content_sha256:
        return None
    master = screen.master
    return GuestVideo(address(visit.desk, master.video), address(visit.desk, master.thumbnail), review.words)


def _nothing(visit: Visit) -> Response:
    return _page(visit, 404, link=None, shown=None, problem="", wait=0)


def _too_many(visit: Visit, seconds: int) -> Response:
    response = _page(visit, 429, link=None, shown=None, problem="", wait=max(1, round(seconds / 60)))
    response.headers["Retry-After"] = str(seconds)
    return response


def _page(visit: Visit, status: int, **values: object) -> Response:
    response = page(visit, "guest.html", status=status, **values)
    response.headers["X-Robots-Tag"] = "noindex, nofollow"
    return response
