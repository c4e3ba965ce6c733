"""The desk's tables of unfinished work: holds, pending decisions, guest links, bulk actions, issues."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from phantoms_dagster.store.schema.columns import id_column, metadata, time_column, video_column

holds = Table(
    "holds",
    metadata,
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("reviewer", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("via", Text, nullable=False),
    time_column("held_at", now=True),
    Index("holds_newest", "held_at"),
)

pending_decisions = Table(
    "pending_decisions",
    metadata,
    id_column(),
    video_column(),
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
    time_column("made_at", now=True),
    time_column("commit_at", nullable=False),
    time_column("ended_at"),
    Index("pending_decisions_one", "video_id", unique=True, postgresql_where=text("state = 'pending'")),
    Index("pending_decisions_due", "commit_at", postgresql_where=text("state = 'pending'")),
    Index("pending_decisions_of_reviewer", "reviewer", "made_at"),
)

guest_links = Table(
    "guest_links",
    metadata,
    id_column(),
    video_column(),
    Column("secret_sha256", Text, nullable=False),
    Column("guest", Text, nullable=False),
    Column("content_sha256", Text, nullable=False),
    Column("made_by", Text, nullable=False),
    time_column("made_at", now=True),
    time_column("expires_at", nullable=False),
    Column("revoked_by", Text),
    time_column("revoked_at"),
    Column("decision_id", BigInteger, ForeignKey("phantoms.pending_decisions.id", ondelete="SET NULL")),
    time_column("used_at"),
    UniqueConstraint("secret_sha256", name="guest_links_secret"),
    Index("guest_links_of_video", "video_id", "id"),
    Index("guest_links_of_decision", "decision_id"),
)

bulk_actions = Table(
    "bulk_actions",
    metadata,
    id_column(),
    Column("action", Text, nullable=False),
    Column("arguments", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("chosen", Text, nullable=False, server_default=text("''")),
    Column("who", Text, nullable=False),
    Column("via", Text, nullable=False),
    Column("address", Text, nullable=False, server_default=text("''")),
    Column("state", Text, nullable=False, server_default=text("'running'")),
    Column("note", Text, nullable=False, server_default=text("''")),
    time_column("made_at", now=True),
    time_column("ended_at"),
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
    time_column("ended_at"),
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
    time_column("said_at", now=True),
    Column("said_by", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
)
