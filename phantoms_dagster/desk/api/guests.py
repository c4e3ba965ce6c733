"""Make, list and revoke guest links. The guests themselves use a page, not the API."""

from __future__ import annotations

import json
import secrets
from datetime import datetime
from typing import Annotated

from fastapi import FastAPI
from pydantic import Field
from sqlalchemy import Connection

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import (
    MOST_NUMBER,
    ApiModel,
    Cursor,
    IdempotencyKey,
    KeyInPath,
    Limit,
    Name,
    NumberInPath,
    RequestModel,
    TextInQuery,
)
from phantoms_dagster.desk.pages.guest_links import address
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.store.answers import Answers, StoredAnswer
from phantoms_dagster.store.guest_links import DEFAULT_HOURS, MOST_HOURS

TAG = "review"


class NewGuestLink(RequestModel):
    """A guest to ask about one video. `content` is the hash of the version to review, from `GET .../review`."""

    guest: Name
    content: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    hours: Annotated[int, Field(ge=1, le=MOST_HOURS)] = DEFAULT_HOURS


class GuestLinkResource(ApiModel):
    """A guest link. `state` is open, outdated (the video changed or was decided), used, revoked or expired.

    `answer` is the guest's decision and `decision` its state; `outcome` says why it was refused.
    """

    id: int
    key: str
    title: str
    guest: str
    state: str
    made_by: str
    made_at: datetime
    expires_at: datetime
    used_at: datetime | None
    revoked_by: str | None
    revoked_at: datetime | None
    answer: str | None
    decision: str | None
    outcome: str | None


class GuestLinkWithUrl(ApiModel):
    """A new link. Only this response contains its `url`."""

    link: GuestLinkResource
    url: str


class GuestLinkPage(ApiModel):
    """A page of guest links, newest first."""

    links: list[GuestLinkResource]
    next_cursor: int | None


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/guest-links", list_guest_links, tag=TAG)
    add(app, "POST", "/videos/{key}/guest-links", make_guest_link, tag=TAG, status=201)
    add(app, "POST", "/guest-links/{number}/revoke", revoke_guest_link, tag=TAG)


def list_guest_links(visit: CurrentVisit, key: TextInQuery = "", cursor: Cursor = None, limit: Limit = 50) -> GuestLinkPage:
    """List guest links, newest first; optionally of one video. The secrets are never included."""
    found = visit.desk.guests.page(key=key, before=cursor or MOST_NUMBER, limit=limit + 1)
    return GuestLinkPage(
        links=[GuestLinkResource.model_validate(link) for link in found[:limit]],
        next_cursor=found[limit - 1].id if len(found) > limit else None,
    )


def make_guest_link(visit: CurrentVisit, key: KeyInPath, body: NewGuestLink, once: IdempotencyKey = None) -> GuestLinkWithUrl:
    """Make a link. With it a guest decides once, on exactly this content."""
    if not visit.desk.board.of([key]):
        raise NotFound(f"There is no video {key}.")

    def secret_of(nonce: str) -> str:
        # The stored response for a repeated request has only the nonce. The nonce alone does not open the link.
        return visit.desk.keys.mac("guest link", nonce)

    def work(connection: Connection) -> StoredAnswer:
        nonce = secrets.token_urlsafe(32)
        link = visit.desk.guests.add_in(
            connection, key, body.guest, visit.actor, secret_of(nonce), content_sha256=body.content, hours=body.hours
        )
        return StoredAnswer(201, {"link": GuestLinkResource.model_validate(link).model_dump(mode="json"), "nonce": nonce})

    sent = f"guest link {key} {body.model_dump_json(exclude_unset=True)}"
    said = Answers(visit.desk.services.engine).once(visit.name, once, sent, work)
    secret = secret_of(said.body["nonce"])
    if visit.desk.guests.find(secret) is None:
        raise InvalidInput("the desk's key has changed since this link was made; make a new one with another Idempotency-Key")
    return GuestLinkWithUrl(link=GuestLinkResource.model_validate_json(json.dumps(said.body["link"])), url=address(visit, secret))


def revoke_guest_link(visit: CurrentVisit, number: NumberInPath) -> GuestLinkResource:
    """Revoke a link that was not used yet."""
    return GuestLinkResource.model_validate(visit.desk.guests.revoke(number, visit.actor))
