"""Reads the performance tables for the desk: sums by hour, by platform and day, and by hook, and the best videos of a period.

PostgreSQL computes all sums, from only the rows of the period, which an index finds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, text

# The columns by which videos can be sorted, and their names for people.
SORTS: Mapping[str, str] = {
    "views": "views",
    "likes": "likes",
    "comments": "comments",
    "shares": "shares",
    "engagement_rate": "engagement",
    "cost": "cost",
    "first_published_at": "posted",
}

# The conditions on channel and hook are added only when they are given, so that each statement gets a fitting plan.
_OF_CHANNEL = " AND v.channel = :channel"
_OF_HOOK = " AND v.hook = :hook"
_PERIOD = "v.first_published_at >= :since"
_SUMS = "count(*) AS videos, sum(v.posts)::bigint AS posts, sum(v.views)::bigint AS views"

MADE = text(
    """
    SELECT (SELECT computed_at FROM phantoms.video_performance ORDER BY video_key LIMIT 1) AS videos,
        (SELECT computed_at FROM phantoms.platform_performance ORDER BY day, platform, channel LIMIT 1) AS platforms
    """
)


# The stored sums, if they are for the requested period.
_OF_PERIOD = """FROM phantoms.performance_sums s
    WHERE s.days = :days AND s.channel = :channel AND s.since = :since AND s.computed_at = :made_at"""
HOUR_SUMS = f"""
    SELECT s.hour, s.videos, s.posts, s.views, s.reactions, s.cost {_OF_PERIOD} AND s.hour IS NOT NULL ORDER BY s.hour
"""
HOOK_SUMS = f"""
    SELECT s.hook, s.videos, s.posts, s.views, s.reactions {_OF_PERIOD} AND s.hook IS NOT NULL ORDER BY s.views DESC, s.hook
"""


def hours_statement(*, channel: bool) -> str:
    """Sums by the hour of a video's first post, in its channel's time zone."""
    return f"""
        SELECT CAST(extract(hour FROM v.first_published_at AT TIME ZONE COALESCE(c.config->>'timezone', 'UTC')) AS integer) AS hour,
            {_SUMS}, sum(v.likes + v.comments + v.shares)::bigint AS reactions, COALESCE(sum(v.cost), 0) AS cost
        FROM phantoms.video_performance v LEFT JOIN phantoms.channels c ON c.name = v.channel
        WHERE {_PERIOD}{_OF_CHANNEL if channel else ""} GROUP BY 1 ORDER BY 1
    """


def platforms_statement(*, channel: bool) -> str:
    """Sums by platform and by the day (UTC) of the posts."""
    return f"""
        SELECT v.day, v.platform, sum(v.posts)::bigint AS posts, sum(v.views)::bigint AS views,
            sum(v.likes + v.comments + v.shares)::bigint AS reactions
        FROM phantoms.platform_performance v
        WHERE v.day >= CAST(:day AS date){_OF_CHANNEL if channel else ""} GROUP BY 1, 2 ORDER BY 1, 2
    """


def hooks_statement(*, channel: bool) -> str:
    """The hooks whose videos have the most views."""
    return f"""
        SELECT v.hook, {_SUMS}, sum(v.likes + v.comments + v.shares)::bigint AS reactions
        FROM phantoms.video_performance v
        WHERE {_PERIOD} AND v.hook IS NOT NULL{_OF_CHANNEL if channel else ""} GROUP BY 1 ORDER BY 4 DESC, 1 LIMIT :limit
    """


def videos_statement(*, channel: bool, hook: bool, sort: str) -> str:
    """The videos with the highest values in one column. `sort` is a key of `SORTS`."""
    assert sort in SORTS
    nulls = "" if sort == "first_published_at" else " NULLS LAST"  # the period has no video without one
    return f"""
        SELECT v.video_key, v.title, v.channel, v.first_published_at, v.posts, v.views, v.likes, v.comments, v.shares,
            v.engagement_rate, v.cost
        FROM phantoms.video_performance v
        WHERE {_PERIOD}{_OF_CHANNEL if channel else ""}{_OF_HOOK if hook else ""}
        ORDER BY v.{sort} DESC{nulls}, v.video_key LIMIT :limit OFFSET :offset
    """


@dataclass(frozen=True)
class Hour:
    """Videos whose first post was in that hour of the day, with their current figures. `cost` is in US dollars."""

    hour: int
    videos: int
    posts: int
    views: int
    reactions: int
    cost: Decimal


@dataclass(frozen=True)
class PlatformDay:
    """A platform's posts of one day (UTC), with their current figures."""

    day: date
    platform: str
    posts: int
    views: int
    reactions: int


@dataclass(frozen=True)
class Hook:
    """A hook, with the current figures of the videos that open with it."""

    hook: str
    videos: int
    posts: int
    views: int
    reactions: int


@dataclass(frozen=True)
class VideoResult:
    """A video, with the current figures of its posts. `engagement_rate` is None without views."""

    video_key: str
    title: str
    channel: str
    first_published_at: datetime
    posts: int
    views: int
    likes: int
    comments: int
    shares: int
    engagement_rate: float | None
    cost: Decimal | None


class ResultsBoard:
    """Reads the performance tables."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def made_at(self) -> tuple[datetime | None, datetime | None]:
        """When the tables of videos and platforms were last made; None for an empty table."""
        with self._engine.connect() as connection:
            row = connection.execute(MADE).one()
        return row.videos, row.platforms

    def sums(
        self, days: int, since: datetime, made_at: datetime | None, *, channel: str = ""
    ) -> tuple[list[Hour], list[Hook]] | None:
        """The stored sums by hour and by hook; None when they are for another period."""
        values = {"days": days, "since": since, "made_at": made_at, "channel": channel}
        hours = [Hour(**row) for row in self._rows(HOUR_SUMS, **values)]
        return (hours, [Hook(**row) for row in self._rows(HOOK_SUMS, **values)]) if hours else None

    def hours(self, since: datetime, *, channel: str = "") -> list[Hour]:
        """By the hour of the first post. Hours without a video are left out."""
        return [Hour(**row) for row in self._rows(hours_statement(channel=bool(channel)), since=since, channel=channel)]

    def platforms(self, since: datetime, *, channel: str = "") -> list[PlatformDay]:
        """By day and platform, the oldest day first."""
        rows = self._rows(platforms_statement(channel=bool(channel)), day=since.date(), channel=channel)
        return [PlatformDay(**row) for row in rows]

    def hooks(self, since: datetime, *, channel: str = "", limit: int = 12) -> list[Hook]:
        """The hooks with the most views."""
        rows = self._rows(hooks_statement(channel=bool(channel)), since=since, channel=channel, limit=limit)
        return [Hook(**row) for row in rows]

    def videos(
        self, since: datetime, *, channel: str = "", hook: str = "", sort: str = "views", limit: int = 20, offset: int = 0
    ) -> list[VideoResult]:
        """The videos with the most of `sort`."""
        statement = videos_statement(channel=bool(channel), hook=bool(hook), sort=sort)
        rows = self._rows(statement, since=since, channel=channel, hook=hook, limit=limit, offset=offset)
        return [VideoResult(**row) for row in rows]

    def _rows(self, statement: str, **values: Any) -> Sequence[Mapping[str, Any]]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(statement), values).mappings()]
