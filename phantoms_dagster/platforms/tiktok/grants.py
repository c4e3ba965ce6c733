"""Checks the permissions of a TikTok token. TikTok does not list them, so each is tested by the cheapest read that needs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

import httpx

from phantoms_dagster.domain.errors import Permanent, Throttled
from phantoms_dagster.domain.ports import Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.platforms.tiktok.api import LIST_PATH, NO_SCOPE, STATUS_PATH, TikTokCalls
from phantoms_dagster.platforms.tiktok.identity import USER_INFO_PATH
from phantoms_dagster.platforms.tiktok.publisher import CREATOR_INFO_PATH
from phantoms_dagster.platforms.tiktok.routes import INBOX

BASIC = Scope("user.info.basic", "tells whose the token is")
PUBLISH = Scope("video.publish", "posts videos")
UPLOAD = Scope("video.upload", "puts drafts into the creator's inbox")
LIST = Scope("video.list", "reads the numbers of posts")
SCOPES = (BASIC, PUBLISH, LIST)
DRAFT_SCOPES = (BASIC, UPLOAD, LIST)
# No upload has this id. A token that may not upload is refused before TikTok looks for it.
NO_UPLOAD = "v_inbox_file~none"


def scopes_for(route: str | None) -> tuple[Scope, ...]:
    """The permissions that an account with that route needs."""
    return DRAFT_SCOPES if route == INBOX else SCOPES


class TikTokGrants:
    """Implements `Grants` with one read per permission. `route`: the account's; None if it is not known, so that either will do."""

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, route: str | None = None) -> None:
        self._calls = TikTokCalls(client, base_url, tokens)
        self._route = route

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """See the port."""
        user, posts, videos = await asyncio.gather(
            _allowed(self._calls.get(account, USER_INFO_PATH, {"fields": "open_id"})),
            self._may_upload(account) if self._route == INBOX else self._may_publish(account),
            _allowed(self._calls.post(account, LIST_PATH, {"max_count": 1}, params={"fields": "id"})),
        )
        if not posts and self._route is None:
            posts = await self._may_upload(account)
        return [scope for scope, allowed in zip(scopes_for(self._route), (user, posts, videos), strict=True) if not allowed]

    async def _may_publish(self, account: str) -> bool:
        return await _allowed(self._calls.post(account, CREATOR_INFO_PATH))

    async def _may_upload(self, account: str) -> bool:
        """Whether the token may read the status of uploads. TikTok says so for tokens that publish, too."""
        try:
            return await _allowed(self._calls.post(account, STATUS_PATH, {"publish_id": NO_UPLOAD}))
        except Permanent as error:
            if error.code != "invalid_publish_id":
                raise
            return True


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
