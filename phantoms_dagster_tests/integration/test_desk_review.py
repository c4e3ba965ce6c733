"""The review: the queue, one screen for each video, decisions by form, and the video in the ranges that a player requests."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from phantoms_dagster.domain.accounts import Account
from phantoms_dagster.domain.models import Platform, Sentence, VoiceoverOutput
from phantoms_dagster.domain.ports import AccountIdentity
from phantoms_dagster.store.accounts import PostgresAccounts
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster_tests.integration.desk_world import DeskWorld, master, open_desk
from phantoms_dagster_tests.integration.stage_world import media_file


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


def rows(page: str) -> list[str]:
    """The titles in the queue."""
    return re.findall(r'<span class="t">(.*?)</span>', page)


async def test_the_queue_is_in_the_order_of_slots_and_then_of_priority(world: DeskWorld) -> None:
    soon, later = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) + timedelta(days=1)
    await world.waiting(title="third", priority=1)
    await world.waiting(title="fourth", priority=9)
    await world.waiting(title="second", publish_at=later)
    await world.waiting(title="first", publish_at=soon)
    page = await world.browser().get("/review")
    assert rows(page.text) == ["first", "second", "third", "fourth"]
    assert "<h1>first</h1>" in page.text


async def test_an_address_shows_a_colleague_the_same(world: DeskWorld) -> None:
    keys = await world.waiting(3)
    page = await world.browser().get(f"/review/{keys[1]}?platform=tiktok&channel=facts")
    assert f'data-key="{keys[1]}"' in page.text
    assert re.search(r'value="tiktok" data-platform checked', page.text)
    assert f"/review/{keys[2]}?channel=facts" in page.text
    assert "2 of 3" in page.text


async def test_the_screen_shows_what_goes_out_and_every_sentence_with_its_time(world: DeskWorld) -> None:
    sentences = (Sentence(text="Did you know?", scene=-1, start=0.0, end=1.5), Sentence(text="Deep <b>", scene=0, start=1.5, end=4))
    voice = VoiceoverOutput(audio=media_file("voice", ".wav"), seconds=4.0, sentences=sentences, voice="test")
    await world.waiting(outputs={"voiceover": voice})
    page = (await world.browser().get("/review")).text
    for said in ("The sea", "About the sea.", "#sea", "youtube-account", "as soon as approved", "1920, 30 fps", "20.0 s"):
        assert said in page, said
    assert re.search(r'href="/media/[^"]+#t=1.5" data-at="1.5"', page)
    assert "Deep &lt;b&gt;" in page


async def test_the_screen_names_the_owner_of_each_account_as_people_see_it_at_the_platform(world: DeskWorld) -> None:
    [key] = await world.waiting()
    page = (await world.browser().get(f"/review/{key}")).text
    assert "appears as" not in page
    store = PostgresAccounts(world.world.async_engine)
    for gateway, platform, owner in (
        ("", "tiktok", "Octopus <Facts>"),
        ("upload_post", "tiktok", "profile 7"),
        ("", "youtube", "@YouTube-Account"),
    ):
        account = Account(Platform(platform), f"{platform}-account", gateway=gateway)
        await store.at(gateway).confirm(account, AccountIdentity("1", owner), "hash")
    page = (await world.browser().get(f"/review/{key}")).text
    items = re.findall(r'<li class="of-(\w+)">.*?</li>', page, re.DOTALL)
    named = re.findall(r'<li class="of-(\w+)">(?:(?!</li>).)*appears as <bdi>(.*?)</bdi>', page, re.DOTALL)
    assert (len(items), named) == (3, [("tiktok", "Octopus &lt;Facts&gt;")])


async def test_a_reviewer_can_open_what_an_approval_for_tiktok_agrees_to(world: DeskWorld) -> None:
    [key] = await world.waiting()
    page = (await world.browser().get(f"/review/{key}")).text
    assert "By posting, you agree to TikTok&#39;s Music Usage Confirmation." in page
    assert 'href="https://www.tiktok.com/legal/page/global/music-usage-confirmation/en"' in page


async def test_after_a_decision_the_next_video_comes_and_the_decision_can_be_undone(world: DeskWorld) -> None:
    keys = await world.waiting(3)
    browser = world.browser()
    await browser.get(f"/review/{keys[0]}")
    answer = await browser.post(f"/review/{keys[0]}/decide", {"answer": "approve", "content": world.content(keys[0])})
    assert answer.headers["location"] == f"/review/{keys[1]}"
    page = (await browser.get(answer.headers["location"])).text
    [number] = re.findall(r'action="/decisions/(\d+)/undo"', page)
    assert rows(page) == ["Ocean facts 1", "Ocean facts 2"]
    undone = await browser.post(f"/decisions/{number}/undo")
    page = (await browser.get(undone.headers["location"])).text
    assert rows(page) == ["Ocean facts 0", "Ocean facts 1", "Ocean facts 2"]
    assert "Undone" in page


async def test_a_rejection_without_a_reason_is_told_what_it_needs(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = world.browser()
    await browser.get("/review")
    answer = await browser.post(f"/review/{key}/decide", {"answer": "reject", "content": world.content(key)})
    assert answer.status_code == 422
    assert "a rejection needs a reason" in answer.text


async def test_the_second_to_decide_is_told_who_was_first(world: DeskWorld) -> None:
    [key] = await world.waiting()
    content = world.content(key)
    ann, ben = await world.logged_in("ann"), await world.logged_in("ben")
    assert (await ann.post(f"/review/{key}/decide", {"answer": "approve", "content": content})).status_code == 303
    late = await ben.post(f"/review/{key}/decide", {"answer": "reject", "content": content, "note": "no"})
    assert late.status_code == 409
    assert "ann was first: approved" in late.text
    page = (await ben.get(f"/review/{key}")).text
    assert "ann approved it" in page
    assert "data-approve" not in page


async def test_a_decision_on_other_words_than_were_looked_at_is_refused(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = world.browser()
    await browser.get("/review")
    answer = await browser.post(f"/review/{key}/decide", {"answer": "approve", "content": "0" * 64})
    assert answer.status_code == 422
    assert "is not what was looked at" in answer.text


async def test_a_held_video_is_taken_back_from_its_page(world: DeskWorld) -> None:
    [key] = await world.waiting()
    Decisions(world.world.engine).hold(key, reviewer="ann", note="legal", via="cli")
    browser = world.browser()
    page = (await browser.get("/review?held=1")).text
    assert "On hold by ann" in page
    assert "legal" in page
    await browser.post(f"/review/{key}/release")
    assert (await browser.get("/review")).text.count("data-approve") == 1


async def test_an_empty_queue_says_so_and_where_else_something_waits(world: DeskWorld) -> None:
    browser = world.browser()
    assert "All caught up" in (await browser.get("/review")).text
    [key] = await world.waiting()
    Decisions(world.world.engine).hold(key, reviewer="ann", via="cli")
    assert "1 video on hold" in (await browser.get("/review")).text


async def test_a_video_that_is_not_there_is_a_page_in_words(world: DeskWorld) -> None:
    answer = await world.browser().get("/review/nothing-20261126-0000")
    assert answer.status_code == 404
    assert "There is no video nothing-20261126-0000" in answer.text


async def test_a_viewer_sees_no_buttons_that_they_may_not_press(world: DeskWorld) -> None:
    await world.waiting()
    viewer = await world.logged_in("vic", "viewer")
    page = (await viewer.get("/review")).text
    assert "you can view, not decide" in page
    assert "data-approve" not in page


@pytest.mark.parametrize(
    ("asked", "status", "content", "said"),
    [
        ({}, 200, b"0123456789", None),
        ({"Range": "bytes=2-4"}, 206, b"234", "bytes 2-4/10"),
        ({"Range": "bytes=7-"}, 206, b"789", "bytes 7-9/10"),
        ({"Range": "bytes=-3"}, 206, b"789", "bytes 7-9/10"),
        ({"Range": "bytes=20-"}, 416, None, "bytes */10"),
        ({"Range": "bytes=2-4", "If-Range": '"another"'}, 200, b"0123456789", None),
    ],
)
async def test_a_player_gets_the_range_that_it_asks_for(
    world: DeskWorld, asked: dict[str, str], status: int, content: bytes | None, said: str | None
) -> None:
    file = world.keep(b"0123456789")
    await world.waiting(outputs={"rendered_video": master(file)})
    browser = world.browser()
    page = (await browser.get("/review")).text
    [address] = re.findall(r'<video src="([^"]+)"', page)
    answer = await browser.get(address.replace("&amp;", "&"), headers=asked)
    assert answer.status_code == status
    assert content is None or answer.content == content
    assert answer.headers.get("content-range") == (said if status != 200 else None)
    if status == 206:
        again = await browser.get(address.replace("&amp;", "&"), headers={**asked, "If-Range": answer.headers["etag"]})
        assert again.status_code == 206


async def test_the_log_says_who_did_what_from_where(world: DeskWorld) -> None:
    [key] = await world.waiting()
    ann = await world.logged_in("ann")
    await ann.post(f"/review/{key}/decide", {"answer": "approve", "content": world.content(key), "note": "nice"})
    world.world.write("UPDATE phantoms.pending_decisions SET commit_at = clock_timestamp()")
    world.desk.pending.commit_due()
    page = (await ann.get(f"/audit?subject={key}")).text
    for said in ("ann", "approve", "127.0.0.1", "nice", "desk"):
        assert said in page
    assert "log in" not in page.split("<main")[1]
    assert "log in" in (await ann.get("/audit?who=ann")).text.split("<main")[1]
