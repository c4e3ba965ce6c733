"""`phantoms metrics` over HTTP, its answer read by Prometheus' own parser."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import httpx
import pytest
from aiohttp.test_utils import TestClient, TestServer
from aiohttp.web import Application, Request
from prometheus_client import openmetrics
from prometheus_client.openmetrics import parser as _  # noqa: F401  makes openmetrics.parser
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import make_url, text

from phantoms_dagster.cli.metrics import metrics_application
from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.stages import StageState, stage
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.limits import limits_of
from phantoms_dagster_tests.integration.stage_world import SENSOR, World, finished, open_world

Samples = dict[tuple[str, ...], float]
Client = TestClient[Request, Application]
NOBODY = "127.0.0.1:1"


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@asynccontextmanager
async def serving(settings: Settings, **options: float) -> AsyncIterator[Client]:
    async with TestClient(TestServer(metrics_application(settings, **options))) as client:
        yield client


async def scrape(client: Client) -> Samples:
    """Every sample by its name and the values of its labels, in the order of the labels' names."""
    async with client.get("/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=")
        families = text_string_to_metric_families(await response.text())
        return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def settings(database_url: str, redis_url: str) -> Settings:
    return Settings(database={"url": database_url}, redis={"url": redis_url})


async def end(world: World, key: str, outcome: AttemptOutcome) -> None:
    store = world.store()
    claims = await store.claim(stage("script"), [key], owner=f"o-{key}", context=SENSOR)
    assert await store.finish(claims.claimed[0], outcome)


async def test_a_scrape_tells_what_the_tables_and_the_limits_say_at_that_time(
    world: World, database_url: str, redis_url: str
) -> None:
    good, bad, _waiting = world.add(3)
    given = settings(database_url, redis_url)
    async with serving(given) as client:
        before = await scrape(client)
        await end(world, good, finished("script", Decimal("0.25")))
        await end(world, bad, AttemptOutcome(StageState.FAILED, provider="openai", error_class="permanent", message="no"))
        async with limits_of(given, SystemClock()) as limits:
            permit = await limits.admit(CallScope("youtube", account="main", pool="publish_youtube"), max_wait=5, hold_seconds=60)
            await limits.breakers.trip("tiktok", seconds=600, why="test")
            found = await scrape(client)
            await limits.settle(permit, CallOutcome.ANSWERED)
        after = await scrape(client)
    assert before["phantoms_up", "postgresql"] == before["phantoms_up", "redis"] == 1
    assert before["phantoms_stage_videos", "script", "ready"] == 3
    assert before["phantoms_stage_oldest_seconds", "script"] > 0
    expected: Samples = {
        ("phantoms_stage_videos", "script", "ready"): 1,
        ("phantoms_stage_videos", "script", "failed"): 1,
        ("phantoms_stage_videos", "voiceover", "ready"): 1,
        ("phantoms_attempts_total", "done", "", "script"): 1,
        ("phantoms_attempts_total", "permanent", "openai", "script"): 1,
        ("phantoms_dead_letters", "permanent", "script"): 1,
        ("phantoms_cost_usd_total",): 0.25,
        ("phantoms_pool_slots_in_use", "publish_youtube"): 1,
        ("phantoms_pool_slots_limit", "publish_youtube:main"): 2,
        ("phantoms_pool_slots_waiting", "publish_youtube"): 0,
        ("phantoms_pool_factor", "publish_youtube"): 1,
        ("phantoms_quota_left", "publish_youtube"): 99,
        ("phantoms_breaker_state", "tiktok"): 2,
    }
    assert {name: found.get(name) for name in expected} == expected
    assert after["phantoms_pool_slots_in_use", "publish_youtube"] == 0
    assert not [name for name in found if name[-1].endswith(":*")]


async def test_posts_and_the_wait_since_the_approval_are_a_cumulative_histogram(
    world: World, database_url: str, redis_url: str
) -> None:
    for n, key in enumerate(world.add(2)):
        world.write(
            "WITH v AS (SELECT id FROM phantoms.videos WHERE key = :key), p AS (INSERT INTO phantoms.posts"
            " (video_id, platform, account, marker, video_sha256, caption_sha256, state, published_at)"
            " SELECT id, 'tiktok', 'a', :key, 'x', 'x', 'published', clock_timestamp() FROM v)"
            " INSERT INTO phantoms.approvals (video_id, approved, reviewer, content_sha256, via, decided_at)"
            " SELECT id, true, 'ann', 'x', 'cli', clock_timestamp() - make_interval(secs => :ago) FROM v",
            key=key,
            ago=(20, 900_000)[n],
        )
    async with serving(settings(database_url, redis_url)) as client:
        found = await scrape(client)
    name = "phantoms_approval_to_post_seconds"
    assert found["phantoms_posts_total", "tiktok"] == 2
    buckets = [found[f"{name}_bucket", bound] for bound in ("10.0", "30.0", "604800.0", "+Inf")]
    assert (buckets, found[f"{name}_count",]) == ([0, 1, 1, 2], 2)
    assert found[f"{name}_sum",] == pytest.approx(900_020, abs=5)


async def test_a_store_that_is_down_is_said_and_the_others_metrics_are_served(
    world: World, database_url: str, redis_url: str
) -> None:
    world.add(1)
    nowhere = make_url(database_url).set(host="127.0.0.1", port=1).render_as_string(hide_password=False)
    async with serving(settings(database_url, f"redis://{NOBODY}/0")) as client:
        found = await scrape(client)
    assert (found["phantoms_up", "postgresql"], found["phantoms_up", "redis"]) == (1, 0)
    assert found["phantoms_stage_videos", "script", "ready"] == 1
    assert not [name for name in found if name[0].startswith("phantoms_pool")]
    async with serving(settings(nowhere, redis_url)) as client:
        found = await scrape(client)
    assert (found["phantoms_up", "postgresql"], found["phantoms_up", "redis"]) == (0, 1)
    assert ("phantoms_pool_slots_in_use", "script") in found
    assert not [name for name in found if name[0].startswith("phantoms_stage")]


async def test_a_database_that_is_not_prepared_is_down_until_it_is(
    world: World, database_url: str, redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(settings(database_url, redis_url)) as client:
        world.write("ALTER SCHEMA phantoms RENAME TO gone")
        assert [(await scrape(client))["phantoms_up", "postgresql"] for _ in range(2)] == [0, 0]
        world.write("ALTER SCHEMA gone RENAME TO phantoms")
        assert (await scrape(client))["phantoms_up", "postgresql"] == 1
    said = [r.getMessage() for r in caplog.records if r.name.endswith("cli.metrics")]
    assert said == [
        "postgresql: the database is not set up yet; `phantoms up` or `phantoms init` does it",
        "postgresql: answers again",
    ]


async def test_a_store_that_hangs_does_not_hold_up_the_scrape_and_is_back_when_it_answers(
    world: World, database_url: str, redis_url: str
) -> None:
    async with serving(settings(database_url, redis_url), max_wait_seconds=0.2) as client:
        with world.engine.begin() as connection:
            connection.execute(text("LOCK TABLE phantoms.stages"))
            first = await scrape(client)
            second = await scrape(client)
        assert (first["phantoms_up", "postgresql"], second["phantoms_up", "postgresql"]) == (0, 0)
        assert second["phantoms_up", "redis"] == 1
        waits = world.rows("SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database() AND state = 'active'")
        assert waits[0]["n"] <= 2  # ours and at most one reading
        for _ in range(100):
            if (await scrape(client))["phantoms_up", "postgresql"]:
                break
        else:
            pytest.fail("it never came back")


async def test_scrapes_that_come_at_once_share_a_reading(world: World, database_url: str, redis_url: str) -> None:
    world.add(1)
    async with serving(settings(database_url, redis_url)) as client:
        found = await asyncio.gather(*(scrape(client) for _ in range(10)))
    assert all(samples["phantoms_stage_videos", "script", "ready"] == 1 for samples in found)


async def test_a_scraper_that_prefers_openmetrics_gets_it(world: World, database_url: str, redis_url: str) -> None:
    headers = {"Accept": "application/openmetrics-text; version=1.0.0"}
    async with serving(settings(database_url, redis_url)) as client, client.get("/metrics", headers=headers) as response:
        assert response.headers["Content-Type"].startswith("application/openmetrics-text")
        families = {f.name: f for f in openmetrics.parser.text_string_to_metric_families(await response.text())}
    assert families["phantoms_cost_usd"].type == "counter"
    assert families["phantoms_approval_to_post_seconds"].type == "histogram"
    assert all(family.documentation for family in families.values())


@pytest.mark.parametrize("missing", ["database_url", "redis_url"])
def test_without_a_store_the_message_says_how_to_get_one(database_url: str, redis_url: str, missing: str) -> None:
    given = {"database_url": database_url, "redis_url": redis_url} | {missing: None}
    with pytest.raises(InvalidInput, match="start `phantoms up`"):
        metrics_application(Settings(**grouped(given)))


def test_the_program_serves_until_it_is_stopped_and_says_when_its_port_is_taken(
    database_url: str, redis_url: str, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PHANTOMS_")} | {"PYTHONUNBUFFERED": "1"}
    environment |= {"PHANTOMS_HOME": str(tmp_path), "PHANTOMS_DATABASE_URL": database_url, "PHANTOMS_REDIS_URL": redis_url}
    command = [sys.executable, "-W", "ignore", "-m", "phantoms_dagster.cli.main", "metrics", "--port"]
    with subprocess.Popen([*command, "0"], env=environment, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[3].rstrip(";")
            assert 'phantoms_up{store="redis"} 1.0' in httpx.get(url, trust_env=False).text
            port = url.rsplit(":", 1)[1].split("/")[0]
            again = subprocess.run([*command, port], env=environment, capture_output=True, text=True, timeout=60, check=False)
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 0
        finally:
            server.kill()
    assert again.returncode == 2
    assert f"error: cannot listen on 127.0.0.1 port {port} (Address already in use); choose another with --port" in again.stderr
