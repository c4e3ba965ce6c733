"""The desk in a real browser: Debian's Chromium against a running desk, with a real video that plays."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from phantoms_dagster.domain.models import MediaFile, Sentence, VoiceoverOutput
from phantoms_dagster.domain.script_edits import ScriptEdit
from phantoms_dagster.store.audit import Actor
from phantoms_dagster_tests.integration.desk_browsers import CHROMIUM, MARKS, Served, Window, open_browser, open_served
from phantoms_dagster_tests.integration.desk_world import master
from phantoms_dagster_tests.integration.stage_world import PROBE, media_file
from phantoms_dagster_tests.integration.test_desk_pipeline import fail
from phantoms_dagster_tests.made_videos import video_bytes

CONTRAST_ALONE = {"runOnly": {"type": "rule", "values": ["color-contrast"]}}
PICTURE = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")

# One event loop for all tests of the file: they share a browser, whose start costs more than most of them.
pytestmark = [*MARKS, pytest.mark.asyncio(loop_scope="module")]
axe: Any = pytest.importorskip("axe_playwright_python.async_playwright") if CHROMIUM else None


@pytest_asyncio.fixture(loop_scope="module")
async def served(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Served]:
    async with open_served(database_url, redis_url, tmp_path, desk_undo_seconds=30.0) as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def keys(served: Served) -> list[str]:
    """Three videos with a video of six seconds and two sentences."""
    content = video_bytes(seconds=6.0)
    file = MediaFile(sha256=hashlib.sha256(content).hexdigest(), size=len(content), suffix=".mp4")
    path = served.world.media / file.name
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    sentences = (
        Sentence(text="Did you know?", scene=-1, start=0.0, end=2.0),
        Sentence(text="The sea is deep.", scene=0, start=2.0, end=6.0),
    )
    voice = VoiceoverOutput(audio=media_file("voice", ".wav"), seconds=6.0, sentences=sentences, voice="test")
    rendered = master(file).model_copy(update={"thumbnail": served.world.keep(PICTURE, ".png")})
    return await served.world.waiting(3, outputs={"rendered_video": rendered, "voiceover": voice})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser() -> AsyncIterator[Any]:
    """One browser; each test opens a context of its own, which shares neither cookies nor storage with another."""
    async with open_browser() as opened:
        yield opened


@pytest_asyncio.fixture(loop_scope="module")
async def window(browser: Any, served: Served) -> AsyncIterator[Window]:
    """A window of a laptop. At the end there was no error in it and no request to another host."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    window = Window(await context.new_page(), served.url)
    yield window
    await context.close()
    assert window.errors == []


def decisions(served: Served) -> list[tuple[str, str]]:
    rows = served.world.world.rows("SELECT answer, state FROM phantoms.pending_decisions ORDER BY id")
    return [(row["answer"], row["state"]) for row in rows]


async def test_a_video_plays_seeks_by_its_sentences_and_steps_by_frames(served: Served, keys: list[str], window: Window) -> None:
    page = window.page
    await window.open("/")
    await window.at("/review")
    await window.until("document.querySelector('video').readyState >= 2")
    await window.press(" ")
    await window.until("document.querySelector('video').currentTime > 0.3")
    await page.locator("[data-at='0.0'][aria-current]").wait_for()
    await window.press(" ")
    await page.get_by_text("The sea is deep.").click()
    await window.until("document.querySelector('video').currentTime >= 2")
    assert await page.locator("[data-at='2.0']").get_attribute("aria-current") == "true"
    before = await window.seconds()
    await window.press(".")
    await window.until(f"document.querySelector('video').currentTime > {before}")
    await window.press("2")
    assert await page.locator("#shown-tiktok").is_checked()
    assert "platform=tiktok" in page.url


async def test_a_person_approves_by_key_undoes_and_goes_through_the_queue(served: Served, keys: list[str], window: Window) -> None:
    page = window.page
    await window.open("/review")
    await window.press("j")
    await window.at(f"/review/{keys[1]}")
    await window.press("k")
    await window.at(f"/review/{keys[0]}")
    await window.press("a")
    await window.at(f"/review/{keys[1]}")
    assert decisions(served) == [("approve", "pending")]
    await page.get_by_text("can be undone for").wait_for()
    await window.press("Control+z")
    await window.at(f"/review/{keys[0]}")
    assert decisions(served) == [("approve", "undone")]
    await window.press("h")
    await window.at(f"/review/{keys[1]}")
    assert decisions(served)[1:] == [("hold", "pending")]


async def test_a_key_that_is_pressed_twice_decides_on_one_video(served: Served, keys: list[str], window: Window) -> None:
    """The second press came when the next video was on the screen, and approved it unseen."""
    page = window.page
    await window.open(f"/review/{keys[0]}")
    pressed = "document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', bubbles: true}))"
    await page.evaluate(f"sessionStorage.setItem('decided', Date.now()); {pressed}")
    await page.wait_for_timeout(200)
    assert decisions(served) == []
    await page.evaluate("sessionStorage.setItem('decided', Date.now() - 5000)")
    await window.press("a")
    await window.at(f"/review/{keys[1]}")
    assert decisions(served) == [("approve", "pending")]


async def test_the_first_letter_of_a_reason_is_never_taken_for_a_key_however_fast_it_is_typed(
    served: Served, keys: list[str], window: Window
) -> None:
    """An "a" right after the "r" approved the video."""
    await window.open(f"/review/{keys[0]}")
    await window.page.evaluate(
        """for (const key of "ra") document.activeElement.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }))"""
    )
    await window.until("document.activeElement.matches('[data-reason]')")
    assert await window.page.locator("[data-reject]").get_attribute("open") is not None
    assert decisions(served) == []
    assert window.page.url == f"{served.url}/review/{keys[0]}"


async def test_a_rejection_keeps_its_second_and_its_scene_and_keys_do_nothing_while_the_user_types(
    served: Served, keys: list[str], window: Window
) -> None:
    page = window.page
    await window.open(f"/review/{keys[0]}")
    await window.until("document.querySelector('video').readyState >= 1")
    await page.evaluate("document.querySelector('video').currentTime = 3")
    await window.until("document.querySelector('video').currentTime >= 3 && !document.querySelector('video').seeking")
    await window.press("r")
    await page.keyboard.type("a hard jab, ja?")
    assert decisions(served) == []
    await page.locator("[data-reject] button[value=reject]").click()
    await window.at(f"/review/{keys[1]}")
    [row] = served.world.world.rows("SELECT note FROM phantoms.pending_decisions")
    assert row["note"] == "at 0:03.0, scene 1: a hard jab, ja?"


async def test_the_key_of_the_search_leads_to_it_from_every_page(served: Served, keys: list[str], window: Window) -> None:
    """It is in the list of keys of each page, and did nothing on most."""
    await window.open(f"/review/{keys[0]}")
    await window.page.keyboard.press("/")
    await window.page.locator("#q:focus").wait_for()
    await window.page.keyboard.type("sea")
    assert await window.page.locator("#q").input_value() == "sea"


async def test_a_message_with_a_long_title_leaves_the_buttons_free(served: Served, window: Window) -> None:
    """It covered half of *Reject* for ten seconds: what is decided next."""
    [key] = await served.world.waiting(title="A title of so many words that no line of a message has room for all of them")
    await served.world.waiting(title="Another")
    await window.page.set_viewport_size({"width": 1440, "height": 900})
    await window.open(f"/review/{key}")
    await window.page.keyboard.press("h")
    toast = await window.page.locator(".toast").bounding_box()
    button = await window.page.locator("[data-reject] > summary").bounding_box()
    assert toast["x"] + toast["width"] <= button["x"]
    await window.page.goto("about:blank")
    window.errors.clear()  # these videos have no video


async def test_a_selection_is_retried_and_its_page_shows_the_end_by_itself(served: Served, window: Window) -> None:
    page, world = window.page, served.world.world
    keys = world.add(3)
    await fail(served.world, keys)
    await window.open("/pipeline?q=state:failed")
    for key in keys[:2]:
        await page.locator(f"input[value='{key}']").check()
    await page.get_by_role("button", name="Retry").click()
    await page.get_by_text("2 videos").wait_for()
    await page.get_by_label("Try one first").uncheck()
    await page.get_by_role("button", name="Retry").click()
    await window.at("/bulk/1")
    await page.locator("#bulk .state", has_text="ended").wait_for()
    assert sorted(world.states("script")) == ["failed", "ready", "ready"]


async def test_the_pipeline_and_a_video_fit_a_phone(served: Served, browser: Any) -> None:
    keys = served.world.world.add(title="The bakery that never closed in a hundred and twelve years")
    await fail(served.world, keys)
    context = await browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    window = Window(await context.new_page(), served.url)
    cause = served.world.world.rows("SELECT cause FROM phantoms.dead_letters")[0]["cause"]
    letters = ("/dead-letters", f"/dead-letters/{cause}", f"/dead-letters/{cause}/act?whole=1")
    for path in ("/pipeline", f"/videos/{keys[0]}", f"/pipeline/act?action=retry&key={keys[0]}", "/bulk", *letters, "/performance"):
        await window.open(path)
        assert await window.page.evaluate("document.documentElement.scrollWidth <= 390"), path
    await context.close()
    assert window.errors == []


async def test_a_person_approves_for_two_of_three_platforms_on_a_phone(served: Served, keys: list[str], browser: Any) -> None:
    context = await browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    window = Window(await context.new_page(), served.url)
    page = window.page
    await window.open(f"/review/{keys[0]}")
    assert await page.evaluate("document.documentElement.scrollWidth <= 390")
    await page.locator("[data-some] > summary").tap()
    await page.locator("[data-some] input[value=tiktok]").tap()
    await page.get_by_text("Approve for these").tap()
    await window.at(f"/review/{keys[1]}")
    [row] = served.world.world.rows("SELECT platforms FROM phantoms.pending_decisions")
    assert row["platforms"] == ["youtube", "instagram"]
    await context.close()
    assert window.errors == []


async def test_what_comes_in_appears_by_itself(served: Served, keys: list[str], window: Window) -> None:
    await window.open("/review")
    await window.until("document.querySelector('[data-count=review]').textContent === '3'")
    screen = served.world.desk.queue.screen(keys[0])
    assert screen is not None
    assert screen.master is not None
    await served.world.waiting(1, outputs={"rendered_video": screen.master})
    await window.until("document.querySelectorAll('.queue li').length === 4")
    assert await window.page.locator("[data-count=review]").all_text_contents() == ["4", "4"]


async def test_everything_works_without_javascript(served: Served, keys: list[str], browser: Any) -> None:
    context = await browser.new_context(java_script_enabled=False)
    window = Window(await context.new_page(), served.url)
    page = window.page
    await window.open("/review")
    assert await page.locator("video[controls]").count() == 1
    assert (await page.locator("[data-at='2.0']").get_attribute("href") or "").endswith("#t=2.0")
    await page.locator("[data-approve] button").click()
    await window.at(f"/review/{keys[1]}")
    assert decisions(served) == [("approve", "pending")]
    await page.locator(".toast button").click()
    await window.at(f"/review/{keys[0]}")
    assert decisions(served) == [("approve", "undone")]
    await context.close()


async def test_an_endpoint_is_added_on_a_phone_without_javascript_and_its_secret_is_shown(served: Served, browser: Any) -> None:
    context = await browser.new_context(viewport={"width": 390, "height": 844}, java_script_enabled=False)
    window = Window(await context.new_page(), served.url)
    page = window.page
    await window.open("/webhooks")
    await page.get_by_label("Address").fill("https://hooks.example.org/newsroom")
    await page.get_by_label("provider.down").uncheck()
    await page.get_by_role("button", name="Add, and show the secret").click()
    await page.get_by_text("whsec_").wait_for()
    await page.get_by_role("link", name="I have saved it").click()
    await page.get_by_text("approval.wanted, video.posted, video.failed ·").wait_for()
    assert await page.evaluate("document.documentElement.scrollWidth") <= 390
    await context.close()


async def test_a_person_edits_a_caption_by_key_and_the_video_stays(served: Served, keys: list[str], window: Window) -> None:
    page = window.page
    await window.open(f"/review/{keys[0]}")
    await window.press("e")
    await window.at(f"/review/{keys[0]}/edit")
    await page.get_by_label("Caption").fill("Deeper than you think, j.")
    await page.get_by_role("button", name="Save").click()
    await window.at(f"/review/{keys[0]}")
    await page.get_by_text("Saved. The video stays").wait_for()
    await page.locator(".w-caption:visible", has_text="Deeper than you think, j.").wait_for()
    assert served.world.world.row(keys[0], "voiceover")["revision"] == 1


async def test_letters_are_replayed_with_a_canary_after_a_fault_was_lifted(served: Served, window: Window) -> None:
    page, world = window.page, served.world.world
    keys = world.add(3)
    await fail(served.world, keys)
    await window.open("/dead-letters")
    await page.get_by_role("link", name="script: 503 from openai (transient)").click()
    await page.get_by_role("link", name="Replay all 3").click()
    await page.get_by_role("heading", name="Replay 3 dead letters").wait_for()
    assert await page.get_by_label("Try one first").is_checked()
    await page.get_by_role("button", name="Replay").click()
    await window.at("/bulk/1")
    await page.get_by_text("Trying one first").wait_for()
    await window.until("document.querySelector('#bulk .tallies').textContent.startsWith('1 done')")
    assert sorted(world.states("script")) == ["failed", "failed", "ready"]
    await world.carry(keys[:1], "script")
    await page.locator("#bulk .state", has_text="ended").wait_for()
    assert sorted(world.states("script")) == ["done", "ready", "ready"]
    await page.get_by_role("link", name="script: 503 from openai (transient)").click()
    await page.get_by_text("all of its letters are closed").wait_for()


async def test_a_person_checks_a_file_with_two_bad_rows_and_takes_the_good_ones(served: Served, window: Window) -> None:
    page = window.page
    await window.open("/add")
    content = b"title,platforms\nWhy bees dance,youtube\n,tiktok\nGlass frogs,myspace\n"
    await page.get_by_label("File").set_input_files([{"name": "briefs.csv", "mimeType": "text/csv", "buffer": content}])
    await page.get_by_role("button", name="Check the file").click()
    await page.get_by_text("line 4").wait_for()
    await page.get_by_role("button", name="Add 1 brief").click()
    await page.get_by_text("1 added, 0 refused.").wait_for()
    assert [row["title"] for row in served.world.world.rows("SELECT title FROM phantoms.videos")] == ["Why bees dance"]


async def test_two_revisions_play_side_by_side_with_one_playhead(served: Served, keys: list[str], window: Window) -> None:
    world, key = served.world, keys[0]
    world.desk.services.text_edits().edit(key, ScriptEdit(hook="Who knows?"), Actor("ann", "desk"))
    file = world.keep(video_bytes(seconds=7.0))
    changes = {"thumbnail": world.keep(PICTURE, ".png"), "probe": PROBE.model_copy(update={"seconds": 7.0})}
    again = master(file).model_copy(update=changes)
    await world.world.carry([key], "voiceover", "rendered_video", outputs={"rendered_video": again})
    await window.open(f"/review/{key}?against=1")
    assert "Who knows?" in await window.page.locator("ins").inner_text()
    await window.until("[...document.querySelectorAll('video')].every((video) => video.readyState >= 2)")
    await window.press(" ")
    await window.until("[...document.querySelectorAll('video')].every((video) => video.currentTime > 0.3)")
    await window.press(" ")
    await window.until("[...document.querySelectorAll('video')].every((video) => video.paused)")
    await window.page.get_by_label("Position in both videos").fill("4")
    await window.until("[...document.querySelectorAll('video')].every((video) => video.currentTime === 4 && !video.seeking)")
    await window.press(".")
    await window.until("[...document.querySelectorAll('video')].every((video) => video.currentTime > 4)")


@pytest.mark.parametrize("width", [1440, 390])
async def test_no_page_has_a_serious_violation_of_accessibility(served: Served, keys: list[str], browser: Any, width: int) -> None:
    """By axe-core, which its package ships. The dark scheme changes colours and nothing else, so only contrast is judged again."""
    world = served.world.world
    await fail(served.world, world.add(2)[:1])
    [letter] = world.rows("SELECT cause FROM phantoms.dead_letters")
    # Without motion, so that no colour is judged on its way from one scheme to the other.
    context = await browser.new_context(viewport={"width": width, "height": 900}, reduced_motion="reduce", bypass_csp=True)
    page = await context.new_page()
    found: dict[str, list[str]] = {}
    paths = ["/review", f"/review/{keys[0]}", f"/review/{keys[0]}/edit", "/pipeline", "/pipeline?q=nothing", f"/videos/{keys[0]}"]
    paths += [
        "/dead-letters",
        f"/dead-letters/{letter['cause']}",
        f"/dead-letters/{letter['cause']}/act?act=replay",
        "/calendar",
        "/calendar?view=list",
        f"/calendar/{keys[1]}",
    ]
    paths += ["/providers", "/providers/youtube", "/performance", "/add", "/webhooks", "/audit", "/bulk", "/nowhere"]
    paths.append("/guest-links")
    guests, content = served.world.desk.guests, served.world.content(keys[0])
    paths.append(f"/guest/{guests.add(keys[0], 'Dr. Weber', Actor('kim', 'desk'), content_sha256=content, hours=1)[1]}")
    for path in paths:
        await page.emulate_media(color_scheme="light")
        await page.goto(f"{served.url}{path}")
        light = await axe.Axe().run(page)
        await page.emulate_media(color_scheme="dark")
        dark = await axe.Axe().run(page, options=CONTRAST_ALONE)
        assert dark.response["passes"] or dark.response["violations"], path
        for scheme, result in (("light", light), ("dark", dark)):
            grave = [v for v in result.response["violations"] if v["impact"] in ("serious", "critical")]
            if grave:
                found[f"{path} {scheme}"] = [f"{v['id']}: {[node['target'] for node in v['nodes']][:4]}" for v in grave]
    await context.close()
    assert found == {}


async def test_a_guest_plays_the_video_on_a_phone_and_answers_by_the_link_that_a_reviewer_made(
    served: Served, keys: list[str], window: Window, browser: Any
) -> None:
    await window.open(f"/review/{keys[0]}")
    await window.page.click("summary:has-text('Ask a guest')")
    await window.page.fill("input[name=guest]", "Dr. Weber")
    await window.page.click("button:has-text('Make the link')")
    link = await window.page.input_value(".guest-url input")
    assert link.startswith(f"{served.url}/guest/")
    context = await browser.new_context(viewport={"width": 390, "height": 844}, java_script_enabled=True)
    phone = Window(await context.new_page(), served.url)
    await phone.page.goto(link)
    await phone.page.evaluate("document.querySelector('video').play()")
    await phone.until("document.querySelector('video').currentTime > 0.2")
    assert await phone.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await phone.page.fill("textarea[name=note]", "The dose is wrong.")
    await phone.page.click("button:has-text('Reject')")
    await phone.page.wait_for_selector("h1:has-text('thank you')")
    assert phone.errors == []
    await context.close()
    assert decisions(served) == [("reject", "pending")]
    await window.open("/guest-links")
    assert "rejected" in await window.page.inner_text("table")


async def test_the_menu_of_a_phone_opens_as_a_list_and_leads_on_without_javascript(served: Served, browser: Any) -> None:
    context = await browser.new_context(viewport={"width": 390, "height": 844}, java_script_enabled=False)
    window = Window(await context.new_page(), served.url)
    page = window.page
    await window.open("/pipeline")
    menu = page.get_by_role("navigation", name="Pages")
    assert not await menu.is_visible()
    await page.get_by_role("button", name="Pipeline").click()
    titles = ["Review", "Pipeline", "Dead letters", "Calendar", "Accounts", "Providers", "Performance", "Add", "Webhooks", "Audit"]
    assert [text.strip() for text in await menu.get_by_role("link").all_inner_texts()] == titles
    for link in await menu.get_by_role("link").all():
        box = await link.bounding_box()
        assert box["height"] >= 44, box
        assert box["x"] + box["width"] <= 390, box
    await menu.get_by_role("link", name="Calendar").click()
    await window.at("/calendar")
    assert not await menu.is_visible()
    await context.close()
    assert window.errors == []


async def test_no_table_of_a_phone_scrolls_sideways_but_the_calendars(served: Served, keys: list[str], browser: Any) -> None:
    """A video's stages were cut at the third column."""
    world = served.world
    await fail(world, world.world.add(2))
    [cause] = [row["cause"] for row in world.world.rows("SELECT DISTINCT cause FROM phantoms.dead_letters")]
    number = world.desk.bulk.submit("hold", [(key, None) for key in keys], Actor("kim", "desk"), arguments={"reason": "x"})
    context = await browser.new_context(viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True)
    window = Window(await context.new_page(), served.url)
    paths = [f"/videos/{keys[0]}", "/bulk", f"/bulk/{number}", "/audit", "/pipeline", f"/dead-letters/{cause}"]
    for path in paths:
        await window.open(path)
        wide = await window.page.evaluate(
            "[...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).map((e) => e.ariaLabel)"
        )
        assert wide == [], path
    await context.close()


async def test_after_a_log_out_the_back_button_shows_nothing_of_the_desk(served: Served, keys: list[str], window: Window) -> None:
    served.world.add_user("kim")
    await window.open(f"/review/{keys[0]}")
    await window.log_in("kim")
    await window.at(f"/review/{keys[0]}")
    await window.log_out()
    await window.at("/login")
    await window.says("You are logged out.")
    await window.page.go_back()
    await window.at("/login")
    assert await window.page.locator("video").count() == 0


async def test_a_form_that_was_loaded_before_another_log_in_says_so_and_gives_back_what_was_written(
    served: Served, keys: list[str], window: Window
) -> None:
    """In another tab the user logged out and in again."""
    served.world.add_user("kim")
    page = window.page
    await window.open(f"/review/{keys[0]}/edit")
    await window.log_in("kim")
    await window.at(f"/review/{keys[0]}/edit")
    await page.get_by_label("Caption").fill("Ten minutes of work.")
    other = Window(await page.context.new_page(), served.url)
    await other.open("/audit")
    await other.log_out()
    await other.at("/login")
    await other.log_in("kim")
    await other.at("/review")
    await page.get_by_role("button", name="Save").click()
    await window.says("That page is too old")
    assert await page.get_by_label("You wrote (caption)").input_value() == "Ten minutes of work."
    assert await page.locator("textarea").count() == 1
    await page.get_by_role("link", name="Load the page again").click()
    await window.at(f"/review/{keys[0]}/edit")
    assert window.errors.pop().endswith("403 (Forbidden)")


async def test_a_second_click_on_a_button_sends_its_form_once(served: Served, keys: list[str], window: Window) -> None:
    """A double click made two endpoints, and the secret of the first was never seen."""
    page = window.page
    await window.open("/webhooks")
    await page.get_by_label("Address").fill("https://hooks.example.org/newsroom")
    await page.get_by_role("button", name="Add, and show the secret").dblclick()
    await page.get_by_text("whsec_").wait_for()
    await window.open("/webhooks")
    assert await page.locator(".hook").count() == 1
