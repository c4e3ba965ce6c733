"""Tables of the posts' metrics and their sums."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Date, DateTime, Double, ForeignKey, Index, Integer, Numeric, Table, Text, text
from sqlalchemy.dialects.postgresql import ARRAY

from phantoms_dagster.store.schema.columns import id_column, metadata, time_column

metric_snapshots = Table(
    "metric_snapshots",
    metadata,
    id_column(),
    Column("post_id", BigInteger, ForeignKey("phantoms.posts.id", ondelete="CASCADE"), nullable=False),
    time_column("at", now=True),
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
    time_column("due_at", nullable=False),
    time_column("read_at"),
    time_column("gone_at"),
    Column("failures", Integer, nullable=False, server_default=text("0")),
    Column("problem", Text),
)

account_reads = Table(
    "account_reads",
    metadata,
    Column("platform", Text, primary_key=True),
    Column("account", Text, primary_key=True),
    time_column("read_at"),
    time_column("failing_since"),
    Column("problem", Text),
    Column("unsupported", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    time_column("unsupported_at"),
)

_PERFORMANCE = ("posts", "views", "likes", "comments", "shares")


def _performance() -> list[Column[object]]:
    counts: list[Column[object]] = [Column(name, BigInteger, nullable=False) for name in _PERFORMANCE]
    return [
        *counts,
        Column("watch_seconds", Double),
        Column("engagement_rate", Double),
        Column("cost", Numeric(12, 6)),
        time_column("computed_at", nullable=False),
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

# The sums of a period by hour of the day or by hook. `channel` is empty in the rows for all channels.
performance_sums = Table(
    "performance_sums",
    metadata,
    Column("days", Integer, nullable=False),
    Column("channel", Text, nullable=False),
    Column("hour", Integer),
    Column("hook", Text),
    *(Column(name, BigInteger, nullable=False) for name in ("videos", "posts", "views", "reactions")),
    Column("cost", Numeric, nullable=False),
    time_column("since", nullable=False),
    time_column("computed_at", nullable=False),
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
