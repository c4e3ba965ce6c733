"""The stand-in for the YouTube Analytics API v2: reports about a channel's videos, by day, by video or in total.

The metrics of a day follow the same curve as the counters in `videos`. Setting: `youtube.analytics_lag_days` (2): the latest days
are missing, which is not the same as zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from operator import itemgetter
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.youtube.rules import ANALYTICS, YouTubeApiError, account_of, answers, known
from phantoms_dagster.sandbox.youtube.videos import YouTubeVideo, channel_id

DAY = 86_400.0
MAX_IDS = 500
MAX_VIDEOS = 200  # rows per report by video
# How each metric follows from a day's views.
METRICS: Mapping[str, Callable[[dict[str, int], YouTubeVideo], float]] = {
    "views": lambda day, _: day["viewCount"],
    "engagedViews": lambda day, _: int(day["viewCount"] * 0.7),
    "likes": lambda day, _: day["likeCount"],
    "dislikes": lambda day, _: int(day["likeCount"] * 0.02),
    "comments": lambda day, _: day["commentCount"],
    "shares": lambda day, _: int(day["viewCount"] * 0.01),
    "estimatedMinutesWatched": lambda day, video: int(day["viewCount"] * _watched(video) / 60),
    "averageViewDuration": lambda _, video: int(_watched(video)),
    "averageViewPercentage": lambda _, video: round(100 * _watched(video) / (video.seconds or 30.0), 2),
    "subscribersGained": lambda day, _: int(day["viewCount"] * 0.002),
    "subscribersLost": lambda day, _: int(day["viewCount"] * 0.0005),
}
_AVERAGES = frozenset({"averageViewDuration", "averageViewPercentage"})
_FLOATS = frozenset({"averageViewPercentage"})
DIMENSIONS = ("day", "video")


def _watched(video: YouTubeVideo) -> float:
    return (video.seconds or 30.0) * 0.6


class Analytics:
    """Reports about the videos of one sandbox."""

    def __init__(self, sandbox: Sandbox, videos: Mapping[str, YouTubeVideo]) -> None:
        self.sandbox = sandbox
        self._videos = videos

    @answers
    async def query(self, request: web.Request) -> web.Response:
        """GET a report. `ids`, `startDate`, `endDate` and `metrics` are required."""
        account = known(account_of(request, needs=ANALYTICS))
        query = request.query
        for name in ("ids", "startDate", "endDate", "metrics"):
            if not query.get(name):
                raise _bad(f"Required parameter: {name}", "required")
        if query["ids"] not in ("channel==MINE", f"channel=={channel_id(account)}"):
            raise YouTubeApiError(403, "forbidden", "Forbidden", domain="global")
        metrics, dimensions = query["metrics"].split(","), [d for d in query.get("dimensions", "").split(",") if d]
        _known(metrics, METRICS, "metrics")
        _known(dimensions, DIMENSIONS, "dimensions")
        start, end = _date(query["startDate"]), _date(query["endDate"])
        if end < start:
            raise _bad("endDate lies before startDate.")
        most = int(query["maxResults"]) if query.get("maxResults", "").isdigit() else None
        if dimensions == ["video"] and (most is None or most > MAX_VIDEOS or not query.get("sort")):
            raise _bad(f"A report by video needs sort, and maxResults of at most {MAX_VIDEOS}.")
        rows = self._rows(self._chosen(account, query.get("filters", "")), metrics, dimensions, start, end)
        names = [*dimensions, *metrics]
        for wish in reversed([w for w in query.get("sort", "").split(",") if w]):
            _known([wish.lstrip("-")], names, "sort")
            rows.sort(key=itemgetter(names.index(wish.lstrip("-"))), reverse=wish.startswith("-"))
        headers = [{"name": d, "columnType": "DIMENSION", "dataType": "STRING"} for d in dimensions]
        headers += [{"name": m, "columnType": "METRIC", "dataType": "FLOAT" if m in _FLOATS else "INTEGER"} for m in metrics]
        return web.json_response({"kind": "youtubeAnalytics#resultTable", "columnHeaders": headers, "rows": rows[:most]})

    def _chosen(self, account: str, filters: str) -> list[YouTubeVideo]:
        mine = [v for v in self._videos.values() if v.account == account and v.published_at is not None]
        if not filters:
            return mine
        name, found, value = filters.partition("==")
        if not found or name != "video":
            raise _bad(f"Unknown identifier ({name}) given in field parameters.filters.")
        ids = value.split(",")
        if len(ids) > MAX_IDS:
            raise _bad(f"At most {MAX_IDS} videos.")
        return [v for v in mine if v.id in ids]

    def _rows(
        self, videos: list[YouTubeVideo], metrics: list[str], dimensions: list[str], start: date, end: date
    ) -> list[list[Any]]:
        lag = timedelta(days=self.sandbox.setting("youtube.analytics_lag_days", 2))
        last = min(end, (datetime.fromtimestamp(self.sandbox.now(), UTC) - lag).date())
        groups: dict[tuple[str, ...], list[tuple[dict[str, int], YouTubeVideo]]] = {}
        for n in range((last - start).days + 1):
            day = start + timedelta(days=n)
            for video in videos:
                key = tuple(day.isoformat() if d == "day" else video.id for d in dimensions)
                groups.setdefault(key, []).append((self._gained(video, day), video))
        return [[*key, *(_total(metric, parts) for metric in metrics)] for key, parts in groups.items()]

    def _gained(self, video: YouTubeVideo, day: date) -> dict[str, int]:
        midnight = datetime.combine(day, time(), UTC).timestamp()
        before, after = (video.counters(self.sandbox, at) for at in (midnight, midnight + DAY))
        return {name: after[name] - before[name] for name in after}


def _total(metric: str, parts: list[tuple[dict[str, int], YouTubeVideo]]) -> float:
    found = [METRICS[metric](day, video) for day, video in parts]
    total = sum(found)
    return round(total / len(found), 2) if metric in _AVERAGES else total


def _known(names: list[str], there_are: Any, field: str) -> None:
    for name in names:
        if name not in there_are:
            raise _bad(f"Unknown identifier ({name}) given in field parameters.{field}.")


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise _bad(f"Invalid value '{text}'. Dates are written as YYYY-MM-DD.") from None


def _bad(message: str, reason: str = "badRequest") -> YouTubeApiError:
    return YouTubeApiError(400, reason, message, domain="global")
