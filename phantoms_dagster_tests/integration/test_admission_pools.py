"""Admission on a real Valkey: what one process sees."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from redis.asyncio import Redis

from phantoms_dagster.resilience.admission.pools import Admission, Granted, Lease, Request, Wait
from phantoms_dagster.resilience.admission.scripts import CLOSEST_SHARE, SHORT_SLACK_SHARE
from phantoms_dagster.resilience.pools import DEFAULT_POOLS, PACIFIC, DailyQuota, PoolLimits, Pools
from phantoms_dagster.resilience.redis.scripts import LuaScript, Scripts, redis_client

MakeAdmission = Callable[..., Admission]
SECOND = 1_000_000


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with redis_client(redis_url) as client:
        yield client


@pytest.fixture
async def scripts(redis: Redis) -> AsyncIterator[Scripts]:
    scripts = Scripts(redis)
    yield scripts
    await scripts.aclose()


@pytest.fixture
async def admission(scripts: Scripts) -> AsyncIterator[MakeAdmission]:
    """Makes an Admission for the pools given by keyword; `app__account="*"` is written `app_all`."""
    made: list[Admission] = []

    def make(pools: dict[str, PoolLimits]) -> Admission:
        made.append(Admission(scripts, Pools(pools, defaults={})))
        return made[-1]

    yield make
    for one in made:
        await one.aclose()


async def grant(admission: Admission, *pools: str, **more: Any) -> Lease:
    answer = await admission.acquire(Request(pools, **more), max_wait=60)
    assert isinstance(answer, Granted), answer
    return answer.lease


async def refuse(admission: Admission, *pools: str, max_wait: float = 60, **more: Any) -> Wait:
    answer = await admission.acquire(Request(pools, **more), max_wait=max_wait)
    assert isinstance(answer, Wait), answer
    return answer


async def granted_in_the_end(admission: Admission, *pools: str) -> Lease:
    request = Request(pools)
    while True:
        answer = await admission.acquire(request, max_wait=60)
        if isinstance(answer, Granted):
            return answer.lease
        await asyncio.sleep(answer.seconds)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(3_000):
        if await condition():
            return
        await asyncio.sleep(0.02)
    pytest.fail("it never came true")


async def test_a_pool_lets_as_many_in_as_it_has_slots_and_the_next_when_one_leaves(admission: MakeAdmission) -> None:
    pools = admission({"render": PoolLimits(slots=2)})
    first, _second = await grant(pools, "render"), await grant(pools, "render")
    wait = await refuse(pools, "render", max_wait=0)
    assert (wait.pool, wait.kind) == ("render", "slots")
    await pools.release(first)
    assert (await grant(pools, "render")).token > first.token


async def test_a_call_takes_a_slot_of_all_its_pools_or_of_none(admission: MakeAdmission) -> None:
    pools = admission({"publish": PoolLimits(slots=5), "publish:*": PoolLimits(slots=1)})
    await grant(pools, "publish", "publish:a")
    wait = await refuse(pools, "publish", "publish:a", max_wait=0)
    assert wait.pool == "publish:a"
    assert {state.pool: state.in_flight for state in await pools.look()} == {"publish": 1, "publish:a": 1}
    await grant(pools, "publish", "publish:b")


async def test_a_call_that_waits_for_a_busy_account_does_not_block_the_others_of_the_app(admission: MakeAdmission) -> None:
    pools = admission({"publish": PoolLimits(slots=2), "publish:*": PoolLimits(slots=1)})
    await grant(pools, "publish", "publish:a")
    assert (await refuse(pools, "publish", "publish:a")).pool == "publish:a"
    await grant(pools, "publish", "publish:b")


async def test_waiters_are_served_in_the_order_of_their_first_asking(admission: MakeAdmission) -> None:
    pools = admission({"render": PoolLimits(slots=1)})
    held = await grant(pools, "render")
    line = [Request(("render",)) for _ in range(4)]
    for request in line:
        assert isinstance(await pools.acquire(request, max_wait=60), Wait)
    served = []
    await pools.release(held)
    while line:
        for request in reversed(line):  # the youngest asks first, each time
            answer = await pools.acquire(request, max_wait=60)
            if isinstance(answer, Granted):
                served.append(request.ticket)
                line.remove(request)
                await pools.release(answer.lease)
                break
    assert served == sorted(served)


async def test_a_newcomer_does_not_overtake_who_waits(admission: MakeAdmission) -> None:
    pools = admission({"render": PoolLimits(slots=1)})
    held = await grant(pools, "render")
    first = Request(("render",))
    assert isinstance(await pools.acquire(first, max_wait=60), Wait)
    await pools.release(held)
    assert isinstance(await pools.acquire(Request(("render",)), max_wait=60), Wait)
    assert isinstance(await pools.acquire(first, max_wait=60), Granted)


async def test_a_waiting_call_that_left_or_will_not_stay_delays_no_other(admission: MakeAdmission) -> None:
    pools = admission({"render": PoolLimits(slots=1)})
    held = await grant(pools, "render")
    leaver = Request(("render",))
    await pools.acquire(leaver, max_wait=60)
    await refuse(pools, "render", max_wait=0)
    pools.forget(leaver)
    await pools.release(held)
    await pools.aclose()
    await grant(pools, "render")


async def test_a_waiter_that_died_gives_up_its_place(admission: MakeAdmission) -> None:
    pools = admission({"render": PoolLimits(slots=1)})
    held = await grant(pools, "render")
    await refuse(pools, "render")  # and never asks again
    await pools.release(held)

    async def served() -> bool:
        return isinstance(await pools.acquire(Request(("render",)), max_wait=0), Granted)

    await until(served)


async def test_the_slot_of_a_dead_holder_is_free_after_its_lease(admission: MakeAdmission) -> None:
    limits = {"render": PoolLimits(slots=1, lease_seconds=0.3)}
    dead, alive = admission(limits), admission(limits)
    await grant(dead, "render")
    await dead.aclose()  # nothing renews it any more
    await refuse(alive, "render", max_wait=0)
    await until(lambda: _granted(alive, "render"))


async def _granted(admission: Admission, pool: str) -> bool:
    return isinstance(await admission.acquire(Request((pool,)), max_wait=0), Granted)


async def test_a_living_holder_keeps_its_slot_beyond_the_lease(admission: MakeAdmission) -> None:
    pools = admission({"render": PoolLimits(slots=1, lease_seconds=1.0)})
    lease = await grant(pools, "render")
    began = time.monotonic()
    while time.monotonic() < began + 2.5:
        await refuse(pools, "render", max_wait=0)
        await asyncio.sleep(0.1)
    assert not lease.lost


async def test_a_lease_that_is_never_given_back_is_not_renewed_forever(admission: MakeAdmission) -> None:
    pools = admission({"render": PoolLimits(slots=1, lease_seconds=0.3)})
    answer = await pools.acquire(Request(("render",)), max_wait=0, hold_seconds=0.1)
    assert isinstance(answer, Granted)
    await until(lambda: _granted(pools, "render"))


async def test_a_lease_that_ran_out_cannot_be_renewed(admission: MakeAdmission, redis: Redis) -> None:
    pools = admission({"render": PoolLimits(slots=1)})
    lease = await grant(pools, "render")
    assert await pools.renew(lease)
    await redis.delete("phantoms:pool:render#h")
    assert not await pools.renew(lease)
    assert lease.lost


async def test_asking_again_after_a_lost_answer_finds_the_same_slot_and_pays_once(admission: MakeAdmission) -> None:
    quota = DailyQuota(2)
    pools = admission({"publish": PoolLimits(slots=1, rates=((2, 3600, 2),), daily=quota)})
    request = Request(("publish",))
    once, again = await pools.acquire(request, max_wait=0), await pools.acquire(request, max_wait=0)
    assert isinstance(once, Granted)
    assert isinstance(again, Granted)
    (state,) = await pools.look()
    assert (state.in_flight, state.used_today) == (1, 1)
    await pools.release(again.lease)
    await grant(pools, "publish")


async def test_a_cancelled_acquire_leaves_no_slot_behind(admission: MakeAdmission) -> None:
    pools = admission({"render": PoolLimits(slots=1)})
    task = asyncio.create_task(pools.acquire(Request(("render",)), max_wait=0))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await pools.aclose()
    await grant(pools, "render")


async def test_never_more_calls_than_a_rate_allows_in_any_window_and_hardly_less(admission: MakeAdmission) -> None:
    pools = admission({"api": PoolLimits(slots=5, rates=((20, 1.0, 5),))})
    grants: list[int] = []
    end = time.monotonic() + 3

    async def worker() -> None:
        while time.monotonic() < end:
            lease = await granted_in_the_end(pools, "api")
            grants.append(lease.at)
            await pools.release(lease)

    await asyncio.gather(*(worker() for _ in range(12)))
    grants.sort()
    assert max(sum(1 for other in grants if at <= other < at + SECOND) for at in grants) <= 20
    assert max(sum(1 for other in grants if at <= other < at + SECOND // 100) for at in grants) <= 5
    # Hardly less: the rate spaces them by 50 ms. The best stretch counts, since a machine with other work lets some pass by.
    assert min(later - at for at, later in zip(grants, grants[10:], strict=False)) <= 10 * 60_000


async def test_the_narrowest_of_several_rates_decides(admission: MakeAdmission) -> None:
    pools = admission({"api": PoolLimits(rates=((100, 1, 100), (3, 60, 3)))})
    for _ in range(3):
        await pools.release(await grant(pools, "api"))
    wait = await refuse(pools, "api")
    assert wait.kind == "rate"
    assert 55 < wait.seconds < 61


async def test_those_further_back_are_told_to_wait_longer(admission: MakeAdmission) -> None:
    pools = admission({"api": PoolLimits(rates=((1, 10, 1),))})
    await grant(pools, "api")
    waits = [(await refuse(pools, "api")).seconds for _ in range(3)]
    assert [round(wait / 10) for wait in waits] == [1, 2, 3]


async def test_a_used_up_quota_waits_for_the_providers_midnight_not_ours(admission: MakeAdmission) -> None:
    pools = admission({"publish": PoolLimits(daily=DailyQuota(3, PACIFIC))})
    await grant(pools, "publish", cost=2)
    assert (await refuse(pools, "publish", cost=2)).kind == "daily"
    await grant(pools, "publish", cost=1)
    wait = await refuse(pools, "publish")
    there = datetime.now(ZoneInfo(PACIFIC)) + timedelta(seconds=wait.seconds)
    assert (there + timedelta(seconds=30)).time().replace(second=0, microsecond=0).isoformat() == "00:00:00"
    (state,) = await pools.look()
    assert (state.quota, state.used_today) == (3, 3)


async def test_yesterdays_use_is_not_todays(admission: MakeAdmission, redis: Redis) -> None:
    pools = admission({"publish": PoolLimits(daily=DailyQuota(1))})
    await grant(pools, "publish")
    key = "phantoms:pool:publish#s"
    await redis.hset(key, "day", int(await redis.hget(key, "day") or 0) - 86_400 * SECOND)
    pools._used.clear()
    assert (await pools.look())[0].used_today == 0
    await grant(pools, "publish")


@pytest.mark.parametrize(("day", "hours"), [((2026, 3, 8), 23), ((2026, 11, 1), 25), ((2026, 7, 1), 24)])
def test_a_day_of_the_provider_is_as_long_as_its_clocks_say(day: tuple[int, int, int], hours: int) -> None:
    noon = datetime(*day, 20, tzinfo=UTC)
    midnights = DailyQuota(100, PACIFIC).midnights(noon)
    start = max(second for second in midnights if second <= noon.timestamp())
    end = min(second for second in midnights if second > noon.timestamp())
    assert (end - start) / 3600 == hours
    assert datetime.fromtimestamp(start, ZoneInfo(PACIFIC)).hour == 0


async def test_a_client_whose_clock_is_years_off_counts_the_same_day(
    admission: MakeAdmission, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools = admission({"publish": PoolLimits(daily=DailyQuota(1, PACIFIC))})
    with monkeypatch.context() as skewed:
        skewed.setattr("phantoms_dagster.resilience.admission.pools.time.time", lambda: 0.0)
        await grant(pools, "publish")
    assert (await refuse(pools, "publish")).kind == "daily"


async def test_a_429_pauses_the_pool_and_makes_it_slower_afterwards(admission: MakeAdmission, redis: Redis) -> None:
    pools = admission({"api": PoolLimits(slots=8)})
    await pools.penalise("api", 30)
    await pools.penalise("api", 10)  # another of the same volley: neither shortens the pause nor counts twice
    wait = await refuse(pools, "api", max_wait=0)
    assert wait.kind == "paused"
    assert 28 < wait.seconds <= 30
    assert (await pools.look()) == []  # never used
    await redis.hset("phantoms:pool:api#s", "pause", 0)
    leases = [await grant(pools, "api") for _ in range(6)]
    assert (await refuse(pools, "api", max_wait=0)).kind == "slots"
    assert 0.74 < (await pools.look())[0].factor < 0.76
    long_ago = int(await redis.hget("phantoms:pool:api#s", "factor_at") or 0) - 600 * SECOND
    await redis.hset("phantoms:pool:api#s", "factor_at", long_ago)
    leases += [await grant(pools, "api") for _ in range(2)]
    assert len(leases) == 8


async def test_offences_never_slow_a_pool_below_a_quarter(admission: MakeAdmission, redis: Redis) -> None:
    pools = admission({"api": PoolLimits(slots=8)})
    await grant(pools, "api")
    for _ in range(20):
        await redis.hset("phantoms:pool:api#s", "pause", 0)
        await pools.penalise("api", 0)
    assert 0.25 <= (await pools.look())[0].factor < 0.26


async def test_a_pool_that_is_no_longer_defined_can_still_be_shown(admission: MakeAdmission) -> None:
    await grant(admission({"old": PoolLimits(slots=3)}), "old")
    (state,) = await admission({"new": PoolLimits()}).look()
    assert (state.pool, state.slots, state.in_flight) == ("old", None, 1)


async def test_an_open_breaker_stops_a_call_in_line_but_not_its_own_probe(admission: MakeAdmission, redis: Redis) -> None:
    pools = admission({"api": PoolLimits(slots=1)})
    seconds, micro = await redis.time()
    await redis.hset("phantoms:breaker:shotstack", mapping={"state": "open", "until": (seconds + 9) * SECOND + micro})
    wait = await refuse(pools, "api", breakers=("shotstack:main", "shotstack"))
    assert (wait.pool, wait.kind) == ("shotstack", "breaker")
    assert 8 < wait.seconds <= 9
    await grant(pools, "api", breakers=("shotstack",), probes=frozenset({"shotstack"}))


async def test_all_calls_of_one_tick_share_a_round_trip(admission: MakeAdmission, redis: Redis) -> None:
    pools = admission({"api": PoolLimits()})
    await grant(pools, "api")
    before = (await redis.info("stats"))["total_reads_processed"]
    await asyncio.gather(*(grant(pools, "api") for _ in range(50)))
    assert (await redis.info("stats"))["total_reads_processed"] - before < 10


async def test_a_bug_in_a_script_raises_only_in_its_caller(scripts: Scripts) -> None:
    bad, good = LuaScript("return redis.call('NOSUCH')"), LuaScript("return 7")
    answers = await asyncio.gather(scripts.run(bad, [], []), scripts.run(good, [], []), return_exceptions=True)
    assert answers[1] == 7
    assert "unknown" in str(answers[0]).lower()


def test_every_default_pool_can_be_looked_up_and_a_wrong_name_says_what_there_is() -> None:
    pools = Pools()
    assert pools.limits("publish_tiktok:main") is DEFAULT_POOLS["publish_tiktok:*"]
    assert pools.of("publish_youtube", "main") == ["publish_youtube", "publish_youtube:main"]
    assert pools.of("render", "main") == ["render"]
    assert pools.of("tiktok_status", "main") == ["tiktok_status:main"]
    assert pools.of("tiktok_status", None) == ["tiktok_status:-"]  # slower than need be, never too fast
    with pytest.raises(KeyError, match="publish_youtube"):
        pools.of("publish_yutube", None)


def test_settings_override_a_pool_by_name() -> None:
    mine = PoolLimits(slots=1)
    assert Pools({"render": mine}).limits("render") is mine


@pytest.mark.parametrize(
    "wrong", [{"slots": 0}, {"rates": ((0, 1, 1),)}, {"rates": ((5, 1, 6),)}, {"lease_seconds": 0}, {"daily": DailyQuota(-1)}]
)
def test_limits_that_could_not_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        PoolLimits(**wrong)


def test_no_number_of_ours_holds_an_instagram_post_back_after_its_upload() -> None:
    """Its account's quota is what content_publishing_limit returns; the adapter reads it before the upload."""
    assert Pools().limits("publish_instagram:main").rates == ()
    assert Pools().limits("publish_instagram:main").daily is None


async def test_calls_of_a_short_window_are_spaced_and_never_more_than_it_allows(admission: MakeAdmission) -> None:
    """A burst of four at the edge of two windows made 24 calls of 20 in a second."""
    pools = admission({"pool": PoolLimits(rates=((20, 1.0, 4),))})
    leases = await asyncio.gather(*(granted_in_the_end(pools, "pool") for _ in range(60)))
    instants = sorted(lease.at for lease in leases)
    assert min(later - earlier for earlier, later in pairwise(instants)) >= CLOSEST_SHARE * SECOND / 20
    assert all(instants[n + 20] - instants[n] >= (1 + SHORT_SLACK_SHARE) * SECOND for n in range(len(instants) - 20))


async def test_a_call_that_was_answered_late_counts_from_when_it_may_have_arrived(admission: MakeAdmission) -> None:
    """A provider that paused for a quarter of a second took five calls at once, and the usual number in the next second."""
    window, slow = 4.0, 2.0
    pools = admission({"pool": PoolLimits(rates=((4, window, 4),))})
    await pools.release(await grant(pools, "pool"))
    late = await granted_in_the_end(pools, "pool")
    await asyncio.sleep(slow)
    await pools.release(late)
    after = await granted_in_the_end(pools, "pool")
    apart = CLOSEST_SHARE * window * (1 + SHORT_SLACK_SHARE) / 4
    assert after.at - late.at >= (slow + apart / 2) * SECOND


async def test_the_log_of_calls_keeps_its_order_and_its_end_when_one_is_late(admission: MakeAdmission, redis: Redis) -> None:
    pools = admission({"pool": PoolLimits(rates=((4, 1.0, 4), (9, 60.0, 9)))})
    await pools.release(await grant(pools, "pool"))
    late, *others = [await granted_in_the_end(pools, "pool") for _ in range(3)]
    before = await redis.lrange("phantoms:pool:pool#r2", 0, -1)
    await asyncio.sleep(0.1)
    for lease in (late, *others):
        await pools.release(lease)
    log = [int(at) for at in await redis.lrange("phantoms:pool:pool#r1", 0, -1)]
    assert log == sorted(log, reverse=True)
    assert len(log) == 4
    assert late.at not in log
    assert 0 < await redis.pttl("phantoms:pool:pool#r1") <= 10_000
    assert await redis.lrange("phantoms:pool:pool#r2", 0, -1) == before


async def test_who_misses_its_instant_gets_another_one_and_pays_once(scripts: Scripts) -> None:
    class Late(Admission):
        missed = 0

        async def _sleep_until_send_time(self, lease: Lease) -> bool:
            self.missed += 1
            return self.missed > 3

    pools = Late(scripts, Pools({"pool": PoolLimits(slots=1, rates=((5, 1.0, 5),), daily=DailyQuota(5))}, defaults={}))
    lease = await granted_in_the_end(pools, "pool")
    (state,) = await pools.look()
    assert (pools.missed, state.in_flight, state.used_today) == (4, 1, 1)
    assert await scripts.run(LuaScript("return redis.call('LLEN', KEYS[1])"), ["phantoms:pool:pool#r1"], []) == 1
    await pools.release(lease)
    await pools.aclose()
