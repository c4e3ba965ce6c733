"""The performance tables: made by PostgreSQL out of the last known numbers of each post. Snapshots never leave the database."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
from sqlalchemy import Engine, Table, text

from phantoms_dagster.store import schema

COUNTS = ("views", "likes", "comments", "shares")


def _last(column: str) -> str:
    """The last number that the platform gave: one that it does not say today is not lost, and is not zero."""
    return f"""(SELECT m.{column} FROM phantoms.metric_snapshots m WHERE m.post_id = p.id AND m.{column} IS NOT NULL
        ORDER BY m.at DESC, m.id DESC LIMIT 1) AS {column}"""


# One row a post that was ever read. A video's cost is shared out among these posts.
_POSTS = f"""
    WITH read AS (
        SELECT p.video_id, p.platform, p.published_at, {", ".join(_last(c) for c in (*COUNTS, "watch_seconds"))}
        FROM phantoms.posts p
        WHERE EXISTS (SELECT FROM phantoms.metric_snapshots m WHERE m.post_id = p.id)
            -- The sandbox's numbers are made up: from the first real post on they count no more.
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
# By table: what a row is about, in which order a person reads it, and which posts count.
_TABLES: Mapping[str, tuple[tuple[str, ...], str, str]] = {
    "video_performance": (("video_key", "title", "channel", "hook"), "views DESC, video_key", "true"),
    "platform_performance": (("day", "platform", "channel"), "day, platform, channel", "true"),
    "hook_performance": (("hook",), "views DESC, hook", "hook IS NOT NULL"),
}
_MORE = {"video_performance": ("min(published_at) AS first_published_at",)}


class PerformanceTables:
    """The tables by name: `video_performance`, `platform_performance` and `hook_performance`."""

    TABLES: Mapping[str, Table] = {name: schema.metadata.tables[f"{schema.SCHEMA}.{name}"] for name in _TABLES}

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def renew(self, name: str) -> int:
        """Make a table say what the snapshots say now, in one transaction: readers see the old one or the new one. Its rows."""
        about, _, which = _TABLES[name]
        made = [*about, *_SUMS, *_MORE.get(name, ())]
        columns = ", ".join(column.rsplit(" AS ", 1)[-1] for column in made)
        statement = f"""INSERT INTO phantoms.{name} ({columns}) {_POSTS}
            SELECT {", ".join(made)} FROM shared WHERE {which} GROUP BY {", ".join(about)}"""
        with self._engine.begin() as connection:
            connection.execute(self.TABLES[name].delete())
            return connection.execute(text(statement)).rowcount

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
