"""Webhook endpoints and deliveries. docs/webhooks.md describes the payloads."""

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
    IdempotencyKey,
    Limit,
    Masked,
    Moment,
    Number,
    NumberInPath,
    RequestModel,
    Words,
)
from phantoms_dagster.desk.pages.webhooks import store_of
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.webhooks import LONGEST_URL, OLD_SECRET_HOURS
from phantoms_dagster.providers.webhook_payloads import payload
from phantoms_dagster.store import webhooks as store
from phantoms_dagster.store.answers import Answers, StoredAnswer
from phantoms_dagster.store.users import digest
from phantoms_dagster.wiring.addresses import desk_url

TAG = "webhooks"
EventName = Literal["approval.wanted", "video.posted", "video.failed", "provider.down"]
StateName = Literal["pending", "delivered", "failed"]


class NewEndpoint(RequestModel):
    """A new endpoint. An empty `events` means all events."""

    url: Annotated[str, Field(min_length=1, max_length=LONGEST_URL, examples=["https://example.org/hooks/phantoms"])]
    events: Annotated[list[EventName], Field(max_length=20)] = Field(default=[])
    note: Words = ""


class Secret(ApiModel):
    """An endpoint's id and its secret. The secret is shown only once."""

    id: int
    secret: str


class Rotation(RequestModel):
    """For `keep_hours`, messages are also signed with the old secret."""

    keep_hours: Annotated[float, Field(ge=0, le=720, allow_inf_nan=False)] = OLD_SECRET_HOURS


class EndpointResource(ApiModel):
    """An endpoint. `to` is its URL without path and query; only operators get the full `url`. `state` is active or disabled."""

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
    """The delivery of one event to one endpoint. `at` is when the event happened; `reason` is the last error."""

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
    """One attempt. `status` is the HTTP status; null without a response. `error` is empty when the delivery succeeded."""

    at: datetime
    seconds: float
    status: int | None
    error: Masked


class DeliveryWithAttempts(DeliveryResource):
    """A delivery with its attempts, newest first, and its payload."""

    attempts: list[DeliveryAttemptResource]
    payload: dict[str, Any]


class Deliveries(ApiModel):
    """A page of deliveries, newest first."""

    deliveries: list[DeliveryResource]
    next_cursor: int | None


class Resending(RequestModel):
    """Which failed deliveries to send again: events since `since`, to one endpoint or to all active ones."""

    since: Moment
    endpoint: Number | None = None


class Resent(ApiModel):
    """The number of deliveries to be sent again."""

    deliveries: int


class Done(ApiModel):
    """The id of the changed endpoint or delivery."""

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


def list_webhooks(visit: CurrentVisit) -> EndpointList:
    """List the endpoints."""
    return EndpointList(endpoints=[_endpoint(visit, one) for one in store_of(visit).endpoints()])


def add_webhook(visit: CurrentVisit, body: NewEndpoint, key: IdempotencyKey = None) -> Secret:
    """Add an endpoint. Only this response contains its secret."""
    endpoints = store_of(visit)
    return _once(
        visit,
        key,
        f"webhook {body.model_dump_json(exclude_unset=True)}",
        lambda connection: endpoints.add_in(connection, body.url, body.events, visit.actor, remark=body.note),
        status=201,
    )


def rotate_webhook(visit: CurrentVisit, number: NumberInPath, body: Rotation, key: IdempotencyKey = None) -> Secret:
    """Give an endpoint a new secret. Only this response contains it."""
    endpoints = store_of(visit)
    return _once(
        visit,
        key,
        f"rotate webhook {number} {body.model_dump_json(exclude_unset=True)}",
        lambda connection: (number, endpoints.rotate_in(connection, number, visit.actor, keep_hours=body.keep_hours)),
        status=200,
    )


def _once(visit: CurrentVisit, key: str | None, sent: str, work: Callable[[Connection], tuple[int, str]], *, status: int) -> Secret:
    """Run `work` once per idempotency key and return its secret. The stored response has only the secret's hash."""

    def made(connection: Connection) -> StoredAnswer:
        number, secret = work(connection)
        return StoredAnswer(status, {"id": number, "secret_sha256": digest(secret)})

    said = Answers(visit.desk.services.engine).once(visit.name, key, sent, made)
    number = said.body["id"]
    secret = store_of(visit).secret(number)
    if digest(secret) != said.body["secret_sha256"]:
        raise InvalidInput(
            f"this request was done before, and endpoint {number} now has another secret or is gone; use another Idempotency-Key"
        )
    return Secret(id=number, secret=secret)


def enable_webhook(visit: CurrentVisit, number: NumberInPath) -> Done:
    """Enable an endpoint that was disabled."""
    store_of(visit).endpoint(number)
    store_of(visit).enable(number, visit.actor)
    return Done(id=number)


def remove_webhook(visit: CurrentVisit, number: NumberInPath) -> Done:
    """Remove an endpoint and its secret."""
    store_of(visit).remove(number, visit.actor)
    return Done(id=number)


def list_webhook_deliveries(  # noqa: PLR0917 - FastAPI calls by keyword
    visit: CurrentVisit,
    state: Annotated[StateName | None, Query()] = None,
    event: Annotated[EventName | None, Query()] = None,
    endpoint: Annotated[int | None, Query(ge=1, le=MOST_NUMBER)] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Deliveries:
    """List deliveries, newest first."""
    rows = store_of(visit).deliveries(
        state=state or "", event=event or "", endpoint=endpoint, before=cursor or MOST_NUMBER, limit=limit + 1
    )
    found = [DeliveryResource.model_validate(row) for row in rows[:limit]]
    return Deliveries(deliveries=found, next_cursor=rows[limit - 1].id if len(rows) > limit else None)


def show_webhook_delivery(visit: CurrentVisit, number: NumberInPath) -> DeliveryWithAttempts:
    """Return a delivery with its attempts."""
    found, attempts = store_of(visit).delivery(number)
    sent = json.loads(payload(found.type, found.at, found.data, desk_url(visit.desk.settings)))
    return DeliveryWithAttempts.model_validate({**vars(found), "attempts": [vars(one) for one in attempts], "payload": sent})


def resend_webhook(visit: CurrentVisit, number: NumberInPath) -> Done:
    """Send a delivery again, with the same message id."""
    store_of(visit).resend(number, visit.actor)
    return Done(id=number)


def resend_failed_webhooks(visit: CurrentVisit, body: Resending) -> Resent:
    """Send again what failed since a given time."""
    return Resent(deliveries=store_of(visit).resend_failed(body.since, visit.actor, endpoint=body.endpoint))


def _endpoint(visit: CurrentVisit, one: store.WebhookEndpoint) -> EndpointResource:
    return EndpointResource.model_validate(
        {**vars(one), "to": one.place, "url": one.url if visit.role >= Role.OPERATOR else None, "events": list(one.events)}
    )
