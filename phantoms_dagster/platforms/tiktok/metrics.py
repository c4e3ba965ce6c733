"""Reads the metrics of public TikTok videos from the Display API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Metrics, MetricsPage, Tokens
from phantoms_dagster.domain.values import JsonObject, JsonValue
from phantoms_dagster.platforms.tiktok.api import MAX_IDS, PROVIDER, TikTokCalls
from phantoms_dagster.providers.http import objects

QUERY_PATH = "/v2/video/query/"


class TikTokMetricsReader:
    """Implements `ports.MetricsReader`: views, likes, comments and shares of public posts. The API has no watch time."""

    provider = PROVIDER
    platform = Platform("tiktok")

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens) -> None:
        self._calls = TikTokCalls(client, base_url, tokens)

    async def pages(
        self,
        account: str,
        remote_ids: Sequence[str],
        *,
        without: Collection[str] = (),  # noqa: ARG002 - every account has all four metrics
    ) -> AsyncIterator[MetricsPage]:
        """See the port. Twenty posts per page, in the requested order.

        Other ids than video ids (the publish_id of a post that is not public yet) are skipped: one would fail its whole page.
        """
        wanted = [i for i in dict.fromkeys(remote_ids) if i.isascii() and i.isdigit()]
        for start in range(0, len(wanted), MAX_IDS):
            batch = wanted[start : start + MAX_IDS]
            body: JsonObject = {"filters": {"video_ids": list[JsonValue](batch)}}
            fields = {"fields": "id,view_count,like_count,comment_count,share_count"}
            shown = objects(await self._calls.post(account, QUERY_PATH, body, params=fields), "videos")
            found = {metrics.remote_id: metrics for metrics in map(_metrics, shown)}
            yield MetricsPage(tuple(found[i] for i in batch if i in found), tuple(i for i in batch if i not in found))


def _metrics(video: JsonObject) -> Metrics:
    def count(name: str) -> int | None:
        value = video.get(name)
        return value if isinstance(value, int) else None

    return Metrics(
        remote_id=str(video.get("id")),
        views=count("view_count"),
        likes=count("like_count"),
        comments=count("comment_count"),
        shares=count("share_count"),
    )
