"""Tables of the calendar: when each post goes out, which slots were missed, and who may read the calendar."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, Integer, Table, Text, UniqueConstraint, text

from phantoms_dagster.store.schema.columns import id_column, metadata, time_column, video_column

bookings = Table(
    "bookings",
    metadata,
    Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("platform", Text, primary_key=True),
    Column("account", Text, nullable=False),
    time_column("at", nullable=False),
    Column("kind", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("note", Text, nullable=False, server_default=text("''")),
    Column("why", Text),
    Column("sequence", Integer, nullable=False, server_default=text("0")),
    time_column("created_at", now=True),
    time_column("updated_at", now=True),
    Index(
        "bookings_once",
        "platform",
        "account",
        "at",
        unique=True,
        postgresql_where=text("kind = 'slot' AND state IN ('booked', 'repeat')"),
    ),
    Index("bookings_by_time", "at"),
    Index("bookings_that_wait", "state", postgresql_where=text("state IN ('missed', 'repeat')")),
)

missed_slots = Table(
    "missed_slots",
    metadata,
    id_column(),
    video_column(),
    Column("platform", Text, nullable=False),
    Column("account", Text, nullable=False),
    time_column("at", nullable=False),
    time_column("noticed_at", now=True),
    Column("why", Text, nullable=False),
    Column("policy", Text, nullable=False),
    Index("missed_slots_of_video", "video_id", "id"),
    Index("missed_slots_by_time", "at"),
)

calendar_feeds = Table(
    "calendar_feeds",
    metadata,
    id_column(),
    Column("secret_sha256", Text, nullable=False),
    Column("channel", Text, nullable=False, server_default=text("''")),
    Column("made_by", Text, nullable=False),
    time_column("made_at", now=True),
    Column("revoked_by", Text),
    time_column("revoked_at"),
    UniqueConstraint("secret_sha256", name="calendar_feeds_secret"),
)
