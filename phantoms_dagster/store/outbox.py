"""The outbox of webhook deliveries: claimed with a lease, sent, ended. Delivery is at least once, by any number of processes.

This file and `webhook_triggers` keep the promise: an event is written in the transaction of its cause, and a delivery ends only
when its endpoint accepted it, its attempts are used up, or its endpoint is disabled. If a process dies, its lease expires.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Engine, text

from phantoms_dagster.domain.webhooks import EVENTS, RetrySchedule, origin

KEPT_DAYS = 30
# Concurrent deliveries per endpoint. A failing endpoint gets one at a time.
MOST_AT_ONCE = 4

ENDPOINTS = text(
    """
    SELECT id, events, pause_until, failures FROM phantoms.webhook_endpoints WHERE state = 'active' ORDER BY id
    """
)
# The lease is the time at which a delivery is due again. `claim` is a fence: a process whose lease expired cannot end a delivery
# that another process has claimed since.
CLAIM = text(
    """
    WITH due AS (
        SELECT n.id FROM unnest(CAST(:endpoints AS bigint[]), CAST(:free AS int[])) AS w(endpoint, free)
        CROSS JOIN LATERAL (
            SELECT d.id FROM phantoms.webhook_deliveries d
            WHERE d.endpoint_id = w.endpoint AND d.state = 'pending' AND d.next_at <= clock_timestamp()
            ORDER BY d.next_at LIMIT w.free FOR UPDATE SKIP LOCKED
        ) n
    ), claimed AS (
        UPDATE phantoms.webhook_deliveries d
        SET tries = d.tries + 1, claim = d.claim + 1, next_at = clock_timestamp() + make_interval(secs => :lease)
        FROM due WHERE d.id = due.id
        RETURNING d.id, d.event_id, d.endpoint_id, d.tries, d.claim
    )
    SELECT c.id, c.endpoint_id, c.tries, c.claim, v.message_id, v.type, v.at, v.data, e.url, e.secret,
        CASE WHEN e.old_secret_until > clock_timestamp() THEN e.old_secret END AS old_secret
    FROM claimed c JOIN phantoms.webhook_events v ON v.id = c.event_id
    JOIN phantoms.webhook_endpoints e ON e.id = c.endpoint_id AND e.state = 'active'
    ORDER BY c.id
    """
)
_LOG = text(
    """
    INSERT INTO phantoms.webhook_attempts (delivery_id, at, seconds, status, error)
    SELECT id, :at, :seconds, CAST(:status AS int), :error FROM phantoms.webhook_deliveries WHERE id = :id
    """
)
_END = text(
    """
    UPDATE phantoms.webhook_deliveries
    SET state = :state, reason = :reason, ended_at = CASE WHEN :state = 'pending' THEN NULL ELSE clock_timestamp() END,
        next_at = clock_timestamp() + make_interval(secs => :wait)
    WHERE id = :id AND claim = :claim AND state = 'pending'
    """
)
_WELL = text(
    """
    UPDATE phantoms.webhook_endpoints SET failures = 0, failing_since = NULL, pause_until = NULL
    WHERE id = :id AND (failures > 0 OR failing_since IS NOT NULL)
    """
)
_ILL = text(
    """
    UPDATE phantoms.webhook_endpoints
    SET failures = failures + 1, failing_since = COALESCE(failing_since, clock_timestamp()),
        pause_until = clock_timestamp() + make_interval(secs => LEAST(:longest, :first * power(2, LEAST(failures, 30))))
    WHERE id = :id AND state = 'active'
    RETURNING url, failing_since, failing_since < clock_timestamp() - make_interval(secs => :disable) AS given_up
    """
)
_DISABLE = text(
    """
    UPDATE phantoms.webhook_endpoints SET state = 'disabled', reason = :reason, updated_at = clock_timestamp()
    WHERE id = :id AND state = 'active' RETURNING url
    """
)
_FAIL_REST = text(
    """
    UPDATE phantoms.webhook_deliveries SET state = 'failed', reason = 'the endpoint was disabled', ended_at = clock_timestamp()
    WHERE endpoint_id = :id AND state = 'pending'
    """
)
_NOTICE = text(
    """
    INSERT INTO phantoms.notices (id, what, next_step, since) VALUES (:notice, :what, :next_step, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET what = excluded.what, next_step = excluded.next_step, since = excluded.since
    """
)
_TELL = text("SELECT phantoms.tell_webhooks(:type, :source, CAST(:data AS jsonb), :at)")
FORGET = text(
    """
    DELETE FROM phantoms.webhook_events WHERE id IN (
        SELECT id FROM phantoms.webhook_events WHERE at < now() - make_interval(days => :days) ORDER BY at LIMIT 1000)
    """
)


@dataclass(frozen=True)
class EndpointDemand:
    """The events that endpoints want, and how many more deliveries each endpoint may get now, by its id."""

    events: frozenset[str]
    free: Mapping[int, int]


@dataclass(frozen=True)
class ClaimedDelivery:
    """A delivery that this process holds until its lease ends. `old_secret` also signs, until receivers have the new one."""

    id: int
    endpoint_id: int
    tries: int
    claim: int
    message_id: str
    type: str
    at: datetime
    data: dict[str, Any]
    url: str
    secret: str
    old_secret: str | None

    def __repr__(self) -> str:
        """Leave out everything secret."""
        return f"Claimed({self.id}, {self.type} {self.message_id}, to {origin(self.url)})"


@dataclass(frozen=True)
class DeliveryResult:
    """The result of one delivery attempt. `status`: of the answer, None without one. `error`: in words, empty on success.

    `gone`: the receiver wants no more deliveries. `asked`: its Retry-After in seconds.
    """

    at: datetime
    seconds: float
    status: int | None = None
    error: str = ""
    gone: bool = False
    asked: float | None = None


class Outbox:
    """Claims due deliveries and records their results."""

    def __init__(self, engine: Engine, schedule: RetrySchedule) -> None:
        self._engine = engine
        self._schedule = schedule

    def wanted(self, now: datetime, busy: Mapping[int, int]) -> EndpointDemand:
        """What endpoints want now. `busy`: how many deliveries to each this process is making."""
        with self._engine.connect() as connection:
            rows = connection.execute(ENDPOINTS).all()
        free = {}
        for row in rows:
            most = 1 if row.failures else MOST_AT_ONCE
            left = most - busy.get(row.id, 0)
            if left > 0 and (row.pause_until is None or row.pause_until <= now):
                free[row.id] = left
        return EndpointDemand(frozenset(name for row in rows for name in row.events), free)

    def claim(self, free: Mapping[int, int]) -> list[ClaimedDelivery]:
        """Claim due deliveries for one lease. `free`: the most for each endpoint, by id."""
        if not free:
            return []
        values = {"endpoints": list(free), "free": list(free.values()), "lease": self._schedule.lease}
        with self._engine.begin() as connection:
            return [ClaimedDelivery(**row) for row in connection.execute(CLAIM, values).mappings()]

    def end(self, one: ClaimedDelivery, tried: DeliveryResult, *, spread: float) -> None:
        """Record the result of an attempt and everything that follows from it, in one transaction. `spread`: jitter, -1 to 1."""
        if not tried.error:
            self._end(one, tried, "delivered", "", 0.0)
            return
        wait = self._schedule.wait(one.tries, asked=tried.asked, spread=spread)
        if tried.gone or wait is None:
            self._end(one, tried, "failed", tried.error if tried.gone else f"given up after {one.tries} tries: {tried.error}", 0.0)
        else:
            self._end(one, tried, "pending", tried.error, wait)

    def tell(self, kind: str, source: str, data: Mapping[str, Any], at: datetime) -> None:
        """Write an event that no table change causes. `source` identifies its cause, so that it is written once."""
        assert kind in EVENTS
        with self._engine.begin() as connection:
            connection.execute(_TELL, {"type": kind, "source": source, "data": json.dumps(data), "at": at})

    def forget(self) -> int:
        """Delete events older than KEPT_DAYS, a thousand at a time. Returns how many were deleted."""
        with self._engine.begin() as connection:
            return connection.execute(FORGET, {"days": KEPT_DAYS}).rowcount

    def _end(self, one: ClaimedDelivery, tried: DeliveryResult, state: str, reason: str, wait: float) -> None:
        log = {"id": one.id, "at": tried.at, "seconds": tried.seconds, "status": tried.status, "error": tried.error}
        with self._engine.begin() as connection:
            # Lock the endpoint's row first, as when disabling it, so that two deliveries that end at once cannot deadlock.
            row = None
            if not tried.error:
                connection.execute(_WELL, {"id": one.endpoint_id})
            else:
                pauses = {"first": self._schedule.first_pause, "longest": self._schedule.longest_pause}
                disable = {"disable": self._schedule.disable_days * 86_400}
                row = connection.execute(_ILL, {"id": one.endpoint_id, **pauses, **disable}).one_or_none()
                given_up = f"every delivery has failed since {row.failing_since:%Y-%m-%d %H:%M} UTC: {tried.error}" if row else ""
            connection.execute(_LOG, log)
            connection.execute(_END, {"id": one.id, "claim": one.claim, "state": state, "reason": reason, "wait": wait})
            if row is not None and (tried.gone or row.given_up):
                _disable(connection, one.endpoint_id, tried.error if tried.gone else given_up)


def _disable(connection: Connection, endpoint: int, reason: str) -> None:
    """Disable an endpoint. Nothing more is sent to it, and one alert reports it."""
    row = connection.execute(_DISABLE, {"id": endpoint, "reason": reason}).one_or_none()
    if row is None:
        return
    connection.execute(_FAIL_REST, {"id": endpoint})
    what = f"webhook endpoint {endpoint} ({origin(row.url)}) was disabled: {reason}"
    values = {"notice": notice_of(endpoint), "what": what, "next_step": f"phantoms webhooks enable {endpoint}"}
    connection.execute(_NOTICE, values)


def notice_of(endpoint: int) -> str:
    """The id of the notice about a disabled endpoint."""
    return f"webhook:{endpoint}"
