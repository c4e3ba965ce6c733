"""What `phantoms doctor` says about the routes onto TikTok; the sandbox plays TikTok and Upload-Post, over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.cli.doctor import examine
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.wiring.account_tools import GivenToken, account_tools
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.key_checks import Finding
from phantoms_dagster_tests.sandbox_thread import Running, sandbox_thread

CHANNELS = """
channels:
  curious:
    title: Curious
    brand_voice: Calm.
    tiktok: {{privacy: SELF_ONLY, route: {route}}}
    accounts: {{tiktok: reef}}
"""


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Running]:
    with sandbox_thread(tmp_path / "sandbox") as running:
        yield running


def settings(tmp_path: Path, url: str, route: str, **changed: str) -> Settings:
    (tmp_path / "channels.yaml").write_text(CHANNELS.format(route=route))
    values = {
        "home": str(tmp_path),
        "tiktok_base_url": f"{url}/tiktok",
        "tiktok_token": "sandbox-reef",
        "uploadpost_base_url": f"{url}/uploadpost/api",
    }
    return Settings(**grouped({**values, **changed}))


def doctor(chosen: Settings) -> dict[str, Finding]:
    return {finding.check: finding for finding in examine(chosen)}


def configure(sandbox: Running, **values: object) -> None:
    config = {name.replace("__", "."): value for name, value in values.items()}
    httpx.post(f"{sandbox.url}/_sandbox/config", json=config, trust_env=False)


def test_what_an_app_without_an_audit_may_do_is_said_in_words_with_the_ways_out(sandbox: Running, tmp_path: Path) -> None:
    found = doctor(settings(tmp_path, sandbox.url, "direct"))
    assert found["tiktok:reef"].verdict == "ok"
    route = found["tiktok:reef route"]
    assert route.verdict == "note"
    limits = ("SELF_ONLY", "private", "five users a day", "nobody but the creator")
    for words in (*limits, "inbox: perhaps", "gateway: no", "is not set"):
        assert words in route.found
    assert "route: inbox" in route.fix
    assert "uploadpost" not in found, "no channel uses it"


def test_an_account_for_drafts_needs_only_the_permission_to_upload(sandbox: Running, tmp_path: Path) -> None:
    configure(sandbox, tiktok__scopes={"reef": ["user.info.basic", "video.upload", "video.list"]})
    found = doctor(settings(tmp_path, sandbox.url, "inbox"))
    assert (found["tiktok:reef"].verdict, found["tiktok:reef route"].verdict) == ("ok", "ok")
    assert "posts go by inbox" in found["tiktok:reef route"].found
    directly = doctor(settings(tmp_path, sandbox.url, "direct"))
    assert "video.publish (posts videos)" in directly["tiktok:reef"].found
    assert directly["tiktok:reef route"].verdict == "wrong"


def test_a_token_without_the_permission_to_upload_cannot_send_drafts(sandbox: Running, tmp_path: Path) -> None:
    configure(sandbox, tiktok__scopes={"reef": ["user.info.basic", "video.list"]})
    found = doctor(settings(tmp_path, sandbox.url, "inbox"))
    assert "video.upload (puts drafts into the creator's inbox)" in found["tiktok:reef"].found
    assert found["tiktok:reef route"].verdict == "wrong"


def test_an_account_of_the_gateway_is_asked_for_there_and_needs_no_token(sandbox: Running, tmp_path: Path) -> None:
    chosen = settings(tmp_path, sandbox.url, "gateway", uploadpost_api_key="a-key-of-ours", tiktok_token="")
    found = doctor(chosen)
    assert found["uploadpost"].verdict == "ok"
    assert (found["tiktok:reef"].verdict, found["tiktok:reef route"].verdict) == ("ok", "ok")
    assert "reef at Upload-Post (uploadpost:reef), it publishes for this account" in found["tiktok:reef"].found
    assert "tiktok" not in found
    assert doctor(settings(tmp_path, sandbox.url, "gateway", uploadpost_api_key="k", tiktok_token="", sandbox="off")).keys() >= {
        "tiktok:reef route"
    }
    configure(sandbox, uploadpost__unknown_profiles=["reef"])
    assert "no such profile" in doctor(chosen)["tiktok:reef"].found
    configure(sandbox, uploadpost__revoked_keys=["a-key-of-ours"])
    refused = doctor(chosen)
    assert refused["uploadpost"].verdict == refused["tiktok:reef"].verdict == "wrong"
    assert "PHANTOMS_UPLOADPOST_API_KEY" in refused["uploadpost"].found
    assert all("a-key-of-ours" not in finding.found + finding.fix for finding in refused.values())


def test_a_gateway_without_its_key_is_said(sandbox: Running, tmp_path: Path) -> None:
    found = doctor(settings(tmp_path, sandbox.url, "gateway", sandbox_url=sandbox.url))
    assert "PHANTOMS_UPLOADPOST_API_KEY" in found["uploadpost"].fix
    strict = doctor(settings(tmp_path, sandbox.url, "gateway", sandbox="off"))
    assert strict["uploadpost"].verdict == "wrong"


@pytest.mark.parametrize(("route", "scope"), [("", "video.publish"), ("inbox", "video.upload")])
async def test_an_account_is_connected_with_the_permissions_of_its_route(tmp_path: Path, route: str, scope: str) -> None:
    chosen = Settings(platforms={"tiktok": {"client_id": "app", "client_secret": "s", "token": "t"}}, paths={"home": tmp_path})
    tiktok = Platform("tiktok")
    async with account_tools(chosen, Endpoints(chosen), tiktok, "reef", None, tokens=GivenToken(""), route=route) as toolbox:
        consent = toolbox.make(tiktok, "oauth").consent(redirect_uri="http://127.0.0.1:1/callback", state="s")  # type: ignore[attr-defined]
    assert httpx.URL(consent.url).params["scope"] == f"user.info.basic,{scope},video.list"


@pytest.mark.parametrize(("route", "title"), [("direct", "direct post"), ("inbox", "inbox"), ("gateway", "gateway")])
def test_the_possible_routes_are_said_while_the_sandbox_answers(sandbox: Running, tmp_path: Path, route: str, title: str) -> None:
    """The guide promises that, and the checks said only that the sandbox replaces TikTok."""
    found = doctor(settings(tmp_path, sandbox.url, route, tiktok_token="", sandbox_url=sandbox.url))["tiktok:reef route"]
    assert found.found.startswith(f"posts go by {title}: ")
    assert "the sandbox answers for Upload-Post until PHANTOMS_UPLOADPOST_API_KEY is set" in found.found
    assert found.verdict == ("note" if route == "direct" else "ok")
