"""Tables of posts, of accounts, and of notices for people."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Integer, LargeBinary, Table, Text, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from phantoms_dagster.store.schema.columns import id_column, metadata, time_column, video_column

posts = Table(
    "posts",
    metadata,
    id_column(),
    video_column(),
    Column("platform", Text, nullable=False),
    Column("account", Text, nullable=False),
    Column("route", Text, nullable=False, server_default=text("''")),
    Column("state", Text, nullable=False, server_default=text("'intent'")),
    Column("marker", Text, nullable=False),
    Column("handle", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("upload_offset", BigInteger, nullable=False, server_default=text("0")),
    Column("remote_id", Text),
    Column("url", Text),
    Column("sandbox", Boolean, nullable=False, server_default=text("false")),
    Column("video_sha256", Text, nullable=False),
    Column("caption_sha256", Text, nullable=False),
    time_column("attempted_at"),
    time_column("published_at"),
    time_column("created_at", now=True),
    time_column("updated_at", now=True),
    Column("duplicate", Boolean, nullable=False, server_default=text("false")),
    Column("proof", Text),
    time_column("proved_at"),
    Column("set_apart", Text),
    Column("extras", ARRAY(Text), nullable=False, server_default=text("'{}'")),
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
    Index("posts_with_extras", "published_at", postgresql_where=text("extras <> '{}'::text[]")),
    Index("posts_of_video", "video_id", "id"),
    Index("posts_of_caption", "caption_sha256", "account"),
    Index("posts_to_open", "platform", "account", postgresql_where=text("state = 'intent'")),
    Index(
        "posts_handles",
        "handle",
        postgresql_using="gin",
        postgresql_ops={"handle": "jsonb_path_ops"},
        postgresql_where=text("state IN ('published', 'confirmed')"),
    ),
    Index("posts_in_flight", "platform", "account", postgresql_where=text("state IN ('opened', 'uploading', 'committing')")),
    Index(
        "posts_without_public_id",
        "published_at",
        postgresql_where=text("platform = 'tiktok' AND state IN ('published', 'confirmed') AND remote_id !~ '^[0-9]+$'"),
    ),
)

post_changes = Table(
    "post_changes",
    metadata,
    id_column(),
    Column("post_id", BigInteger, ForeignKey("phantoms.posts.id", ondelete="CASCADE"), nullable=False),
    time_column("at", now=True),
    Column("state", Text, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("who", Text),
    Index("post_changes_of_post", "post_id", "id"),
    Index("post_changes_by_time", "at"),
)

post_extras = Table(
    "post_extras",
    metadata,
    Column("post_id", BigInteger, ForeignKey("phantoms.posts.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),
    Column("tries", Integer, nullable=False, server_default=text("0")),
    time_column("due_at"),
    Column("detail", Text, nullable=False, server_default=text("''")),
    time_column("updated_at", now=True, nullable=False),
    Index("post_extras_refused", "updated_at", postgresql_where=text("state = 'refused'")),
)

late_ids = Table(
    "late_ids",
    metadata,
    Column("post_id", BigInteger, ForeignKey("phantoms.posts.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    time_column("ask_at"),
    Column("given_up", Boolean, nullable=False, server_default=text("false")),
    Column("asked", Integer, nullable=False, server_default=text("0")),
)

accounts = Table(
    "accounts",
    metadata,
    id_column(),
    Column("platform", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("subject", Text),
    Column("access_token", LargeBinary),
    Column("refresh_token", LargeBinary),
    time_column("access_expires_at"),
    time_column("refresh_expires_at"),
    Column("scopes", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("generation", BigInteger, nullable=False, server_default=text("0")),
    Column("state", Text, nullable=False, server_default=text("'active'")),
    time_column("updated_at", now=True),
    Column("label", Text),
    Column("token_ref", Text),
    Column("token_sha256", Text),
    Column("reason", Text),
    time_column("state_since"),
    time_column("asked_at"),
    time_column("connected_at"),
    time_column("access_issued_at"),
    time_column("refreshed_at"),
    time_column("refresh_until"),
    Column("refresh_sha256", Text),
    Column("dead_generation", BigInteger),
    Column("gateway", Text, nullable=False, server_default=text("''")),
    UniqueConstraint("platform", "name", "gateway", name="accounts_once"),
)

preflight_posts = Table(
    "preflight_posts",
    metadata,
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("platform", Text, primary_key=True),
    Column("phase", Text, primary_key=True),
    Column("account", Text),
    time_column("due_at", nullable=False),
    time_column("checked_at", now=True),
    Column("verdict", Text, nullable=False),
    Column("checks", JSONB, nullable=False),
    Index("preflight_posts_due", "due_at"),
)

preflight_accounts = Table(
    "preflight_accounts",
    metadata,
    Column("platform", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    time_column("checked_at", now=True),
    Column("verdict", Text, nullable=False),
    time_column("wrong_since"),
    Column("checks", JSONB, nullable=False),
)

notices = Table(
    "notices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("what", Text, nullable=False),
    Column("next_step", Text, nullable=False),
    time_column("since", nullable=False),
)
