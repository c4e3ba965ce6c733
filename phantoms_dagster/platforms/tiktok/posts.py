"""Reads how public videos stand. TikTok shows nothing of a video that is not public to everyone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PostStanding, Tokens
from phantoms_dagster.domain.values import JsonObject, JsonValue
from phantoms_dagster.platforms.tiktok.api import MAX_IDS, PROVIDER, TikTokCalls
from phantoms_dagster.platforms.tiktok.metrics import QUERY_PATH
from phantoms_dagster.providers.http import objects


class TikTokPostReader:
    """Implements `ports.PostReader` with video/query, which answers only for public videos of the account."""

    provider = PROVIDER
    platform = Platform("tiktok")
    tells_more_than_metrics = False

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, sandbox: bool = False) -> None:
        self._calls = TikTokCalls(client, base_url, tokens)
        self._base_url = base_url.rstrip("/")
        self._sandbox = sandbox

    async def look(self, account: str, references: Sequence[str]) -> Sequence[PostStanding]:
        """See the port. A publish_id is no video id, and one of them would fail the whole query."""
        numbers = [one for one in references if one.isascii() and one.isdigit()]
        shown: dict[str, JsonObject] = {}
        for start in range(0, len(numbers), MAX_IDS):
            body: JsonObject = {"filters": {"video_ids": list[JsonValue](numbers[start : start + MAX_IDS])}}
            answer = await self._calls.post(account, QUERY_PATH, body, params={"fields": "id,create_time,share_url"})
            shown |= {str(video.get("id")): video for video in objects(answer, "videos")}
        return [self._standing(one, shown.get(one)) for one in references]

    def _standing(self, number: str, video: JsonObject | None) -> PostStanding:
        if video is None:
            return PostStanding(number, "gone", "video/query does not contain it: deleted, not public, or taken down")
        created, shared = video.get("create_time"), video.get("share_url")
        at = datetime.fromtimestamp(created, UTC) if isinstance(created, int) else None
        url = f"{self._base_url}/watch/{number}" if self._sandbox else str(shared or "")
        return PostStanding(number, "public", "video/query contains it", url, at)
