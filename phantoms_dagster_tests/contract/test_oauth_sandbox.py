"""The platforms' OAuth adapters against the sandbox's authorization servers: consent, exchange, use, renewal, revocation."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import Transient
from phantoms_dagster.domain.grants import Grant, GrantDead, OAuth, StoredGrant
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms.instagram.api import Graph
from phantoms_dagster.platforms.instagram.identity import InstagramIdentity
from phantoms_dagster.platforms.instagram.oauth import InstagramOAuth
from phantoms_dagster.platforms.oauth import App
from phantoms_dagster.platforms.tiktok.identity import TikTokIdentity
from phantoms_dagster.platforms.tiktok.oauth import TikTokOAuth
from phantoms_dagster.platforms.youtube.identity import YouTubeIdentity
from phantoms_dagster.platforms.youtube.oauth import GoogleOAuth
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.grants import routes as control
from phantoms_dagster.wiring.account_tools import GivenToken
from phantoms_dagster.wiring.clock import SystemClock

PLATFORMS = ("youtube", "tiktok", "instagram")
APPS = {
    "youtube": ("youtube.google_token", "CLIENT_ID", "CLIENT_SECRET"),
    "tiktok": ("tiktok.oauth", "CLIENT_KEY", "CLIENT_SECRET"),
    "instagram": ("instagram.oauth", "APP_ID", "APP_SECRET"),
}
LOOPBACK = "http://127.0.0.1:8400/callback"


@dataclass
class Server:
    """The sandbox, and the adapter of one platform that talks to it."""

    name: str
    url: str
    sandbox: Sandbox
    client: httpx.AsyncClient
    oauth: OAuth
    redirect_uri: str

    async def answer(self, auto: str = "accept") -> tuple[dict[str, str], str]:
        """What the browser brings back, and the verifier."""
        consent = self.oauth.consent(redirect_uri=self.redirect_uri, state="s1")
        page = await self.client.get(f"{consent.url}&auto={auto}&account=ocean")
        assert page.status_code in (302, 303), page.text
        return dict(parse_qsl(urlsplit(page.headers["location"]).query)), consent.verifier

    async def connect(self) -> Grant:
        answer, verifier = await self.answer()
        assert answer["state"] == "s1"
        return await self.oauth.exchange(answer["code"], redirect_uri=self.redirect_uri, verifier=verifier)

    async def owner(self, token: str) -> str:
        tokens: Any = GivenToken(token)
        if self.name == "youtube":
            reader: Any = YouTubeIdentity(client=self.client, base_url=self.url, tokens=tokens, clock=SystemClock())
        elif self.name == "tiktok":
            reader = TikTokIdentity(client=self.client, base_url=f"{self.url}/tiktok", tokens=tokens)
        else:
            graph = Graph(client=self.client, base_url=f"{self.url}/instagram", version="v26.0", tokens=tokens)
            reader = InstagramIdentity(graph)
        return str((await reader.read("any")).label).lower()


@asynccontextmanager
async def serving(name: str) -> AsyncIterator[Server]:
    sandbox = Sandbox()
    sandbox.config["instagram.login"] = "instagram"
    routes = import_module(f"phantoms_dagster.sandbox.{name}.routes").routes
    module, key, secret = APPS[name]
    place = import_module(f"phantoms_dagster.sandbox.{module}")
    known = {"client_id": getattr(place, key), "client_secret": getattr(place, secret)}
    app = App(Platform(name), known.__getitem__, known.get)
    async with TestServer(application(sandbox, [routes(sandbox), control(sandbox)])) as server, httpx.AsyncClient() as client:
        url, redirect_uri = str(server.make_url("/")).rstrip("/"), LOOPBACK
        oauth: OAuth
        if name == "youtube":
            oauth = GoogleOAuth(client=client, app=app, authorize_url=f"{url}/o/oauth2/v2/auth", base_url=url)
        elif name == "tiktok":
            base = f"{url}/tiktok"
            oauth = TikTokOAuth(client=client, app=app, authorize_url=f"{base}/v2/auth/authorize/", base_url=base)
        else:
            base, redirect_uri = f"{url}/instagram", f"{place.REDIRECT_URI}/"  # the dashboard has added the slash
            oauth = InstagramOAuth(client=client, app=app, authorize_url=f"{base}/oauth/authorize", token_url=base, base_url=base)
        yield Server(name, url, sandbox, client, oauth, redirect_uri)


def stored(grant: Grant, before: StoredGrant | None = None) -> StoredGrant:
    refresh = grant.refresh_token or (before.refresh_token if before else None)
    return StoredGrant(
        generation=1,
        access_token=grant.access_token,
        refresh_token=refresh,
        subject=None,
        age_seconds=0.0,
        left_seconds=grant.life_seconds,
        connected_seconds=0.0,
    )


@pytest.mark.parametrize("name", PLATFORMS)
async def test_an_account_is_connected_and_renewed_until_its_owner_revokes_the_grant(name: str) -> None:
    async with serving(name) as server:
        grant = await server.connect()
        assert grant.scopes is not None
        assert list(server.oauth.missing(grant.scopes)) == []
        assert "ocean" in await server.owner(grant.access_token)
        first = stored(grant)
        server.sandbox.advance(2 * 86_400)  # Instagram renews no token that is younger than a day
        renewed = await server.oauth.renew(first)
        assert renewed.access_token != grant.access_token
        assert "ocean" in await server.owner(renewed.access_token)
        await server.client.post(f"{server.url}/_sandbox/grants", json={"platform": name, "account": "ocean", "action": "revoke"})
        with pytest.raises(GrantDead):
            await server.oauth.renew(stored(renewed, first))


@pytest.mark.parametrize("code", [190, 102])
async def test_instagram_says_with_two_codes_that_a_token_is_dead(code: int) -> None:
    async with serving("instagram") as server:
        grant = await server.connect()
        body = json.dumps({"error": {"message": "Session has expired", "type": "OAuthException", "code": code}})
        server.sandbox.faults.append(Fault("instagram.refresh_token", status=400, body=body))
        with pytest.raises(GrantDead):
            await server.oauth.renew(stored(grant))


@pytest.mark.parametrize(
    ("status", "error"), [(400, "internal_failure"), (403, "server_error"), (400, "temporarily_unavailable"), (408, "")]
)
async def test_trouble_of_a_token_endpoint_is_no_refusal(status: int, error: str) -> None:
    """google-auth asks again after the same answers."""
    async with serving("youtube") as server:
        grant = stored(await server.connect())
        body = json.dumps({"error": error} if error else {})
        server.sandbox.faults.append(Fault("google.token", "status", status=status, body=body, times=1))
        with pytest.raises(Transient):
            await server.oauth.renew(grant)
        assert (await server.oauth.renew(grant)).access_token


@pytest.mark.parametrize("name", ["youtube", "tiktok"])
async def test_a_grant_that_we_revoke_is_dead(name: str) -> None:
    async with serving(name) as server:
        first = stored(await server.connect())
        assert await server.oauth.revoke(first)
        with pytest.raises(GrantDead):
            await server.oauth.renew(first)


@pytest.mark.parametrize(
    ("name", "asks"),
    [
        ("youtube", {"prompt": "select_account consent"}),
        ("tiktok", {"disable_auto_auth": "1"}),
        ("instagram", {"force_reauth": "true"}),
    ],
)
async def test_the_owner_is_asked_although_the_browser_is_logged_in_and_the_app_was_accepted_before(
    name: str, asks: dict[str, str]
) -> None:
    """Otherwise the page connects the account that is logged in, so a second account can never be connected."""
    async with serving(name) as server:
        asked = dict(parse_qsl(urlsplit(server.oauth.consent(redirect_uri=server.redirect_uri, state="s1").url).query))
        assert {key: asked.get(key) for key in asks} == asks


@pytest.mark.parametrize("name", PLATFORMS)
async def test_a_denied_consent_comes_back_as_an_error_with_our_state(name: str) -> None:
    async with serving(name) as server:
        answer, _ = await server.answer("deny")
        assert (answer["error"], answer["state"]) == ("access_denied", "s1")
