"""Reads the numbers of TikTok's public videos from the Display API.

Calls and the error table belong in `tiktok_api`, posting in `tiktok`.
"""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Metrics, Tokens
from phantoms_dagster.domain.values import JsonObject, JsonValue
from phantoms_dagster.providers.http import objects
from phantoms_dagster.providers.tiktok_api import MAX_IDS, PROVIDER, TikTokCalls

QUERY_PATH = "/v2/video/query/"


class TikTokMetricsReader:
    """Views, likes, comments and shares of public posts. Watch time is not in this API."""

    provider = PROVIDER
    platform = Platform.TIKTOK

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens) -> None:
        self._calls = TikTokCalls(client, base_url, tokens)

    async def read(self, account: str, remote_ids: Sequence[str]) -> list[Metrics]:
        """The metrics of those posts that TikTok shows, in the order asked for.

        Ids that are no video ids (a publish_id of a post that never became public) are left out: one of them would fail
        its whole group.
        """
        wanted = [i for i in dict.fromkeys(remote_ids) if i.isascii() and i.isdigit()]
        found: dict[str, Metrics] = {}
        for start in range(0, len(wanted), MAX_IDS):
            body: JsonObject = {"filters": {"video_ids": list[JsonValue](wanted[start : start + MAX_IDS])}}
            fields = {"fields": "id,view_count,like_count,comment_count,share_count"}
            for video in objects(await self._calls.post(account, QUERY_PATH, body, params=fields), "videos"):
                metrics = _metrics(video)
                found[metrics.remote_id] = metrics
        return [found[i] for i in wanted if i in found]


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
