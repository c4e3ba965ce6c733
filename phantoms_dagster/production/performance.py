"""Results: reading metrics of posts back, and making performance tables of their snapshots."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Metrics, MetricsReader
from phantoms_dagster.domain.work import PublishedRow

COUNTS = ["views", "likes", "comments", "shares"]


@dataclass(frozen=True)
class ReadBack:
    """What was read. `failures` names the platform accounts that could not be read, and why: never an empty read."""

    snapshots: Sequence[tuple[int, Metrics]]
    missing: Sequence[PublishedRow]
    failures: Mapping[str, str]


async def read_back(posts: Sequence[PublishedRow], readers: Mapping[Platform, MetricsReader]) -> ReadBack:
    """The metrics of all posts, every account asked at once; one account's trouble does not hide the others' results."""
    groups: defaultdict[tuple[Platform, str], list[PublishedRow]] = defaultdict(list)
    for post in posts:
        groups[post.platform, post.account].append(post)
    snapshots: list[tuple[int, Metrics]] = []
    missing: list[PublishedRow] = []
    failures: dict[str, str] = {}

    async def read(platform: Platform, account: str, group: Sequence[PublishedRow]) -> None:
        try:
            found = {m.remote_id: m for m in await readers[platform].read(account, [p.remote_id for p in group])}
        except PhantomsError as error:
            failures[f"{platform}:{account}"] = str(error)
            return
        snapshots.extend((p.post_id, found[p.remote_id]) for p in group if p.remote_id in found)
        missing.extend(p for p in group if p.remote_id not in found)

    async with asyncio.TaskGroup() as tasks:
        for (platform, account), group in groups.items():
            tasks.create_task(read(platform, account, group))
    return ReadBack(sorted(snapshots, key=lambda pair: pair[0]), missing, failures)


def latest(snapshots: pd.DataFrame) -> pd.DataFrame:
    """The last known number of each post: a platform that does not say today has not lost what it said yesterday."""
    if snapshots.empty:
        return snapshots
    ordered = snapshots.sort_values(["post_id", "at"])
    # GroupBy.last takes the last value that is not missing, column by column.
    return ordered.groupby("post_id", as_index=False).last()


def _summed(posts: pd.DataFrame, by: list[str], now: datetime, cost: str) -> pd.DataFrame:
    numbers = posts.assign(**{c: pd.to_numeric(posts[c]) for c in [*COUNTS, "watch_seconds"]})
    groups = numbers.groupby(by, dropna=False)
    table = groups[COUNTS].sum().astype("int64")
    table.insert(0, "posts", groups.size())
    table["watch_seconds"] = groups["watch_seconds"].sum(min_count=1)
    engaged = table["likes"] + table["comments"] + table["shares"]
    table["engagement_rate"] = (engaged / table["views"]).where(table["views"] > 0)
    table["cost"] = groups[cost].sum().round(6)
    table["computed_at"] = now
    return table.reset_index()


def video_performance(snapshots: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """One row a video: totals over its posts. Columns as in the table of that name; most views first."""
    posts = latest(snapshots)
    if posts.empty:
        return pd.DataFrame()
    posts = posts.assign(share=posts["video_cost"] / posts.groupby("video_key")["video_key"].transform("size"))
    table = _summed(posts, ["video_key", "title", "channel", "hook"], now, "share")
    first = posts.groupby("video_key")["published_at"].min().rename("first_published_at")
    return table.merge(first, on="video_key").sort_values("views", ascending=False, ignore_index=True)


def platform_performance(snapshots: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """One row for each day of publication (UTC), platform and channel; a video's cost is shared out among its posts."""
    posts = latest(snapshots)
    if posts.empty:
        return pd.DataFrame()
    posts = posts.assign(
        day=pd.to_datetime(posts["published_at"], utc=True).dt.date,
        share=posts["video_cost"] / posts.groupby("video_key")["video_key"].transform("size"),
    )
    return _summed(posts, ["day", "platform", "channel"], now, "share").sort_values(["day", "platform"], ignore_index=True)


def hook_performance(snapshots: pd.DataFrame, now: datetime) -> pd.DataFrame:
    """One row a hook: which opening lines work."""
    posts = latest(snapshots)
    if posts.empty:
        return pd.DataFrame()
    posts = posts.dropna(subset=["hook"])
    posts = posts.assign(share=posts["video_cost"] / posts.groupby("video_key")["video_key"].transform("size"))
    return _summed(posts, ["hook"], now, "share").sort_values("views", ascending=False, ignore_index=True)
