"""Webhook deliveries on their way: claimed by a lease, sent by somebody, ended. At least once, by any number of processes.

This file and `webhook_triggers` are the promise: an event is written with what it tells of, and a delivery ends only when its
endpoint took it, its tries are used up, or its endpoint is disabled. A deliverer that dies leaves a lease that runs out.
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
# Of an endpoint that does not fail; of one that does, one at a time is tried.
MOST_AT_ONCE = 4

ENDPOINTS = text(
    """
    SELECT id, events, pause_until, failures FROM phantoms.webhook_endpoints WHERE state = 'active' ORDER BY id
    """
)
# The lease is the time at which it is due again. `claim` fences: who was given up does not end what another has claimed since.
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
class Wanted:
    """What there is to look for: which events endpoints want, how many deliveries each may be given now, by its id."""

    events: frozenset[str]
    free: Mapping[int, int]


@dataclass(frozen=True)
class Claimed:
    """A delivery that is ours until its lease ends. `old_secret`: signs, too, until those who verify have the new one."""

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
        """Without what is secret."""
        return f"Claimed({self.id}, {self.type} {self.message_id}, to {origin(self.url)})"


@dataclass(frozen=True)
class Tried:
    """What came of one try. `status`: of the answer; None without one. `error`: in words, empty when it was taken.

    `gone`: the receiver wants nothing any more. `asked`: in how many seconds it wants to be asked again.
    """

    at: datetime
    seconds: float
    status: int | None = None
    error: str = ""
    gone: bool = False
    asked: float | None = None


class Outbox:
    """What is due, and what came of it."""

    def __init__(self, engine: Engine, schedule: RetrySchedule) -> None:
        self._engine = engine
        self._schedule = schedule

    def wanted(self, now: datetime, busy: Mapping[int, int]) -> Wanted:
        """What endpoints want. `busy`: how many deliveries to each are under way in this process."""
        with self._engine.connect() as connection:
            rows = connection.execute(ENDPOINTS).all()
        free = {}
        for row in rows:
            most = 1 if row.failures else MOST_AT_ONCE
            left = most - busy.get(row.id, 0)
            if left > 0 and (row.pause_until is None or row.pause_until <= now):
                free[row.id] = left
        return Wanted(frozenset(name for row in rows for name in row.events), free)

    def claim(self, free: Mapping[int, int]) -> list[Claimed]:
        """Deliveries that are due, a limited number for each endpoint. They are ours for the time of a lease."""
        if not free:
            return []
        values = {"endpoints": list(free), "free": list(free.values()), "lease": self._schedule.lease}
        with self._engine.begin() as connection:
            return [Claimed(**row) for row in connection.execute(CLAIM, values).mappings()]

    def end(self, one: Claimed, tried: Tried, *, spread: float) -> None:
        """Write what came of a try, and all that follows from it, in one transaction. `spread`: -1 to 1, of the wait."""
        if not tried.error:
            self._end(one, tried, "delivered", "", 0.0)
            return
        wait = self._schedule.wait(one.tries, asked=tried.asked, spread=spread)
        if tried.gone or wait is None:
            self._end(one, tried, "failed", tried.error if tried.gone else f"given up after {one.tries} tries: {tried.error}", 0.0)
        else:
            self._end(one, tried, "pending", tried.error, wait)

    def tell(self, kind: str, source: str, data: Mapping[str, Any], at: datetime) -> None:
        """Write an event that is of no table. `source` says what it is of: the same one is written once."""
        assert kind in EVENTS
        with self._engine.begin() as connection:
            connection.execute(_TELL, {"type": kind, "source": source, "data": json.dumps(data), "at": at})

    def forget(self) -> int:
        """Delete events that are older than a month, a thousand at a time; how many."""
        with self._engine.begin() as connection:
            return connection.execute(FORGET, {"days": KEPT_DAYS}).rowcount

    def _end(self, one: Claimed, tried: Tried, state: str, reason: str, wait: float) -> None:
        log = {"id": one.id, "at": tried.at, "seconds": tried.seconds, "status": tried.status, "error": tried.error}
        with self._engine.begin() as connection:
            # The endpoint's row first, as where it is disabled, so that two that end at once cannot wait for each other.
            row = None
            if not tried.error:
                connection.execute(_WELL, {"id": one.endpoint_id})
            else:
                pauses = {"first": self._schedule.first_pause, "longest": self._schedule.longest_pause}
                disable = {"disable": self._schedule.disable_days * 86_400}
                row = connection.execute(_ILL, {"id": one.endpoint_id, **pauses, **disable}).one_or_none()
                given_up = f"it did nothing but fail since {row.failing_since:%Y-%m-%d %H:%M} UTC: {tried.error}" if row else ""
            connection.execute(_LOG, log)
            connection.execute(_END, {"id": one.id, "claim": one.claim, "state": state, "reason": reason, "wait": wait})
            if row is not None and (tried.gone or row.given_up):
                _disable(connection, one.endpoint_id, tried.error if tried.gone else given_up)


def _disable(connection: Connection, endpoint: int, reason: str) -> None:
    """Disable an endpoint: nothing is sent to it any more, and the alerts' destinations are told once."""
    row = connection.execute(_DISABLE, {"id": endpoint, "reason": reason}).one_or_none()
    if row is None:
        return
    connection.execute(_FAIL_REST, {"id": endpoint})
    what = f"webhook endpoint {endpoint} ({origin(row.url)}) was disabled: {reason}"
    values = {"notice": notice_of(endpoint), "what": what, "next_step": f"phantoms webhooks enable {endpoint}"}
    connection.execute(_NOTICE, values)


def notice_of(endpoint: int) -> str:
    """The id of the notice about an endpoint that was disabled."""
    return f"webhook:{endpoint}"
