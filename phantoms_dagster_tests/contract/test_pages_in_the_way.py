"""A redirect or a page that a proxy put in the way of a read says nothing about an account. It counted as a refusal."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import httpx
import pytest

from phantoms_dagster.domain.errors import Transient, Unknown
from phantoms_dagster.domain.grants import AppRefused
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms import oauth
from phantoms_dagster.platforms.bluesky.api import error_of
from phantoms_dagster.platforms.instagram.api import judge
from phantoms_dagster.platforms.instagram.oauth import TROUBLE
from phantoms_dagster.platforms.tiktok.identity import TikTokIdentity
from phantoms_dagster.platforms.youtube.api import accepted
from phantoms_dagster.platforms.youtube.grants import YouTubeGrants
from phantoms_dagster.providers import http
from phantoms_dagster.providers.tools import ServiceTools
from phantoms_dagster.providers.uploadpost.api import UploadPostApi
from phantoms_dagster.resilience.limits import CallScope, UnguardedLimits
from phantoms_dagster.resilience.transport import build_client
from phantoms_dagster.wiring.account_tools import GivenToken
from phantoms_dagster.wiring.clock import SystemClock


async def test_a_host_that_cannot_be_reached_is_described_without_names_of_classes() -> None:
    """`phantoms show` said "ConnectError: ClientConnectorDNSError: Cannot connect to host … ssl:default [Name or …"."""
    async with build_client(limits=UnguardedLimits(), scope=CallScope("youtube")) as client:
        with pytest.raises(Transient) as refused:
            await http.send(client, "GET", "http://127.0.0.1:1/?access_token=ya29.secret", provider="youtube")
    assert str(refused.value) == "youtube cannot be reached: the connection was refused"
    assert "ClientConnectorError" in str(refused.value.evidence.extra["error"])
    assert "ya29.secret" not in str(refused.value.evidence)


PAGES: dict[str, tuple[int, str]] = {
    "redirect": (302, ""),
    "block page": (403, "<html>This site is blocked</html>"),
    "proxy's login": (407, "<html>log in</html>"),
}
LIMITS = '{"error": {"message": "said", "type": "OAuthException", "code": %d}}'


@pytest.fixture(params=list(PAGES.values()), ids=list(PAGES))
def page(request: pytest.FixtureRequest) -> httpx.Response:
    status, text = request.param
    asked = httpx.Request("GET", "https://www.googleapis.com/youtube/v3/channels")
    return httpx.Response(status, text=text, headers={"Location": "https://login.example.org/"}, request=asked)


def client_with(response: httpx.Response) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.MockTransport(lambda _: httpx.Response(response.status_code, text=response.text)))


def test_a_read_of_youtube_is_repeated(page: httpx.Response) -> None:
    with pytest.raises(Transient, match="a proxy or a login page may be in the way"):
        accepted(page, datetime.now(UTC))


def test_a_read_of_instagram_is_repeated(page: httpx.Response) -> None:
    assert isinstance(judge(page, "shore"), Transient)


async def test_a_read_of_tiktok_is_repeated(page: httpx.Response) -> None:
    async with client_with(page) as client:
        with pytest.raises(Transient):
            await TikTokIdentity(client=client, base_url="https://open.tiktokapis.com", tokens=GivenToken("act.x")).read("reef")


def test_a_read_of_bluesky_is_repeated_and_a_lost_record_stays_in_doubt(page: httpx.Response) -> None:
    assert isinstance(error_of(page, "me.bsky.social"), Transient)
    assert isinstance(error_of(page, "me.bsky.social", commits=True), Unknown)


async def test_a_read_of_the_gateway_is_repeated(page: httpx.Response) -> None:
    """The block page of a network in front of the gateway counted as a key that it does not accept."""
    async with client_with(page) as client:
        service = ServiceTools(
            client=client,
            base_url="https://api.upload-post.com/api",
            key=lambda: "key",
            clock=SystemClock(),
            sandbox=False,
            setting=lambda name: None,
            secret=lambda name: None,
        )
        with pytest.raises(Transient):
            await UploadPostApi(service).settings("tiktok", "reef")


@pytest.mark.parametrize("status", [404, 413])
def test_a_wrong_address_and_a_file_that_is_too_large_are_refused_for_good(status: int) -> None:
    """These come from the servers in front of an API, without JSON."""
    request = httpx.Request("POST", "https://video.bsky.app/xrpc/app.bsky.video.uploadVideo")
    assert not isinstance(error_of(httpx.Response(status, text="<html>", request=request), "me.bsky.social"), Transient)


async def test_the_permissions_of_a_youtube_token_are_read_again(page: httpx.Response) -> None:
    async with client_with(page) as client:
        grants = YouTubeGrants(client=client, base_url="https://www.googleapis.com", tokens=GivenToken("ya29.token"))
        with pytest.raises(Transient):
            await grants.missing("ocean")


async def test_a_token_is_asked_for_again(page: httpx.Response) -> None:
    async with client_with(page) as client:
        with pytest.raises(Transient):
            await oauth.ask(client, "POST", "https://oauth2.googleapis.com/token", platform=Platform("youtube"))


@pytest.mark.parametrize("code", [1, 2, 4, 17, 32, 613])
async def test_trouble_and_limits_of_the_graph_api_do_not_end_a_connection(code: int) -> None:
    async with client_with(httpx.Response(400, text=LIMITS % code)) as client:
        with pytest.raises(Transient, match=rf"cannot give a token now \({code}: said\)"):
            await oauth.ask(client, "GET", "https://graph.instagram.com/", platform=Platform("instagram"), trouble=TROUBLE)


@pytest.mark.parametrize("error", ["invalid_client", "deleted_client", "disabled_client"])
async def test_an_app_that_google_no_longer_accepts_is_named_as_the_cause(error: str) -> None:
    """Google deletes the clients of apps that nothing used for half a year."""
    async with client_with(httpx.Response(401, text=json.dumps({"error": error}))) as client:
        with pytest.raises(AppRefused, match="check PHANTOMS_YOUTUBE_CLIENT_ID and PHANTOMS_YOUTUBE_CLIENT_SECRET"):
            await oauth.ask(client, "POST", "https://oauth2.googleapis.com/token", platform=Platform("youtube"))
