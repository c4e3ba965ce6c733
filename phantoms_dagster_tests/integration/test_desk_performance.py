"""The page Performance: what the performance tables say, by platform and day, hour, hook and video."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from phantoms_dagster.desk.pages.performance import PERIODS
from phantoms_dagster.store.performance import sums as performance_sums
from phantoms_dagster.store.performance.sums import renew_sums
from phantoms_dagster.store.results import board as results_board
from phantoms_dagster.store.results.board import ResultsBoard
from phantoms_dagster_tests.integration.desk_world import TESTER, DeskWorld, open_desk
from phantoms_dagster_tests.integration.test_statement_plans import plan, reads

TODAY = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)
_VIDEO = """
    INSERT INTO phantoms.video_performance (video_key, title, channel, hook, first_published_at, posts, views, likes, comments,
        shares, engagement_rate, cost, computed_at)
    VALUES (:key, :title, :channel, :hook, :at, 2, :views, :likes, 2, 1, :rate, 0.5, now())
"""
_DAY = """
    INSERT INTO phantoms.platform_performance (day, platform, channel, posts, views, likes, comments, shares, cost, computed_at)
    VALUES (:day, :platform, :channel, :posts, :views, 5, 2, 1, 0.5, now())
"""


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


def video(world: DeskWorld, key: str, views: int, **given: Any) -> None:
    """A row of the table of videos."""
    values = {"title": f"About {key}", "channel": "facts", "hook": "Did you know?", "at": TODAY - timedelta(days=3)}
    likes = 7
    rate = (likes + 3) / views if views else None
    world.world.write(_VIDEO, **{**values, "likes": likes, "key": key, "views": views, "rate": rate, **given})


def day(world: DeskWorld, ago: int, platform: str, views: int, channel: str = "facts", posts: int = 1) -> None:
    """A row of the table of platforms."""
    at = (TODAY - timedelta(days=ago)).date()
    world.world.write(_DAY, day=at, platform=platform, channel=channel, posts=posts, views=views)


def channel(world: DeskWorld, name: str, zone: str) -> None:
    """A channel with a time zone."""
    world.world.write(
        "INSERT INTO phantoms.channels (name, config) VALUES (:name, jsonb_build_object('timezone', CAST(:zone AS text)))",
        name=name,
        zone=zone,
    )


async def test_without_results_the_page_says_when_they_come(world: DeskWorld) -> None:
    browser = await world.logged_in("kim", "viewer")
    answer = await browser.get("/performance")
    assert answer.status_code == 200
    assert "No results yet" in answer.text
    assert 'href="/calendar"' in answer.text


async def test_the_page_sums_up_the_period_and_leads_to_each_video(world: DeskWorld) -> None:
    world.world.add(1)
    video(world, "cats", 1_000)
    video(world, "bakery", 3_000, hook="Nobody saw this")
    video(world, "old", 50_000, at=TODAY - timedelta(days=200))
    day(world, 3, "youtube", 1_500)
    day(world, 3, "tiktok", 2_500, posts=3)
    browser = await world.logged_in("kim", "viewer")
    page = (await browser.get("/performance")).text
    assert "<dd>4,000</dd>" in page
    assert page.index('href="/videos/bakery"') < page.index('href="/videos/cats"')
    assert 'href="/videos/old"' not in page
    assert "4,000 views of the posts published in this period" in page  # said to who cannot see the plot
    assert '<th scope="row">TikTok</th><td>3</td><td>2,500</td><td>833</td>' in page
    year = (await browser.get("/performance?days=365")).text
    assert year.index('href="/videos/old"') < year.index('href="/videos/bakery"')
    hook = (await browser.get("/performance", params={"hook": "Nobody saw this"})).text
    assert 'href="/videos/cats"' not in hook
    assert 'href="/videos/bakery"' in hook
    for wrong in ("days=12", "sort=mood", "channel=nowhere"):
        assert (await browser.get(f"/performance?{wrong}")).status_code == 422


async def test_the_api_has_the_same_numbers(world: DeskWorld) -> None:
    video(world, "bees", 900)
    video(world, "eels", 4000)
    day(world, 1, "tiktok", 4900)
    world.desk.users.add_token("robot", "viewer", "phantoms_robot", actor=TESTER)
    client = world.browser().client
    client.headers["Authorization"] = "Bearer phantoms_robot"
    found = (await client.get("/api/v1/performance", params={"days": 7, "limit": 1})).json()
    assert [(one["video_key"], one["views"]) for one in found["videos"]] == [("eels", 4000)]
    assert [(one["platform"], one["views"]) for one in found["platforms"]] == [("tiktok", 4900)]
    assert sum(one["views"] for one in found["hours"]) == 4900
    second = (await client.get("/api/v1/performance", params={"days": 7, "limit": 1, "page": 2})).json()
    assert [one["video_key"] for one in second["videos"]] == ["bees"]
    assert (await client.get("/api/v1/performance", params={"channel": "nobody"})).status_code == 422


async def test_videos_can_be_ordered_and_paged_and_one_channel_shown(world: DeskWorld) -> None:
    world.world.add(1)
    channel(world, "curious", "UTC")
    for n in range(25):
        video(world, f"video-{n:02}", 1_000 - n, likes=n, channel="curious" if n % 2 else "facts")
    browser = await world.logged_in("kim", "viewer")
    first = (await browser.get("/performance?sort=likes")).text
    assert first.index("/videos/video-24") < first.index("/videos/video-23")
    assert "/videos/video-04" not in first
    rest = (await browser.get("/performance?sort=likes&page=2")).text
    assert "/videos/video-04" in rest
    assert "/videos/video-24" not in rest
    only = (await browser.get("/performance?channel=curious")).text
    assert "/videos/video-01" in only
    assert "/videos/video-02" not in only
    none = (await browser.get("/performance?channel=curious&days=7&hook=Never")).text
    assert "No video of this period opens with that hook" in none


async def test_posting_hours_are_those_of_the_channels_clocks(world: DeskWorld) -> None:
    channel(world, "tokyo", "Asia/Tokyo")
    channel(world, "plain", "UTC")
    at = TODAY.replace(hour=9) - timedelta(days=1)
    video(world, "one", 100, channel="tokyo", at=at)
    video(world, "two", 300, channel="tokyo", at=at)
    video(world, "three", 50, channel="plain", at=at)
    results = ResultsBoard(world.desk.services.engine)
    hours = results.hours(TODAY - timedelta(days=7))
    assert [(one.hour, one.videos, one.views) for one in hours] == [(9, 1, 50), (18, 2, 400)]
    browser = await world.logged_in("kim", "viewer")
    assert "the best hour is 18:00 with 200 views (2 videos)" in (await browser.get("/performance")).text


async def test_sums_are_those_of_the_tables_as_they_were_made_last(world: DeskWorld) -> None:
    world.world.add(1)
    video(world, "cats", 1_000)
    day(world, 3, "youtube", 1_000)
    browser = await world.logged_in("kim", "viewer")
    for _ in range(2):
        assert "<dd>1,000</dd>" in (await browser.get("/performance")).text
    world.world.write("UPDATE phantoms.video_performance SET views = 2000, computed_at = now() + interval '1 hour'")
    assert "<dd>2,000</dd>" in (await browser.get("/performance")).text
    world.world.write("UPDATE phantoms.platform_performance SET views = 7000, computed_at = now() + interval '1 hour'")
    assert "7,000 views of the posts" in (await browser.get("/performance")).text


async def test_a_long_period_has_a_column_for_four_weeks_and_loses_no_view(world: DeskWorld) -> None:
    world.world.add(1)
    video(world, "cats", 1_000)
    for ago in (0, 5, 100, 364):
        day(world, ago, "youtube", 10 + ago)
    browser = await world.logged_in("kim", "viewer")
    page = (await browser.get("/performance?days=365")).text
    assert "509 views of the posts published in this period; a column is four weeks" in page
    assert "28 days from (UTC)" in page


@pytest.mark.parametrize("of_channel", [False, True])
async def test_a_period_is_found_by_an_index_among_a_hundred_thousand_videos(world: DeskWorld, of_channel: bool) -> None:
    world.world.write(
        """INSERT INTO phantoms.video_performance (video_key, title, channel, hook, first_published_at, posts, views, likes,
            comments, shares, engagement_rate, cost, computed_at)
        SELECT 'v' || n, 't', CASE WHEN n % 20 = 0 THEN 'facts' ELSE 'other' END, 'hook ' || n % 500,
            now() - n * interval '10 minutes', 3, n, n, n, n, 0.1, 0.4, now() FROM generate_series(1, 100000) n"""
    )
    world.world.write(
        """INSERT INTO phantoms.platform_performance (day, platform, channel, posts, views, likes, comments, shares, computed_at)
        SELECT current_date - d, p, 'c' || c, 1, 1, 1, 1, 1, now()
        FROM generate_series(0, 1500) d, unnest(ARRAY['youtube', 'tiktok', 'instagram']) p, generate_series(1, 5) c"""
    )
    with world.world.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    since = datetime.now(UTC) - timedelta(days=27)
    values = {"since": since, "day": since.date(), "channel": "facts", "hook": "hook 7", "limit": 21, "offset": 0}
    statements = [
        results_board.hours_statement(channel=of_channel),
        results_board.platforms_statement(channel=of_channel),
        results_board.hooks_statement(channel=of_channel),
        *(results_board.videos_statement(channel=of_channel, hook=hook, sort="likes") for hook in (False, True)),
    ]
    for statement in statements:
        used = {name: value for name, value in values.items() if f":{name}" in statement}
        found = set(reads(await plan(world.world, text(statement), used)))
        tables = {"video_performance", "platform_performance"}
        assert not {place for place, kind in found if kind == "Seq Scan" and place in tables}, (statement, found)


async def test_the_sums_that_are_made_with_the_table_are_those_of_its_rows(world: DeskWorld) -> None:
    world.world.add(1)
    channel(world, "curious", "Asia/Tokyo")
    for n in range(60):
        at = TODAY - timedelta(days=n * 7, hours=n)
        video(world, f"video-{n}", 100 + n, channel="curious" if n % 2 else "facts", hook=f"Hook {n % 20}", at=at)
    results = ResultsBoard(world.desk.services.engine)
    with world.desk.services.engine.begin() as connection:
        connection.execute(text("UPDATE phantoms.video_performance SET computed_at = transaction_timestamp()"))
        renew_sums(connection)
    made_at, _ = results.made_at()
    midnight = TODAY.replace(hour=0)
    assert {int(days) for days in PERIODS} == set(performance_sums.PERIODS)
    for days in performance_sums.PERIODS:
        since = midnight - timedelta(days=days - 1)
        for name in ("", "curious", "facts"):
            summed = results.hours(since, channel=name), results.hooks(since, channel=name)
            assert results.sums(days, since, made_at, channel=name) == (summed if summed[0] else None), (days, name)
    assert results.sums(28, midnight - timedelta(days=28), made_at) is None, "those of other days are not taken"
    browser = await world.logged_in("kim", "viewer")
    assert (await browser.get("/performance?days=365")).status_code == 200
