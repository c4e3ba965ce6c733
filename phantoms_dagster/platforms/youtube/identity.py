"""Reads the owner of a YouTube token."""

from __future__ import annotations

import httpx

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity, Clock, Tokens
from phantoms_dagster.platforms.youtube.api import YouTubeCalls, part, text
from phantoms_dagster.providers.http import objects


class YouTubeIdentity:
    """Implements `ports.IdentityReader`: the token's channel, by `channels.list` with `mine=true` (one unit)."""

    platform = Platform("youtube")

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, clock: Clock) -> None:
        self._calls = YouTubeCalls(client, base_url, tokens, clock)

    async def read(self, account: str) -> AccountIdentity:
        """See `ports.IdentityReader`. Raises Permanent when the token has no channel."""
        listing = await self._calls.get(account, "channels", part="id,snippet", mine="true")
        channel = next(iter(objects(listing, "items")), {})
        number = text(channel, "id")
        if number is None:
            message = f"the token of YouTube account {account} has no channel: create one, or use the token of another account"
            raise Permanent(message, provider="youtube", code="no_channel")
        return AccountIdentity(number, text(part(channel, "snippet"), "title") or number)
