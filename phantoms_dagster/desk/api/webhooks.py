"""Webhooks: endpoints and deliveries. What is sent to them is in docs/webhooks.md."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query
from pydantic import Field
from sqlalchemy import Connection

from phantoms_dagster.desk.access import Role
from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import (
    MOST_NUMBER,
    ApiModel,
    Cursor,
    Given,
    IdempotencyKey,
    Limit,
    Masked,
    Moment,
    Number,
    NumberInPath,
    Words,
)
from phantoms_dagster.desk.pages.webhooks import store_of
from phantoms_dagster.desk.visits import Seen
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.webhooks import LONGEST_URL, OLD_SECRET_HOURS
from phantoms_dagster.providers.webhooks import payload
from phantoms_dagster.store import webhooks as store
from phantoms_dagster.store.answers import Answers, StoredAnswer
from phantoms_dagster.store.users import digest
from phantoms_dagster.wiring.addresses import desk_url

TAG = "webhooks"
EventName = Literal["approval.wanted", "video.posted", "video.failed", "provider.down"]
StateName = Literal["pending", "delivered", "failed"]


class NewEndpoint(Given):
    """Where events go, and which; none named: all."""

    url: Annotated[str, Field(min_length=1, max_length=LONGEST_URL, examples=["https://example.org/hooks/phantoms"])]
    events: Annotated[list[EventName], Field(max_length=20)] = Field(default=[])
    note: Words = ""


class Secret(ApiModel):
    """An endpoint's number and its secret, which is shown this once."""

    id: int
    secret: str


class Rotation(Given):
    """For how many hours the old secret signs, too."""

    keep_hours: Annotated[float, Field(ge=0, le=720, allow_inf_nan=False)] = OLD_SECRET_HOURS


class EndpointResource(ApiModel):
    """An endpoint. `to`: its address without path and query; `url`: the whole, for operators. `state`: active, disabled."""

    id: int
    to: str
    url: str | None
    note: str
    events: list[str]
    state: str
    reason: str
    failing_since: datetime | None
    old_secret_until: datetime | None
    created_at: datetime


class EndpointList(ApiModel):
    """All endpoints."""

    endpoints: list[EndpointResource]


class DeliveryResource(ApiModel):
    """One event to one endpoint. `at`: when it happened; `reason`: why it failed, or what the last try met."""

    id: int
    endpoint_id: int
    state: str
    reason: str
    tries: int
    next_at: datetime
    ended_at: datetime | None
    message_id: str
    type: str
    at: datetime


class DeliveryAttemptResource(ApiModel):
    """One try. `status`: of the answer; null without one. `error`: empty when it was taken."""

    at: datetime
    seconds: float
    status: int | None
    error: Masked


class DeliveryWithAttempts(DeliveryResource):
    """A delivery with its tries, the newest first, and what is sent."""

    attempts: list[DeliveryAttemptResource]
    payload: dict[str, Any]


class Deliveries(ApiModel):
    """A page of deliveries, the newest first."""

    deliveries: list[DeliveryResource]
    next_cursor: int | None


class Resending(Given):
    """All that failed and tell of something since then; of one endpoint, or of all that are active."""

    since: Moment
    endpoint: Number | None = None


class Resent(ApiModel):
    """How many are sent again."""

    deliveries: int


class Done(ApiModel):
    """The endpoint or delivery."""

    id: int


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/webhooks", list_webhooks, tag=TAG)
    add(app, "POST", "/webhooks", add_webhook, tag=TAG, status=201)
    add(app, "POST", "/webhooks/{number}/rotate", rotate_webhook, tag=TAG)
    add(app, "POST", "/webhooks/{number}/enable", enable_webhook, tag=TAG)
    add(app, "POST", "/webhooks/{number}/remove", remove_webhook, tag=TAG)
    add(app, "GET", "/webhook-deliveries", list_webhook_deliveries, tag=TAG)
    add(app, "POST", "/webhooks/resend", resend_failed_webhooks, tag=TAG)
    add(app, "GET", "/webhook-deliveries/{number}", show_webhook_delivery, tag=TAG)
    add(app, "POST", "/webhook-deliveries/{number}/resend", resend_webhook, tag=TAG)


def list_webhooks(visit: Seen) -> EndpointList:
    """The endpoints."""
    return EndpointList(endpoints=[_endpoint(visit, one) for one in store_of(visit).endpoints()])


def add_webhook(visit: Seen, body: NewEndpoint, key: IdempotencyKey = None) -> Secret:
    """Add an endpoint. Its secret is in this answer and in no other."""
    endpoints = store_of(visit)
    return _once(
        visit,
        key,
        f"webhook {body.model_dump_json(exclude_unset=True)}",
        lambda connection: endpoints.add_in(connection, body.url, body.events, visit.actor, remark=body.note),
        status=201,
    )


def rotate_webhook(visit: Seen, number: NumberInPath, body: Rotation, key: IdempotencyKey = None) -> Secret:
    """Give an endpoint another secret, which is in this answer and in no other."""
    endpoints = store_of(visit)
    return _once(
        visit,
        key,
        f"rotate webhook {number} {body.model_dump_json(exclude_unset=True)}",
        lambda connection: (number, endpoints.rotate_in(connection, number, visit.actor, keep_hours=body.keep_hours)),
        status=200,
    )


def _once(visit: Seen, key: str | None, sent: str, work: Callable[[Connection], tuple[int, str]], *, status: int) -> Secret:
    """What `work` made, or made for the same request before. The kept answer has the secret's hash, not the secret."""

    def made(connection: Connection) -> StoredAnswer:
        number, secret = work(connection)
        return StoredAnswer(status, {"id": number, "secret_sha256": digest(secret)})

    said = Answers(visit.desk.services.engine).once(visit.name, key, sent, made)
    number = said.body["id"]
    secret = store_of(visit).secret(number)
    if digest(secret) != said.body["secret_sha256"]:
        raise InvalidInput(f"that was done before, and endpoint {number} has another secret since, or is gone; take another key")
    return Secret(id=number, secret=secret)


def enable_webhook(visit: Seen, number: NumberInPath) -> Done:
    """Let an endpoint that was disabled get events again."""
    store_of(visit).endpoint(number)
    store_of(visit).enable(number, visit.actor)
    return Done(id=number)


def remove_webhook(visit: Seen, number: NumberInPath) -> Done:
    """Remove an endpoint, and forget its secret."""
    store_of(visit).remove(number, visit.actor)
    return Done(id=number)


def list_webhook_deliveries(  # noqa: PLR0917 - FastAPI calls by keyword
    visit: Seen,
    state: Annotated[StateName | None, Query()] = None,
    event: Annotated[EventName | None, Query()] = None,
    endpoint: Annotated[int | None, Query(ge=1, le=MOST_NUMBER)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Deliveries:
    """The newest deliveries."""
    rows = store_of(visit).deliveries(
        state=state or "", event=event or "", endpoint=endpoint, before=cursor or MOST_NUMBER, limit=limit + 1
    )
    found = [DeliveryResource.model_validate(row) for row in rows[:limit]]
    return Deliveries(deliveries=found, next_cursor=rows[limit - 1].id if len(rows) > limit else None)


def show_webhook_delivery(visit: Seen, number: NumberInPath) -> DeliveryWithAttempts:
    """One delivery, with its tries."""
    found, attempts = store_of(visit).delivery(number)
    sent = json.loads(payload(found.type, found.at, found.data, desk_url(visit.desk.settings)))
    return DeliveryWithAttempts.model_validate({**vars(found), "attempts": [vars(one) for one in attempts], "payload": sent})


def resend_webhook(visit: Seen, number: NumberInPath) -> Done:
    """Send one again, with the same id."""
    store_of(visit).resend(number, visit.actor)
    return Done(id=number)


def resend_failed_webhooks(visit: Seen, body: Resending) -> Resent:
    """Send all again that failed since then."""
    return Resent(deliveries=store_of(visit).resend_failed(body.since, visit.actor, endpoint=body.endpoint))


def _endpoint(visit: Seen, one: store.WebhookEndpoint) -> EndpointResource:
    return EndpointResource.model_validate(
        {**vars(one), "to": one.place, "url": one.url if visit.role >= Role.OPERATOR else None, "events": list(one.events)}
    )
