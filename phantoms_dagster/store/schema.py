"""The tables, as SQLAlchemy sees them. How they came to be belongs in `migrations`; a test holds both together."""

from __future__ import annotations

from sqlalchemy import (
    DDL,
    BigInteger,
    Boolean,
    Column,
    Computed,
    Date,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    event,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

from phantoms_dagster.store import webhook_triggers
from phantoms_dagster.store.cause import CAUSE_OF

SCHEMA = "phantoms"

metadata = MetaData(schema=SCHEMA)
event.listen(metadata, "before_create", DDL(CAUSE_OF))  # type: ignore[no-untyped-call]
for _statement in webhook_triggers.CREATE:
    event.listen(metadata, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]


def _id() -> Column[int]:
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


def _video() -> Column[int]:
    return Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), nullable=False)


def _time(name: str, *, nullable: bool = True, now: bool = False) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=nullable and not now, server_default=func.now() if now else None)


channels = Table(
    "channels",
    metadata,
    Column("name", Text, primary_key=True),
    Column("config", JSONB, nullable=False),
    _time("updated_at", now=True),
)

# What searches find videos by, written as PostgreSQL writes it.
_WORDS = "to_tsvector('simple'::regconfig, ((title || ' '::text) || replace(key, '-'::text, ' '::text)))"

videos = Table(
    "videos",
    metadata,
    _id(),
    Column("key", Text, nullable=False, unique=True),
    Column("channel", Text, ForeignKey("phantoms.channels.name"), nullable=False),
    Column("title", Text, nullable=False),
    Column("brief", JSONB, nullable=False),
    Column("platforms", ARRAY(Text), nullable=False),
    _time("publish_at"),
    Column("priority", SmallInteger, nullable=False, server_default=text("5")),
    Column("source", Text, nullable=False),
    Column("added_by", Text),
    Column("fingerprint", Text, nullable=False, unique=True),
    _time("created_at", now=True),
    _time("registered_at"),
    _time("retired_at"),
    Column("place", BigInteger),
    Index("videos_in_order", "place", postgresql_where=text("retired_at IS NULL AND place IS NOT NULL")),
    Index("videos_unregistered", "id", postgresql_where=text("registered_at IS NULL")),
    Index("videos_publish_at", "publish_at", postgresql_where=text("publish_at IS NOT NULL")),
    Column("words", TSVECTOR, Computed(_WORDS, persisted=True), nullable=False),
    Index("videos_words", "words", postgresql_using="gin"),
    Index("videos_of_channel", "channel", "id"),
    Index("videos_of_priority", "priority", "id"),
    Index("videos_of_channel_and_priority", "channel", "priority", "id"),
    Index("videos_added", "created_at"),
    Index("videos_retired", "id", postgresql_where=text("retired_at IS NOT NULL")),
)

stages = Table(
    "stages",
    metadata,
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("stage", Text, primary_key=True),
    Column("revision", Integer, nullable=False, server_default=text("1")),
    Column("state", Text, nullable=False),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("generation", BigInteger, nullable=False, server_default=text("0")),
    _time("ready_at"),
    _time("retry_at"),
    Column("lease_owner", Text),
    _time("lease_until"),
    Column("run_id", Text),
    Column("output", JSONB),
    Column("provider_ref", Text),
    Column("cost", Numeric(12, 6), nullable=False, server_default=text("0")),
    Column("error_class", Text),
    Column("reason", Text),
    _time("started_at"),
    _time("finished_at"),
    _time("updated_at", now=True),
    _time("cleaned_at"),
    _time("failing_since"),
    Column("waits", Integer, nullable=False, server_default=text("0")),
    Column("paced", JSONB),
    Column("waits_for", Text),
    _time("waits_since"),
    Index(
        "stages_waiting", "stage", "state", "video_id", postgresql_where=text("state IN ('ready', 'deferred', 'running', 'failed')")
    ),
    Index("stages_done", "updated_at", postgresql_where=text("state = 'done'")),
    Index("stages_leases", "lease_owner", postgresql_where=text("state = 'running'")),
    Index("stages_by_state", "stage", "state"),
    Index("stages_ready", "stage", "ready_at", postgresql_where=text("state = 'ready'")),
    Index("stages_deferred", "stage", "retry_at", postgresql_where=text("state = 'deferred'")),
)

attempts = Table(
    "attempts",
    metadata,
    _id(),
    _video(),
    Column("stage", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("generation", BigInteger, nullable=False),
    Column("run_id", Text),
    Column("state", Text, nullable=False, server_default=text("'intent'")),
    Column("provider", Text),
    Column("provider_ref", Text),
    Column("response", JSONB),
    Column("cost", Numeric(12, 6), nullable=False, server_default=text("0")),
    Column("error_class", Text),
    Column("code", Text),
    Column("message", Text),
    Column("evidence", JSONB),
    _time("started_at", now=True),
    _time("finished_at"),
    Column("paced", JSONB),
    Index("attempts_of_stage", "video_id", "stage", "id"),
    Index("attempts_finished", "finished_at"),
)

renders = Table(
    "renders",
    metadata,
    _id(),
    _video(),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'intent'")),
    Column("render_id", Text),
    Column("attempt_id", Text),
    _time("attempted_at"),
    _time("updated_at", now=True),
    Column("sandbox", Boolean),
    UniqueConstraint("video_id", "revision", name="renders_once"),
)

posts = Table(
    "posts",
    metadata,
    _id(),
    _video(),
    Column("platform", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'intent'")),
    Column("marker", Text, nullable=False),
    Column("handle", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("upload_offset", BigInteger, nullable=False, server_default=text("0")),
    Column("remote_id", Text),
    Column("url", Text),
    Column("sandbox", Boolean, nullable=False, server_default=text("false")),
    Column("video_sha256", Text, nullable=False),
    Column("caption_sha256", Text, nullable=False),
    _time("attempted_at"),
    _time("published_at"),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    Column("duplicate", Boolean, nullable=False, server_default=text("false")),
    Index("posts_bound", "video_id", "platform", "sandbox", unique=True, postgresql_where=text("NOT duplicate")),
    Index(
        "posts_remote",
        "platform",
        "sandbox",
        "remote_id",
        unique=True,
        postgresql_where=text("remote_id IS NOT NULL AND NOT duplicate AND NOT sandbox"),
    ),
    Index("posts_published", "published_at"),
    Index("posts_of_video", "video_id", "id"),
    Index("posts_of_caption", "caption_sha256", "account"),
    Index("posts_to_open", "platform", "account", postgresql_where=text("state = 'intent'")),
    Index("posts_in_flight", "platform", "account", postgresql_where=text("state IN ('opened', 'uploading', 'committing')")),
    Index(
        "posts_without_public_id",
        "published_at",
        postgresql_where=text("platform = 'tiktok' AND state IN ('published', 'confirmed') AND remote_id !~ '^[0-9]+$'"),
    ),
)

late_ids = Table(
    "late_ids",
    metadata,
    Column("post_id", BigInteger, ForeignKey("phantoms.posts.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    _time("ask_at"),
    Column("given_up", Boolean, nullable=False, server_default=text("false")),
    Column("asked", Integer, nullable=False, server_default=text("0")),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    _id(),
    _video(),
    Column("stage", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("provider", Text),
    Column("error_class", Text, nullable=False),
    Column("code", Text),
    Column("message", Text, nullable=False),
    Column("evidence", JSONB),
    Column("attempts", JSONB, nullable=False),
    Column("run_id", Text),
    _time("created_at", now=True),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    _time("closed_at"),
    Column("closed_by", Text),
    Column("closed_reason", Text),
    Column("tries", Integer),
    Column("counted", Integer),
    _time("failing_since"),
    Index("dead_letters_open", "video_id", "stage", unique=True, postgresql_where=text("state = 'open'")),
    Index("dead_letters_of_video", "video_id", "id"),
    Column(
        "cause", Text, Computed("phantoms.cause_of(provider, stage, error_class, code, message)", persisted=True), nullable=False
    ),
    Index("dead_letters_of_cause", "cause", "id"),
    Index("dead_letters_of_cause_by_time", "cause", "created_at"),
    Index("dead_letters_open_of_cause", "cause", "id", postgresql_where=text("state = 'open'")),
)

approvals = Table(
    "approvals",
    metadata,
    _id(),
    _video(),
    Column("approved", Boolean, nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("content_sha256", Text, nullable=False),
    Column("via", Text, nullable=False),
    _time("decided_at", now=True),
    Column("words", JSONB),
    Column("first_reviewer", Text),
    Index("approvals_of_video", "video_id", "id"),
    Index("approvals_decided", "decided_at"),
)

first_approvals = Table(
    "first_approvals",
    metadata,
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("person", Text, nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("via", Text, nullable=False),
    Column("content_sha256", Text, nullable=False),
    _time("given_at", now=True),
)

accounts = Table(
    "accounts",
    metadata,
    _id(),
    Column("platform", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("subject", Text),
    Column("access_token", LargeBinary),
    Column("refresh_token", LargeBinary),
    _time("access_expires_at"),
    _time("refresh_expires_at"),
    Column("scopes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("generation", BigInteger, nullable=False, server_default=text("0")),
    Column("state", Text, nullable=False, server_default=text("'active'")),
    _time("updated_at", now=True),
    Column("label", Text),
    Column("token_ref", Text),
    Column("token_sha256", Text),
    Column("reason", Text),
    _time("state_since"),
    _time("asked_at"),
    UniqueConstraint("platform", "name", name="accounts_once"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("what", Text, nullable=False),
    Column("next_step", Text, nullable=False),
    _time("since", nullable=False),
)

metric_snapshots = Table(
    "metric_snapshots",
    metadata,
    _id(),
    Column("post_id", BigInteger, ForeignKey("phantoms.posts.id", ondelete="CASCADE"), nullable=False),
    _time("at", now=True),
    Column("views", BigInteger),
    Column("likes", BigInteger),
    Column("comments", BigInteger),
    Column("shares", BigInteger),
    Column("watch_seconds", Double),
    Index("metric_snapshots_of_post", "post_id", "at"),
)

post_reads = Table(
    "post_reads",
    metadata,
    Column("post_id", BigInteger, ForeignKey("phantoms.posts.id", ondelete="CASCADE"), primary_key=True),
    _time("due_at", nullable=False),
    _time("read_at"),
    _time("gone_at"),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("problem", Text),
)

account_reads = Table(
    "account_reads",
    metadata,
    Column("platform", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    _time("read_at"),
    _time("failing_since"),
    Column("problem", Text),
    Column("unsupported", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    _time("unsupported_at"),
)

_PERFORMANCE = ("posts", "views", "likes", "comments", "shares")


def _performance() -> list[Column[object]]:
    counts: list[Column[object]] = [Column(name, BigInteger, nullable=False) for name in _PERFORMANCE]
    return [
        *counts,
        Column("watch_seconds", Double),
        Column("engagement_rate", Double),
        Column("cost", Numeric(12, 6)),
        _time("computed_at", nullable=False),
    ]


video_performance = Table(
    "video_performance",
    metadata,
    Column("video_key", Text, primary_key=True),
    Column("title", Text, nullable=False),
    Column("channel", Text, nullable=False),
    Column("hook", Text),
    Column("first_published_at", DateTime(timezone=True)),
    *_performance(),
    Index("video_performance_by_time", "first_published_at"),
    Index("video_performance_of_channel", "channel", "first_published_at"),
    *(
        Index(f"video_performance_by_{column}", text(f"{column} DESC NULLS LAST"), "video_key")
        for column in (*_PERFORMANCE[1:], "engagement_rate", "cost")
    ),
)

# What the results of a period add up to, by hour of the day or by hook; `channel` is empty for all of them together.
performance_sums = Table(
    "performance_sums",
    metadata,
    Column("days", Integer, nullable=False),
    Column("channel", Text, nullable=False),
    Column("hour", Integer),
    Column("hook", Text),
    *(Column(name, BigInteger, nullable=False) for name in ("videos", "posts", "views", "reactions")),
    Column("cost", Numeric, nullable=False),
    _time("since", nullable=False),
    _time("computed_at", nullable=False),
    Index("performance_sums_of_period", "days", "channel"),
)

platform_performance = Table(
    "platform_performance",
    metadata,
    Column("day", Date, primary_key=True),
    Column("platform", Text, primary_key=True),
    Column("channel", Text, primary_key=True),
    *_performance(),
)

hook_performance = Table(
    "hook_performance",
    metadata,
    Column("hook", Text, primary_key=True),
    *_performance(),
)

# --- the desk

users = Table(
    "users",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("password_hash", Text),
    Column("issuer", Text),
    Column("subject", Text),
    _time("created_at", now=True),
    _time("updated_at", now=True),
    UniqueConstraint("name", name="users_once"),
    UniqueConstraint("issuer", "subject", name="users_identity"),
)

oidc_states = Table(
    "oidc_states",
    metadata,
    Column("state_sha256", Text, primary_key=True),
    _time("expires_at", nullable=False),
    Index("oidc_states_ended", "expires_at"),
)

desk_sessions = Table(
    "desk_sessions",
    metadata,
    Column("id_sha256", Text, primary_key=True),
    Column("user_id", BigInteger, ForeignKey("phantoms.users.id", ondelete="CASCADE"), nullable=False),
    Column("address", Text, nullable=False),
    _time("created_at", now=True),
    _time("seen_at", now=True),
    _time("expires_at", nullable=False),
    Index("desk_sessions_of_user", "user_id"),
    Index("desk_sessions_ended", "expires_at"),
)

api_answers = Table(
    "api_answers",
    metadata,
    Column("who", Text, primary_key=True),
    Column("key", Text, primary_key=True),
    Column("body_sha256", Text, nullable=False),
    Column("status", SmallInteger),
    Column("answer", JSONB),
    _time("made_at", now=True),
    Index("api_answers_oldest", "made_at"),
)

api_tokens = Table(
    "api_tokens",
    metadata,
    _id(),
    Column("name", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("token_sha256", Text, nullable=False),
    _time("created_at", now=True),
    _time("used_at"),
    UniqueConstraint("name", name="api_tokens_once"),
    UniqueConstraint("token_sha256", name="api_tokens_secret"),
)

holds = Table(
    "holds",
    metadata,
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("reviewer", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("via", Text, nullable=False),
    _time("held_at", now=True),
    Index("holds_newest", "held_at"),
)

pending_decisions = Table(
    "pending_decisions",
    metadata,
    _id(),
    _video(),
    Column("answer", Text, nullable=False),
    Column("platforms", ARRAY(Text)),
    Column("reviewer", Text, nullable=False),
    Column("person", Text),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("content_sha256", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("address", Text, nullable=False, server_default=text("''")),
    Column("state", Text, nullable=False, server_default=text("'pending'")),
    Column("outcome", Text),
    _time("made_at", now=True),
    _time("commit_at", nullable=False),
    _time("ended_at"),
    Index("pending_decisions_one", "video_id", unique=True, postgresql_where=text("state = 'pending'")),
    Index("pending_decisions_due", "commit_at", postgresql_where=text("state = 'pending'")),
    Index("pending_decisions_of_reviewer", "reviewer", "made_at"),
)

guest_links = Table(
    "guest_links",
    metadata,
    _id(),
    _video(),
    Column("secret_sha256", Text, nullable=False),
    Column("guest", Text, nullable=False),
    Column("content_sha256", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    _time("made_at", now=True),
    _time("expires_at", nullable=False),
    Column("revoked_by", Text),
    _time("revoked_at"),
    Column("decision_id", BigInteger, ForeignKey("phantoms.pending_decisions.id", ondelete="SET NULL")),
    _time("used_at"),
    UniqueConstraint("secret_sha256", name="guest_links_secret"),
    Index("guest_links_of_video", "video_id", "id"),
    Index("guest_links_of_decision", "decision_id"),
)

earlier_revisions = Table(
    "earlier_revisions",
    metadata,
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("script", JSONB, nullable=False),
    Column("rendered", JSONB, nullable=False),
    _time("replaced_at", now=True),
)

audit_log = Table(
    "audit_log",
    metadata,
    _id(),
    _time("at", now=True),
    Column("who", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("address", Text, nullable=False, server_default=text("''")),
    Column("action", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("before", JSONB),
    Column("after", JSONB),
    Index("audit_log_of_subject", "subject", "id"),
    Index("audit_log_of_person", "who", "id"),
)

bulk_actions = Table(
    "bulk_actions",
    metadata,
    _id(),
    Column("action", Text, nullable=False),
    Column("arguments", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("chosen", Text, nullable=False, server_default=text("''")),
    Column("who", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("address", Text, nullable=False, server_default=text("''")),
    Column("state", Text, nullable=False, server_default=text("'running'")),
    Column("note", Text, nullable=False, server_default=text("''")),
    _time("made_at", now=True),
    _time("ended_at"),
    Column("once", Text, unique=True),
    Index("bulk_actions_open", "id", postgresql_where=text("state IN ('canary', 'running')")),
)

bulk_items = Table(
    "bulk_items",
    metadata,
    Column(
        "bulk_id", BigInteger, ForeignKey("phantoms.bulk_actions.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    ),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("key", Text, nullable=False),
    Column("letter_id", BigInteger),
    Column("state", Text, nullable=False, server_default=text("'pending'")),
    Column("outcome", Text, nullable=False, server_default=text("''")),
    _time("ended_at"),
    Index("bulk_items_left", "bulk_id", "n", postgresql_where=text("state = 'pending'")),
    Index("bulk_items_by_state", "bulk_id", "state", "n"),
)

issues = Table(
    "issues",
    metadata,
    Column("cause", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("seen", BigInteger, nullable=False),
    Column("counted", BigInteger, nullable=False),
    _time("said_at", now=True),
    Column("said_by", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
)

# --- events for other programs, and notices for people

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    _id(),
    Column("url", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("events", ARRAY(Text), nullable=False),
    Column("secret", Text, nullable=False),
    Column("old_secret", Text),
    _time("old_secret_until"),
    Column("state", Text, nullable=False, server_default=text("'active'")),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    _time("failing_since"),
    _time("pause_until"),
    _time("created_at", now=True),
    _time("updated_at", now=True),
)

webhook_events = Table(
    "webhook_events",
    metadata,
    _id(),
    Column("message_id", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("source", Text, nullable=False),
    _time("at", nullable=False),
    Column("data", JSONB, nullable=False),
    UniqueConstraint("source", name="webhook_events_once"),
    Index("webhook_events_oldest", "at"),
)

webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    _id(),
    Column("event_id", BigInteger, ForeignKey("phantoms.webhook_events.id", ondelete="CASCADE"), nullable=False),
    # No foreign key: what the pipeline commits must not fail, or wait, because an endpoint is being removed.
    Column("endpoint_id", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
    Column("reason", Text, nullable=False, server_default=text("''")),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    Column("claim", BigInteger, nullable=False, server_default=text("0")),
    _time("next_at", now=True),
    _time("created_at", now=True),
    _time("ended_at"),
    Index("webhook_deliveries_of_event", "event_id"),
    Index("webhook_deliveries_due", "endpoint_id", "next_at", postgresql_where=text("state = 'pending'")),
    Index("webhook_deliveries_by_state", "state", "id"),
    Index("webhook_deliveries_of_endpoint", "endpoint_id", "state", "id"),
)

webhook_attempts = Table(
    "webhook_attempts",
    metadata,
    _id(),
    Column("delivery_id", BigInteger, ForeignKey("phantoms.webhook_deliveries.id", ondelete="CASCADE"), nullable=False),
    _time("at", nullable=False),
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
    _time("retry_at"),
)

review_notices = Table(
    "review_notices",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    _time("ready_at", nullable=False),
    _time("told_at", nullable=False),
)
