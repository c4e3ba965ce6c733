"""Asking each platform whose a token is. One cheap read each; what refusals mean is in each platform's table of errors."""

from __future__ import annotations

import httpx

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Identity, Tokens
from phantoms_dagster.providers.http import objects
from phantoms_dagster.providers.instagram_api import Graph
from phantoms_dagster.providers.tiktok import CREATOR_INFO_PATH
from phantoms_dagster.providers.tiktok_api import TikTokCalls
from phantoms_dagster.providers.youtube_api import YouTubeCalls, part, text

USER_INFO_PATH = "/v2/user/info/"
NO_SCOPE = ("scope_not_authorized", "scope_permission_missed")


class YouTubeIdentity:
    """The channel of a token: `channels.list` with `mine=true`, one unit."""

    platform = Platform.YOUTUBE

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, clock: Clock) -> None:
        self._calls = YouTubeCalls(client, base_url, tokens, clock)

    async def read(self, account: str) -> Identity:
        """See `ports.IdentityReader`. Raises Permanent when the token has no channel."""
        listing = await self._calls.get(account, "channels", part="id,snippet", mine="true")
        channel = next(iter(objects(listing, "items")), {})
        number = text(channel, "id")
        if number is None:
            message = f"the token of YouTube account {account} has no channel: create one, or give the token of one"
            raise Permanent(message, provider="youtube", code="no_channel")
        return Identity(number, text(part(channel, "snippet"), "title") or number)


class TikTokIdentity:
    """The `open_id` of a token, which is the same for every token that this app gets for a user.

    A token without the scope `user.info.basic` is known by its username instead.
    """

    platform = Platform.TIKTOK

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens) -> None:
        self._calls = TikTokCalls(client, base_url, tokens)

    async def read(self, account: str) -> Identity:
        """See `ports.IdentityReader`."""
        try:
            data = await self._calls.get(account, USER_INFO_PATH, {"fields": "open_id,display_name"})
        except Permanent as error:
            if error.code not in NO_SCOPE:
                raise
            creator = await self._calls.post(account, CREATOR_INFO_PATH)
            username = str(creator.get("creator_username") or "")
            if not username:
                raise
            return Identity(f"@{username}", f"@{username}")
        user = data.get("user")
        number = user.get("open_id") if isinstance(user, dict) else None
        if not isinstance(user, dict) or not isinstance(number, str) or not number:
            raise Permanent(f"TikTok does not say whose the token of account {account} is", provider="tiktok", code="no_user")
        return Identity(number, str(user.get("display_name") or number))


class InstagramIdentity:
    """The Instagram user of a token."""

    platform = Platform.INSTAGRAM

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def read(self, account: str) -> Identity:
        """See `ports.IdentityReader`."""
        return await self._graph.identity(account, fresh=True)
