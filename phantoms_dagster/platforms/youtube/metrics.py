"""Reads the counters of YouTube videos with videos.batchGetStats, which has its own quota, else with videos.list."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

import httpx

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Metrics, MetricsPage, Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.youtube.api import MAX_IDS, PROVIDER, YouTubeCalls, part
from phantoms_dagster.providers.http import objects

# The pool for a videos.list that only reads metrics. It shares the units with publishing and leaves it enough.
READING_POOL = "youtube_reading"
# Statuses for a project that may not call batchGetStats, or a host that does not know it. A bad token has other statuses.
_NOT_OFFERED = (400, 403, 404)


class YouTubeMetricsReader:
    """Implements `ports.MetricsReader`: views, likes and comments of posts.

    The Data API has neither shares nor watch time, so they are None, as is a counter that the channel hides.
    """

    provider = PROVIDER
    platform = Platform("youtube")

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, clock: Clock, sandbox: bool = False) -> None:
        self.sandbox = sandbox
        self._calls = YouTubeCalls(client, base_url, tokens, clock)
        self._offered = True

    async def pages(
        self,
        account: str,
        remote_ids: Sequence[str],
        *,
        without: Collection[str] = (),  # noqa: ARG002 - every account has all three metrics
    ) -> AsyncIterator[MetricsPage]:
        """See the port. Fifty posts per page, in the requested order. Each page takes one call."""
        ids = list(dict.fromkeys(remote_ids))
        for i in range(0, len(ids), MAX_IDS):
            batch = ids[i : i + MAX_IDS]
            listed = {m.remote_id: m for m in metrics_in(await self._statistics(account, batch))}
            yield MetricsPage(tuple(listed[r] for r in batch if r in listed), tuple(r for r in batch if r not in listed))

    async def _statistics(self, account: str, batch: Sequence[str]) -> JsonObject:
        query = {"part": "statistics", "id": ",".join(batch)}
        if self._offered:
            try:
                return await self._calls.get(account, "videos:batchGetStats", **query)
            except Permanent as error:
                if error.evidence.status not in _NOT_OFFERED:
                    raise
        listing = await self._calls.get(account, "videos", pool=READING_POOL, **query)
        # videos.list worked, so the refusal concerned batchGetStats itself. Do not try that method again.
        self._offered = False
        return listing


def metrics_in(listing: JsonObject) -> list[Metrics]:
    """The metrics in a list of videos."""
    return [_metrics(str(v["id"]), part(v, "statistics")) for v in objects(listing, "items") if "id" in v]


def _metrics(video_id: str, counters: JsonObject) -> Metrics:
    def count(name: str) -> int | None:
        value = counters.get(name)  # 64-bit counters are sent as strings
        return int(value) if isinstance(value, str) and value.isascii() and value.isdigit() else None

    return Metrics(remote_id=video_id, views=count("viewCount"), likes=count("likeCount"), comments=count("commentCount"))
