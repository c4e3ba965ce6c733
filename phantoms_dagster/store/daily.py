"""The counts of one day for the daily summary. `production.alerts` has the wording."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from sqlalchemy import Engine, text

_DAY = text(
    """
    SELECT
        (SELECT count(*) FROM phantoms.videos WHERE created_at >= :start AND created_at < :end) AS added,
        (SELECT COALESCE(sum(cost), 0) FROM phantoms.attempts WHERE started_at >= :start AND started_at < :end) AS cost,
        (SELECT count(*) FROM phantoms.dead_letters WHERE created_at >= :start AND created_at < :end) AS failures,
        (SELECT count(*) FROM phantoms.dead_letters WHERE state = 'open') AS open_letters,
        (SELECT count(*) FROM phantoms.posts WHERE state = 'unknown') AS unknown_posts,
        (SELECT jsonb_object_agg(platform, n) FROM (
            SELECT platform, count(*) AS n FROM phantoms.posts WHERE published_at >= :start AND published_at < :end
            GROUP BY platform) p) AS posts,
        (SELECT jsonb_object_agg(stage, n) FROM (
            SELECT stage, count(*) AS n FROM phantoms.dead_letters WHERE created_at >= :start AND created_at < :end
            GROUP BY stage) f) AS failures_by_stage
    """
)


@dataclass(frozen=True)
class DaySummary:
    """Counts of a day. `cost` is in US dollars. `open_letters` and `unknown_posts` are current. `posts`: by platform."""

    added: int
    posts: dict[str, int]
    failures: int
    failures_by_stage: dict[str, int]
    cost: Decimal
    open_letters: int
    unknown_posts: int


def day(engine: Engine, start: datetime, end: datetime) -> DaySummary:
    """What happened at or after `start` and before `end`."""
    with engine.connect() as connection:
        row = connection.execute(_DAY, {"start": start, "end": end}).mappings().one()
    return DaySummary(**{**row, "posts": row["posts"] or {}, "failures_by_stage": row["failures_by_stage"] or {}})
