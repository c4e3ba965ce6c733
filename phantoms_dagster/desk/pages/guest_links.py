"""Guest links as reviewers see them: made from Review, listed with their state, revoked. The guest's own page is `guest`."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.render import go, page
from phantoms_dagster.desk.visits import Form, Seen, Visit, field
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.guest_links import NEWEST

ROWS = 50


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/guest-links", include_in_schema=False)(links)
    app.post("/review/{key}/guest-links", include_in_schema=False)(make)
    app.post("/guest-links/{number}/revoke", include_in_schema=False)(revoke)


def links(visit: Seen, key: str = "", before: int = NEWEST) -> Response:
    """The newest links, of one video or of all."""
    found = visit.desk.guests.page(key=key.strip(), before=before, limit=ROWS + 1)
    older = found[ROWS - 1].id if len(found) > ROWS else None
    return page(visit, "guest_links.html", links=found[:ROWS], key=key.strip(), older=older, newest=before >= NEWEST)


def make(visit: Seen, key: str, form: Form) -> Response:
    """Make a link. It is shown in this answer alone: in an address or a message of the next page it would be kept."""
    content = field(form, "content", most=64)
    link, secret = visit.desk.guests.add(
        key, field(form, "guest", most=200), visit.actor, content_sha256=content, hours=_hours(field(form, "hours", most=20))
    )
    return page(visit, "guest_link_made.html", link=link, address=address(visit, secret))


def revoke(visit: Seen, number: int) -> Response:
    """End a link."""
    link = visit.desk.guests.revoke(number, visit.actor)
    return go(visit, "/guest-links", f"Revoked: the link of {link.guest} takes no answer any more.", "info")


def address(visit: Visit, secret: str) -> str:
    """Where the guest answers: under the address that people use, else under that of this request."""
    desk_url = visit.desk.settings.desk_url
    base = desk_url or str(visit.request.base_url)
    return f"{base.rstrip('/')}/guest/{secret}"


def _hours(given: str) -> int:
    if not given.isascii() or not given.isdecimal() or len(given) > 6:
        raise InvalidInput("say for how many hours the link is good, such as 72")
    return int(given)
