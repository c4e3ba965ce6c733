"""The metadata of all tables, and columns that many of them have."""

from __future__ import annotations

from sqlalchemy import DDL, BigInteger, Column, DateTime, ForeignKey, Identity, MetaData, event, func

from phantoms_dagster.store import booking_triggers, ledger_guards, webhook_triggers
from phantoms_dagster.store.cause import CAUSE_OF

SCHEMA = "phantoms"

metadata = MetaData(schema=SCHEMA)
event.listen(metadata, "before_create", DDL(CAUSE_OF))  # type: ignore[no-untyped-call]
for _statement in (*webhook_triggers.CREATE, *ledger_guards.CREATE, *booking_triggers.CREATE):
    event.listen(metadata, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]


def id_column() -> Column[int]:
    """A primary key that PostgreSQL generates."""
    return Column("id", BigInteger, Identity(always=True), primary_key=True)


def video_column() -> Column[int]:
    """The video of a row. The row is deleted with the video."""
    return Column("video_id", BigInteger, ForeignKey("phantoms.videos.id", ondelete="CASCADE"), nullable=False)


def time_column(name: str, *, nullable: bool = True, now: bool = False) -> Column[object]:
    """A time with time zone. `now`: it defaults to the time of the insert."""
    return Column(name, DateTime(timezone=True), nullable=nullable and not now, server_default=func.now() if now else None)
