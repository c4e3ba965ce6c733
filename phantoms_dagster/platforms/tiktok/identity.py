"""Reads the owner of a TikTok token."""

from __future__ import annotations

import httpx

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity, Tokens
from phantoms_dagster.platforms.tiktok.api import NO_SCOPE, TikTokCalls
from phantoms_dagster.platforms.tiktok.publisher import CREATOR_INFO_PATH

USER_INFO_PATH = "/v2/user/info/"


class TikTokIdentity:
    """Implements `ports.IdentityReader`: the `open_id`, which is the same for all tokens that this app gets for a user.

    A token without the scope `user.info.basic` is identified by its username instead.
    """

    platform = Platform("tiktok")

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens) -> None:
        self._calls = TikTokCalls(client, base_url, tokens)

    async def read(self, account: str) -> AccountIdentity:
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
            return AccountIdentity(f"@{username}", f"@{username}")
        user = data.get("user")
        number = user.get("open_id") if isinstance(user, dict) else None
        if not isinstance(user, dict) or not isinstance(number, str) or not number:
            raise Permanent(f"TikTok does not say who owns the token of account {account}", provider="tiktok", code="no_user")
        return AccountIdentity(number, str(user.get("display_name") or number))
