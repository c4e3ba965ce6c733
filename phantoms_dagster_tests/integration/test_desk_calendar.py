"""The page Calendar: what is posted when, in the channel's time zone, and moving a video with the form."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.domain.models import Platform, PostingHours
from phantoms_dagster.domain.posting_slots import PostingSlot
from phantoms_dagster.store import calendar as store_calendar
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.booking_changes import BookingChanges
from phantoms_dagster.store.catalogue import Catalogue
from phantoms_dagster_tests.integration.desk_world import Browser, DeskWorld, open_desk
from phantoms_dagster_tests.integration.stage_world import CHANNEL, brief

YEAR = datetime.now(UTC).year + 1


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


def channel(world: DeskWorld, zone: str, start: int = 9, end: int = 21) -> None:
    changed = CHANNEL.model_copy(update={"timezone": zone, "posting_hours": PostingHours(start=start, end=end)})
    world.world.catalogue.put_channels([changed])


def publish_at(world: DeskWorld, key: str) -> datetime | None:
    [row] = world.world.rows("SELECT publish_at FROM phantoms.videos WHERE key = :key", key=key)
    found: datetime | None = row["publish_at"]
    return found


async def send(browser: Browser, key: str, **changes: str) -> httpx.Response:
    """Send the form of that video, as its page fills it."""
    text = (await browser.get(f"/calendar/{key}")).text
    found = re.search(r'name="was" value="([^"]*)"', text)
    assert found
    return await browser.post(f"/calendar/{key}/move", {"was": found[1].replace("&#43;", "+"), **changes})


async def shown_booking(browser: Browser, key: str) -> str:
    """What identifies the booking of the video's only post on the page that the browser shows."""
    [was] = re.findall(r'/post/[a-z]+">.*?name="booking" value="([^"]*)"', (await browser.get(f"/calendar/{key}")).text)
    return html.unescape(was)


async def decide(browser: Browser, key: str, answer: str, was: str | None = None) -> httpx.Response:
    """Press that button of the video's post on YouTube. `was`: the booking on a page that was loaded before; default: now."""
    seen = await shown_booking(browser, key) if was is None else was
    return await browser.post(f"/calendar/{key}/post/youtube", {"answer": answer, "booking": seen})


@pytest.mark.parametrize(
    ("zone", "utc", "day", "clock"),
    [
        ("America/New_York", "2026-03-07T15:00", "2026-03-07", "10:00"),
        ("America/New_York", "2026-03-08T14:00", "2026-03-08", "10:00"),
        ("America/New_York", "2026-11-01T15:00", "2026-11-01", "10:00"),
        ("Europe/Berlin", "2026-10-25T09:00", "2026-10-25", "10:00"),
        ("Europe/Berlin", "2026-10-24T08:00", "2026-10-24", "10:00"),
        ("Europe/Berlin", "2026-03-29T08:00", "2026-03-29", "10:00"),
    ],
)
async def test_a_video_is_shown_at_the_hour_of_its_channels_clocks(
    world: DeskWorld, zone: str, utc: str, day: str, clock: str
) -> None:
    channel(world, zone)
    world.world.add(1, publish_at=datetime.fromisoformat(f"{utc}+00:00"))
    browser = await world.logged_in("vera", "viewer")
    page = (await browser.get(f"/calendar?from={day}")).text
    found = re.search(rf'data-slot="{day}T{clock[:2]}".*?</td>', page, re.DOTALL)
    assert found
    assert f'<span class="e-time">{clock}</span>' in found[0]
    assert zone in page
    for view in ("list", "month"):
        assert "Ocean facts" in (await browser.get(f"/calendar?from={day}&view={view}")).text


async def test_the_hour_that_clocks_skip_and_the_one_they_repeat_are_marked(world: DeskWorld) -> None:
    channel(world, "America/New_York", 0, 24)
    world.world.add(1, publish_at=datetime(2026, 11, 1, 5, 30, tzinfo=UTC))
    browser = await world.logged_in("vera", "viewer")
    spring, autumn = (await browser.get("/calendar?from=2026-03-08")).text, (await browser.get("/calendar?from=2026-11-01")).text
    assert spring.count("no such hour") == 1
    assert 'data-slot="2026-03-08T02"' not in spring
    assert "01:30 EDT" in autumn


async def test_posting_hours_are_shaded_and_a_time_outside_them_is_shown_when_it_goes_out(world: DeskWorld) -> None:
    channel(world, "Europe/Berlin", 9, 12)
    world.world.add(1, publish_at=datetime(2026, 12, 1, 20, tzinfo=UTC))
    browser = await world.logged_in("vera", "viewer")
    page = (await browser.get("/calendar?from=2026-12-01")).text
    assert len(re.findall(r'<td class="open" data-slot', page)) == 3 * 7
    cell = re.search(r'data-slot="2026-12-02T09".*?</td>', page, re.DOTALL)
    assert cell
    assert "09:00" in cell[0]


async def test_a_failed_post_is_red_with_its_cause(world: DeskWorld) -> None:
    [key] = world.world.add(1, publish_at=datetime(YEAR, 5, 4, 10, tzinfo=UTC))
    world.world.write("UPDATE phantoms.stages SET state = 'failed', reason = 'the token has ended' WHERE stage = 'youtube/post'")
    browser = await world.logged_in("vera", "viewer")
    page = (await browser.get(f"/calendar?from={YEAR}-05-04")).text
    assert 'class="entry bad"' in page
    assert "failed: the token has ended" in page
    assert "the token has ended" in (await browser.get(f"/calendar/{key}")).text


async def test_a_video_is_moved_by_the_form_in_the_time_of_its_channel(world: DeskWorld) -> None:
    channel(world, "America/New_York")
    [key] = world.world.add(1, publish_at=datetime(YEAR, 5, 4, 15, tzinfo=UTC))
    browser = await world.logged_in("rita")
    answer = await send(browser, key, at=f"{YEAR}-07-01T18:30")
    assert answer.status_code == 303, answer.text
    assert publish_at(world, key) == datetime(YEAR, 7, 1, 22, 30, tzinfo=UTC)
    [row] = world.desk.audit.page(subject=key)
    assert (row.who, row.via, row.action) == ("rita", "desk", "edit brief")
    assert set(row.after or {}) == {"publish_at"}
    assert (await send(browser, key, when="now")).status_code == 303
    assert publish_at(world, key) is None


async def test_a_warning_comes_before_the_save_and_a_confirmation_saves(world: DeskWorld) -> None:
    channel(world, "Europe/Berlin")
    at = datetime(YEAR, 5, 4, 10, tzinfo=UTC)
    key, _ = world.world.add(2, publish_at=at)
    browser = await world.logged_in("rita")
    yesterday = f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%dT12:00}"
    for wall, told in ((f"{YEAR}-05-04T12:10", "On YouTube that is"), (yesterday, "That time is past")):
        answer = await send(browser, key, at=wall)
        assert answer.status_code == 200
        assert told in answer.text
        assert "Not saved yet" in answer.text
        assert publish_at(world, key) == at
        found = re.search(r'name="seen" value="([^"]+)"', answer.text)
        assert found
        seen = found[1]
        other = await send(browser, key, at=wall, seen="0" * 64)  # other warnings than those that were shown
        assert other.status_code == 200
    assert (await send(browser, key, at=yesterday, seen=seen)).status_code == 303
    assert publish_at(world, key) != at


async def test_a_used_up_quota_is_a_warning(database_url: str, redis_url: str, tmp_path: Path) -> None:
    pools = {"publish_youtube": {"daily": [2, "America/Los_Angeles"]}}
    async with open_desk(database_url, redis_url, tmp_path, pools=pools) as world:
        [key] = world.world.add(1)
        first = datetime(YEAR, 5, 4, 16, tzinfo=UTC)
        world.world.write(
            """INSERT INTO phantoms.videos (key, channel, title, brief, platforms, source, fingerprint, publish_at)
            SELECT 'q' || n, channel, 'Other', brief, platforms, 'test', 'q' || n,
                CAST(:first AS timestamptz) + make_interval(hours => n)
            FROM phantoms.videos, generate_series(1, 2) AS n WHERE key = :key""",
            key=key,
            first=first,
        )
        browser = await world.logged_in("rita")
        answer = await send(browser, key, at=f"{YEAR}-05-04T22:00")
        assert "YouTube&#39;s quota is used up" in answer.text
        assert publish_at(world, key) is None


async def test_a_time_that_the_clocks_skip_is_refused_in_words(world: DeskWorld) -> None:
    channel(world, "Europe/Berlin")
    [key] = world.world.add(1)
    browser = await world.logged_in("rita")
    answer = await send(browser, key, at="2027-03-28T02:30")
    assert answer.status_code == 422
    assert "the time after it is 03:30" in answer.text
    assert publish_at(world, key) is None


async def test_of_two_people_who_move_one_video_the_second_is_told_so(world: DeskWorld) -> None:
    [key] = world.world.add(1, publish_at=datetime(YEAR, 5, 4, 15, tzinfo=UTC))
    browser = await world.logged_in("rita")
    await browser.get(f"/calendar/{key}")
    world.world.write("UPDATE phantoms.videos SET publish_at = publish_at + interval '1 day'")
    answer = await browser.post(f"/calendar/{key}/move", {"was": f"{YEAR}-05-04T15:00:00+00:00", "at": f"{YEAR}-06-01T10:00"})
    assert answer.status_code == 422
    assert "in the meantime" in answer.text
    assert publish_at(world, key) == datetime(YEAR, 5, 5, 15, tzinfo=UTC)


async def test_viewers_look_and_do_not_move(world: DeskWorld) -> None:
    [key] = world.world.add(1, publish_at=datetime(YEAR, 5, 4, 15, tzinfo=UTC))
    browser = await world.logged_in("vera", "viewer")
    page = (await browser.get(f"/calendar?from={YEAR}-05-04")).text
    assert "data-movable" not in page
    assert "data-move-form" not in page
    assert (await browser.post(f"/calendar/{key}/move", {"when": "now"})).status_code == 403


async def test_addresses_that_do_not_exist_get_a_readable_answer(world: DeskWorld) -> None:
    browser = await world.logged_in("vera", "viewer")
    for path, status in (
        ("/calendar?from=soon", 422),
        ("/calendar?from=0001-01-01", 422),
        ("/calendar?view=year", 422),
        ("/calendar?channel=nobody", 404),
        ("/calendar/nobody", 404),
        ("/calendar?view=month&from=2026-12-31", 200),
    ):
        assert (await browser.get(path)).status_code == status, path


async def test_a_full_hour_and_a_full_day_show_a_few_and_lead_to_the_others(world: DeskWorld) -> None:
    channel(world, "UTC", 0, 24)
    world.world.add(9, publish_at=datetime(2026, 12, 24, 10, 30, tzinfo=UTC))
    browser = await world.logged_in("vera", "viewer")
    week = (await browser.get("/calendar?from=2026-12-24")).text
    assert (week.count('class="e-time"'), "9 videos" in week) == (6, True)
    assert 'href="/calendar?view=list&amp;from=2026-12-24">3 more</a>' in week
    month = (await browser.get("/calendar?from=2026-12-24&view=month")).text
    assert month.count('class="e-time"') == 3
    assert 'href="/calendar?view=list&amp;from=2026-12-24">6 more</a>' in month
    assert (await browser.get("/calendar?from=2026-12-24&view=list")).text.count('class="e-time"') == 9


async def test_a_long_list_ends_with_a_day_and_leads_to_the_following_one(world: DeskWorld) -> None:
    channel(world, "UTC", 0, 24)
    for day in (24, 25, 26):
        at = datetime(2026, 12, day, 10, 30, tzinfo=UTC)
        briefs = [brief(100 * day + number, publish_at=at) for number in range(80)]
        Catalogue(world.world.engine).add(briefs, source="test")
    browser = await world.logged_in("vera", "viewer")
    first = (await browser.get("/calendar?from=2026-12-24&view=list")).text
    assert first.count('class="e-time"') == 80
    assert 'href="/calendar?view=list&amp;from=2026-12-25">Next days</a>' in first
    last = (await browser.get("/calendar?from=2026-12-26&view=list")).text
    assert (last.count('class="e-time"'), "Next days" in last) == (80, False)


async def test_a_page_that_cannot_count_all_says_so(world: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    channel(world, "UTC", 0, 24)
    world.world.add(5, publish_at=datetime(2026, 12, 24, 10, 30, tzinfo=UTC))
    browser = await world.logged_in("vera", "viewer")
    assert "too many videos to show" not in (await browser.get("/calendar?from=2026-12-24")).text
    monkeypatch.setattr(store_calendar, "MOST_SLOTS", 4)
    assert "too many videos to show" in (await browser.get("/calendar?from=2026-12-24")).text


async def test_a_video_is_shown_at_the_time_of_its_first_post(world: DeskWorld) -> None:
    channel(world, "UTC", 0, 24)
    [key] = world.world.add(
        1, platforms=(Platform("youtube"), Platform("tiktok")), publish_at=datetime(2026, 12, 20, 10, 0, tzinfo=UTC)
    )
    for platform, day in (("tiktok", 23), ("youtube", 24)):
        world.world.write(
            """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256, published_at)
            SELECT id, :platform, 'a', 'confirmed', :platform, '', '', :at FROM phantoms.videos WHERE key = :key""",
            platform=platform,
            at=datetime(2026, 12, day, 9, 0, tzinfo=UTC),
            key=key,
        )
    browser = await world.logged_in("vera", "viewer")
    page = (await browser.get("/calendar?from=2026-12-24")).text
    assert page.count(f'data-entry="{key}"') == 1
    found = re.search(r'data-slot="2026-12-23T09".*?</td>', page, re.DOTALL)
    assert found
    assert key in found[0]


async def test_days_that_are_over_are_read_now_and_then_and_today_each_time(
    world: DeskWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    channel(world, "UTC", 0, 24)
    keys, now = world.world.add(3), datetime.now(UTC)
    past = now - timedelta(days=10)

    def post(key: str, at: datetime) -> None:
        world.world.write(
            """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256, published_at)
            SELECT id, 'youtube', 'a', 'confirmed', 'm', '', '', :at FROM phantoms.videos WHERE key = :key""",
            at=at,
            key=key,
        )

    async def shown() -> set[str]:
        page = (await browser.get(f"/calendar?view=list&from={past:%Y-%m-%d}")).text
        return {key for key in keys if f'data-entry="{key}"' in page}

    browser = await world.logged_in("vera", "viewer")
    post(keys[0], past)
    assert await shown() == {keys[0]}
    post(keys[1], past)
    post(keys[2], now)
    assert await shown() == {keys[0], keys[2]}
    monkeypatch.setattr(store_calendar, "OVER_SECONDS", 0.0)
    assert await shown() == set(keys)


async def test_a_full_hour_shows_a_few_also_when_channels_have_other_hours_at_that_time(world: DeskWorld) -> None:
    channels = [
        CHANNEL.model_copy(update={"timezone": "UTC"}),
        CHANNEL.model_copy(update={"name": "sea", "timezone": "Asia/Tokyo"}),
    ]
    world.world.catalogue.put_channels(channels)
    at = [datetime(2026, 12, 24, 10, minute, tzinfo=UTC) for minute in range(16)]
    briefs = [brief(n, publish_at=at[n], channel=channels[n % 2].name) for n in range(16)]
    Catalogue(world.world.engine).add(briefs, source="test")
    browser = await world.logged_in("vera", "viewer")
    week = (await browser.get("/calendar?from=2026-12-24")).text
    assert (week.count('class="e-time"'), week.count(">2 more</a>"), "16 videos" in week) == (12, 2, True)


# --- slots and bookings


def slotted(world: DeskWorld, **changes: object) -> None:
    slots = (PostingSlot(time="12:00"), PostingSlot(time="18:00"))
    world.world.catalogue.put_channels([CHANNEL.model_copy(update={"slots": slots, **changes})])


def book(world: DeskWorld, key: str, when: datetime | str) -> None:
    BookingChanges(world.world.engine).move(key, when, Actor("ann", "cli"))  # type: ignore[arg-type]


def state_of(world: DeskWorld, key: str, platform: str = "youtube") -> tuple[str, str]:
    [row] = world.world.rows(
        """SELECT b.state, b.kind FROM phantoms.bookings b JOIN phantoms.videos v ON v.id = b.video_id
        WHERE v.key = :key AND b.platform = :platform""",
        key=key,
        platform=platform,
    )
    return row["state"], row["kind"]


async def test_the_week_shows_booked_posts_and_free_slots(world: DeskWorld) -> None:
    slotted(world)
    [key] = world.world.add(1)
    book(world, key, "next")
    [row] = world.world.rows("SELECT at FROM phantoms.bookings")
    at = row["at"]
    browser = await world.logged_in("vera", "viewer")
    page = (await browser.get(f"/calendar?from={at:%Y-%m-%d}")).text
    cell = re.search(rf'data-slot="{at:%Y-%m-%dT%H}".*?</td>', page, re.DOTALL)
    assert cell
    assert "Ocean facts" in cell[0]
    assert '<span class="e-time">' in cell[0]
    after = (at + timedelta(days=7)).strftime("%Y-%m-%d")
    assert (await browser.get(f"/calendar?from={after}")).text.count('class="free-slot"') == 14
    assert "approved videos take the next free slot" in page
    for view in ("list", "month"):
        assert "Ocean facts" in (await browser.get(f"/calendar?from={at:%Y-%m-%d}&view={view}")).text


async def test_a_person_decides_about_a_missed_slot_at_the_desk(world: DeskWorld) -> None:
    slotted(world, missed="ask")
    [key] = world.world.add(1)
    book(world, key, "next")
    world.world.write("UPDATE phantoms.bookings SET state = 'missed', note = 'nothing ran', at = now() - interval '3 hours'")
    browser = await world.logged_in("rita")
    today = datetime.now(UTC) - timedelta(hours=3)
    assert "its slot was missed: nothing ran" in (await browser.get(f"/calendar?from={today:%Y-%m-%d}")).text
    form = (await browser.get(f"/calendar/{key}")).text
    assert "Its slot was missed: nothing ran" in form
    assert "Waits for your decision" in form
    assert "Goes out" not in form.split("<h2>Where</h2>")[0]
    answer = await decide(browser, key, "next")
    assert answer.status_code == 303, answer.text
    assert state_of(world, key) == ("booked", "slot")
    [row] = [one for one in world.desk.audit.page(subject=key) if one.action == "move post" and one.via == "desk"]
    assert row.who == "rita"


async def at_two_times(world: DeskWorld) -> tuple[str, datetime, datetime]:
    """Book a video on YouTube, and on TikTok a day later. Returns its key and the two times in UTC."""
    slotted(world)
    [key] = world.world.add(1, platforms=(Platform("youtube"), Platform("tiktok")))
    book(world, key, "next")
    world.world.write("UPDATE phantoms.bookings SET at = at + interval '24 hours' WHERE platform = 'tiktok'")
    [at, later] = [row["at"].astimezone(UTC) for row in world.world.rows("SELECT at FROM phantoms.bookings ORDER BY at")]
    return key, at, later


def entries(page: str) -> list[tuple[str, str]]:
    """The day and the platforms of each entry of a list."""
    found = []
    for section in re.findall(r"<section class=.*?</section>", page, re.DOTALL):
        [day] = re.findall(r"<h2>(.*?)(?: <span.*)?</h2>", section)
        found += [(day, name) for name in re.findall(r'<span class="hide">(.*?)</span>', section)]
    return found


async def test_a_video_is_in_the_calendar_at_each_time_at_which_its_posts_go_out(world: DeskWorld) -> None:
    key, at, later = await at_two_times(world)
    browser = await world.logged_in("rita")
    page = (await browser.get(f"/calendar?from={at:%Y-%m-%d}&view=list")).text
    assert entries(page) == [(f"{at:%A} {at.day} {at:%B}", "YouTube"), (f"{later:%A} {later.day} {later:%B}", "TikTok")]
    assert ">1 video ·" in page
    world.world.write("UPDATE phantoms.stages SET state = 'done' WHERE stage = 'youtube/post'")
    world.world.write(
        f"""INSERT INTO phantoms.posts (video_id, platform, account, state, marker, remote_id, url, video_sha256, caption_sha256,
            published_at)
        SELECT v.id, 'youtube', 'ocean_yt', 'confirmed', 'm', 'r', 'https://example.com', 'v', 'c',
            '{at.isoformat()}'::timestamptz + interval '5 minutes'
        FROM phantoms.videos v WHERE key = '{key}'"""
    )
    page = (await browser.get(f"/calendar?from={at:%Y-%m-%d}&view=list")).text
    assert entries(page) == [(f"{at:%A} {at.day} {at:%B}", "YouTube"), (f"{later:%A} {later.day} {later:%B}", "TikTok")]
    assert page.count("<span>posted</span>") == 1
    head = re.search(r'<p class="dim">(The first post went out .*?) · ', (await browser.get(f"/calendar/{key}")).text)
    assert head is not None
    assert re.findall(r"\d\d:\d\d UTC", head[1]) == [f"{moment:%H:%M} UTC" for moment in (at + timedelta(minutes=5), later)]
    world.world.write(
        "INSERT INTO phantoms.post_changes (post_id, at, state, evidence) SELECT id, now(), 'taken_down', '' FROM phantoms.posts"
    )
    page = (await browser.get(f"/calendar?from={at:%Y-%m-%d}&view=list")).text
    assert page.count("<span>posted; taken down (YouTube)</span>") == 1
    assert "taken down</span>" in (await browser.get(f"/calendar/{key}")).text


async def test_a_video_goes_out_when_the_next_post_does_that_waits_for_nobody(world: DeskWorld) -> None:
    key, at, later = await at_two_times(world)
    world.world.write("UPDATE phantoms.bookings SET state = 'repeat' WHERE platform = 'youtube'")
    video = world.desk.calendar.one(key)
    assert video is not None
    assert (video.planned_at, video.held) == (later, False)
    world.world.write("UPDATE phantoms.bookings SET state = 'repeat'")
    video = world.desk.calendar.one(key)
    assert video is not None
    assert (video.planned_at, video.held) == (at, True)


async def test_a_post_without_a_booking_keeps_the_time_of_the_brief_when_another_one_is_booked(world: DeskWorld) -> None:
    fixed, moved = datetime(YEAR, 7, 1, 12, tzinfo=UTC), datetime(YEAR, 7, 3, 15, tzinfo=UTC)
    [key] = world.world.add(1, platforms=(Platform("youtube"), Platform("tiktok")), publish_at=fixed)
    BookingChanges(world.world.engine).move(key, moved, Actor("ann", "cli"), platforms=[Platform("tiktok")])
    browser = await world.logged_in("rita")
    page = (await browser.get(f"/calendar?from={YEAR}-07-01&view=list")).text
    assert entries(page) == [(f"{fixed:%A} 1 July", "YouTube"), (f"{moved:%A} 3 July", "TikTok")]
    BookingChanges(world.world.engine).move(key, fixed - timedelta(hours=2), Actor("ann", "cli"), platforms=[Platform("tiktok")])
    page = (await browser.get(f"/calendar?from={YEAR}-07-01&view=list")).text
    assert entries(page) == [(f"{fixed:%A} 1 July", "TikTok"), (f"{fixed:%A} 1 July", "YouTube")]
    again = {"on": "youtube", "was": fixed.isoformat(), "at": f"{YEAR}-07-02T12:00"}
    assert (await browser.post(f"/calendar/{key}/move", again)).status_code == 303


async def test_moving_one_entry_of_a_video_leaves_its_other_posts(world: DeskWorld) -> None:
    key, at, later = await at_two_times(world)
    browser = await world.logged_in("rita")
    page = (await browser.get(f"/calendar?from={at:%Y-%m-%d}&view=list")).text
    assert page.count(f'href="/calendar/{key}?on=tiktok"') == 1
    form = (await browser.get(f"/calendar/{key}?on=tiktok")).text
    assert "<h2>Another time on TikTok</h2>" in form
    assert f'value="{later:%Y-%m-%dT%H:%M}"' in form
    moved = {"on": "tiktok", "was": later.isoformat(), "at": f"{YEAR}-07-01T18:30"}
    assert (await browser.post(f"/calendar/{key}/move", moved)).status_code == 303
    times = {
        row["platform"]: row["at"].astimezone(UTC)
        for row in world.world.rows("SELECT platform, at FROM phantoms.bookings ORDER BY platform")
    }
    assert times == {"tiktok": datetime(YEAR, 7, 1, 18, 30, tzinfo=UTC), "youtube": at}
    late = await browser.post(f"/calendar/{key}/move", {**moved, "at": f"{YEAR}-07-02T18:30"})
    assert late.status_code == 422
    assert "Somebody else moved" in late.text
    assert (await browser.get(f"/calendar/{key}?on=bluesky")).status_code == 422
    assert (await browser.post(f"/calendar/{key}/move", {**moved, "was": "yesterday"})).status_code == 422


async def test_a_reason_names_its_platforms_when_other_posts_of_the_video_do_not_wait(world: DeskWorld) -> None:
    slotted(world)
    [key] = world.world.add(1, platforms=(Platform("youtube"), Platform("tiktok")))
    book(world, key, "next")
    world.world.write("UPDATE phantoms.bookings SET state = 'cancelled', note = 'a typo' WHERE platform = 'tiktok'")
    video = world.desk.calendar.one(key)
    assert video is not None
    assert (video.person, video.left) == ("TikTok: it was taken out of the calendar: a typo", "")
    world.world.write("UPDATE phantoms.bookings SET state = 'cancelled', note = 'a typo'")
    both = world.desk.calendar.one(key)
    assert both is not None
    assert both.person == "it was taken out of the calendar: a typo"


async def test_a_repetition_is_allowed_at_the_desk_and_a_post_is_taken_out_and_put_back(world: DeskWorld) -> None:
    slotted(world)
    [key] = world.world.add(1)
    book(world, key, "next")
    world.world.write("UPDATE phantoms.bookings SET state = 'repeat', note = 'it has the same file as another'")
    browser = await world.logged_in("rita")
    assert "It may repeat an earlier post: it has the same file as another" in (await browser.get(f"/calendar/{key}")).text
    for answer, expected in (
        ("override", ("booked", "slot")),
        ("cancel", ("cancelled", "slot")),
        ("now", ("booked", "now")),
    ):
        sent = await decide(browser, key, answer)
        assert sent.status_code == 303, sent.text
        assert state_of(world, key) == expected
    assert (await browser.post(f"/calendar/{key}/post/youtube", {"answer": "dance"})).status_code == 422
    assert (await browser.post(f"/calendar/{key}/post/vine", {"answer": "now"})).status_code == 404
    assert (await browser.post(f"/calendar/{key}/post/tiktok", {"answer": "now"})).status_code == 422


@pytest.mark.parametrize("second", ["next", "now", "cancel"])
async def test_a_form_that_is_sent_twice_or_from_an_old_page_changes_nothing_more(world: DeskWorld, second: str) -> None:
    """A double click on *Next free slot* moved the post by two slots, and an old page posted what another person had moved."""
    slotted(world)
    [key] = world.world.add(1)
    book(world, key, "next")
    rita, rob = await world.logged_in("rita"), await world.logged_in("rob")
    was = await shown_booking(rob, key)
    assert (await decide(rita, key, "next")).status_code == 303
    after = world.world.rows("SELECT at, kind, state, sequence FROM phantoms.bookings")
    late = await decide(rob, key, second, was)
    assert (late.status_code, late.headers["location"]) == (303, f"/calendar/{key}")
    assert "was changed after this page was loaded" in (await rob.get(f"/calendar/{key}")).text
    assert world.world.rows("SELECT at, kind, state, sequence FROM phantoms.bookings") == after
    assert len([one for one in world.desk.audit.page(subject=key) if one.via == "desk"]) == 1
    assert (await decide(rob, key, second)).status_code == 303
    assert world.world.rows("SELECT at, kind, state, sequence FROM phantoms.bookings") != after


async def test_a_post_that_has_no_booking_yet_is_decided_about_once(world: DeskWorld) -> None:
    slotted(world)
    [key] = world.world.add(1)
    browser = await world.logged_in("rita")
    was = await shown_booking(browser, key)
    assert was == ""
    assert (await decide(browser, key, "next", was)).status_code == 303
    [first] = world.world.rows("SELECT at FROM phantoms.bookings")
    assert (await decide(browser, key, "next", was)).status_code == 303
    assert world.world.rows("SELECT at FROM phantoms.bookings") == [first]


async def test_a_time_from_the_form_replaces_the_bookings(world: DeskWorld) -> None:
    slotted(world)
    [key] = world.world.add(1)
    book(world, key, "next")
    browser = await world.logged_in("rita")
    assert (await send(browser, key, at=f"{YEAR}-07-01T18:30")).status_code == 303
    assert publish_at(world, key) == datetime(YEAR, 7, 1, 18, 30, tzinfo=UTC)
    assert world.world.rows("SELECT * FROM phantoms.bookings") == []


async def test_the_review_page_says_that_a_post_takes_the_next_free_slot_and_then_which_one(world: DeskWorld) -> None:
    [key] = await world.waiting()
    slotted(world)
    browser = await world.logged_in("rita")
    assert "in the next free slot" in (await browser.get(f"/review/{key}")).text
    book(world, key, "next")
    page = (await browser.get(f"/review/{key}")).text
    assert "in the next free slot" not in page
    [row] = world.world.rows("SELECT at FROM phantoms.bookings ORDER BY platform LIMIT 1")
    assert f'datetime="{row["at"].isoformat()}"' in page
