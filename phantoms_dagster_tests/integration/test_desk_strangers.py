"""Requests from strangers, old tabs and odd programs: each gets a clear answer, and none changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from phantoms_dagster.desk import shield
from phantoms_dagster.desk.access import ROLES
from phantoms_dagster.desk.pages import media
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk

REFERER = {"Referer": "http://127.0.0.1:4000/review/some-video?channel=curious"}


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path, desk_undo_seconds=60.0) as opened:
        yield opened


# --- old tabs


async def test_a_form_of_a_tab_that_was_logged_out_elsewhere_leads_to_the_log_in_and_back(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = await world.logged_in("kim")
    page = {"Referer": f"http://127.0.0.1:4000/review/{key}"}
    tab = browser.csrf
    await browser.post("/logout")
    answer = await browser.client.post(f"/review/{key}/decide", data={"_csrf": tab, "answer": "approve"}, headers=page)
    assert (answer.status_code, answer.headers["location"]) == (303, f"/login?next=%2Freview%2F{key}")
    assert "You are logged out, so nothing was changed." in (await browser.get(answer.headers["location"])).text
    assert (await browser.post("/login", {"name": "kim", "password": "a long enough password", "next": f"/review/{key}"})).headers[
        "location"
    ] == f"/review/{key}"
    assert world.world.rows("SELECT 1 FROM phantoms.pending_decisions") == []


async def test_what_was_written_in_a_tab_that_was_left_open_over_night_comes_back(world: DeskWorld) -> None:
    """The session had ended, the log-in came, and ten minutes of work were gone: a browser forgets the fields of these pages."""
    [key] = await world.waiting()
    browser = await world.logged_in("kim")
    form = {"_csrf": browser.csrf, "caption": "Ten <b>minutes</b>\nof work", "was-caption": "before", "content": "f" * 64}
    await browser.post("/logout")
    page = {"Referer": f"http://127.0.0.1:4000/review/{key}/edit"}
    answer = await browser.client.post(f"/review/{key}/edit", data=form, headers=page)
    assert answer.status_code == 401
    assert "You are logged out, so nothing was changed." in answer.text
    assert "Ten &lt;b&gt;minutes&lt;/b&gt;\nof work" in answer.text
    assert f'href="/login?next=%2Freview%2F{key}%2Fedit">Log in<' in answer.text
    assert "f" * 64 not in answer.text
    evil = await browser.client.post(f"/review/{key}/edit", data=form, headers={"Origin": "https://evil.example"})
    assert "minutes" not in evil.text


@pytest.mark.parametrize(("note", "shown"), [("too loud at the end", "too loud at the end"), ("bad\u202e\x07 end", "bad end")])
async def test_what_was_written_comes_back_when_the_form_is_refused(world: DeskWorld, note: str, shown: str) -> None:
    """Another person was first, or a word cannot be used: the desk lost the reason that was typed."""
    [key] = await world.waiting()
    browser, other = await world.logged_in("kim"), await world.logged_in("ben")
    content = world.content(key)
    await other.post(f"/review/{key}/decide", {"answer": "approve", "content": content})
    answer = await browser.post(f"/review/{key}/decide", {"answer": "reject", "content": content, "note": note})
    assert answer.status_code in (409, 422)
    assert f'<textarea readonly rows="4">{shown}</textarea>' in answer.text


async def test_the_address_of_a_form_that_is_loaded_again_leads_to_its_page(world: DeskWorld) -> None:
    """The answer to a form has an address. Loading it again, or logging in on the way to it, gave a 405."""
    browser = await world.logged_in("kim")
    places = {
        "/add/check": "/add",
        "/add/take": "/add",
        "/logout": "/",
        "/theme": "/",
        "/review/some-video/decide": "/review/some-video",
        "/review/a%20b/decide": "/review/a%20b",
        "/decisions/1/undo": "/",
    }
    for path, page in places.items():
        answer = await browser.client.get(path)
        assert (answer.status_code, answer.headers.get("location")) == (303, page), path
    assert (await browser.client.delete("/add/check")).status_code == 405
    assert (await browser.client.get("/api/v1/calendar/some-video/move")).status_code == 405


async def test_a_body_whose_rest_does_not_come_is_given_up(world: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection was held forever."""
    monkeypatch.setattr(shield, "STALLED_SECONDS", 0.2)
    browser = await world.logged_in("kim", "operator")

    messages: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": b"title=Half", "more_body": True}])
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        for message in messages:
            return message
        await asyncio.Event().wait()
        raise AssertionError("nothing comes any more")

    async def send(message: Any) -> None:
        sent.append(message)

    cookie = "; ".join(f"{name}={value}" for name, value in browser.client.cookies.items())
    given = {"host": "127.0.0.1:4000", "cookie": cookie, "content-type": "application/x-www-form-urlencoded"}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/add",
        "raw_path": b"/add",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "client": ("127.0.0.1", 5000),
        "server": ("127.0.0.1", 4000),
        "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
    }
    await asyncio.wait_for(world.app(scope, receive, send), 60)
    assert sent[0]["status"] == 408
    assert b"Only a part of the request arrived." in b"".join(one.get("body", b"") for one in sent)
    assert world.world.rows("SELECT 1 FROM phantoms.videos") == []


async def test_an_old_form_for_logging_in_or_out_leads_to_the_log_in(world: DeskWorld) -> None:
    """A second log-out was "Not allowed", as if the user were still logged in."""
    browser = await world.logged_in("kim")
    tab = browser.csrf
    await browser.post("/logout")
    for path, words in (("/logout", "You are logged out."), ("/login", "That page was too old.")):
        answer = await browser.client.post(path, data={"_csrf": tab, "name": "kim", "password": "a long enough password"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/login"), path
        assert words in (await browser.get("/login")).text
    assert world.world.rows("SELECT 1 FROM phantoms.desk_sessions") == []


async def test_a_log_in_with_an_old_form_still_leads_to_the_wanted_page(world: DeskWorld) -> None:
    browser = await world.logged_in("kim")
    tab = browser.csrf
    await browser.post("/logout")
    for wanted, there in (("/audit?day=2", "/login?next=%2Faudit%3Fday%3D2"), ("//evil.example", "/login")):
        answer = await browser.client.post("/login", data={"_csrf": tab, "name": "kim", "password": "x", "next": wanted})
        assert (answer.status_code, answer.headers["location"]) == (303, there), wanted


async def test_a_script_of_an_open_page_gets_no_cookie_after_the_session_has_ended(world: DeskWorld) -> None:
    """The cookie of its log-in page replaced that of the page in another tab, whose log-in was then "too old"."""
    world.add_user("kim", "viewer")
    stranger = httpx.AsyncClient(transport=httpx.ASGITransport(app=world.app), base_url="http://127.0.0.1:4000")
    async with stranger:
        for path in ("/events", "/review"):
            answer = await stranger.get(path, headers={"Sec-Fetch-Mode": "cors"})
            assert (answer.status_code, answer.headers.get("set-cookie")) == (401, None), path
            assert (await stranger.get(path, headers={"Sec-Fetch-Mode": "navigate"})).status_code == 303, path


async def test_a_form_of_another_session_says_what_to_do_and_gives_back_what_was_written(world: DeskWorld) -> None:
    browser = await world.logged_in("kim")
    form = {
        "_csrf": "x" * 43,
        "caption": "Ten <b>minutes</b> of work",
        "was-caption": "before",
        "title": "The same\r\ntitle",
        "was-title": "The same\ntitle",
        "password": "a secret of mine",
        "content": "f" * 64,
    }
    answer = await browser.client.post("/review/some-video/edit", data=form, headers=REFERER)
    assert answer.status_code == 403
    assert "That page is too old" in answer.text
    assert "Nothing was changed." in answer.text
    assert "Ten &lt;b&gt;minutes&lt;/b&gt; of work" in answer.text
    assert 'href="/review/some-video?channel=curious">Load the page again' in answer.text
    for unwanted in ("a secret of mine", "f" * 64, "The same"):
        assert unwanted not in answer.text
    # The same of another site shows nothing of what it sent.
    evil = await browser.client.post("/review/some-video/edit", data=form, headers={"Origin": "https://evil.example"})
    assert (evil.status_code, "minutes" in evil.text) == (403, False)


async def test_a_page_leads_back_to_pages_of_this_desk_alone(world: DeskWorld) -> None:
    browser = await world.logged_in("kim")
    for referer in ("http://127.0.0.1:4000//evil.example/x", "https://evil.example/review", "http://127.0.0.1:4000/\\evil.example"):
        answer = await browser.client.get("/nowhere", headers={"Referer": referer})
        assert (answer.status_code, "evil" in answer.text) == (404, False), referer


# --- odd values


@pytest.mark.parametrize(
    ("at", "scene", "note"),
    [
        ("inf", "1", "too loud"),
        ("1e300", "1", "too loud"),
        ("nan", "1", "too loud"),
        ("-3", "1", "too loud"),
        ("3", "\u00b2", "at 0:03.0: too loud"),
        ("3", "9" * 400, "at 0:03.0: too loud"),
        ("3", "0", "at 0:03.0, hook: too loud"),
        ("3", "2", "at 0:03.0, scene 2: too loud"),
    ],
)
async def test_a_second_or_a_scene_that_is_none_is_left_out_of_the_note(world: DeskWorld, at: str, scene: str, note: str) -> None:
    [key] = await world.waiting()
    browser = await world.logged_in("kim")
    form = {"answer": "reject", "content": world.content(key), "note": "too loud", "at": at, "scene": scene}
    assert (await browser.post(f"/review/{key}/decide", form)).status_code == 303
    assert [row["note"] for row in world.world.rows("SELECT note FROM phantoms.pending_decisions")] == [note]


UNSEEN = ("\x1b[2Jnothing", "\x00", "bad \u202egnp.exe", "half \u2066 turned", "bell \x07")


@pytest.mark.parametrize("unseen", UNSEEN)
async def test_a_reason_with_an_invisible_character_is_refused_with_a_message(world: DeskWorld, unseen: str) -> None:
    """It was stored, and it acted on the terminal of anyone who read it there."""
    [key] = await world.waiting()
    browser = await world.logged_in("kim", "operator")
    tried = {
        f"/review/{key}/decide": {"answer": "reject", "content": world.content(key), "note": unseen},
        "/pipeline/act": {"action": "hold", "key": key, "reason": unseen},
        "/providers/tiktok/trip": {"breaker": "tiktok", "why": unseen},
        "/providers/tiktok/reset": {"breaker": "tiktok", "why": unseen},
        f"/review/{key}/guest-links": {"guest": unseen, "hours": "24", "content": world.content(key)},
        "/webhooks/add": {"url": "https://hooks.example.org/x", "note": unseen, "event": "video.posted"},
    }
    for path, form in tried.items():
        answer = await browser.post(path, form)
        assert answer.status_code == 422, (path, answer.status_code)
        assert "Nothing was changed." in answer.text
        assert unseen not in answer.text
    for table in ("pending_decisions", "bulk_actions", "guest_links", "webhook_endpoints", "holds"):
        assert world.world.rows(f"SELECT 1 FROM phantoms.{table}") == [], table


async def test_what_is_too_long_is_said_and_nothing_is_stored(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = await world.logged_in("kim", "operator")
    caption = "word " * 400_000
    answer = await browser.post(f"/review/{key}/edit", {"caption": caption, "was-caption": "", "content": world.content(key)})
    assert answer.status_code == 422
    assert "Your text is still here." in answer.text
    assert "word word" in answer.text
    assert (await browser.post("/add", {"title": caption, "platforms": "youtube"})).status_code == 422
    huge = await browser.client.post("/add", content=b"title=" + b"x" * 21_000_000, headers={"Content-Type": "text/plain"})
    assert huge.status_code == 413
    assert world.world.rows("SELECT count(*) AS n FROM phantoms.videos")[0]["n"] == 1


BROKEN = ("%FF", "%C3%28", "%F0%9F%98", "%ED%A0%80", "%E2%80%AE", "%00", "%1B%5B2J", "%")


async def test_broken_letters_and_many_filters_in_an_address_are_no_error_of_ours(world: DeskWorld) -> None:
    await world.waiting()
    browser = await world.logged_in("kim", "operator")
    many = quote(" ".join(["stage:script", "state:ready", "platform:tiktok", "channel:curious", "ocean"] * 200))
    paths = [f"/pipeline?q={value}" for value in (*BROKEN, many)]
    paths += [f"/pipeline/act?action=hold&q={many}&whole=1", "/pipeline/act?action=hold" + "&key=no-video" * 3_000]
    for path in sorted(path for method, path in ROLES if method == "GET" and "{" not in path and path != "/events"):
        paths += [f"{path}?q={value}&{value}={value}&channel={value}&next={value}" for value in BROKEN]
    for path in ("/videos/", "/review/", "/calendar/", "/dead-letters/", "/providers/", "/guest/", "/static/0/", "/media/"):
        paths += [f"{path}{value}" for value in BROKEN]
    for path in paths:
        answer = await browser.client.get(path)
        assert answer.status_code < 500, (path[:90], answer.status_code)


async def test_a_number_in_an_address_that_is_none_is_a_page_that_is_not_there(world: DeskWorld) -> None:
    browser = await world.logged_in("kim")
    for path in ("/bulk/abc", "/webhooks/deliveries/1.5", "/bulk/%C2%B2"):
        answer = await browser.client.get(path)
        assert answer.status_code == 404, path
        assert "This page does not exist." in answer.text


# --- odd methods and ranges


async def test_the_headers_of_a_page_may_be_asked_for_alone(world: DeskWorld) -> None:
    """Monitoring programs ask like this, and they got a 405."""
    file = world.keep(b"0123456789")
    browser = await world.logged_in("kim")
    for path in ("/health", "/review", "/pipeline", media.address(world.desk, file)):
        head, got = await browser.client.head(path), await browser.client.get(path)
        assert (head.status_code, got.status_code) == (200, 200), path
        assert head.headers["content-type"] == got.headers["content-type"]
    assert (await browser.client.head("/media/nothing")).status_code == 403
    assert (await world.browser().client.head("/review")).headers["location"].startswith("/login")
    assert (await browser.client.head("/events")).status_code == 405
    for path in ("/review", "/review/x/decide", "/api/v1/videos"):
        answer = await browser.client.options(path)
        assert answer.status_code == 405
        assert answer.headers["allow"]
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "status", "content"),
    [
        ("bytes=2-4", 206, b"234"),
        ("bytes=8-99", 206, b"89"),
        ("bytes=-3", 206, b"789"),
        ("bytes=10-", 416, None),
        ("bytes=99-100", 416, None),
        ("bytes=4-2", None, None),
        ("bytes=a-b", None, None),
        ("bytes=" + "0-0," * 5_000 + "1-1", None, None),
        ("lines=1-2", None, None),
        ("bytes=" + "9" * 5_000 + "-", None, None),
    ],
)
async def test_a_range_of_a_video_is_given_or_refused_and_is_never_an_error_of_ours(
    world: DeskWorld, asked: str, status: int | None, content: bytes | None
) -> None:
    path = media.address(world.desk, world.keep(b"0123456789"))
    answer = await world.browser().client.get(path, headers={"Range": asked})
    assert answer.status_code in ((status,) if status else (200, 206, 400, 416)), answer.status_code
    assert content is None or answer.content == content
    if answer.status_code == 416:
        assert answer.headers["content-range"] in ("bytes */10", "*/10")


# --- at the same time


async def test_ten_clicks_on_undo_at_once_take_the_decision_back_once(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = await world.logged_in("kim")
    await browser.post(f"/review/{key}/decide", {"answer": "approve", "content": world.content(key)})
    answers = await asyncio.gather(*(browser.post("/decisions/1/undo") for _ in range(10)))
    assert {answer.status_code for answer in answers} == {303}
    assert [row["state"] for row in world.world.rows("SELECT state FROM phantoms.pending_decisions")] == ["undone"]
    assert len(world.world.rows("SELECT 1 FROM phantoms.audit_log WHERE action = 'undo approve'")) == 1
    other = await world.logged_in("lee")
    refused = await other.post("/decisions/1/undo")
    assert refused.status_code == 422
    assert "kim" in refused.text
