"""The performance tables. PostgreSQL makes them from the last known metrics of each post. Snapshots never leave the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sqlalchemy import Engine, Table, text

from phantoms_dagster.store import schema
from phantoms_dagster.store.performance.sums import renew_sums

COUNTS = ("views", "likes", "comments", "shares")


def _last(column: str) -> str:
    """SQL for the last number that the platform reported. A number that is missing today is neither lost nor zero."""
    return f"""(SELECT m.{column} FROM phantoms.metric_snapshots m WHERE m.post_id = p.id AND m.{column} IS NOT NULL
        ORDER BY m.at DESC, m.id DESC LIMIT 1) AS {column}"""


# One row for each post that was ever read and can be compared with others. A video's cost is divided among these posts.
_POSTS = f"""
    WITH read AS (
        SELECT p.video_id, p.platform, p.published_at, {", ".join(_last(c) for c in (*COUNTS, "watch_seconds"))}
        FROM phantoms.posts p
        WHERE EXISTS (SELECT FROM phantoms.metric_snapshots m WHERE m.post_id = p.id) AND p.set_apart IS NULL
            -- The sandbox's numbers are invented. They no longer count once there is a real post.
            AND p.sandbox = NOT EXISTS (SELECT FROM phantoms.posts o WHERE NOT o.sandbox AND o.published_at IS NOT NULL)
    ), costs AS (
        SELECT video_id, sum(cost) AS cost FROM phantoms.attempts GROUP BY video_id
    ), shared AS (
        SELECT read.*, v.key AS video_key, v.title, v.channel, s.output->'script'->>'hook' AS hook,
            (read.published_at AT TIME ZONE 'UTC')::date AS day,
            COALESCE(costs.cost, 0) / count(*) OVER (PARTITION BY read.video_id) AS share
        FROM read
        JOIN phantoms.videos v ON v.id = read.video_id
        LEFT JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = 'script'
        LEFT JOIN costs ON costs.video_id = v.id
    )
"""

_SUMS = (
    "count(*) AS posts",
    *(f"COALESCE(sum({c}), 0) AS {c}" for c in COUNTS),
    "sum(watch_seconds) AS watch_seconds",
    """CASE WHEN sum(views) > 0 THEN (COALESCE(sum(likes), 0) + COALESCE(sum(comments), 0) + COALESCE(sum(shares), 0))::float8
        / sum(views)::float8 END AS engagement_rate""",
    "round(sum(share)::numeric, 6) AS cost",
    "transaction_timestamp() AS computed_at",
)
# By table: the key columns of a row, the order for people, and which posts count.
_TABLES: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "video_performance": (("video_key", "title", "channel", "hook"), "views DESC, video_key", "true"),
    "platform_performance": (("day", "platform", "channel"), "day, platform, channel", "true"),
    "hook_performance": (("hook",), "views DESC, hook", "hook IS NOT NULL"),
}
_MORE = {"video_performance": ("min(published_at) AS first_published_at",)}


# The growth of each post's views between two readings, on the day of the later one. The views of the first reading count on that
# day, unless the post was published before the period, because then it had those views long ago.
_NEW_VIEWS = text(
    """
    WITH read AS (
        SELECT m.post_id, m.at, m.views, lag(m.views) OVER (PARTITION BY m.post_id ORDER BY m.at, m.id) AS before
        FROM phantoms.metric_snapshots m
        WHERE m.views IS NOT NULL AND m.at >= clock_timestamp() - make_interval(days => :days + 1)
    )
    SELECT (r.at AT TIME ZONE 'UTC')::date AS day, p.platform, sum(GREATEST(r.views - COALESCE(r.before, 0), 0))::bigint AS views
    FROM read r JOIN phantoms.posts p ON p.id = r.post_id
    WHERE (r.before IS NOT NULL OR p.published_at >= clock_timestamp() - make_interval(days => :days))
        AND p.sandbox = NOT EXISTS (SELECT FROM phantoms.posts o WHERE NOT o.sandbox AND o.published_at IS NOT NULL)
    GROUP BY 1, 2 ORDER BY 1, 2
    """
)


@dataclass(frozen=True)
class Renewed:
    """A table that was made: its rows, its posts and views, and the posts and views of its source, for comparison."""

    rows: int
    posts: int
    views: int
    posts_read: int
    views_read: int

    @property
    def adds_up(self) -> bool:
        """Whether the table has the same posts and views as its source."""
        return (self.posts, self.views) == (self.posts_read, self.views_read)


class PerformanceTables:
    """The tables by name: `video_performance`, `platform_performance` and `hook_performance`."""

    TABLES: Mapping[str, Table] = {name: schema.metadata.tables[f"{schema.SCHEMA}.{name}"] for name in _TABLES}

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def renew(self, name: str) -> Renewed:
        """Make a table again from the current snapshots, in one transaction. Readers see either the old or the new table."""
        about, _, which = _TABLES[name]
        made = [*about, *_SUMS, *_MORE.get(name, ())]
        columns = ", ".join(column.rsplit(" AS ", 1)[-1] for column in made)
        # One statement sees one state of the snapshots, so that input and output can be compared.
        statement = f"""{_POSTS}, made AS (
                INSERT INTO phantoms.{name} ({columns})
                SELECT {", ".join(made)} FROM shared WHERE {which} GROUP BY {", ".join(about)} RETURNING posts, views
            ), counted AS (SELECT count(*) AS posts, COALESCE(sum(views), 0) AS views FROM shared WHERE {which})
            SELECT count(*) AS rows, COALESCE(sum(made.posts), 0) AS posts, COALESCE(sum(made.views), 0) AS views,
                (SELECT posts FROM counted) AS posts_read, (SELECT views FROM counted) AS views_read
            FROM made"""
        with self._engine.begin() as connection:
            connection.execute(self.TABLES[name].delete())
            row = connection.execute(text(statement)).one()
            if name == "video_performance":
                renew_sums(connection)
        return Renewed(*(int(number) for number in row))

    def new_views(self, *, days: int) -> pd.DataFrame:
        """The views that posts gained each day, by platform: columns day, platform, views; the oldest day first."""
        with self._engine.connect() as connection:
            rows: list[Any] = list(connection.execute(_NEW_VIEWS, {"days": days}).mappings().all())
        return pd.DataFrame(rows, columns=["day", "platform", "views"])

    def table(self, name: str, *, most: int | None = None) -> pd.DataFrame:
        """A table, or its first rows, in the order that a person reads it: most views first, or by day."""
        target = self.TABLES[name]
        found = target.select().order_by(text(_TABLES[name][1])).limit(most)
        with self._engine.connect() as connection:
            rows: list[Any] = list(connection.execute(found).mappings().all())
        return pd.DataFrame(rows, columns=[c.name for c in target.columns])

    def size(self, name: str) -> int:
        """How many rows a table has."""
        with self._engine.connect() as connection:
            return int(connection.execute(text(f"SELECT count(*) FROM phantoms.{self.TABLES[name].name}")).scalar_one())
