"""Adding briefs at the desk: one by a form, many by a file that is checked first."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.desk.pages.add import MOST_BYTES
from phantoms_dagster.domain.models import Brief
from phantoms_dagster_tests.integration.desk_world import Browser, DeskWorld, open_desk

CHANNELS = """
channels:
  facts:
    title: Facts
    brand_voice: calm
    accounts: {youtube: facts, tiktok: facts}
    tiktok: {privacy: SELF_ONLY}
    timezone: Europe/Berlin
"""
BRIEFS = b"title,platforms,priority\nWhy bees dance,youtube,3\n,tiktok,\nGlass frogs,myspace,\n<b>Rust</b>,,\n"
BRIEF = {"title": "Why bees dance", "channel": "facts", "platforms": ["youtube", "tiktok"], "priority": "3"}


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    (tmp_path / "channels.yaml").write_text(CHANNELS)
    async with open_desk(database_url, redis_url, tmp_path, channels=tmp_path / "channels.yaml") as opened:
        yield opened


async def checked(browser: Browser, name: str, content: bytes) -> httpx.Response:
    """Send a file of that name."""
    await browser.get("/add")
    return await browser.client.post("/add/check", data={"_csrf": browser.csrf}, files={"file": (name, content)})


def rows(page: str) -> str:
    """The good rows that the page sends back when they are confirmed."""
    [found] = re.findall(r'<textarea name="rows"[^>]*>\n(.*?)</textarea>', page, re.DOTALL)
    return unescape(found)


def lines(page: str) -> list[str]:
    """The lines of the lists."""
    return [" ".join(unescape(re.sub(r"<[^>]+>", "", line)).split()) for line in re.findall(r"<li>(.*?)</li>", page, re.DOTALL)]


def stored(world: DeskWorld) -> list[Brief]:
    return [Brief.model_validate(row["brief"]) for row in world.world.rows("SELECT brief FROM phantoms.videos ORDER BY id")]


async def test_a_brief_is_added_by_the_form_at_the_time_of_its_channel(world: DeskWorld) -> None:
    browser = world.browser()
    await browser.get("/add")
    given = {**BRIEF, "angle": "calm", "facts": "They dance.\r\n\r\nOthers watch.", "publish_at": "2026-12-24T18:00"}
    answer = await browser.post("/add", given)
    page = (await browser.get(answer.headers["location"])).text
    assert "Added why-bees-dance-" in page
    [brief] = stored(world)
    assert (brief.facts, brief.priority) == (("They dance.", "Others watch."), 3)
    assert brief.publish_at == datetime(2026, 12, 24, 17, tzinfo=UTC)
    [deed] = world.desk.audit.page()
    assert (deed.action, deed.via, deed.after) == ("add video", "desk", {"title": "Why bees dance", "channel": "facts"})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"title": "x" * 201}, "title: should have at most 200 characters"),
        ({"title": "bees\x07"}, "title contains the control character U+0007"),
        ({"platforms": []}, "select at least one platform"),
        ({"platforms": ["instagram"]}, "channel facts has no account on instagram"),
        ({"publish_at": "2026-03-29T02:30"}, "the clocks of Europe/Berlin skip 02:30"),
        ({"publish_at": "soon"}, "'soon' is not a date with a time"),
        ({"priority": "99"}, "bad priority"),
    ],
)
async def test_what_is_wrong_is_said_and_what_was_written_stays(world: DeskWorld, change: dict[str, object], said: str) -> None:
    browser = world.browser()
    await browser.get("/add")
    answer = await browser.post("/add", {**BRIEF, "facts": "<They> dance.", **change})
    assert answer.status_code == 422
    assert said in unescape(answer.text)
    assert "&lt;They&gt; dance.</textarea>" in answer.text
    assert f'name="title" value="{change.get("title", "Why bees dance")}"' in answer.text
    assert stored(world) == []


async def test_the_same_brief_twice_is_one_video(world: DeskWorld) -> None:
    browser = world.browser()
    await browser.get("/add")
    assert (await browser.post("/add", BRIEF)).status_code == 303
    again = await browser.post("/add", BRIEF)
    assert again.status_code == 422
    assert "This brief already exists" in again.text
    assert len(stored(world)) == 1


async def test_a_file_with_two_bad_rows_is_checked_and_its_good_rows_are_taken(world: DeskWorld) -> None:
    browser = world.browser()
    page = (await checked(browser, "briefs.csv", BRIEFS)).text
    assert "2 valid, 2 refused. Nothing is added yet." in page
    assert lines(page) == [
        "line 3 title is missing",
        "line 4 unknown platform 'myspace'; the platforms are youtube, tiktok, instagram, folder, bluesky",
        "line 2 Why bees dance facts · YouTube",
        "line 5 <b>Rust</b> facts · YouTube, TikTok",
    ]
    assert stored(world) == []
    answer = await browser.post("/add/take", {"name": "briefs.csv", "rows": rows(page)})
    assert "2 added, 0 refused." in answer.text
    assert [(brief.title, brief.priority) for brief in stored(world)] == [("Why bees dance", 3), ("<b>Rust</b>", 5)]
    [deed] = world.desk.audit.page()
    assert (deed.action, deed.subject, deed.after) == ("import briefs", "briefs.csv", {"taken": 2})


async def test_briefs_that_exist_already_are_named_before_and_after_the_import(world: DeskWorld) -> None:
    browser = world.browser()
    confirmed = rows((await checked(browser, "briefs.csv", BRIEFS)).text)
    page = (await checked(browser, "briefs.csv", b"title\nWhy bees dance\n")).text
    assert "1 valid" in page
    assert "2 added" in (await browser.post("/add/take", {"name": "briefs.csv", "rows": confirmed})).text
    again = (await browser.post("/add/take", {"name": "briefs.csv", "rows": confirmed})).text
    assert "0 added, 2 refused." in again
    assert "Why bees dance duplicate: this brief is already why-bees-dance-" in " ".join(lines(again))
    page = (await checked(browser, "again.yaml", b"- title: Why bees dance\n")).text
    assert "0 valid, 1 refused" in page
    assert "line 1, entry 1 duplicate: this brief is already why-bees-dance-" in lines(page)[0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("briefs.exe", b"MZ", "unknown file type '.exe'"),
        ("briefs.xlsx", b"PK\x03\x04 no zip", "cannot be read as a spreadsheet"),
        ("briefs.csv", b"", "the file is empty"),
        ("../../<script>.json", b"{", "line 1"),
    ],
)
async def test_a_file_that_cannot_be_read_gets_a_readable_message(world: DeskWorld, name: str, content: bytes, said: str) -> None:
    answer = await checked(world.browser(), name, content)
    assert answer.status_code == 200
    assert said in unescape(answer.text)
    assert "<script>.json" not in answer.text
    assert "0 valid" in answer.text


async def test_a_file_that_is_too_large_is_refused_with_another_way(world: DeskWorld) -> None:
    answer = await checked(world.browser(), "briefs.csv", b"title\n" + b"x" * MOST_BYTES)
    assert answer.status_code == 422
    assert "split it, or use `phantoms import`" in answer.text


async def test_rows_that_were_altered_on_their_way_are_checked_again(world: DeskWorld) -> None:
    browser = world.browser()
    await browser.get("/add")
    altered = '{"title": ""}\n{"title": "Good"}\nno json'
    answer = await browser.post("/add/take", {"name": "x", "rows": altered})
    assert "1 added, 2 refused" in answer.text
    assert (await browser.post("/add/take", {"name": "x", "rows": ""})).status_code == 422
    assert (await browser.post("/add/check", {"file": "no file"})).status_code == 422


async def test_only_operators_add(world: DeskWorld) -> None:
    reviewer = await world.logged_in("rea", "reviewer")
    page = (await reviewer.get("/add")).text
    assert "Only operators can add briefs" in page
    assert '<button class="primary">Add' not in page
    for path in ("/add", "/add/check", "/add/take"):
        assert (await reviewer.post(path, BRIEF)).status_code == 403
    assert stored(world) == []


async def test_a_file_of_more_than_a_megabyte_is_taken_as_it_was_checked(world: DeskWorld) -> None:
    """It was checked, and then refused: the rows that come back were longer than a field of a form was let be."""
    browser = await world.logged_in("kim", "operator")
    facts = "|".join(f"fact number {n} of this video, which is long enough to fill a file of briefs with" for n in range(8))
    stories = [f'Story number {n},"{facts}"' for n in range(1_800)]
    page = await checked(browser, "briefs.csv", "\n".join(["title,facts", *stories]).encode())
    assert page.status_code == 200, page.text[:2_000]
    sent = rows(page.text)
    assert len(sent) > 1_100_000
    answer = await browser.client.post("/add/take", data={"_csrf": browser.csrf, "name": "briefs.csv", "rows": sent})
    assert answer.status_code == 200, answer.text[:2_000]
    assert "1800 added, 0 refused." in answer.text
