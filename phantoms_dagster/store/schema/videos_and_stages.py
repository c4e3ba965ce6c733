"""Tables of videos, stages, attempts, dead letters and decisions."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Computed,
    ForeignKey,
    Index,
    Integer,
    Numeric,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, TSVECTOR

from phantoms_dagster.store.schema.columns import id_column, metadata, time_column, video_column

channels = Table(
    "channels",
    metadata,
    Column("name", Text, primary_key=True),
    Column("config", JSONB, nullable=False),
    time_column("updated_at", now=True),
)

# The text that searches match, written as PostgreSQL normalizes it.
_WORDS = "to_tsvector('simple'::regconfig, ((title || ' '::text) || replace(key, '-'::text, ' '::text)))"

videos = Table(
    "videos",
    metadata,
    id_column(),
    Column("key", Text, nullable=False, unique=True),
    Column("channel", Text, ForeignKey("phantoms.channels.name"), nullable=False),
    Column("title", Text, nullable=False),
    Column("brief", JSONB, nullable=False),
    Column("platforms", ARRAY(Text), nullable=False),
    time_column("publish_at"),
    Column("priority", SmallInteger, nullable=False, server_default=text("5")),
    Column("source", Text, nullable=False),
    Column("added_by", Text),
    Column("fingerprint", Text, nullable=False, unique=True),
    time_column("created_at", now=True),
    time_column("registered_at"),
    time_column("retired_at"),
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
    time_column("ready_at"),
    time_column("retry_at"),
    Column("lease_owner", Text),
    time_column("lease_until"),
    Column("run_id", Text),
    Column("output", JSONB),
    Column("provider_ref", Text),
    Column("cost", Numeric(12, 6), nullable=False, server_default=text("0")),
    Column("error_class", Text),
    Column("reason", Text),
    time_column("started_at"),
    time_column("finished_at"),
    time_column("updated_at", now=True),
    time_column("cleaned_at"),
    time_column("failing_since"),
    Column("waits", Integer, nullable=False, server_default=text("0")),
    Column("paced", JSONB),
    Column("waits_for", Text),
    time_column("waits_since"),
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
    id_column(),
    video_column(),
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
    time_column("started_at", now=True),
    time_column("finished_at"),
    Column("paced", JSONB),
    Index("attempts_of_stage", "video_id", "stage", "id"),
    Index("attempts_finished", "finished_at"),
)

renders = Table(
    "renders",
    metadata,
    id_column(),
    video_column(),
    Column("revision", Integer, nullable=False),
    Column("state", Text, nullable=False, server_default=text("'intent'")),
    Column("render_id", Text),
    Column("attempt_id", Text),
    time_column("attempted_at"),
    time_column("updated_at", now=True),
    Column("sandbox", Boolean),
    Column("proof", Text),
    time_column("proved_at"),
    Column("written_off", Numeric(12, 6)),
    UniqueConstraint("video_id", "revision", name="renders_once"),
)

dead_letters = Table(
    "dead_letters",
    metadata,
    id_column(),
    video_column(),
    Column("stage", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("provider", Text),
    Column("error_class", Text, nullable=False),
    Column("code", Text),
    Column("message", Text, nullable=False),
    Column("evidence", JSONB),
    Column("attempts", JSONB, nullable=False),
    Column("run_id", Text),
    time_column("created_at", now=True),
    Column("state", Text, nullable=False, server_default=text("'open'")),
    time_column("closed_at"),
    Column("closed_by", Text),
    Column("closed_reason", Text),
    Column("tries", Integer),
    Column("counted", Integer),
    time_column("failing_since"),
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
    id_column(),
    video_column(),
    Column("approved", Boolean, nullable=False),
    Column("reviewer", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("content_sha256", Text, nullable=False),
    Column("via", Text, nullable=False),
    time_column("decided_at", now=True),
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
    time_column("given_at", now=True),
)

earlier_revisions = Table(
    "earlier_revisions",
    metadata,
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("revision", Integer, primary_key=True, autoincrement=False),
    Column("script", JSONB, nullable=False),
    Column("rendered", JSONB, nullable=False),
    time_column("replaced_at", now=True),
)
