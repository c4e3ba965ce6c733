"""Results read back: snapshots of metrics and the performance tables made of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
from sqlalchemy import Engine, Table, text

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Metrics
from phantoms_dagster.domain.work import PublishedRow
from phantoms_dagster.store import schema

_PUBLISHED = text(
    """
    SELECT p.id AS post_id, v.key AS video_key, p.platform, p.account, p.remote_id
    FROM phantoms.posts p JOIN phantoms.videos v ON v.id = p.video_id
    WHERE p.state IN ('published', 'confirmed') AND p.remote_id IS NOT NULL
        AND p.published_at > clock_timestamp() - make_interval(days => :days)
    ORDER BY p.id
    """
)

_SNAPSHOTS = text(
    """
    SELECT m.post_id, m.at, m.views, m.likes, m.comments, m.shares, m.watch_seconds, p.platform, p.published_at, v.key AS video_key,
        v.title, v.channel, s.output->'script'->>'hook' AS hook,
        (SELECT COALESCE(sum(a.cost), 0)::float8 FROM phantoms.attempts a WHERE a.video_id = v.id) AS video_cost
    FROM phantoms.metric_snapshots m
    JOIN phantoms.posts p ON p.id = m.post_id
    JOIN phantoms.videos v ON v.id = p.video_id
    LEFT JOIN phantoms.stages s ON s.video_id = v.id AND s.stage = 'script'
    ORDER BY m.post_id, m.at
    """
)


class Results:
    """Metrics and performance."""

    TABLES: Mapping[str, Table] = {
        "video_performance": schema.video_performance,
        "platform_performance": schema.platform_performance,
        "hook_performance": schema.hook_performance,
    }

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def published(self, *, days: int = 90) -> list[PublishedRow]:
        """The posts of the last `days` days that are out."""
        with self._engine.connect() as connection:
            rows = connection.execute(_PUBLISHED, {"days": days}).mappings()
            return [PublishedRow(**{**row, "platform": Platform(row["platform"])}) for row in rows]

    def add_snapshots(self, snapshots: Sequence[tuple[int, Metrics]]) -> None:
        """Remember metrics of posts, `(post id, metrics)`, at this moment."""
        rows = [
            {
                "post_id": post_id,
                "views": m.views,
                "likes": m.likes,
                "comments": m.comments,
                "shares": m.shares,
                "watch_seconds": m.watch_seconds,
            }
            for post_id, m in snapshots
        ]
        if rows:
            with self._engine.begin() as connection:
                connection.execute(schema.metric_snapshots.insert(), rows)

    def snapshots(self) -> pd.DataFrame:
        """Every snapshot with its post and video, one row each, oldest first within a post."""
        with self._engine.connect() as connection:
            return pd.DataFrame(connection.execute(_SNAPSHOTS).mappings().all())

    def replace(self, table: str, rows: pd.DataFrame) -> None:
        """Make a performance table say exactly these rows, in one transaction: readers see the old table or the new one."""
        target = self.TABLES[table]
        columns = [str(name) for name in rows.columns]
        values = rows.astype(object).where(rows.notna(), None).itertuples(index=False, name=None)
        records = [dict(zip(columns, row, strict=True)) for row in values]
        with self._engine.begin() as connection:
            connection.execute(target.delete())
            if records:
                connection.execute(target.insert(), records)

    def table(self, name: str) -> pd.DataFrame:
        """A performance table."""
        target = self.TABLES[name]
        with self._engine.connect() as connection:
            found = connection.execute(target.select()).mappings().all()
        return pd.DataFrame(found, columns=[c.name for c in target.columns])
