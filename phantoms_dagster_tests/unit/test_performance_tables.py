"""The performance tables: totals of the last known numbers, in which missing is not zero."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pandas as pd
import pytest

from phantoms_dagster.domain.errors import Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Metrics
from phantoms_dagster.domain.work import PublishedRow
from phantoms_dagster.production.performance import (
    hook_performance,
    latest,
    platform_performance,
    read_back,
    video_performance,
)

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
EVENING = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)


def snapshot(post_id: int, *, hours: int = 0, **values: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {
        "post_id": post_id,
        "at": NOW + timedelta(hours=hours),
        **dict.fromkeys(("views", "likes", "comments", "shares", "watch_seconds")),
        "platform": "youtube",
        "published_at": EVENING,
        "video_key": "v1",
        "title": "The sea",
        "channel": "facts",
        "hook": "Did you know?",
        "video_cost": 0.3,
    }
    return {**fields, **values}


def frame(*rows: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(list(rows))


def test_the_last_number_a_platform_gave_counts_even_when_it_is_silent_later() -> None:
    rows = frame(
        snapshot(1, hours=2, likes=7),
        snapshot(1, hours=0, views=10, likes=1),
        snapshot(1, hours=1, views=20, likes=5),
    )
    last = latest(rows).iloc[0]
    assert (last["views"], last["likes"]) == (20, 7)
    assert pd.isna(last["shares"])


def test_a_number_that_went_down_is_believed() -> None:
    assert latest(frame(snapshot(1, views=20), snapshot(1, hours=1, views=15))).iloc[0]["views"] == 15


def test_a_zero_is_a_number_and_a_silence_is_not() -> None:
    rows = frame(snapshot(1, views=10, watch_seconds=5.0), snapshot(1, hours=1, views=0))
    row = video_performance(rows, NOW).iloc[0]
    assert (row["views"], row["watch_seconds"]) == (0, 5.0)


def test_a_video_sums_its_posts_and_shares_its_cost_once() -> None:
    rows = frame(
        snapshot(1, views=100, likes=10, comments=2, shares=3, watch_seconds=50.0),
        snapshot(2, views=300, likes=20, comments=4, shares=1, platform="tiktok", published_at=EVENING - timedelta(hours=1)),
    )
    row = video_performance(rows, NOW).iloc[0]
    assert (row["posts"], row["views"], row["likes"], row["watch_seconds"]) == (2, 400, 30, 50.0)
    assert row["engagement_rate"] == pytest.approx(40 / 400)
    assert row["cost"] == pytest.approx(0.3)
    assert row["first_published_at"] == EVENING - timedelta(hours=1)
    assert row["computed_at"] == NOW


def test_watch_time_that_nobody_told_is_missing_and_a_rate_without_views_too() -> None:
    row = video_performance(frame(snapshot(1, likes=3)), NOW).iloc[0]
    assert pd.isna(row["watch_seconds"])
    assert pd.isna(row["engagement_rate"])


def test_videos_are_listed_with_the_most_views_first() -> None:
    rows = frame(snapshot(1, views=1), snapshot(2, views=5, video_key="v2"))
    assert list(video_performance(rows, NOW)["video_key"]) == ["v2", "v1"]


def test_platforms_are_split_by_the_day_of_publication_in_utc_and_share_the_cost() -> None:
    rows = frame(
        snapshot(1, views=10),
        snapshot(2, views=20, platform="tiktok", published_at=EVENING + timedelta(hours=1)),
        snapshot(3, views=30, video_key="v2", video_cost=0.5),
    )
    table = platform_performance(rows, NOW)
    found = [(r.day, r.platform, r.posts, r.views, r.cost) for r in table.itertuples()]
    assert found == [
        (date(2026, 11, 20), "youtube", 2, 40, pytest.approx(0.65)),
        (date(2026, 11, 21), "tiktok", 1, 20, pytest.approx(0.15)),
    ]


def test_hooks_gather_all_videos_that_open_with_them_and_videos_without_one_are_left_out() -> None:
    rows = frame(
        snapshot(1, views=10),
        snapshot(2, views=20, video_key="v2"),
        snapshot(3, views=99, video_key="v3", hook=None),
        snapshot(4, views=5, video_key="v4", hook="Stop!"),
    )
    table = hook_performance(rows, NOW)
    assert [(r.hook, r.posts, r.views) for r in table.itertuples()] == [("Did you know?", 2, 30), ("Stop!", 1, 5)]


def test_a_video_without_a_hook_still_has_its_row() -> None:
    assert list(video_performance(frame(snapshot(1, views=1, hook=None)), NOW)["views"]) == [1]


@pytest.mark.parametrize("table", [video_performance, platform_performance, hook_performance])
def test_without_snapshots_there_are_no_rows(table: Any) -> None:
    assert table(pd.DataFrame(), NOW).empty


class Reader:
    """A platform that knows some posts, or is down."""

    provider = "test"

    def __init__(self, platform: Platform, known: Sequence[str] | None) -> None:
        self.platform = platform
        self._known = known

    async def read(self, account: str, remote_ids: Sequence[str]) -> list[Metrics]:
        if self._known is None:
            raise Transient("down", provider="test")
        return [Metrics(remote_id, views=1) for remote_id in remote_ids if remote_id in self._known]


async def test_a_platform_that_is_down_is_named_and_hides_neither_the_others_nor_what_is_missing() -> None:
    posts = [
        PublishedRow(3, "v2", Platform.YOUTUBE, "main", "c"),
        PublishedRow(1, "v1", Platform.YOUTUBE, "main", "a"),
        PublishedRow(2, "v1", Platform.TIKTOK, "main", "b"),
    ]
    readers = {Platform.YOUTUBE: Reader(Platform.YOUTUBE, ["a"]), Platform.TIKTOK: Reader(Platform.TIKTOK, None)}
    read = await read_back(posts, readers)
    assert read.snapshots == [(1, Metrics("a", views=1))]
    assert [post.post_id for post in read.missing] == [3]
    assert read.failures == {"tiktok:main": "down"}
