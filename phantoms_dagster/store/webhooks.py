"""Webhook endpoints and their delivery log, for operators. `outbox` sends deliveries."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, text

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.webhooks import OLD_SECRET_HOURS, Targets, check_events, check_url, kept_until, origin
from phantoms_dagster.store.audit import Actor, AuditEntry, note
from phantoms_dagster.store.engine import reading
from phantoms_dagster.store.outbox import notice_of

STATES = ("pending", "delivered", "failed")
NEWEST = 2**62
MOST_ENDPOINTS = 50
LONGEST_NOTE = 200

_SHOWN = "id, url, note, events, state, reason, failures, failing_since, old_secret_until, created_at"
ENDPOINTS = text(f"SELECT {_SHOWN} FROM phantoms.webhook_endpoints WHERE state <> 'removed' ORDER BY id")
ENDPOINT = text(f"SELECT {_SHOWN} FROM phantoms.webhook_endpoints WHERE id = :id AND state <> 'removed'")
_LOCKED = text(f"SELECT {_SHOWN}, clock_timestamp() AS now FROM phantoms.webhook_endpoints WHERE id = :id FOR UPDATE")
_ADD = text(
    "INSERT INTO phantoms.webhook_endpoints (url, note, events, secret) VALUES (:url, :note, :events, :secret) RETURNING id"
)
_SECRET = text("SELECT secret FROM phantoms.webhook_endpoints WHERE id = :id")
# The row stays for its deliveries. Its secrets are deleted.
_REMOVE = text(
    """
    UPDATE phantoms.webhook_endpoints SET state = 'removed', secret = '', old_secret = NULL, old_secret_until = NULL,
        reason = '', updated_at = clock_timestamp() WHERE id = :id
    """
)
_STOP_REST = text(
    """
    UPDATE phantoms.webhook_deliveries SET state = 'failed', reason = 'the endpoint was removed', ended_at = clock_timestamp()
    WHERE endpoint_id = :id AND state = 'pending'
    """
)
_ROTATE = text(
    """
    UPDATE phantoms.webhook_endpoints SET old_secret = CASE WHEN :keep THEN secret END,
        old_secret_until = CASE WHEN :keep THEN CAST(:until AS timestamptz) END, secret = :secret, updated_at = clock_timestamp()
    WHERE id = :id
    """
)
_ENABLE = text(
    """
    UPDATE phantoms.webhook_endpoints SET state = 'active', reason = '', failures = 0, failing_since = NULL, pause_until = NULL,
        updated_at = clock_timestamp() WHERE id = :id
    """
)
_NO_NOTICE = text("DELETE FROM phantoms.notices WHERE id = :notice")

# One statement for each filter, so that each reads its own index backwards.
_ROW = """SELECT d.id, d.endpoint_id, d.state, d.reason, d.tries, d.next_at, d.created_at, d.ended_at, v.message_id, v.type, v.at
    FROM phantoms.webhook_deliveries d JOIN phantoms.webhook_events v ON v.id = d.event_id"""
_TYPE = "(:type = '' OR v.type = :type)"
_ORDER = "ORDER BY d.id DESC LIMIT :limit"
PAGES = {
    "": text(f"{_ROW} WHERE d.id < :before AND {_TYPE} {_ORDER}"),
    "state": text(f"{_ROW} WHERE d.state = :state AND d.id < :before AND {_TYPE} {_ORDER}"),
    "endpoint": text(f"{_ROW} WHERE d.endpoint_id = :endpoint AND d.id < :before AND {_TYPE} {_ORDER}"),
    "endpoint and state": text(
        f"{_ROW} WHERE d.endpoint_id = :endpoint AND d.state = :state AND d.id < :before AND {_TYPE} {_ORDER}"
    ),
}
ONE = text(
    """
    SELECT d.id, d.endpoint_id, d.state, d.reason, d.tries, d.next_at, d.created_at, d.ended_at, v.message_id, v.type, v.at, v.data
    FROM phantoms.webhook_deliveries d JOIN phantoms.webhook_events v ON v.id = d.event_id WHERE d.id = :id
    """
)
ATTEMPTS = text(
    "SELECT at, seconds, status, error FROM phantoms.webhook_attempts WHERE delivery_id = :id ORDER BY id DESC LIMIT 50"
)
# The new claim number fences off a delivery attempt in progress, so that its result does not end the new request.
_RESEND = text(
    """
    UPDATE phantoms.webhook_deliveries d
    SET state = 'pending', reason = '', tries = 0, claim = d.claim + 1, next_at = clock_timestamp(), ended_at = NULL
    FROM phantoms.webhook_endpoints e
    WHERE d.id = :id AND e.id = d.endpoint_id AND e.state = 'active'
    """
)
_RESEND_FAILED = text(
    """
    UPDATE phantoms.webhook_deliveries d
    SET state = 'pending', reason = '', tries = 0, claim = d.claim + 1, next_at = clock_timestamp(), ended_at = NULL
    FROM phantoms.webhook_endpoints e, phantoms.webhook_events v
    WHERE e.state = 'active' AND d.endpoint_id = e.id AND d.state = 'failed' AND v.id = d.event_id AND v.at >= :since
        AND (CAST(:endpoint AS bigint) IS NULL OR d.endpoint_id = :endpoint)
    """
)


@dataclass(frozen=True)
class WebhookEndpoint:
    """A webhook endpoint. `url` may contain a secret of the receiver, so only operators see more than its origin."""

    id: int
    url: str = field(repr=False)
    note: str
    events: tuple[str, ...]
    state: str
    reason: str
    failures: int
    failing_since: datetime | None
    old_secret_until: datetime | None
    created_at: datetime

    @property
    def place(self) -> str:
        """The URL without its path and query."""
        return origin(self.url)


@dataclass(frozen=True)
class WebhookDelivery:
    """One event to one endpoint. `tries`: attempts since it was last requested. `reason`: the last error."""

    id: int
    endpoint_id: int
    state: str
    reason: str
    tries: int
    next_at: datetime
    created_at: datetime
    ended_at: datetime | None
    message_id: str
    type: str
    at: datetime
    data: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeliveryAttempt:
    """One delivery attempt: its time, its duration, the status of the answer, and the error (empty on success)."""

    at: datetime
    seconds: float
    status: int | None
    error: str


def new_secret() -> str:
    """A secret as Standard Webhooks writes it: 32 random bytes."""
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"


class Webhooks:
    """Endpoints and deliveries. Each change is one transaction with its line in the audit log. `targets`: see the settings."""

    def __init__(self, engine: Engine, targets: Targets) -> None:
        self._engine = engine
        self._targets = targets

    def endpoints(self) -> list[WebhookEndpoint]:
        """All endpoints, the oldest first."""
        with reading(self._engine).connect() as connection:
            return [_endpoint(row) for row in connection.execute(ENDPOINTS).mappings()]

    def endpoint(self, number: int) -> WebhookEndpoint:
        """One endpoint. Raises NotFound."""
        with reading(self._engine).connect() as connection:
            row = connection.execute(ENDPOINT, {"id": number}).mappings().one_or_none()
        if row is None:
            raise _missing(number)
        return _endpoint(row)

    def add(self, url: str, events: Sequence[str], actor: Actor, *, remark: str = "") -> tuple[int, str]:
        """Add an endpoint for these events (an empty list: all). Returns its number and its secret. Raises InvalidInput."""
        with self._engine.begin() as connection:
            return self.add_in(connection, url, events, actor, remark=remark)

    def add_in(self, connection: Connection, url: str, events: Sequence[str], actor: Actor, *, remark: str = "") -> tuple[int, str]:
        """The same in the caller's transaction."""
        wanted, address, remark = check_events(list(events)), check_url(url, self._targets), remark.strip()
        if len(remark) > LONGEST_NOTE or not remark.isprintable():
            raise InvalidInput(f"a note is one line of at most {LONGEST_NOTE} characters")
        secret = new_secret()
        if len(connection.execute(ENDPOINTS).all()) >= MOST_ENDPOINTS:
            raise InvalidInput(f"there are {MOST_ENDPOINTS} endpoints already: remove one first")
        values = {"url": address, "note": remark, "events": wanted, "secret": secret}
        number = int(connection.execute(_ADD, values).scalar_one())
        note(connection, [AuditEntry(actor, "add", _subject(number), after={"to": origin(address), "events": wanted})])
        return number, secret

    def secret(self, number: int) -> str:
        """The endpoint's current signing secret; empty when the endpoint is removed."""
        with reading(self._engine).connect() as connection:
            return str(connection.execute(_SECRET, {"id": number}).scalar() or "")

    def remove(self, number: int, actor: Actor) -> None:
        """Remove an endpoint and delete its secret. Open deliveries fail. Raises NotFound."""
        with self._engine.begin() as connection:
            found = self._locked(connection, number)
            connection.execute(_REMOVE, {"id": number})
            connection.execute(_STOP_REST, {"id": number})
            connection.execute(_NO_NOTICE, {"notice": notice_of(number)})
            note(connection, [AuditEntry(actor, "remove", _subject(number), before={"to": origin(found["url"])})])

    def rotate(self, number: int, actor: Actor, *, keep_hours: float = OLD_SECRET_HOURS) -> str:
        """Replace the secret and return the new one. The old one also signs for `keep_hours`.

        Raises NotFound and InvalidInput.
        """
        with self._engine.begin() as connection:
            return self.rotate_in(connection, number, actor, keep_hours=keep_hours)

    def rotate_in(self, connection: Connection, number: int, actor: Actor, *, keep_hours: float = OLD_SECRET_HOURS) -> str:
        """The same in the caller's transaction."""
        secret = new_secret()
        until = kept_until(self._locked(connection, number)["now"], keep_hours)
        connection.execute(_ROTATE, {"id": number, "secret": secret, "keep": keep_hours > 0, "until": until})
        deed = AuditEntry(actor, "rotate the secret", _subject(number), after={"the old one signs until": until.isoformat()})
        note(connection, [deed])
        return secret

    def enable(self, number: int, actor: Actor) -> None:
        """Enable a disabled endpoint. Missed events are sent only when a person resends them."""
        with self._engine.begin() as connection:
            found = self._locked(connection, number)
            if found["state"] == "active":
                raise InvalidInput(f"endpoint {number} is not disabled")
            connection.execute(_ENABLE, {"id": number})
            connection.execute(_NO_NOTICE, {"notice": notice_of(number)})
            note(
                connection,
                [AuditEntry(actor, "enable", _subject(number), before={"state": found["state"], "reason": found["reason"]})],
            )

    def deliveries(
        self, *, state: str = "", endpoint: int | None = None, event: str = "", before: int = NEWEST, limit: int = 50
    ) -> list[WebhookDelivery]:
        """The newest deliveries with an id below `before`: all, or those in a state, to an endpoint, or of a type of event."""
        kind = " and ".join([*(["endpoint"] if endpoint is not None else []), *(["state"] if state else [])])
        values = {"state": state, "endpoint": endpoint, "type": event, "before": before, "limit": limit}
        with reading(self._engine).connect() as connection:
            return [WebhookDelivery(**row) for row in connection.execute(PAGES[kind], values).mappings()]

    def delivery(self, number: int) -> tuple[WebhookDelivery, list[DeliveryAttempt]]:
        """One delivery with its attempts, the newest first. Raises NotFound."""
        with reading(self._engine).connect() as connection:
            row = connection.execute(ONE, {"id": number}).mappings().one_or_none()
            if row is None:
                raise NotFound(f"there is no webhook delivery {number}; `phantoms webhooks deliveries` lists them")
            return WebhookDelivery(**row), [
                DeliveryAttempt(**one) for one in connection.execute(ATTEMPTS, {"id": number}).mappings()
            ]

    def resend(self, number: int, actor: Actor) -> None:
        """Resend a delivery with the same id. Raises NotFound, and InvalidInput when its endpoint is disabled or removed."""
        self.delivery(number)
        with self._engine.begin() as connection:
            if connection.execute(_RESEND, {"id": number}).rowcount == 0:
                raise InvalidInput(f"the endpoint of delivery {number} is disabled or removed: enable it first")
            note(connection, [AuditEntry(actor, "resend", f"webhook delivery {number}")])

    def resend_failed(self, since: datetime, actor: Actor, *, endpoint: int | None = None) -> int:
        """Resend all failed deliveries of events since that time, to active endpoints. Returns how many. Raises NotFound."""
        with self._engine.begin() as connection:
            if endpoint is not None and self._locked(connection, endpoint)["state"] != "active":
                raise InvalidInput(f"endpoint {endpoint} is disabled: enable it first")
            count = connection.execute(_RESEND_FAILED, {"since": since, "endpoint": endpoint}).rowcount
            subject = _subject(endpoint) if endpoint is not None else "webhooks"
            note(
                connection,
                [AuditEntry(actor, "resend all failed", subject, after={"since": since.isoformat(), "deliveries": count})],
            )
        return count

    def _locked(self, connection: Connection, number: int) -> RowMapping:
        row = connection.execute(_LOCKED, {"id": number}).mappings().one_or_none()
        if row is None or row["state"] == "removed":
            raise _missing(number)
        return row


def _endpoint(row: RowMapping) -> WebhookEndpoint:
    return WebhookEndpoint(**{**row, "events": tuple(row["events"])})


def _missing(number: int) -> NotFound:
    return NotFound(f"there is no webhook endpoint {number}; `phantoms webhooks list` shows them")


def _subject(number: int) -> str:
    return f"webhook endpoint {number}"
