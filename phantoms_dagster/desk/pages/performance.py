"""Performance: results of posts by platform and day, by hour, by hook and by video, from the performance tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Annotated

from fastapi import FastAPI, Query
from starlette.responses import Response

from phantoms_dagster.desk.plots import Plot, columns
from phantoms_dagster.desk.render import count, page
from phantoms_dagster.desk.visits import CurrentVisit, Visit
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store.results.board import SORTS, Hook, Hour, PlatformDay, ResultsBoard, VideoResult

ROWS = 20
PERIODS = {"7": "7 days", "28": "28 days", "90": "90 days", "365": "a year"}
# A plot has at most this many columns. Longer periods get a column per week, or per four weeks.
MOST_COLUMNS = 31
STEPS = (1, 7, 28)
_KEPT = "results"


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/performance", include_in_schema=False)(performance)


@dataclass(frozen=True)
class PlotColumn:
    """A column of the plot over time: its first day, its views by platform, and its number of posts."""

    first: date
    views: dict[str, int]
    posts: int


@dataclass(frozen=True)
class Total:
    """The totals of a platform. `reactions` sums likes, comments and shares."""

    platform: str
    posts: int
    views: int
    reactions: int

    @property
    def engagement(self) -> float | None:
        """Reactions per view; None without views."""
        return self.reactions / self.views if self.views else None


@dataclass(frozen=True)
class Sums:
    """The aggregates of a channel in a period."""

    hours: Sequence[Hour]
    by_day: Sequence[PlatformDay]
    hooks: Sequence[Hook]


@dataclass(frozen=True)
class CachedSums:
    """Aggregates by start of period and channel. `made_at` identifies the version of the tables that they were computed from."""

    made_at: tuple[datetime | None, datetime | None]
    sums: dict[tuple[datetime, str], Sums]


def performance(
    visit: CurrentVisit,
    *,
    days: str = "28",
    channel: str = "",
    hook: str = "",
    sort: str = "views",
    number: Annotated[int, Query(alias="page", ge=1, le=1_000)] = 1,
) -> Response:
    """Show the results of a period."""
    channels = visit.desk.board.channels()
    if days not in PERIODS:
        raise InvalidInput(f"there is no period of {days!r} days; the periods are {', '.join(PERIODS)}")
    if sort not in SORTS:
        raise InvalidInput(f"videos cannot be sorted by {sort!r}; choose one of {', '.join(SORTS)}")
    if channel and channel not in channels:
        raise InvalidInput(f"there is no channel {channel!r}; the channels are {', '.join(channels)}")
    results = ResultsBoard(visit.desk.reading)
    made_at = results.made_at()
    today = day_of(made_at[0])
    since = today - timedelta(days=int(days) - 1)
    sums = sums_of(visit, results, made_at, (int(days), since), channel)
    hours, by_day, hooks = sums.hours, sums.by_day, sums.hooks
    steps, wide = _steps(by_day, since.date(), today.date())
    videos = results.videos(since, channel=channel, hook=hook, sort=sort, limit=ROWS + 1, offset=(number - 1) * ROWS)
    return page(
        visit,
        "performance.html",
        computed_at=made_at[0],
        given={"days": days if days != "28" else "", "channel": channel, "hook": hook, "sort": sort if sort != "views" else ""},
        days=days,
        periods=PERIODS,
        channel=channel,
        channels=channels,
        hook=hook,
        sort=sort,
        sorts=SORTS,
        totals=_totals(by_day),
        videos_count=sum(one.videos for one in hours),
        posts=sum(one.posts for one in hours),
        views=sum(one.views for one in hours),
        reactions=sum(one.reactions for one in hours),
        cost=sum(one.cost for one in hours),
        steps=steps,
        wide=wide,
        over_time=_over_time(steps, wide),
        hours=hours,
        by_hour=_by_hour(hours),
        hooks=hooks,
        most_of_hooks=max((one.views for one in hooks), default=0) or 1,
        videos=list(zip(videos[:ROWS], _shares(videos[:ROWS], sort), strict=True)),
        number=number,
        more=len(videos) > ROWS,
        platforms=[str(platform) for platform in Platform],
    )


def day_of(made_at: datetime | None) -> datetime:
    """Return the last day of a period: the day when the tables were computed, or today when that is over three hours ago."""
    now = datetime.now(UTC)
    day = made_at if made_at is not None and timedelta(0) <= now - made_at < timedelta(hours=3) else now
    return day.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def sums_of(
    visit: Visit,
    results: ResultsBoard,
    made_at: tuple[datetime | None, datetime | None],
    period: tuple[int, datetime],
    channel: str,
) -> Sums:
    """Return the aggregates of a period. They are cached until the tables are computed again."""
    days, since = period
    kept = visit.desk.extras.get(_KEPT)
    if not isinstance(kept, CachedSums) or kept.made_at != made_at:
        kept = visit.desk.extras[_KEPT] = CachedSums(made_at, {})
    if (since, channel) not in kept.sums:
        made = results.sums(days, since, made_at[0], channel=channel)
        hours, hooks = made or (results.hours(since, channel=channel), results.hooks(since, channel=channel))
        kept.sums[since, channel] = Sums(hours, results.platforms(since, channel=channel), hooks)
    return kept.sums[since, channel]


def _steps(rows: Sequence[PlatformDay], first: date, last: date) -> tuple[list[PlotColumn], int]:
    """Split the period into columns of a day, a week or four weeks. Return the columns and the days per column."""
    length = (last - first).days + 1
    wide = next(step for step in STEPS if length / step <= MOST_COLUMNS)
    steps = [PlotColumn(first + timedelta(days=n), {str(p): 0 for p in Platform}, 0) for n in range(0, length, wide)]
    posts = [0] * len(steps)
    for row in rows:
        place = (row.day - first).days // wide
        if 0 <= place < len(steps):
            steps[place].views[row.platform] = steps[place].views.get(row.platform, 0) + row.views
            posts[place] += row.posts
    return [PlotColumn(step.first, step.views, n) for step, n in zip(steps, posts, strict=True)], wide


def _totals(rows: Sequence[PlatformDay]) -> list[Total]:
    found = []
    for platform in Platform:
        own = [row for row in rows if row.platform == str(platform)]
        if own:
            sums = (sum(r.posts for r in own), sum(r.views for r in own), sum(r.reactions for r in own))
            found.append(Total(str(platform), *sums))
    return found


def _over_time(steps: Sequence[PlotColumn], wide: int) -> Plot:
    best = max(steps, key=lambda step: sum(step.views.values()))
    total = sum(sum(step.views.values()) for step in steps)
    each = {1: "one day", 7: "one week", 28: "four weeks"}[wide]
    summary = f"{total:,} views of the posts published in this period; a column is {each}"
    if total:
        summary += f"; the best column starts on {_day(best.first)} with {sum(best.views.values()):,} views"
    every = max(1, len(steps) // 5)
    ticks = [_day(step.first) if n % every == 0 and n + every / 2 < len(steps) + 1 else "" for n, step in enumerate(steps)]
    values = [
        [(name, n, f"{_day(step.first)}, {Platform(name).title}: {n:,} views") for name, n in step.views.items()] for step in steps
    ]
    return columns(values, ticks, f"{summary}.", width=460, height=130, left=40)


def _by_hour(hours: Sequence[Hour]) -> Plot:
    mean = {one.hour: one.views / one.videos for one in hours}
    videos = {one.hour: one.videos for one in hours}
    values = [[("plain", round(mean.get(n, 0)), _said_of_hour(n, mean, videos))] for n in range(24)]
    summary = "Views per video by the hour of its first post, in its channel's time zone"
    if mean:
        best = max(mean, key=lambda hour: mean[hour])
        summary += f"; the best hour is {best:02}:00 with {round(mean[best]):,} views ({count(videos[best], 'video', 'videos')})"
    ticks = [f"{n:02}" if n % 3 == 0 else "" for n in range(24)]
    return columns(values, ticks, f"{summary}.", width=460, height=130, left=40)


def _said_of_hour(hour: int, mean: Mapping[int, float], videos: Mapping[int, int]) -> str:
    return f"{hour:02}:00: {round(mean.get(hour, 0)):,} views per video, {count(videos.get(hour, 0), 'video', 'videos')}"


def _shares(videos: Sequence[VideoResult], sort: str) -> list[float | None]:
    """Return each video's value of the sort column as a percentage of the best one on the page. None when sorted by date."""
    found = [getattr(one, sort) for one in videos]
    if sort == "first_published_at":
        return [None] * len(found)
    most = max((float(value or 0) for value in found), default=0.0)
    return [round(100 * float(value or 0) / most, 1) if most else 0.0 for value in found]


def _day(day: date) -> str:
    return f"{day.day} {day:%b}"
