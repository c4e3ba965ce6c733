"""Reads the counters of YouTube videos (videos.list, part=statistics).

Requests and the error table belong in `youtube_api`, posting in `youtube`.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Metrics, Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.http import objects
from phantoms_dagster.providers.youtube_api import MAX_IDS, PROVIDER, YouTubeCalls, part


class YouTubeMetricsReader:
    """Views, likes and comments of posts. See `domain.ports.MetricsReader`.

    The Data API tells neither shares nor watch time: they stay None, as does a counter that the channel hides.
    """

    provider = PROVIDER
    platform = Platform.YOUTUBE

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, clock: Clock, sandbox: bool = False) -> None:
        self.sandbox = sandbox
        self._calls = YouTubeCalls(client, base_url, tokens, clock)

    async def read(self, account: str, remote_ids: Sequence[str]) -> list[Metrics]:
        """The metrics now, in the order asked for; videos that YouTube no longer lists are absent. 50 videos cost 1 unit."""
        found: list[Metrics] = []
        ids = list(dict.fromkeys(remote_ids))
        for i in range(0, len(ids), MAX_IDS):
            batch = ids[i : i + MAX_IDS]
            listing = await self._calls.get(account, "videos", part="statistics", id=",".join(batch))
            listed = {m.remote_id: m for m in metrics_in(listing)}
            found += [listed[r] for r in batch if r in listed]
        return found


def metrics_in(listing: JsonObject) -> list[Metrics]:
    """The metrics in a list of videos."""
    return [_metrics(str(v["id"]), part(v, "statistics")) for v in objects(listing, "items") if "id" in v]


def _metrics(video_id: str, counters: JsonObject) -> Metrics:
    def count(name: str) -> int | None:
        value = counters.get(name)  # counters are strings, since they are 64 bits wide
        return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None

    return Metrics(remote_id=video_id, views=count("viewCount"), likes=count("likeCount"), comments=count("commentCount"))
