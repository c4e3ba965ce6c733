"""What the pages Providers and Calendar read is found through an index, however large the tables are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text

from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store import booked_posts, bookings, calendar, near_duplicates, provider_traffic
from phantoms_dagster_tests.integration.stage_world import NOON, World, open_world
from phantoms_dagster_tests.integration.test_statement_plans import plan, reads

SLOTS = {"low": NOON - timedelta(days=8), "high": NOON + timedelta(days=4), "channel": "", "most": calendar.MOST_SLOTS}
NOW = datetime.now(UTC)
LIST = {"low": NOW - timedelta(days=1), "high": NOW + timedelta(days=7), "channel": "", "most": 100}
OTHERS = {
    "platform": "youtube",
    "account": "a",
    "sandbox": False,
    "low": NOW - timedelta(days=7),
    "high": NOW + timedelta(days=7),
    "since": NOW - timedelta(days=7),
    "without": [7],
    "most": 100,
}
STATEMENTS: dict[str, tuple[Any, dict[str, Any]]] = {
    "the last hour of all providers": (provider_traffic._HOUR, {}),
    "how many wait": (provider_traffic._COUNTS, {"stages": list(STAGES)}),
    "who waits": (provider_traffic._WAITING, {"stages": ["script", "youtube/post"], "most": 20}),
    "the plan": (
        calendar._BETWEEN,
        {"low": NOON - timedelta(days=4), "high": NOON + timedelta(days=4), "channel": "", "most": calendar.MOST},
    ),
    "where planned videos are": (calendar._PLANNED, SLOTS),
    "where booked videos are": (calendar._BOOKED, SLOTS),
    "where posted videos are": (calendar._POSTED, SLOTS),
    "one video of the plan": (calendar._ONE, {"key": "v7"}),
    "the list of bookings": (booked_posts._BOOKED, LIST),
    "the list of fixed times": (booked_posts._FIXED, LIST),
    "what is planned on a platform": (bookings._PLANNED, {"platform": "youtube", "low": NOW - timedelta(days=2)}),
    "the posts of some videos": (bookings._BOOKABLE, {"ids": [7, 8], "begun": False}),
    "what a post may repeat": (near_duplicates._OTHERS, OTHERS),
}


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """Twenty thousand videos of some years."""
    async with open_world(database_url) as opened:
        opened.write(
            """WITH v AS (
                INSERT INTO phantoms.videos (key, channel, title, brief, platforms, source, fingerprint, publish_at)
                SELECT 'v' || n, 'facts', 't', '{}', '{youtube}', 'test', 'f' || n, now() - make_interval(hours => n)
                FROM generate_series(1, 20000) AS n RETURNING id),
            s AS (
                INSERT INTO phantoms.stages (video_id, stage, state)
                SELECT id, stage, 'done' FROM v CROSS JOIN unnest(ARRAY['script', 'youtube/post']) AS stage),
            a AS (
                INSERT INTO phantoms.approvals (video_id, approved, reviewer, content_sha256, via, decided_at)
                SELECT id, true, 'ann', '', 'cli', now() - make_interval(hours => id::int) FROM v),
            b AS (
                INSERT INTO phantoms.bookings (video_id, platform, account, at, kind, state)
                SELECT id, 'youtube', 'a', now() - make_interval(hours => id::int), 'slot', 'booked' FROM v WHERE id % 2 = 0),
            p AS (
                INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256, published_at)
                SELECT id, 'youtube', 'a', 'confirmed', 'm' || id, '', '', now() - make_interval(hours => id::int) FROM v)
            INSERT INTO phantoms.attempts (video_id, stage, revision, generation, state, provider, finished_at)
            SELECT id, 'script', 1, 1, 'done', 'openai', now() - make_interval(hours => id::int) FROM v"""
        )
        with opened.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
        yield opened


@pytest.mark.parametrize("name", STATEMENTS)
async def test_a_page_reads_no_table_from_end_to_end(world: World, name: str) -> None:
    found = set(reads(await plan(world, *STATEMENTS[name])))
    tables = {"videos", "stages", "attempts", "posts", "approvals", "bookings", "dead_letters"}
    assert not {place for place, kind in found if kind == "Seq Scan" and place in tables}, found
