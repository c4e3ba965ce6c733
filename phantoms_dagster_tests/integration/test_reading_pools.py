"""Reading results never makes publishing wait: pools and breakers of its own, and a share of YouTube's units that ends early."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope, PoolFull, RedisLimits, redis_limits
from phantoms_dagster.resilience.pools import DEFAULT_POOLS, PACIFIC, DailyQuota, PoolLimits, Pools
from phantoms_dagster.resilience.scopes import scope_of
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.watching import watching

OpenLimits = Callable[..., AbstractAsyncContextManager[RedisLimits]]
READS = {
    "youtube": ("GET", "https://www.googleapis.com/youtube/v3/videos:batchGetStats"),
    "tiktok": ("POST", "https://open.tiktokapis.com/v2/video/query/"),
    "instagram": ("GET", "https://graph.facebook.com/v26.0/17/insights"),
}
WRITES = {
    "youtube": [
        ("POST", "https://www.googleapis.com/upload/youtube/v3/videos"),
        ("GET", "https://www.googleapis.com/youtube/v3/videos"),
        ("PUT", "https://www.googleapis.com/youtube/v3/videos"),
    ],
    "tiktok": [
        ("POST", "https://open.tiktokapis.com/v2/post/publish/creator_info/query/"),
        ("POST", "https://open.tiktokapis.com/v2/post/publish/video/init/"),
        ("POST", "https://open.tiktokapis.com/v2/post/publish/status/fetch/"),
    ],
    "instagram": [
        ("POST", "https://graph.facebook.com/v26.0/17/media"),
        ("GET", "https://graph.facebook.com/v26.0/17"),
        ("POST", "https://graph.facebook.com/v26.0/17/media_publish"),
    ],
}


@pytest.fixture
def limits(redis_url: str) -> OpenLimits:
    def opened(**pools: PoolLimits) -> AbstractAsyncContextManager[RedisLimits]:
        return redis_limits(redis_url, clock=SystemClock(), pools=pools)

    return opened


def scope(integration: str, request: tuple[str, str]) -> CallScope:
    found = scope_of(integration)(httpx.Request(*request))
    return CallScope(found.integration, "main", found.pool, cost=found.cost)


async def call(limits: RedisLimits, scope: CallScope, outcome: CallOutcome = CallOutcome.ANSWERED) -> None:
    """One call that is admitted at once, or Refused. It never waits."""
    await limits.settle(await limits.admit(scope, max_wait=0, hold_seconds=5), outcome)


@pytest.mark.parametrize("integration", sorted(READS))
async def test_publishing_is_admitted_at_once_while_reading_has_used_all_that_it_may(limits: OpenLimits, integration: str) -> None:
    reading = scope(integration, READS[integration])
    few = PoolLimits(rates=((3, 3_600, 3),))
    async with limits(**{reading.pool: few}) as opened:
        for _ in range(3):
            await call(opened, reading)
        with pytest.raises(PoolFull):
            await call(opened, reading)
        for request in WRITES[integration]:
            await call(opened, scope(integration, request))


@pytest.mark.parametrize("integration", sorted(READS))
async def test_reads_that_fail_open_no_breaker_of_publishing(limits: OpenLimits, integration: str) -> None:
    async with limits() as opened:
        for _ in range(12):
            try:
                await call(opened, scope(integration, READS[integration]), CallOutcome.FAILED)
            except Exception:  # noqa: BLE001 - its own breaker is open, which is what this is about
                break
        else:
            pytest.fail("no breaker opened")
        for request in WRITES[integration]:
            await call(opened, scope(integration, request))


def test_no_pool_of_reading_is_one_of_publishing() -> None:
    for integration, read in READS.items():
        reading = set(Pools().of(scope(integration, read).pool, "main"))
        for request in WRITES[integration]:
            assert not reading & set(Pools().of(scope(integration, request).pool, "main"))


def test_instagrams_two_hundred_calls_an_hour_are_shared_out() -> None:
    hourly = [DEFAULT_POOLS[name].rates[0][0] for name in ("instagram_api:*", "metrics_instagram:*")]
    assert sum(hourly) == 200


async def test_numbers_read_out_of_youtubes_units_leave_those_that_publishing_needs(limits: OpenLimits) -> None:
    units = PoolLimits(daily=DailyQuota(100, PACIFIC))
    reading = PoolLimits(daily=DailyQuota(100, PACIFIC), shares="youtube_api", leaves=60)
    flip = scope("youtube", ("PUT", "https://www.googleapis.com/youtube/v3/videos"))
    read = CallScope("youtube_metrics", "main", "youtube_reading")
    async with limits(youtube_api=units, youtube_reading=reading) as opened:
        for _ in range(40):
            await call(opened, read)
        with pytest.raises(PoolFull, match="youtube_api: the daily quota is used up"):
            await call(opened, read)
        await call(opened, flip)
        for _ in range(10):
            await call(opened, CallScope("youtube", "main", "youtube_api"))
        with pytest.raises(PoolFull):
            await call(opened, CallScope("youtube", "main", "youtube_api"))


def test_youtubes_buckets_are_those_of_its_price_list() -> None:
    buckets = {name: DEFAULT_POOLS[name].daily for name in ("publish_youtube", "youtube_search", "youtube_api", "metrics_youtube")}
    assert {name: (daily.units, daily.zone) for name, daily in buckets.items() if daily} == {
        "publish_youtube": (100, "America/Los_Angeles"),
        "youtube_search": (100, "America/Los_Angeles"),
        "youtube_api": (10_000, "America/Los_Angeles"),
        "metrics_youtube": (10_000, "America/Los_Angeles"),
    }


async def test_the_units_that_are_left_today_are_shown(limits: OpenLimits, redis_url: str, tmp_path: Path) -> None:
    async with limits() as opened:
        await call(opened, scope("youtube", ("PUT", "https://www.googleapis.com/youtube/v3/videos")))
        await call(opened, scope("youtube", READS["youtube"]))
        await call(opened, CallScope("youtube_metrics", "main", "youtube_reading"))
    async with watching(Settings(paths={"home": tmp_path}, redis={"url": redis_url})) as watcher:
        left = {view.pool: view.quota_left for view in await watcher.pools() if view.quota is not None}
    assert left == {
        "publish_youtube": 100,
        "youtube_search": 100,
        "youtube_api": 10_000 - 51,
        "metrics_youtube": 9_999,
        "youtube_reading": 999,
        "youtube_extras": 8_000,
    }


async def test_captions_leave_the_units_that_publishing_needs(limits: OpenLimits) -> None:
    """A caption track costs as much as eight changes of privacy. Without the rest for posts, twenty videos would have none."""
    units = PoolLimits(daily=DailyQuota(1_000, PACIFIC))
    extras = PoolLimits(daily=DailyQuota(8_000, PACIFIC), shares="youtube_api", leaves=150)
    track = scope("youtube", ("POST", "https://www.googleapis.com/upload/youtube/v3/captions"))
    picture = scope("youtube", ("POST", "https://www.googleapis.com/upload/youtube/v3/thumbnails/set"))
    tracks = scope("youtube", ("GET", "https://www.googleapis.com/youtube/v3/captions"))
    flip = scope("youtube", ("PUT", "https://www.googleapis.com/youtube/v3/videos"))
    assert {each.pool for each in (track, picture, tracks)} == {"youtube_extras"}
    assert {each.integration for each in (track, picture, tracks)} == {"youtube_extras"}  # their outage stops no post
    async with limits(youtube_api=units, youtube_extras=extras) as opened:
        await call(opened, track)
        await call(opened, track)
        await call(opened, picture)
        for refused in (track, picture, tracks):
            with pytest.raises(PoolFull, match="youtube_api: the daily quota is used up"):
                await call(opened, refused)
        for _ in range(3):
            await call(opened, flip)
        with pytest.raises(PoolFull):
            await call(opened, flip)


def test_the_defaults_keep_the_last_units_of_youtubes_day_for_publishing() -> None:
    for name in ("youtube_reading", "youtube_extras"):
        limits = Pools().limits(name)
        assert (limits.shares, limits.leaves) == ("youtube_api", 2_000)
