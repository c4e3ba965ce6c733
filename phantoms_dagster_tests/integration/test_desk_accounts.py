"""The page of accounts: connecting one at the sandbox's authorization server, checking it and disconnecting it."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from pydantic import SecretStr

from phantoms_dagster.desk.connecting import COOKIE
from phantoms_dagster.sandbox.core import Fault
from phantoms_dagster.sandbox.youtube.google_token import CLIENT_ID, CLIENT_SECRET
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.audit import AuditLog
from phantoms_dagster.wiring.token_keys import vault
from phantoms_dagster_tests.integration.desk_world import Browser, DeskWorld, open_desk
from phantoms_dagster_tests.sandbox_thread import Running, sandbox_thread

KEY = "youtube:youtube-account"
CHANNELS = """
channels:
  facts:
    title: Facts
    brand_voice: calm
    accounts: {youtube: youtube-account, tiktok: tiktok-account, instagram: instagram-account}
    tiktok: {privacy: PUBLIC_TO_EVERYONE}
"""


@pytest.fixture
def sandbox(tmp_path: Path) -> Iterator[Running]:
    with sandbox_thread(tmp_path) as running:
        yield running


def app(sandbox: Running) -> dict[str, Any]:
    """The settings of an app that is registered at the sandbox's Google."""
    return {
        "sandbox_url": sandbox.url,
        "youtube_client_id": CLIENT_ID,
        "youtube_client_secret": SecretStr(CLIENT_SECRET),
    }


@pytest.fixture
async def desk(database_url: str, redis_url: str, tmp_path: Path, sandbox: Running) -> AsyncIterator[DeskWorld]:
    (tmp_path / "channels.yaml").write_text(CHANNELS)
    async with open_desk(database_url, redis_url, tmp_path, **app(sandbox)) as opened:
        yield opened


async def begin(browser: Browser, name: str = "youtube-account") -> str:
    """Press Connect; the address of the platform's page."""
    await browser.get("/accounts")
    answer = await browser.post("/accounts/connect", {"platform": "youtube", "name": name})
    assert answer.status_code == 200, answer.text
    [url] = re.findall(r'href="([^"]+/o/oauth2/v2/auth[^"]*)"', answer.text)
    return html.unescape(url)


def answered(url: str, how: str) -> str:
    """Answer as the owner; the address that the platform sends the browser back to."""
    place: str = httpx.get(f"{url}&auto={how}&account=ocean").headers["location"]
    return place


def accept(url: str) -> str:
    """Grant the access; the path of the desk that the browser comes back to."""
    place = urlsplit(answered(url, "accept"))
    assert (place.netloc, place.path) == ("127.0.0.1:4000", "/callback")
    return f"{place.path}?{place.query}"


async def shown(browser: Browser, answer: httpx.Response) -> str:
    assert (answer.status_code, answer.headers["location"]) == (303, "/accounts")
    return html.unescape((await browser.get("/accounts")).text)


async def test_an_account_is_connected_in_the_browser_and_its_tokens_are_encrypted(desk: DeskWorld) -> None:
    olga = await desk.logged_in("olga", "operator")
    url = await begin(olga)
    asked = parse_qs(urlsplit(url).query)
    assert (asked["redirect_uri"], asked["code_challenge_method"]) == (["http://127.0.0.1:4000/callback"], ["S256"])
    back = accept(url)
    said = await shown(olga, await olga.get(back))
    assert "YouTube account youtube-account is connected: ocean." in said
    assert "Connect again" in said
    assert "permissions: all are granted" in said  # it is checked at once
    assert "Something is wrong" not in said
    [account] = [one for one in Accounts(desk.world.engine).all() if one.token_source == "stored"]
    assert (account.name, account.label) == ("youtube-account", "ocean")
    [row] = desk.world.rows("SELECT access_token FROM phantoms.accounts WHERE access_token IS NOT NULL")
    assert bytes(row["access_token"]).startswith(b"gAAAA")
    [entry] = AuditLog(desk.world.engine).page(subject=KEY)
    assert (entry.action, entry.who, entry.after["owner"] if entry.after else "") == ("connect account", "olga", "ocean")
    assert "has no attempt under way" in await shown(olga, await olga.get(back))


async def test_what_would_stop_the_first_post_is_said_when_an_account_is_connected(desk: DeskWorld, sandbox: Running) -> None:
    """The command checked a connected account at once, and the desk did not."""
    olga = await desk.logged_in("olga", "operator")
    sandbox.sandbox.faults.append(Fault("google.tokeninfo", status=400, body='{"error_description": "Invalid Value"}'))
    said = await shown(olga, await olga.get(accept(await begin(olga))))
    assert "YouTube account youtube-account is connected: ocean." in said
    assert "Something is wrong with it, see below." in said
    assert "permissions: Google does not accept the token (Invalid Value)" in said


async def test_an_answer_counts_once_and_only_in_the_session_that_asked(desk: DeskWorld) -> None:
    olga, eve = await desk.logged_in("olga", "operator"), await desk.logged_in("eve", "operator")
    back = accept(await begin(olga))
    cookie = olga.client.cookies["phantoms_connect"]
    assert "1//" not in cookie
    eve.client.cookies.set("phantoms_connect", cookie)
    assert "begun in another session" in await shown(eve, await eve.get(back))
    wrong = re.sub(r"state=[^&]+", "state=stolen", back)
    assert "belongs to another attempt" in await shown(olga, await olga.get(wrong))
    assert not any(one.connected_at for one in Accounts(desk.world.engine).all())
    olga.client.cookies.set("phantoms_connect", cookie)
    assert "is connected" in await shown(olga, await olga.get(back))
    olga.client.cookies.set("phantoms_connect", cookie)
    assert "was used already" in await shown(olga, await olga.get(back))


async def test_an_attempt_ends_after_ten_minutes_and_with_a_refusal(desk: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    olga = await desk.logged_in("olga", "operator")
    url = await begin(olga)
    place = urlsplit(answered(url, "deny"))
    assert "gave no access (access_denied" in await shown(olga, await olga.get(f"{place.path}?{place.query}"))
    back = accept(await begin(olga))
    later = datetime.now(UTC) + timedelta(seconds=601)
    monkeypatch.setattr(desk.desk.services.clock, "now", lambda: later)
    assert "took longer than ten minutes" in await shown(olga, await olga.get(back))
    assert not any(one.connected_at for one in Accounts(desk.world.engine).all())


@pytest.mark.parametrize("cookie", ["garbage", "another secret of ours"])
async def test_a_cookie_that_is_no_attempt_is_refused_without_a_word_about_stored_tokens(desk: DeskWorld, cookie: str) -> None:
    """The page said that no key decrypts the stored tokens, and a value that is no attempt was an internal error."""
    olga = await desk.logged_in("olga", "operator")
    path = accept(await begin(olga))
    value = cookie if cookie == "garbage" else vault(desk.desk.settings).encrypt(cookie).decode()
    olga.client.cookies.delete(COOKIE)
    olga.client.cookies.set(COOKIE, value, domain="127.0.0.1", path="/callback")
    told = await shown(olga, await olga.get(path))
    assert "this browser's attempt cannot be read" in told
    assert "decrypts the stored tokens" not in told


async def test_only_operators_connect_and_everybody_may_look(desk: DeskWorld) -> None:
    vic = await desk.logged_in("vic", "viewer")
    page = (await vic.get("/accounts")).text
    assert "Connect another account" not in page
    for path, form in (("connect", {"platform": "youtube"}), ("check", {"account": KEY}), ("disconnect", {"account": KEY})):
        assert (await vic.post(f"/accounts/{path}", form)).status_code == 403
    assert (await vic.get("/callback?state=a&code=b")).status_code == 403


async def test_an_account_on_tiktok_says_which_routes_are_possible_and_what_an_app_without_an_audit_may_do(desk: DeskWorld) -> None:
    page = html.unescape((await (await desk.logged_in("vic", "viewer")).get("/accounts")).text)
    routes = ("direct post (chosen): perhaps", "inbox: perhaps", "gateway: yes", "The sandbox answers for Upload-Post until")
    for words in (*routes, "nobody but the creator sees the posts", "If the app is not audited, use"):
        assert page.count(words) == 1, words


async def test_a_desk_elsewhere_says_what_to_register_or_gives_the_command(
    database_url: str, redis_url: str, tmp_path: Path, sandbox: Running
) -> None:
    (tmp_path / "channels.yaml").write_text(CHANNELS)
    given = {**app(sandbox), "desk_url": "https://desk.example"}
    async with open_desk(database_url, redis_url, tmp_path, **given) as desk:
        await desk.logged_in("olga", "operator")
        olga = desk.browser(host="desk.example")
        await olga.log_in("olga")
        await olga.get("/accounts")
        refused = await olga.post("/accounts/connect", {"platform": "youtube", "name": "youtube-account"})
        said = html.unescape(refused.text)
        assert refused.status_code == 422
        assert "The desk is at https://desk.example/callback, which YouTube must know first" in said
        assert "run `phantoms accounts connect youtube --name youtube-account` where your browser is" in said
    given["youtube_redirect_uri"] = "https://desk.example/callback"
    async with open_desk(database_url, redis_url, tmp_path, **given) as desk:
        olga = desk.browser(host="desk.example")
        await olga.log_in("olga")
        asked = parse_qs(urlsplit(await begin(olga)).query)
        assert asked["redirect_uri"] == ["https://desk.example/callback"]


async def test_a_registered_address_with_any_port_is_the_desks_own(
    database_url: str, redis_url: str, tmp_path: Path, sandbox: Running
) -> None:
    """TikTok's form takes `*` for the port, and people copy the address from there."""
    (tmp_path / "channels.yaml").write_text(CHANNELS)
    given = {**app(sandbox), "desk_url": "http://127.0.0.1:4000", "youtube_redirect_uri": "http://127.0.0.1:*/callback"}
    async with open_desk(database_url, redis_url, tmp_path, **given) as desk:
        olga = await desk.logged_in("olga", "operator")
        asked = parse_qs(urlsplit(await begin(olga)).query)
        assert asked["redirect_uri"] == ["http://127.0.0.1:4000/callback"]
        assert "Instagram: It takes https addresses only." in (await olga.get("/accounts")).text


async def test_an_account_is_checked_and_disconnected_after_a_question(desk: DeskWorld, sandbox: Running) -> None:
    olga = await desk.logged_in("olga", "operator")
    await olga.get(accept(await begin(olga)))
    await olga.get("/accounts")
    said = await shown(olga, await olga.post("/accounts/check", {"account": KEY}))
    assert f"Checked {KEY}: nothing is wrong." in said
    assert "permissions: all are granted" in said
    asked = (await olga.get(f"/accounts/disconnect?account={KEY}")).text
    assert "Posts of this account then wait" in asked
    assert "oauth.revoked" not in [entry["kind"] for entry in sandbox.sandbox.ledger]
    said = await shown(olga, await olga.post("/accounts/disconnect", {"account": KEY}))
    assert f"Disconnected {KEY}. Its tokens are deleted." in said
    assert "not connected" in said
    assert "oauth.revoked" in [entry["kind"] for entry in sandbox.sandbox.ledger]
    actions = [entry.action for entry in AuditLog(desk.world.engine).page(subject=KEY)]
    assert actions == ["disconnect account", "connect account"]
