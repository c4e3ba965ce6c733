"""Asks TikTok for the public id of a post that had none yet when it was published.

The id comes after moderation, usually within a minute, sometimes after hours. `domain.late_ids` decides when to ask.
"""

from __future__ import annotations

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import FoundPost, Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.tiktok.api import PROVIDER, TikTokCalls, read_status
from phantoms_dagster.platforms.tiktok.chunks import UploadSlot, post_url
from phantoms_dagster.platforms.tiktok.listing import only_match


class TikTokLateIds:
    """Implements `ports.LateIds`."""

    provider = PROVIDER
    platform = Platform("tiktok")

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, sandbox: bool = False) -> None:
        self.sandbox = sandbox
        self._base_url = base_url.rstrip("/")
        self._calls = TikTokCalls(client, base_url, tokens)

    async def public_id(self, account: str, handle: JsonObject, *, last: bool) -> FoundPost | None:
        """See the port. Reads the account's list when TikTok no longer knows the publish_id, or on the `last` try."""
        slot = UploadSlot.model_validate(handle)
        seen = await read_status(self._calls, account, slot.publish_id)
        number = seen.post_id if seen is not None else None
        if number is None and (seen is None or last):
            number = await only_match(self._calls, account, slot, slot.committed_at or slot.opened_at)
        if number is None:
            return None
        return FoundPost(number, post_url(slot, number, base_url=self._base_url if self.sandbox else None))
