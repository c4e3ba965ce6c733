"""The results of posts, from the performance tables."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated, Literal

from fastapi import FastAPI, Query

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import ApiModel, Limit, TextInQuery
from phantoms_dagster.desk.pages.performance import day_of, sums_of
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.results.board import ResultsBoard

TAG = "performance"
Sort = Annotated[
    Literal["views", "likes", "comments", "shares", "engagement_rate", "cost", "first_published_at"],
    Query(description="The column to sort videos by, in descending order"),
]
Days = Annotated[int, Query(ge=1, le=366, description="Days back from today (UTC), today included")]
Page = Annotated[int, Query(ge=1, le=1_000)]


class ByHour(ApiModel):
    """Videos by the hour of their first post, in their channel's time zone. `reactions` sums likes, comments and shares."""

    hour: int
    videos: int
    posts: int
    views: int
    reactions: int


class ByPlatform(ApiModel):
    """Posts of a platform by publication day (UTC)."""

    day: date
    platform: str
    posts: int
    views: int
    reactions: int


class ByHook(ApiModel):
    """Videos with the same hook."""

    hook: str
    videos: int
    posts: int
    views: int
    reactions: int


class ByVideo(ApiModel):
    """One video. `cost` is in US dollars."""

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
    cost: float | None


class Performance(ApiModel):
    """The results of a period. `computed_at` is when the tables were computed; null before the first time."""

    computed_at: datetime | None
    since: datetime
    videos: list[ByVideo]
    hooks: list[ByHook]
    hours: list[ByHour]
    platforms: list[ByPlatform]


def register(app: FastAPI) -> None:
    """Add the route."""
    add(app, "GET", "/performance", show_performance, tag=TAG)


def show_performance(  # noqa: PLR0917 - FastAPI calls it by keyword
    visit: CurrentVisit,
    days: Days = 28,
    channel: TextInQuery = "",
    hook: TextInQuery = "",
    sort: Sort = "views",
    page: Page = 1,
    limit: Limit = 50,
) -> Performance:
    """Return the results of a period. `hook` filters only the videos; `page` pages through the videos."""
    channels = visit.desk.board.channels()
    if channel and channel not in channels:
        raise InvalidInput(f"there is no channel {channel[:60]!r}; the channels are {', '.join(channels)}")
    results = ResultsBoard(visit.desk.reading)
    made_at = results.made_at()
    since = day_of(made_at[0]) - timedelta(days=days - 1)
    sums = sums_of(visit, results, made_at, (days, since), channel)
    videos = results.videos(since, channel=channel, hook=hook, sort=sort, limit=limit, offset=(page - 1) * limit)
    return Performance(
        computed_at=made_at[0],
        since=since,
        videos=[ByVideo.model_validate(one) for one in videos],
        hooks=[ByHook.model_validate(one) for one in sums.hooks],
        hours=[ByHour.model_validate(one) for one in sums.hours],
        platforms=[ByPlatform.model_validate(one) for one in sums.by_day],
    )
