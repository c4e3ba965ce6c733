"""Asks TikTok for the public id of a post that was published before it had one.

The id comes after moderation, usually within a minute, sometimes after hours. When to ask is decided in
`domain.late_ids`; posting is in `tiktok`.
"""

from __future__ import annotations

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import FoundPost, Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.tiktok.api import PROVIDER, TikTokCalls, listed_since, read_status, same_video
from phantoms_dagster.platforms.tiktok.chunks import UploadSlot, post_url
from phantoms_dagster.platforms.tiktok.publisher import CLOCK_SKEW


class TikTokLateIds:
    """Implements `ports.LateIds`."""

    provider = PROVIDER
    platform = Platform("tiktok")

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, sandbox: bool = False) -> None:
        self.sandbox = sandbox
        self._base_url = base_url.rstrip("/")
        self._calls = TikTokCalls(client, base_url, tokens)

    async def public_id(self, account: str, handle: JsonObject, *, last: bool) -> FoundPost | None:
        """See the port. The account's list is read when TikTok no longer knows the publish_id, or for the `last` time."""
        slot = UploadSlot.model_validate(handle)
        seen = await read_status(self._calls, account, slot.publish_id)
        number = seen.post_id if seen is not None else None
        if number is None and (seen is None or last):
            number = await self._listed(account, slot)
        if number is None:
            return None
        return FoundPost(number, post_url(slot, number, base_url=self._base_url if self.sandbox else None))

    async def _listed(self, account: str, slot: UploadSlot) -> str | None:
        """The only public video that looks like the post; None when there is none, or when several do."""
        since = (slot.committed_at or slot.opened_at) - CLOCK_SKEW
        listed = await listed_since(self._calls, account, since)
        found = [video for video in listed if slot.caption and same_video(video, slot.caption, slot.seconds, since)]
        return str(found[0]["id"]) if len(found) == 1 else None
