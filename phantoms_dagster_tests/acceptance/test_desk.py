"""A day at the desk: people in real browsers against a running stack, from the rendered video to the posts on the platforms."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from phantoms_dagster_tests.acceptance.conftest import wait_for
from phantoms_dagster_tests.acceptance.desk_windows import (
    CHROMIUM,
    PHONE,
    RunningDesk,
    Window,
    open_browser,
    open_desk,
    open_window,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
    pytest.mark.timeout(900),
]

ALL = ["instagram", "tiktok", "youtube"]
TOMORROW = datetime.now(UTC) + timedelta(days=1)
BAD_ROWS = b"title,platforms\nWhy bees dance,youtube\n,tiktok\nGlass frogs,myspace\nHow eels travel,instagram\n"


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDesk]:
    """One stack for all of these tests. Kim is an operator. A decision can be undone for long enough on a busy machine."""
    with open_desk(tmp_path_factory.mktemp("desk"), PHANTOMS_DESK_UNDO_SECONDS="12") as running:
        running.add_user("kim", "operator")
        yield running


@pytest.fixture(scope="module")
def videos(desk: RunningDesk) -> dict[str, str]:
    """The key of a video for each test, all of which wait for a decision."""
    names = ("approved", "undone", "two of three", "rejected", "held", "tripped", "phone one", "phone two")
    keys = desk.add([f"The story that is {name}" for name in names])
    later = desk.add(["The story that is edited", "The story that is moved"], publish_at=TOMORROW)
    desk.wait_until_videos([*keys, *later])
    return dict(zip((*names, "edited", "moved"), (*keys, *later), strict=True))


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with open_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def kim(desk: RunningDesk, browser: Any) -> Any:
    """The session of Kim, who logs in once and goes on in other windows. A log-in costs a second of a busy machine."""
    context = browser.new_context()
    Window(context.new_page(), desk.url).log_in("kim")
    kept = context.storage_state()
    context.close()
    return kept


@pytest.fixture
def window(desk: RunningDesk, browser: Any, videos: dict[str, str], kim: Any) -> Iterator[Window]:
    with open_window(browser, desk.url, kim) as opened:
        yield opened


def decide(desk: RunningDesk, window: Window, key: str, press: str) -> None:
    """Open a video and answer by a key, for good."""
    window.open(f"/review/{key}")
    window.press(press)
    window.page.wait_for_url(lambda url: key not in url)
    desk.end_of_undo(key)


def test_a_person_logs_in_and_the_video_plays_and_seeks(desk: RunningDesk, browser: Any, videos: dict[str, str]) -> None:
    key = videos["approved"]
    with open_window(browser, desk.url, None) as window:
        window.open(f"/review/{key}")
        window.at("/login")
        window.page.get_by_label("Name").fill("kim")
        window.page.get_by_label("Password").fill("wrong, and long enough")
        window.press("Enter")
        window.says("name or the password is wrong")
        assert window.errors.pop().endswith("401 (Unauthorized)")
        window.page.get_by_label("Password").fill("a long enough password")
        window.press("Enter")
        window.at(f"/review/{key}")
        video = "document.querySelector('video')"
        window.until(f"{video}.readyState >= 2")
        window.press(" ")
        window.until(f"{video}.currentTime > 0.5 && !{video}.paused")
        window.press(" ")
        line = window.page.locator("[data-at]").last
        at = float(line.get_attribute("data-at"))
        assert at > 1
        line.click()
        window.until(f"Math.abs({video}.currentTime - {at}) < 0.2 && !{video}.seeking && {video}.readyState >= 2")
        assert line.get_attribute("aria-current") == "true"
        window.press(" ")
        window.until(f"{video}.currentTime > {at} + 0.3")


def test_a_video_that_is_approved_by_key_is_posted_on_each_platform(
    desk: RunningDesk, window: Window, videos: dict[str, str]
) -> None:
    """Here the time for undoing really passes."""
    key = videos["approved"]
    window.open(f"/review/{key}")
    window.press("a")
    window.says("can be undone for")
    assert desk.posted(key) == []
    wait_for(lambda: desk.posted(key) == ALL)
    window.open(f"/videos/{key}")
    assert window.page.get_by_role("link", name="post", exact=False).count() > 0
    assert {state for name, state in desk.states(key).items() if name.endswith("/post")} == {"done"}


def test_an_approval_that_is_undone_posts_nothing(desk: RunningDesk, window: Window, videos: dict[str, str]) -> None:
    key = videos["undone"]
    window.open(f"/review/{key}")
    window.press("a")
    window.says("can be undone for")
    window.press("Control+z")
    window.at(f"/review/{key}")
    window.says("Undone")
    assert desk.rows("SELECT state FROM phantoms.pending_decisions ORDER BY id DESC LIMIT 1") == [{"state": "undone"}]
    assert key in desk.services.decisions().undecided()
    assert desk.states(key)["youtube/post"] == "blocked"


def test_an_approval_for_two_of_three_platforms_posts_on_those_only(
    desk: RunningDesk, window: Window, videos: dict[str, str]
) -> None:
    key = videos["two of three"]
    window.open(f"/review/{key}")
    window.page.locator("[data-some] > summary").click()
    window.page.locator("[data-some] input[value=tiktok]").uncheck()
    window.page.get_by_text("Approve for these").click()
    window.says("for YouTube and Instagram")
    desk.end_of_undo(key)
    wait_for(lambda: desk.posted(key) == ["instagram", "youtube"])
    assert not [name for name in desk.states(key) if name.startswith("tiktok/")]


def test_a_rejection_says_at_which_second(desk: RunningDesk, window: Window, videos: dict[str, str]) -> None:
    key = videos["rejected"]
    window.open(f"/review/{key}")
    video = "document.querySelector('video')"
    window.until(f"{video}.readyState >= 1")
    window.page.evaluate(f"{video}.currentTime = 3")
    window.until(f"{video}.currentTime >= 3 && !{video}.seeking")
    window.press("r")
    window.page.keyboard.type("the jump is too hard, ask Anna")
    window.page.locator("[data-reject] button[value=reject]").click()
    window.page.wait_for_url(lambda url: key not in url)
    desk.end_of_undo(key)
    [row] = desk.rows(
        "SELECT a.note, a.approved FROM phantoms.approvals a JOIN phantoms.videos v ON v.id = a.video_id WHERE v.key = :key",
        key=key,
    )
    assert re.fullmatch(r"at 0:03\.0, (hook|scene \d+): the jump is too hard, ask Anna", row["note"])
    assert row["approved"] is False
    window.open(f"/videos/{key}")
    window.says("the jump is too hard, ask Anna")
    assert desk.posted(key) == []


def test_a_new_caption_keeps_the_video_and_a_new_sentence_makes_voice_and_video_again(
    desk: RunningDesk, window: Window, videos: dict[str, str]
) -> None:
    """Both void the approval."""
    key, page = videos["edited"], window.page
    decide(desk, window, key, "a")
    wait_for(lambda: desk.states(key)["approval"] == "done")
    assert desk.renders(key) == 1

    window.open(f"/review/{key}/edit")
    page.get_by_label("Caption").fill("Deeper than you think.")
    page.get_by_role("button", name="Save").click()
    window.says("Saved. The video stays")
    desk.wait_until_videos([key])
    assert (desk.renders(key), desk.revision(key, "voiceover")) == (1, 1)
    assert desk.states(key)["youtube/post"] == "blocked"
    window.open(f"/review/{key}")
    page.locator(".w-caption:visible", has_text="Deeper than you think.").wait_for()

    window.press("e")
    window.at(f"/review/{key}/edit")
    page.get_by_label("Hook").fill("Nobody saw this one coming.")
    page.get_by_role("button", name="Save").click()
    window.says("Saved")
    desk.wait_until_videos([key])
    assert (desk.renders(key), desk.revision(key, "voiceover")) == (2, 2)
    window.open(f"/review/{key}")
    window.says("Nobody saw this one coming.")
    window.until("document.querySelector('video').readyState >= 2")
    page.get_by_role("link", name="what changed").click()
    window.until("[...document.querySelectorAll('video')].every((video) => video.readyState >= 2)")
    assert "Nobody saw" in page.locator("ins").first.inner_text()


def test_a_video_on_hold_is_taken_back(desk: RunningDesk, window: Window, videos: dict[str, str]) -> None:
    key = videos["held"]
    decide(desk, window, key, "h")
    refused = desk.stack.phantoms("approve", key)
    assert (refused.returncode, "on hold by kim" in refused.stderr) == (2, True), refused.stderr
    window.open("/review?held=1")
    window.page.get_by_role("button", name="Release from hold").click()
    window.says("Released from hold")
    assert key in desk.services.decisions().undecided()


def test_a_breaker_that_is_tripped_holds_posts_until_it_is_reset(desk: RunningDesk, window: Window, videos: dict[str, str]) -> None:
    key, page = videos["tripped"], window.page
    window.open("/providers")
    page.get_by_role("link", name="TikTok").first.click()
    window.at("/providers/tiktok")
    line = page.locator(".breakers > li", has=page.locator("code", has_text=re.compile("^sandbox/tiktok$")))
    line.locator("summary", has_text="Trip").click()
    line.locator("form[action$='/trip']").get_by_label("Why").fill("maintenance was announced")
    line.get_by_role("button", name="Trip sandbox/tiktok").click()
    window.says("sandbox/tiktok is open until it is reset")
    decide(desk, window, key, "a")
    wait_for(lambda: desk.posted(key) == ["instagram", "youtube"])
    assert desk.states(key)["tiktok/post"] != "failed"
    window.open("/providers/tiktok")
    line.locator("summary", has_text="Reset").click()
    line.locator("form[action$='/reset']").get_by_label("Why").fill("it is back")
    line.get_by_role("button", name="Reset sandbox/tiktok").click()
    window.says("sandbox/tiktok is closed")

    def posted() -> bool:
        desk.end_of_waits(key)
        return desk.posted(key) == ALL

    wait_for(posted, pause=1.0)
    window.says("maintenance was announced")


def test_a_post_is_moved_in_the_calendar_by_keyboard_alone(desk: RunningDesk, window: Window, videos: dict[str, str]) -> None:
    key = videos["moved"]
    channel = next(iter(desk.services.channels().values()))
    zone = ZoneInfo(channel.timezone)
    wanted = (TOMORROW + timedelta(days=2)).astimezone(zone).replace(hour=12, minute=34, second=0, microsecond=0)
    window.open(f"/calendar?from={TOMORROW.astimezone(zone):%Y-%m-%d}")
    tab_to(window, f"document.activeElement.dataset.entry === '{key}'")
    window.press("Enter")
    window.at(f"/calendar/{key}")
    tab_to(window, "document.activeElement.name === 'at'")
    window.page.keyboard.type(f"{wanted:%m%d%Y}")
    window.press("Tab")
    window.page.keyboard.type(f"{wanted:%I%M%p}")
    window.press("Enter")
    window.at("/calendar?")
    window.says(f"{wanted:%H:%M}")
    [row] = desk.rows("SELECT publish_at FROM phantoms.videos WHERE key = :key", key=key)
    assert row["publish_at"] == wanted


def tab_to(window: Window, script: str) -> None:
    """Press Tab until that has the focus."""
    for _ in range(200):
        window.press("Tab")
        if window.page.evaluate(script):
            return
    pytest.fail(f"no Tab leads there: {script}")


def test_a_brief_and_a_file_with_two_bad_rows_are_added(desk: RunningDesk, window: Window) -> None:
    page = window.page
    window.open("/add")
    page.get_by_label("Title").fill("Why lobsters never age")
    page.get_by_label("Facts").fill("They grow for as long as they live.\nMoulting costs them more each year.")
    page.get_by_role("button", name=re.compile("^Add to")).click()
    window.says("Added why-lobsters-never-age-")
    window.open("/add")
    page.get_by_label("File").set_input_files([{"name": "briefs.csv", "mimeType": "text/csv", "buffer": BAD_ROWS}])
    page.get_by_role("button", name="Check the file").click()
    window.says("2 valid, 2 refused. Nothing is added yet.")
    for where in ("line 3", "line 4"):
        window.says(where)
    page.get_by_role("button", name="Add 2 briefs").click()
    window.says("2 added, 0 refused.")
    found = desk.rows("SELECT key, title FROM phantoms.videos WHERE source <> 'test' ORDER BY id")
    assert [row["title"] for row in found] == ["Why lobsters never age", "Why bees dance", "How eels travel"]
    wait_for(lambda: all(desk.states(row["key"])["script"] == "done" for row in found))


def test_letters_are_replayed_with_a_canary_after_a_fault_was_lifted(desk: RunningDesk, window: Window) -> None:
    page = window.page
    refused = '{"error": {"message": "This model is not available", "type": "invalid_request_error", "code": "model_not_found"}}'
    desk.sandbox.fault(route="openai.*", kind="status", status=404, body=refused, match="Narwhal")
    keys = desk.add([f"Narwhal number {n}" for n in (1, 2, 3)])
    wait_for(lambda: all(desk.states(key)["script"] == "failed" for key in keys))
    window.open("/dead-letters")
    page.get_by_role("link", name=re.compile("^script: .*openai")).click()
    desk.sandbox.heal()
    page.get_by_role("link", name="Replay all 3").click()
    assert page.get_by_label("Try one first").is_checked()
    page.get_by_role("button", name="Replay").click()
    window.at("/bulk/")
    page.locator("#bulk .state", has_text="ended").wait_for()
    window.says("3 done 0 failed 0 pending")
    steps = desk.rows("SELECT n, ended_at FROM phantoms.bulk_items ORDER BY n")
    assert steps[0]["ended_at"] <= min(step["ended_at"] for step in steps[1:])
    wait_for(lambda: all(desk.states(key)["script"] == "done" for key in keys))


def test_the_whole_review_fits_a_phone_and_its_thumbs(desk: RunningDesk, browser: Any, kim: Any, videos: dict[str, str]) -> None:
    one, two = videos["phone one"], videos["phone two"]
    with open_window(browser, desk.url, kim, **PHONE) as window:
        page = window.page
        window.open(f"/review/{one}")
        assert window.fits()
        window.until("document.querySelector('video').readyState >= 2")
        page.locator("[data-bigplay]").tap()
        window.until("document.querySelector('video').currentTime > 0.3")
        page.locator("[data-play]").tap()
        page.locator("label", has=page.locator("#shown-instagram")).tap()
        assert page.locator("#shown-instagram").is_checked()
        page.locator("[data-reject] > summary").tap()
        assert window.fits()
        page.locator("[data-reason-chip]", has_text="Off brand").tap()
        page.locator("[data-reject] button[value=reject]").tap()
        page.wait_for_url(lambda url: one not in url)
        assert window.fits()
        page.locator(".toast button").tap()
        window.at(f"/review/{one}")
        page.locator("[data-edit]").tap()
        window.at(f"/review/{one}/edit")
        assert window.fits()
        page.go_back()
        window.at(f"/review/{one}")
        page.locator("[data-approve] button").tap()
        page.wait_for_url(lambda url: one not in url)
        desk.end_of_undo(one)
        window.open(f"/review/{two}")
        page.locator("[data-hold] button").tap()
        page.wait_for_url(lambda url: two not in url)
        assert window.fits()
        wait_for(lambda: desk.posted(one) == ALL)


def test_no_page_has_an_error_or_asks_another_host(desk: RunningDesk, browser: Any, kim: Any, videos: dict[str, str]) -> None:
    """On both sizes, and each fits."""
    key = videos["approved"]
    [letter] = desk.rows("SELECT DISTINCT cause FROM phantoms.dead_letters LIMIT 1")
    paths = [
        "/review",
        "/review?held=1",
        f"/review/{key}",
        f"/review/{videos['undone']}/edit",
        f"/review/{videos['edited']}?against=1",
    ]
    paths += ["/pipeline", "/pipeline?q=state:done", f"/videos/{key}", f"/pipeline/act?action=retry&key={key}", "/bulk", "/bulk/1"]
    paths += ["/dead-letters", f"/dead-letters/{letter['cause']}", "/calendar", "/calendar?view=list", "/calendar?view=month"]
    paths += [f"/calendar/{videos['moved']}", "/providers", "/providers/tiktok", "/performance", "/add", "/audit"]
    paths += ["/webhooks", "/guest-links"]
    for looks in ({}, PHONE):
        with open_window(browser, desk.url, kim, **looks) as window:
            for path in paths:
                window.open(path)
                window.page.wait_for_load_state("load")
                assert window.page.locator("main h1").count() > 0, path
                assert window.fits(), path
                assert window.errors == [], path
