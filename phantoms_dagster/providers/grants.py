"""Which permissions (scopes) the owner of a token granted, and what each one is for. Asked by a person's check, never by a post.

Nothing asked here makes, changes or costs anything. YouTube and Facebook list what was granted; TikTok does not, so each of its
permissions is tried by the cheapest read that needs it. Facts: Google's discovery document oauth2 v2, the Graph API's pages
`user/permissions` and `debug_token`, TikTok's table of calls and scopes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

import httpx

from phantoms_dagster.domain.errors import Disconnected, Permanent, Throttled
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers import http
from phantoms_dagster.providers.identities import NO_SCOPE, USER_INFO_PATH
from phantoms_dagster.providers.instagram_api import Graph, path
from phantoms_dagster.providers.redaction import redact
from phantoms_dagster.providers.tiktok import CREATOR_INFO_PATH
from phantoms_dagster.providers.tiktok_api import LIST_PATH, TikTokCalls

TOKENINFO_PATH = "oauth2/v2/tokeninfo"
GOOGLE_HOST = "https://www.googleapis.com"
_GOOGLE_PREFIX = "https://www.googleapis.com/auth/"
# How the Graph API says that it has no such question for this kind of token, or that others may not ask it.
_NOT_TOLD = frozenset({"10", "100", "200", "803", "2500", "404", "400"})


@dataclass(frozen=True)
class Scope:
    """A permission that Phantoms needs. `instead`: wider ones that include it."""

    name: str
    purpose: str
    instead: frozenset[str] = frozenset()

    def in_(self, granted: Collection[str]) -> bool:
        """Whether what was granted includes it."""
        return self.name in granted or not self.instead.isdisjoint(granted)


YOUTUBE = (
    Scope("youtube.upload", "uploads videos", frozenset({"youtube", "youtube.force-ssl", "youtubepartner"})),
    Scope(
        "youtube.readonly",
        "finds the channel, its videos and their numbers",
        frozenset({"youtube", "youtube.force-ssl", "youtubepartner"}),
    ),
    Scope("youtube.force-ssl", "makes an uploaded video public", frozenset({"youtube", "youtubepartner"})),
    Scope("yt-analytics.readonly", "reads watch time", frozenset({"youtube", "youtube.readonly"})),
)
TIKTOK = (
    Scope("user.info.basic", "tells whose the token is"),
    Scope("video.publish", "posts videos"),
    Scope("video.list", "reads the numbers of posts"),
)
FACEBOOK_LOGIN = (
    Scope("instagram_basic", "finds the Instagram account and its posts"),
    Scope("instagram_content_publish", "posts reels"),
    Scope("instagram_manage_insights", "reads the numbers of posts"),
    Scope("pages_show_list", "finds the Page that the Instagram account is linked to"),
    Scope("pages_read_engagement", "reads the Page that the Instagram account is linked to"),
)
INSTAGRAM_LOGIN = (
    Scope("instagram_business_basic", "finds the Instagram account and its posts"),
    Scope("instagram_business_content_publish", "posts reels"),
    Scope("instagram_business_manage_insights", "reads the numbers of posts"),
)
NEEDED = {Platform.YOUTUBE: YOUTUBE, Platform.TIKTOK: TIKTOK, Platform.INSTAGRAM: FACEBOOK_LOGIN}


class Grants(Protocol):
    """Asks one platform what an account's token may do."""

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """The needed permissions that were not granted; None when the platform does not tell. Raises ProviderError."""


class YouTubeGrants:
    """Google's tokeninfo. At another host than Google's own the same path is asked, and 404 there is no answer."""

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens) -> None:
        self._client = client
        host = httpx.URL(base_url).host
        self._base = GOOGLE_HOST if host.endswith(".googleapis.com") else base_url.rstrip("/")
        self._tokens = tokens

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """See the port."""
        token = await self._tokens.token(Platform.YOUTUBE, account)
        url = f"{self._base}/{TOKENINFO_PATH}"
        response = await http.send(self._client, "POST", url, provider="youtube", params={"access_token": token})
        if response.status_code == 404:
            return None
        if response.status_code in (400, 401):
            said = redact(str(http.lenient_json(response).get("error_description") or response.status_code))
            message = f"Google does not accept the token ({said.replace(token, '***')})"
            raise Disconnected(message, provider="youtube", code="invalid_token", evidence=http.evidence(response))
        if response.status_code >= 500:
            raise http.server_error(response, provider="youtube")
        if not response.is_success:
            raise http.unexpected(response, provider="youtube")
        listed = str(http.json_object(response, provider="youtube").get("scope") or "")
        granted = {name.removeprefix(_GOOGLE_PREFIX) for name in listed.split()}
        return [scope for scope in YOUTUBE if not scope.in_(granted)]


class TikTokGrants:
    """One read for each permission: TikTok has no call that lists them."""

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens) -> None:
        self._calls = TikTokCalls(client, base_url, tokens)

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """See the port."""
        user, publish, videos = await asyncio.gather(
            _allowed(self._calls.get(account, USER_INFO_PATH, {"fields": "open_id"})),
            _allowed(self._calls.post(account, CREATOR_INFO_PATH)),
            _allowed(self._calls.post(account, LIST_PATH, {"max_count": 1}, params={"fields": "id"})),
        )
        return [scope for scope, allowed in zip(TIKTOK, (user, publish, videos), strict=True) if not allowed]


async def _allowed(call: Awaitable[JsonObject]) -> bool:
    """Whether the call passed the check of its permission. A limit that is used up says that it did."""
    try:
        await call
    except Throttled:
        return True
    except Permanent as error:
        if error.code not in NO_SCOPE:
            raise
        return False
    return True


class InstagramGrants:
    """`/me/permissions` for a person's token, else `/debug_token`, which knows Page tokens and Instagram Login's too."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """See the port."""
        rows = await self._asked(account, path("me", "permissions"))
        if rows is not None:
            granted = {str(row.get("permission")) for row in http.objects(rows, "data") if row.get("status") == "granted"}
        else:
            # A token may inspect itself when it is a developer's of the app; any other is told that it may not.
            told = await self._asked(account, path("debug_token"), input_token=await self._graph.token(account))
            data = told.get("data") if told is not None else None
            scopes = data.get("scopes") if isinstance(data, dict) else None
            if not isinstance(scopes, list):
                return None
            granted = {str(scope) for scope in scopes}
        needed = INSTAGRAM_LOGIN if any(name.startswith("instagram_business_") for name in granted) else FACEBOOK_LOGIN
        return [scope for scope in needed if not scope.in_(granted)]

    async def _asked(self, account: str, place: str, **params: str) -> JsonObject | None:
        try:
            return await self._graph.get(account, place, **params)
        except Permanent as error:
            if error.code is None or error.code.split("/")[0] not in _NOT_TOLD or "appsecret_proof" in str(error):
                raise
            return None
