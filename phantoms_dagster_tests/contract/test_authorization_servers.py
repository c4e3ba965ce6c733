"""The stand-ins' authorization servers, with vendors' own clients where they exist: codes, tokens, refreshes and revocations."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from aiohttp.test_utils import TestServer
from authlib.integrations.httpx_client import AsyncOAuth2Client
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from google.auth.exceptions import RefreshError
from google.auth.transport.requests import Request
from google.oauth2.credentials import Credentials

from phantoms_dagster.domain.grants import OAuth
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms.instagram.oauth import InstagramOAuth
from phantoms_dagster.platforms.oauth import App
from phantoms_dagster.platforms.tiktok.oauth import TikTokOAuth
from phantoms_dagster.platforms.youtube.oauth import GoogleOAuth
from phantoms_dagster.sandbox.core import SANDBOX_KEY, Fault, Sandbox
from phantoms_dagster.sandbox.instagram.oauth import REDIRECT_URI
from phantoms_dagster.sandbox.instagram.people import APP_ID, APP_SECRET
from phantoms_dagster.sandbox.tiktok.app import CLIENT_KEY
from phantoms_dagster.sandbox.tiktok.app import CLIENT_SECRET as TIKTOK_SECRET
from phantoms_dagster.sandbox.youtube.google_token import CLIENT_ID, CLIENT_SECRET, SCOPE_PREFIX
from phantoms_dagster.wiring.sandbox import sandbox_application

DAY = 86_400
HERE = "http://127.0.0.1:8400/callback"
VERIFIER = "v" * 64
UPLOAD, READ = SCOPE_PREFIX + "youtube.upload", SCOPE_PREFIX + "youtube.readonly"
SLASHED = REDIRECT_URI + "/"
BASIC = "instagram_business_basic"
PUBLISH = "instagram_business_content_publish"


class Site:
    """The sandbox over HTTP."""

    def __init__(self, sandbox: Sandbox, root: str, client: httpx.AsyncClient) -> None:
        self.sandbox, self.root = sandbox, root
        self.client = client

    async def consent(self, path: str, params: dict[str, str], **more: str) -> dict[str, str]:
        """What the browser brings back to the app."""
        answer = await self.client.get(self.root + path, params={"auto": "accept", "state": "s1", **params, **more})
        assert answer.status_code == 302, answer.text
        return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["Location"]).query).items()}

    # --- Google

    def google(self, **more: str) -> dict[str, str]:
        asked = {"client_id": CLIENT_ID, "redirect_uri": HERE, "response_type": "code", "access_type": "offline"}
        return {**asked, "scope": f"{UPLOAD} {READ}", **more}

    async def google_form(self, **form: str) -> httpx.Response:
        given = {"client_id": CLIENT_ID, "client_secret": CLIENT_SECRET, **form}
        return await self.client.post(f"{self.root}/token", data=given)

    async def google_tokens(self, **more: str) -> dict[str, Any]:
        code = (await self.consent("/o/oauth2/v2/auth", self.google(**more)))["code"]
        answer = await self.google_form(grant_type="authorization_code", code=code, redirect_uri=HERE)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def channels(self, token: str) -> httpx.Response:
        url = f"{self.root}/youtube/v3/channels?part=id&mine=true"
        return await self.client.get(url, headers={"Authorization": f"Bearer {token}"})

    # --- TikTok

    def tiktok(self, **more: str) -> dict[str, str]:
        challenge = {"code_challenge": hashlib.sha256(VERIFIER.encode()).hexdigest(), "code_challenge_method": "S256"}
        asked = {"client_key": CLIENT_KEY, "redirect_uri": HERE, "response_type": "code", **challenge}
        return {**asked, "scope": "user.info.basic,video.publish", **more}

    async def tiktok_form(self, **form: str) -> dict[str, Any]:
        given = {"client_key": CLIENT_KEY, "client_secret": TIKTOK_SECRET, **form}
        answer = await self.client.post(f"{self.root}/tiktok/v2/oauth/token/", data=given)
        assert answer.status_code == 200
        return dict(answer.json())

    async def tiktok_tokens(self, verifier: str = VERIFIER, **more: str) -> dict[str, Any]:
        code = (await self.consent("/tiktok/v2/auth/authorize/", self.tiktok(**more)))["code"]
        return await self.tiktok_form(
            grant_type="authorization_code", code=code, redirect_uri=more.get("redirect_uri", HERE), code_verifier=verifier
        )

    async def creator(self, token: str) -> tuple[int, str]:
        url = f"{self.root}/tiktok/v2/user/info/?fields=open_id"
        answer = await self.client.get(url, headers={"Authorization": f"Bearer {token}"})
        return answer.status_code, answer.json()["error"]["code"]

    # --- Instagram

    async def short(self, scope: str = f"{BASIC},{PUBLISH}", **more: str) -> dict[str, Any]:
        asked = {"client_id": APP_ID, "redirect_uri": SLASHED, "response_type": "code", "scope": scope, **more}
        code = (await self.consent("/instagram/oauth/authorize", asked))["code"]
        form = {"client_id": APP_ID, "client_secret": APP_SECRET, "grant_type": "authorization_code", "code": code}
        answer = await self.client.post(f"{self.root}/instagram/oauth/access_token", data={**form, "redirect_uri": SLASHED})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def graph(self, place: str, **params: str) -> httpx.Response:
        return await self.client.get(f"{self.root}/instagram/{place}", params=params)

    async def long(self, **more: str) -> str:
        short = (await self.short(**more))["access_token"]
        answer = await self.graph("access_token", grant_type="ig_exchange_token", client_secret=APP_SECRET, access_token=short)
        assert answer.json()["expires_in"] == 60 * DAY
        return str(answer.json()["access_token"])

    async def renew(self, token: str) -> httpx.Response:
        return await self.graph("refresh_access_token", grant_type="ig_refresh_token", access_token=token)

    async def me(self, token: str) -> tuple[int, int]:
        answer = await self.graph("v26.0/me", access_token=token, fields="user_id")
        return answer.status_code, answer.json().get("error", {}).get("error_subcode", 0)


async def _serving(folder: Path) -> AsyncIterator[Site]:
    app = sandbox_application(seed=1, base_url="", work_dir=folder, real_renders=False, lasting=True)
    async with TestServer(app) as server, httpx.AsyncClient() as client:
        site = Site(app[SANDBOX_KEY], str(server.make_url("/")).rstrip("/"), client)
        site.sandbox.config["instagram.login"] = "instagram"
        yield site


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    async for made in _serving(tmp_path):
        yield made


def google_credentials(site: Site, tokens: dict[str, Any]) -> Credentials:
    return Credentials(
        token=None,
        refresh_token=tokens["refresh_token"],
        token_uri=f"{site.root}/token",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
    )


# --- Google


async def test_authlib_and_google_auth_connect_and_refresh_an_account_unchanged(site: Site) -> None:
    async with AsyncOAuth2Client(
        CLIENT_ID, CLIENT_SECRET, scope=[UPLOAD, READ], redirect_uri=HERE, code_challenge_method="S256"
    ) as session:
        url, state = session.create_authorization_url(
            f"{site.root}/o/oauth2/v2/auth", code_verifier=VERIFIER, access_type="offline", auto="accept", account="ocean"
        )
        back = (await site.client.get(url)).headers["Location"]
        tokens = await session.fetch_token(f"{site.root}/token", authorization_response=back, state=state, code_verifier=VERIFIER)
    assert tokens["expires_in"] == 3_599
    assert set(tokens["scope"].split()) == {UPLOAD, READ}
    credentials = google_credentials(site, tokens)
    await asyncio.to_thread(credentials.refresh, Request())
    assert credentials.token != tokens["access_token"]
    assert credentials.refresh_token == tokens["refresh_token"]
    assert (await site.channels(str(credentials.token))).status_code == 200
    assert (await site.channels(tokens["access_token"])).status_code == 200


async def test_the_page_lets_the_person_untick_a_scope_and_the_api_refuses_what_is_missing(site: Site) -> None:
    page = await site.client.get(f"{site.root}/o/oauth2/v2/auth", params=site.google())
    assert page.text.count('type="checkbox"') == 2
    form = {"decision": "accept", "account": "ocean", "scope": ["youtube.upload"]}
    answer = await site.client.post(str(page.url), data=form)
    code = parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]
    tokens = (await site.google_form(grant_type="authorization_code", code=code, redirect_uri=HERE)).json()
    assert tokens["scope"] == UPLOAD
    refused = await site.channels(tokens["access_token"])
    assert (refused.status_code, refused.json()["error"]["errors"][0]["reason"]) == (403, "insufficientPermissions")


async def test_a_code_of_google_works_once_for_its_app_and_address_and_not_for_long(site: Site) -> None:
    async def attempt(wait: float = 0, **changes: str) -> tuple[int, str]:
        code = (await site.consent("/o/oauth2/v2/auth", site.google()))["code"]
        site.sandbox.advance(wait)
        answer = await site.google_form(**{"grant_type": "authorization_code", "code": code, "redirect_uri": HERE, **changes})
        if answer.status_code == 200:
            answer = await site.google_form(grant_type="authorization_code", code=code, redirect_uri=HERE)
        return answer.status_code, answer.json()["error"]

    assert await attempt() == (400, "invalid_grant")
    assert await attempt(601) == (400, "invalid_grant")
    assert await attempt(redirect_uri="http://127.0.0.1:8401/callback") == (400, "invalid_grant")
    assert await attempt(client_secret="wrong") == (401, "invalid_client")
    assert await attempt(client_id="wrong") == (401, "invalid_client")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"client_id": "other"}, "invalid_client"),
        ({"redirect_uri": "https://example.com/callback"}, "redirect_uri_mismatch"),
        ({"redirect_uri": "http://127.0.0.1.example.com:80/"}, "redirect_uri_mismatch"),
    ],
)
async def test_an_app_or_address_that_is_not_registered_gets_a_page_and_no_redirect(
    site: Site, changes: dict[str, str], said: str
) -> None:
    answer = await site.client.get(f"{site.root}/o/oauth2/v2/auth", params=site.google(**changes, auto="accept"))
    assert answer.status_code == 400
    assert said in answer.text


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"auto": "deny"}, "access_denied"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"response_type": "token"}, "unsupported_response_type"),
    ],
)
async def test_other_errors_come_back_to_the_app_with_its_state(site: Site, changes: dict[str, str], error: str) -> None:
    back = await site.consent("/o/oauth2/v2/auth", site.google(), **changes)
    assert (back["error"], back["state"]) == (error, "s1")
    assert "code" not in back


async def test_a_second_consent_gives_a_refresh_token_only_when_it_is_forced(site: Site) -> None:
    assert "refresh_token" in await site.google_tokens()
    assert "refresh_token" not in await site.google_tokens()
    assert "refresh_token" in await site.google_tokens(prompt="consent")
    assert "refresh_token" not in await site.google_tokens(access_type="online", account="other")


async def test_the_hundred_and_first_refresh_token_ends_the_oldest(site: Site) -> None:
    made = [await site.google_tokens(prompt="consent") for _ in range(101)]
    answers = [
        await site.google_form(grant_type="refresh_token", refresh_token=tokens["refresh_token"]) for tokens in (made[0], made[1])
    ]
    assert [answer.status_code for answer in answers] == [400, 200]
    assert answers[0].json()["error"] == "invalid_grant"


async def test_an_app_in_testing_loses_its_refresh_tokens_after_seven_days(site: Site) -> None:
    site.sandbox.config["google.testing"] = True
    tokens = await site.google_tokens()
    assert tokens["refresh_token_expires_in"] == 7 * DAY
    site.sandbox.advance(7 * DAY - 60)
    await asyncio.to_thread(google_credentials(site, tokens).refresh, Request())
    site.sandbox.advance(120)
    with pytest.raises(RefreshError, match="invalid_grant"):
        await asyncio.to_thread(google_credentials(site, tokens).refresh, Request())


async def test_the_administrator_may_want_a_new_log_in(site: Site) -> None:
    tokens = await site.google_tokens()
    site.sandbox.config["google.rapt_accounts"] = ["main"]
    answer = await site.google_form(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert (answer.status_code, answer.json()["error"], answer.json()["error_subtype"]) == (400, "invalid_grant", "invalid_rapt")


async def test_a_revoked_grant_ends_all_tokens_and_the_ledger_names_none(site: Site) -> None:
    tokens = await site.google_tokens()
    assert (await site.client.post(f"{site.root}/revoke", data={"token": tokens["refresh_token"]})).status_code == 200
    assert (await site.channels(tokens["access_token"])).status_code == 401
    assert (await site.google_form(grant_type="refresh_token", refresh_token=tokens["refresh_token"])).status_code == 400
    ledger = (await site.client.get(f"{site.root}/_sandbox/ledger")).text
    assert "oauth.issued" in ledger
    assert "oauth.revoked" in ledger
    assert tokens["access_token"] not in ledger
    assert tokens["refresh_token"] not in ledger


async def test_a_platform_whose_clock_is_an_hour_off_refuses_a_token_that_has_time_left(site: Site) -> None:
    token = (await site.google_tokens())["access_token"]
    assert (await site.channels(token)).status_code == 200
    site.sandbox.config["youtube.clock_skew"] = 3_600
    assert (await site.channels(token)).status_code == 401


async def test_grants_outlive_the_sandboxs_process(tmp_path: Path) -> None:
    async for site in _serving(tmp_path):
        tokens = await site.google_tokens()
    async for site in _serving(tmp_path):
        assert (await site.channels(tokens["access_token"])).status_code == 200
        answer = await site.google_form(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
        assert answer.status_code == 200
    assert tokens["refresh_token"].encode() not in b"".join(p.read_bytes() for p in tmp_path.glob("state.sqlite*"))


# --- TikTok


async def test_tiktok_wants_the_challenge_in_hexadecimal(site: Site) -> None:
    tokens = await site.tiktok_tokens()
    assert (tokens["expires_in"], tokens["refresh_expires_in"]) == (86_400, 31_536_000)
    assert tokens["scope"] == "user.info.basic,video.publish"
    assert await site.creator(tokens["access_token"]) == (200, "ok")
    wrong = await site.tiktok_tokens(code_challenge=create_s256_code_challenge(VERIFIER))
    assert wrong["error"] == "invalid_grant"
    site.sandbox.config["tiktok.pkce"] = "base64url"
    assert "access_token" in await site.tiktok_tokens(code_challenge=create_s256_code_challenge(VERIFIER))


async def test_tiktok_takes_any_port_but_only_the_registered_path(site: Site) -> None:
    assert "access_token" in await site.tiktok_tokens(redirect_uri="http://localhost:1/callback")
    for uri in (HERE + "/", HERE + "?x=1", "http://127.0.0.1/callback", "https://127.0.0.1:1/callback"):
        answer = await site.client.get(
            f"{site.root}/tiktok/v2/auth/authorize/", params=site.tiktok(redirect_uri=uri, auto="accept")
        )
        assert answer.status_code == 400


async def test_a_rotated_refresh_token_is_dead_even_when_the_answer_was_lost(site: Site) -> None:
    tokens = await site.tiktok_tokens()
    site.sandbox.faults.append(Fault("tiktok.token", "drop_after", times=1))
    with pytest.raises(httpx.TransportError):
        await site.tiktok_form(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    refused = await site.tiktok_form(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert set(refused) == {"error", "error_description", "log_id"}
    assert refused["error"] == "invalid_grant"
    assert [e["token"] for e in site.sandbox.ledger if e["kind"] == "oauth.rotated"] == ["refresh"]


async def test_the_old_refresh_token_works_for_a_while_if_the_setting_says_so(site: Site) -> None:
    site.sandbox.config["tiktok.old_refresh_token_seconds"] = 60
    tokens = await site.tiktok_tokens()
    for wait, wanted in ((0, True), (30, True), (31, False)):
        site.sandbox.advance(wait)
        answer = await site.tiktok_form(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
        assert ("access_token" in answer) is wanted


async def test_an_expired_token_and_a_missing_scope_get_tiktoks_own_errors(site: Site) -> None:
    narrow = (await site.tiktok_tokens(scope="video.publish"))["access_token"]
    assert await site.creator(narrow) == (401, "scope_not_authorized")
    token = (await site.tiktok_tokens())["access_token"]
    site.sandbox.advance(DAY)
    assert await site.creator(token) == (401, "access_token_invalid")


async def test_a_revocation_at_tiktok_has_an_empty_answer(site: Site) -> None:
    token = (await site.tiktok_tokens())["access_token"]
    form = {"client_key": CLIENT_KEY, "client_secret": TIKTOK_SECRET, "token": token}
    answer = await site.client.post(f"{site.root}/tiktok/v2/oauth/revoke/", data=form)
    assert (answer.status_code, answer.content) == (200, b"")
    assert await site.creator(token) == (401, "access_token_invalid")


async def test_an_app_token_of_tiktok_opens_no_call_of_a_person(site: Site) -> None:
    answer = await site.tiktok_form(grant_type="client_credentials")
    assert answer["expires_in"] == 7_200
    assert await site.creator(answer["access_token"]) == (401, "access_token_invalid")


async def test_the_control_route_expires_and_revokes_at_once(site: Site) -> None:
    tokens = await site.tiktok_tokens()
    change = {"platform": "tiktok", "account": "main", "action": "expire"}
    assert (await site.client.post(f"{site.root}/_sandbox/grants", json=change)).json() == {"changed": 1}
    assert await site.creator(tokens["access_token"]) == (401, "access_token_invalid")
    tokens = await site.tiktok_form(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert await site.creator(tokens["access_token"]) == (200, "ok")
    await site.client.post(f"{site.root}/_sandbox/grants", json=change | {"action": "revoke"})
    refused = await site.tiktok_form(grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert refused["error"] == "invalid_grant"
    assert (await site.client.post(f"{site.root}/_sandbox/grants", json=change | {"action": "hide"})).status_code == 400


# --- Instagram


async def test_instagram_appends_its_fragment_and_wants_the_slash_that_its_dashboard_added(site: Site) -> None:
    asked = {"client_id": APP_ID, "response_type": "code", "scope": BASIC, "state": "s1", "auto": "accept"}
    url = f"{site.root}/instagram/oauth/authorize"
    answer = await site.client.get(url, params={**asked, "redirect_uri": SLASHED})
    assert answer.headers["Location"].endswith("#_")
    assert (await site.client.get(url, params={**asked, "redirect_uri": REDIRECT_URI})).status_code == 400
    site.sandbox.config["instagram.trailing_slash"] = False
    assert (await site.client.get(url, params={**asked, "redirect_uri": REDIRECT_URI})).status_code == 302


async def test_a_token_for_an_hour_gets_one_for_sixty_days(site: Site) -> None:
    short = await site.short()
    assert set(short) == {"access_token", "user_id", "permissions"}
    site.sandbox.advance(3_600)
    assert await site.me(short["access_token"]) == (401, 463)
    late = await site.graph(
        "access_token", grant_type="ig_exchange_token", client_secret=APP_SECRET, access_token=short["access_token"]
    )
    assert late.json()["error"]["code"] == 190
    assert await site.me(await site.long()) == (200, 0)


async def test_a_long_lived_token_is_renewed_after_a_day_and_before_its_end(site: Site) -> None:
    site.sandbox.config["instagram.old_token_dies"] = False
    token = await site.long()
    assert (await site.renew(token)).status_code == 400
    site.sandbox.advance(DAY)
    after = (await site.renew(token)).json()["access_token"]
    assert await site.me(token) == (200, 0)
    site.sandbox.advance(59 * DAY)
    assert await site.me(token) == (401, 463)
    assert await site.me(after) == (200, 0)
    assert (await site.renew(token)).json()["error"]["code"] == 190


async def test_the_old_token_dies_at_once_unless_the_setting_says_otherwise(site: Site) -> None:
    token = await site.long()
    site.sandbox.advance(DAY)
    assert (await site.renew(token)).status_code == 200
    assert (await site.me(token))[0] == 401


async def test_instagram_logins_tokens_are_unknown_at_facebooks_graph(site: Site) -> None:
    token = await site.long()
    site.sandbox.config["instagram.login"] = "facebook"
    assert await site.me(token) == (401, 0)


# --- the clients of Phantoms


def _app(platform: str, client_id: str, secret: str) -> App:
    return App(Platform(platform), lambda _: client_id, lambda _: secret)


def _clients(site: Site) -> list[tuple[OAuth, str]]:
    http, root = site.client, site.root
    google = GoogleOAuth(
        client=http,
        app=_app("youtube", CLIENT_ID, CLIENT_SECRET),
        authorize_url=f"{root}/o/oauth2/v2/auth",
        base_url=root,
    )
    tiktok = TikTokOAuth(
        client=http,
        app=_app("tiktok", CLIENT_KEY, TIKTOK_SECRET),
        authorize_url=f"{root}/tiktok/v2/auth/authorize/",
        base_url=f"{root}/tiktok",
    )
    instagram = InstagramOAuth(
        client=http,
        app=_app("instagram", APP_ID, APP_SECRET),
        authorize_url=f"{root}/instagram/oauth/authorize",
        token_url=f"{root}/instagram",
        base_url=f"{root}/instagram",
    )
    return [(google, HERE), (tiktok, HERE), (instagram, SLASHED)]


@pytest.mark.parametrize("index", [0, 1, 2], ids=["youtube", "tiktok", "instagram"])
async def test_the_clients_of_phantoms_get_all_the_scopes_that_they_need(site: Site, index: int) -> None:
    oauth, uri = _clients(site)[index]
    consent = oauth.consent(redirect_uri=uri, state="s1")
    answer = await site.client.get(f"{consent.url}&auto=accept")
    code = parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]
    grant = await oauth.exchange(code, redirect_uri=uri, verifier=consent.verifier)
    assert oauth.missing(grant.scopes or ()) == []
    assert grant.life_seconds > 3_000
