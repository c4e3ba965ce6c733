"""Webhooks: the endpoints that receive events, their deliveries, and sending failed deliveries again."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from fastapi import FastAPI
from starlette.responses import Response

from phantoms_dagster.desk.render import count, page, redirect_to
from phantoms_dagster.desk.visits import CurrentVisit, Form, Visit, field
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.webhooks import EVENTS
from phantoms_dagster.providers.webhook_payloads import payload
from phantoms_dagster.store.webhooks import NEWEST, STATES, Webhooks
from phantoms_dagster.wiring.addresses import desk_url

ROWS = 50
SPANS = {"1": "the last hour", "24": "the last day", "168": "the last week", "720": "the last 30 days"}


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/webhooks", include_in_schema=False)(webhooks)
    app.post("/webhooks/add", include_in_schema=False)(add)
    app.post("/webhooks/resend", include_in_schema=False)(resend_failed)
    app.post("/webhooks/{number}/rotate", include_in_schema=False)(rotate)
    app.post("/webhooks/{number}/enable", include_in_schema=False)(enable)
    app.post("/webhooks/{number}/remove", include_in_schema=False)(remove)
    app.get("/webhooks/deliveries/{number}", include_in_schema=False)(delivery)
    app.post("/webhooks/deliveries/{number}/resend", include_in_schema=False)(resend)


def store_of(visit: Visit) -> Webhooks:
    """Return the store of endpoints and deliveries."""
    return Webhooks(visit.desk.services.engine, visit.desk.settings.webhooks.targets)


def webhooks(visit: CurrentVisit, state: str = "", event: str = "", endpoint: int | None = None, before: int = NEWEST) -> Response:
    """Show the endpoints and the newest deliveries, optionally of one state, event or endpoint."""
    if state and state not in STATES:
        raise InvalidInput(f"there is no state {state!r}; the states are {', '.join(STATES)}")
    if event and event not in EVENTS:
        raise InvalidInput(f"there is no event {event!r}; the events are {', '.join(EVENTS)}")
    store = store_of(visit)
    found = store.deliveries(state=state, event=event, endpoint=endpoint, before=before, limit=ROWS + 1)
    return page(
        visit,
        "webhooks.html",
        endpoints=store.endpoints(),
        deliveries=found[:ROWS],
        older=found[ROWS - 1].id if len(found) > ROWS else None,
        newest=before >= NEWEST,
        states=STATES,
        events=EVENTS,
        spans=SPANS,
        state=state,
        event=event,
        endpoint=endpoint,
    )


def delivery(visit: CurrentVisit, number: int) -> Response:
    """Show a delivery with its attempts and payload."""
    found, attempts = store_of(visit).delivery(number)
    sent = json.loads(payload(found.type, found.at, found.data, desk_url(visit.desk.settings)))
    shown = json.dumps(sent, indent=2, ensure_ascii=False)
    return page(visit, "webhook_delivery.html", one=found, attempts=attempts, payload=shown)


def add(visit: CurrentVisit, form: Form) -> Response:
    """Add an endpoint and show its secret once."""
    events = [str(one)[:60] for one in form.getlist("event")]
    if not events:
        raise InvalidInput("select at least one event")
    number, secret = store_of(visit).add(field(form, "url", most=3_000), events, visit.actor, remark=field(form, "note"))
    return page(visit, "webhook_secret.html", number=number, secret=secret, rotated=False)


def rotate(visit: CurrentVisit, number: int) -> Response:
    """Give an endpoint a new secret and show it once."""
    secret = store_of(visit).rotate(number, visit.actor)
    return page(visit, "webhook_secret.html", number=number, secret=secret, rotated=True)


def enable(visit: CurrentVisit, number: int) -> Response:
    """Enable an endpoint that was disabled."""
    store_of(visit).enable(number, visit.actor)
    said = f"Endpoint {number} gets events again. The deliveries that it missed have failed; send them again below."
    return redirect_to(visit, "/webhooks", said)


def remove(visit: CurrentVisit, number: int) -> Response:
    """Remove an endpoint."""
    store_of(visit).remove(number, visit.actor)
    return redirect_to(visit, "/webhooks", f"Endpoint {number} and its secret are deleted.")


def resend(visit: CurrentVisit, number: int) -> Response:
    """Send a delivery again."""
    store_of(visit).resend(number, visit.actor)
    return redirect_to(visit, f"/webhooks/deliveries/{number}", "It will be sent again, with the same id.")


def resend_failed(visit: CurrentVisit, form: Form) -> Response:
    """Send again what failed within a period."""
    hours, chosen = field(form, "hours", most=10), field(form, "endpoint", most=20)
    if hours not in SPANS:
        raise InvalidInput(f"choose one of {', '.join(SPANS.values())}")
    if chosen and not (chosen.isdecimal() and len(chosen) < 19):
        raise InvalidInput("an endpoint is given by its number")
    since = datetime.now(UTC) - timedelta(hours=int(hours))
    number = store_of(visit).resend_failed(since, visit.actor, endpoint=int(chosen) if chosen else None)
    told = f"{count(number, 'delivery', 'deliveries')} will be sent again." if number else "Nothing failed in that time."
    return redirect_to(visit, "/webhooks?state=pending" if number else "/webhooks", told, "good" if number else "info")
