"""Checks the permissions of a TikTok token. TikTok does not list them, so each is tested by the cheapest read that needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import httpx

from phantoms_dagster.domain.errors import Permanent, Throttled
from phantoms_dagster.domain.ports import Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.platforms.tiktok.api import LIST_PATH, TikTokCalls
from phantoms_dagster.platforms.tiktok.identity import NO_SCOPE, USER_INFO_PATH
from phantoms_dagster.platforms.tiktok.publisher import CREATOR_INFO_PATH

SCOPES = (
    Scope("user.info.basic", "tells whose the token is"),
    Scope("video.publish", "posts videos"),
    Scope("video.list", "reads the numbers of posts"),
)


class TikTokGrants:
    """Implements `Grants` with one read per permission."""

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens) -> None:
        self._calls = TikTokCalls(client, base_url, tokens)

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """See the port."""
        user, publish, videos = await asyncio.gather(
            _allowed(self._calls.get(account, USER_INFO_PATH, {"fields": "open_id"})),
            _allowed(self._calls.post(account, CREATOR_INFO_PATH)),
            _allowed(self._calls.post(account, LIST_PATH, {"max_count": 1}, params={"fields": "id"})),
        )
        return [scope for scope, allowed in zip(SCOPES, (user, publish, videos), strict=True) if not allowed]


async def _allowed(call: Awaitable[JsonObject]) -> bool:
    """Whether the call passed the permission check. A rate limit error means that it did."""
    try:
        await call
    except Throttled:
        return True
    except Permanent as error:
        if error.code not in NO_SCOPE:
            raise
        return False
    return True
