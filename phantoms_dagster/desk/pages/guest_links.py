"""Guest links for reviewers: make, list and revoke them. The guest's own page is in `guest`."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.render import page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.guest_links import NEWEST

ROWS = 50


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/guest-links", include_in_schema=False)(links)
    app.post("/review/{key}/guest-links", include_in_schema=False)(make)
    app.post("/guest-links/{number}/revoke", include_in_schema=False)(revoke)


def links(visit: CurrentVisit, key: str = "", before: int = NEWEST) -> Response:
    """List the links, newest first; optionally of one video."""
    found = visit.desk.guests.page(key=key.strip(), before=before, limit=ROWS + 1)
    older = found[ROWS - 1].id if len(found) > ROWS else None
    return page(visit, "guest_links.html", links=found[:ROWS], key=key.strip(), older=older, newest=before >= NEWEST)


def make(visit: CurrentVisit, key: str, form: Form) -> Response:
    """Make a link and show it in this response only. A redirect or a flash message would store the secret."""
    content = field(form, "content", most=64)
    link, secret = visit.desk.guests.add(
        key, field(form, "guest", most=200), visit.actor, content_sha256=content, hours=_hours(field(form, "hours", most=20))
    )
    return page(visit, "guest_link_made.html", link=link, address=address(visit, secret))


def revoke(visit: CurrentVisit, number: int) -> Response:
    """Revoke a link."""
    link = visit.desk.guests.revoke(number, visit.actor)
    return redirect_to(visit, "/guest-links", f"Revoked: {link.guest}'s link no longer works.", "info")


def address(visit: Visit, secret: str) -> str:
    """Return the URL of a guest link, based on PHANTOMS_DESK_URL, else on the URL of this request."""
    desk_url = visit.desk.settings.desk.url
    base = desk_url or str(visit.request.base_url)
    return f"{base.rstrip('/')}/guest/{secret}"


def _hours(given: str) -> int:
    if not given.isascii() or not given.isdecimal() or len(given) > 6:
        raise InvalidInput("give the number of hours that the link is valid, such as 72")
    return int(given)
