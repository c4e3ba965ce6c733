"""Tables for messages to and from other programs, and to people: webhooks, events of providers, notices."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Double, ForeignKey, Index, Integer, Table, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from phantoms_dagster.store.schema.columns import id_column, metadata, time_column

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    id_column(),
    Column("url", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("events", ARRAY(Text), nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    time_column("old_secret_until"),
    Column("state", Text, nullable=False, server_default=text("'active'")),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    time_column("failing_since"),
    time_column("pause_until"),
    time_column("created_at", now=True),
    time_column("updated_at", now=True),
)

webhook_events = Table(
    "webhook_events",
    metadata,
    id_column(),
    Column("message_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("source", Text, nullable=False),
    time_column("at", nullable=False),
    Column("data", JSONB, nullable=False),
    UniqueConstraint("source", name="webhook_events_once"),
    Index("webhook_events_oldest", "at"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    id_column(),
    Column("event_id", BigInteger, ForeignKey("phantoms.webhook_events.id", ondelete="CASCADE"), nullable=False),
    # No foreign key, so that the pipeline's commits neither fail nor wait while an endpoint is removed.
    Column("endpoint_id", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("claim", BigInteger, nullable=False, server_default=text("0")),
    time_column("next_at", now=True),
    time_column("created_at", now=True),
    time_column("ended_at"),
    Index("webhook_deliveries_of_event", "event_id"),
    Index("webhook_deliveries_due", "endpoint_id", "next_at", postgresql_where=text("state = 'pending'")),
    Index("webhook_deliveries_by_state", "state", "id"),
    Index("webhook_deliveries_of_endpoint", "endpoint_id", "state", "id"),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    id_column(),
    Column("delivery_id", BigInteger, ForeignKey("phantoms.webhook_deliveries.id", ondelete="CASCADE"), nullable=False),
    time_column("at", nullable=False),
    Column("seconds", Double, nullable=False),
    Column("status", Integer),
    Column("error", Text, nullable=False, server_default=text("''")),
    Index("webhook_attempts_of_delivery", "delivery_id", "id"),
)

review_destinations = Table(
    "review_destinations",
    metadata,
    Column("name", Text, primary_key=True),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    time_column("retry_at"),
)

review_notices = Table(
    "review_notices",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    time_column("ready_at", nullable=False),
    time_column("told_at", nullable=False),
)

provider_events = Table(
    "provider_events",
    metadata,
    id_column(),
    Column("provider", Text, nullable=False),
    Column("digest", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("handle", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("subject", Text),
    Column("attempt_id", Text),
    Column("remote_id", Text),
    time_column("received_at", now=True),
    time_column("followed_at"),
    Column("woken", Integer),
    UniqueConstraint("provider", "digest", name="provider_events_once"),
    Index("provider_events_pending", "id", postgresql_where=text("followed_at IS NULL")),
    Index("provider_events_oldest", "received_at"),
    Index("provider_events_of_attempt", "provider", "attempt_id", postgresql_where=text("attempt_id IS NOT NULL")),
)
