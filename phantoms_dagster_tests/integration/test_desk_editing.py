"""Editing texts at the desk: the form, what it says, and what stays in it."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path

import pytest

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.script_edits import ScriptEdit
from phantoms_dagster.store.audit import Actor
from phantoms_dagster_tests.integration.desk_world import Browser, DeskWorld, master, open_desk
from phantoms_dagster_tests.integration.stage_world import PROBE


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


def fields(page: str) -> dict[str, str]:
    """What the form would send."""
    found = dict(re.findall(r'<input[^>]*name="([^"]+)" value="([^"]*)"', page))
    found |= dict(re.findall(r'<textarea[^>]*name="([^"]+)"[^>]*>([^<]*)</textarea>', page))
    return {name: unescape(text) for name, text in found.items() if name not in ("_csrf", "back")}


async def opened(browser: Browser, key: str) -> dict[str, str]:
    """The form of a video."""
    return fields((await browser.get(f"/review/{key}/edit")).text)


async def test_the_form_has_every_text_and_saves_what_was_changed(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = world.browser()
    assert f'href="/review/{key}/edit?channel=facts" data-edit' in (await browser.get(f"/review/{key}?channel=facts")).text
    form = await opened(browser, key)
    texts = {name: form[name] for name in ("title", "caption", "hashtags", "hook", "narration-1", "headline-1")}
    assert list(texts.values()) == ["The sea", "About the sea.", "#sea", "Did you know?", "The sea is deep.", "Deep"]
    changed = {**form, "caption": "Deep.\r\n\r\nVery deep.", "hashtags": "sea #deep", "channel": "facts"}
    answer = await browser.post(f"/review/{key}/edit", changed)
    assert answer.headers["location"] == f"/review/{key}?channel=facts"
    page = (await browser.get(answer.headers["location"])).text
    assert "Saved. The video stays the same. The new words wait for a decision." in page
    assert "Deep.\n\nVery deep.\n\n#sea #deep" in page
    assert "revision 2" in page
    assert world.world.row(key, "voiceover")["revision"] == 1


async def test_a_changed_sentence_is_said_to_make_voice_and_video_again(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = world.browser()
    form = await opened(browser, key)
    answer = await browser.post(f"/review/{key}/edit", {**form, "narration-1": "The sea is very deep."})
    page = (await browser.get(answer.headers["location"])).text
    assert "The voice and the video are being made again" in page
    assert world.world.row(key, "voiceover")["state"] == "ready"
    assert (await browser.get("/review")).text.count("data-approve") == 0


async def test_what_cannot_be_saved_is_said_and_nothing_of_it_is_lost(world: DeskWorld) -> None:
    [key] = await world.waiting()
    browser = world.browser()
    long = "<b>" + "x" * 1_600
    form = await opened(browser, key)
    answer = await browser.post(f"/review/{key}/edit", {**form, "caption": long, "hashtags": "#a-b"})
    assert answer.status_code == 422
    assert "caption has 1603 characters, and 1500 is the most" in answer.text
    assert "has a character that ends a hashtag in it" in unescape(answer.text)
    again = fields(answer.text)
    assert (again["caption"], again["hashtags"], again["title"]) == (long, "#a-b", "The sea")
    assert world.world.row(key, "script")["revision"] == 1


async def test_the_second_to_save_is_told_who_was_first_and_overwrites_only_what_they_typed(world: DeskWorld) -> None:
    [key] = await world.waiting()
    ann, ben = await world.logged_in("ann"), await world.logged_in("ben")
    anns, bens = await opened(ann, key), await opened(ben, key)
    assert (await ann.post(f"/review/{key}/edit", {**anns, "title": "The deep sea"})).status_code == 303
    late = await ben.post(f"/review/{key}/edit", {**bens, "caption": "By Ben."})
    assert late.status_code == 409
    assert "ann changed its texts meanwhile" in late.text
    again = fields(late.text)
    assert (again["title"], again["caption"]) == ("The deep sea", "By Ben.")
    assert "Stored: About the sea." in late.text
    assert (await ben.post(f"/review/{key}/edit", again)).status_code == 303
    script = world.world.row(key, "script")["output"]["script"]
    assert (script["title"], script["caption"]) == ("The deep sea", "By Ben.")


async def test_a_decision_that_can_still_be_undone_comes_before_an_edit(world: DeskWorld) -> None:
    [key] = await world.waiting()
    ann, ben = await world.logged_in("ann"), await world.logged_in("ben")
    form = await opened(ben, key)
    await ann.post(f"/review/{key}/decide", {"answer": "approve", "content": world.content(key)})
    late = await ben.post(f"/review/{key}/edit", {**form, "caption": "By Ben."})
    assert late.status_code == 409
    assert "ann was first: approved" in late.text
    assert fields(late.text)["caption"] == "By Ben."
    assert "data-edit" not in (await ben.get(f"/review/{key}")).text


async def test_the_pages_say_where_the_video_is_out_already(world: DeskWorld) -> None:
    [key] = await world.waiting(platforms=(Platform("youtube"), Platform("tiktok")))
    await world.world.carry([key], "approval", "youtube/variant", "youtube/post")
    browser = world.browser()
    page = (await browser.get(f"/review/{key}/edit")).text
    assert "It is already posted on YouTube, and those posts stay as they are." in page
    answer = await browser.post(f"/review/{key}/edit", {**fields(page), "caption": "Later."})
    page = (await browser.get(answer.headers["location"])).text
    assert "It is already posted on YouTube, and those posts stay as they are." in page
    assert "Already posted. Later edits do not change the post." in page


async def test_a_viewer_cannot_edit(world: DeskWorld) -> None:
    [key] = await world.waiting()
    viewer = await world.logged_in("vic", "viewer")
    assert "data-edit" not in (await viewer.get(f"/review/{key}")).text
    assert (await viewer.get(f"/review/{key}/edit")).status_code == 403
    assert (await viewer.post(f"/review/{key}/edit", {"caption": "x"})).status_code == 403


async def test_what_is_not_written_yet_is_a_page_in_words(world: DeskWorld) -> None:
    [key] = world.world.add()
    answer = await world.browser().get(f"/review/{key}/edit")
    assert answer.status_code == 422
    assert "has no script yet" in answer.text


async def made_again(world: DeskWorld, first: bytes | None, second: bytes) -> str:
    """A video whose second sentence was edited and which was rendered again; its first video may have been cleaned up."""
    videos = [master(world.keep(content or b"gone")) for content in (first, second)]
    [key] = await world.waiting(outputs={"rendered_video": videos[0]})
    if first is None:
        (world.media / videos[0].video.name).unlink()
    world.desk.services.text_edits().edit(key, ScriptEdit(narration={1: "The sea is very deep."}), Actor("ann", "desk"))
    again = {"rendered_video": videos[1].model_copy(update={"probe": PROBE.model_copy(update={"seconds": 21.5})})}
    await world.world.carry([key], "voiceover", "rendered_video", outputs=again)
    return key


async def test_an_earlier_revision_is_compared_word_by_word_and_video_by_video(world: DeskWorld) -> None:
    key = await made_again(world, b"first", b"second")
    browser = world.browser()
    page = (await browser.get(f"/review/{key}?channel=facts")).text
    [path] = re.findall(r'href="([^"]+against=[^"]+)"', page)
    assert unescape(path) == f"/review/{key}?against=1&channel=facts"
    page = (await browser.get(unescape(path))).text
    assert 'The sea is <ins><span class="hide">[now: </span>very <span class="hide">]</span></ins>deep.' in page
    assert page.count("<dt>") - page.count("<dt><kbd>") == 1
    videos = re.findall(r'<video src="([^"]+)"[^>]*aria-label="Video of revision (\d)"( data-lead)?', page)
    assert [(number, bool(leads)) for _, number, leads in videos] == [("1", False), ("2", True)]
    assert [(await browser.get(unescape(path))).content for path, *_ in videos] == [b"first", b"second"]
    assert "last edited by ann" in page
    assert f'href="/review/{key}?channel=facts">Back' in page


async def test_without_the_earlier_video_the_texts_are_still_compared(world: DeskWorld) -> None:
    key = await made_again(world, None, b"second")
    page = (await world.browser().get(f"/review/{key}?against=1")).text
    assert "<ins>" in page
    assert "<video" not in page
    assert "was deleted or cannot be fetched" in page


async def test_a_new_caption_has_the_same_video_and_says_so(world: DeskWorld) -> None:
    [key] = await world.waiting(outputs={"rendered_video": master(world.keep(b"first"))})
    world.desk.services.text_edits().edit(key, ScriptEdit(caption="<b>Deep</b>"), Actor("ann", "desk"))
    page = (await world.browser().get(f"/review/{key}?against=1")).text
    assert "Both have the same video" in page
    assert "&lt;b&gt;Deep&lt;/b&gt;" in page


@pytest.mark.parametrize("against", ["2", "7", "x", "9" * 30, "-1"])
async def test_a_revision_that_is_not_there_is_a_page_in_words(world: DeskWorld, against: str) -> None:
    key = await made_again(world, b"first", b"second")
    answer = await world.browser().get(f"/review/{key}?against={against}")
    assert answer.status_code == 404
    assert "has no earlier revision" in answer.text
