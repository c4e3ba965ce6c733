"""Breakers on a real Valkey: when they open, who may probe, what closes them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest
from redis.asyncio import Redis

from phantoms_dagster.resilience.breakers.breaker import (
    CACHE_SECONDS,
    BreakerOpen,
    BreakerPermit,
    BreakerPolicy,
    Breakers,
    CallOutcome,
)
from phantoms_dagster.resilience.breakers.scripts import BreakerSnapshot, RemoteBreaker
from phantoms_dagster.resilience.redis.scripts import Scripts, redis_client

POLICY = BreakerPolicy(window_seconds=30, minimum_calls=4, failure_rate=0.5, reset_seconds=0.3, probe_seconds=60)
SLOW = BreakerPolicy(window_seconds=30, minimum_calls=4, failure_rate=0.5, reset_seconds=60, probe_seconds=60)
Make = Callable[..., Breakers]


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with redis_client(redis_url) as client:
        yield client


@pytest.fixture
def make(redis: Redis) -> Make:
    """Makes the Breakers of one more process."""

    def breakers(policy: BreakerPolicy = SLOW, **more: object) -> Breakers:
        return Breakers(Scripts(redis), policy=policy, **more)  # type: ignore[arg-type]

    return breakers


async def calls(breakers: Breakers, *outcomes: CallOutcome, name: str = "shotstack") -> None:
    for outcome in outcomes:
        await breakers.settle(await breakers.admit(name), outcome)


async def open_up(breakers: Breakers, name: str = "shotstack") -> None:
    await calls(breakers, *[CallOutcome.FAILED] * 4, name=name)


async def is_open(breakers: Breakers, name: str = "shotstack") -> bool:
    try:
        await breakers.admit(name)
    except BreakerOpen:
        return True
    return False


async def probe(breakers: Breakers, name: str = "shotstack") -> BreakerPermit:
    """Ask until this process gets the probe."""
    for _ in range(1_200):
        try:
            leave = await breakers.admit(name)
        except BreakerOpen as error:
            await asyncio.sleep(min(error.retry_after, 0.05))
        else:
            assert leave.probe is not None
            return leave
    pytest.fail("nobody was allowed to probe")


async def test_it_opens_when_enough_calls_failed_and_says_when_it_is_probed(make: Make) -> None:
    breakers = make()
    await calls(breakers, CallOutcome.FAILED, CallOutcome.FAILED, CallOutcome.FAILED)
    assert not await is_open(breakers)
    await calls(breakers, CallOutcome.FAILED)
    with pytest.raises(BreakerOpen, match="shotstack") as refused:
        await breakers.admit("shotstack")
    assert 58 < refused.value.retry_after <= 60
    assert refused.value.until is not None
    assert 50 < (refused.value.until - datetime.now(UTC)).total_seconds() <= 60


async def test_a_few_failures_among_many_successes_open_nothing(make: Make) -> None:
    breakers = make()
    for _ in range(10):
        await calls(breakers, CallOutcome.ANSWERED, CallOutcome.ANSWERED, CallOutcome.FAILED)
    assert not await is_open(breakers)
    state = await breakers.state("shotstack")
    assert (state.state, state.failures) == ("closed", 10)
    assert state.calls >= 28  # the last successes are reported with the next look


async def test_an_integration_that_was_well_until_now_opens_it_with_a_run_of_failures(make: Make) -> None:
    """In an outage under load, half a window of earlier successes hid it until videos had used up their attempts."""
    breakers = make()
    await calls(breakers, *[CallOutcome.ANSWERED] * 40, *[CallOutcome.FAILED] * 3)
    await calls(breakers, CallOutcome.ANSWERED, *[CallOutcome.FAILED] * 3)
    assert not await is_open(breakers)
    await calls(breakers, CallOutcome.FAILED)
    assert await is_open(breakers)


async def test_failures_of_other_processes_count(make: Make) -> None:
    for _ in range(3):
        await calls(make(), CallOutcome.FAILED)
    last, bystander = make(), make()
    await calls(bystander, CallOutcome.ANSWERED)
    await calls(last, CallOutcome.FAILED)
    await asyncio.sleep(CACHE_SECONDS)
    assert await is_open(bystander)


async def test_old_failures_are_forgotten(make: Make) -> None:
    breakers = make(BreakerPolicy(window_seconds=0.5, minimum_calls=4, reset_seconds=60))
    await calls(breakers, *[CallOutcome.FAILED] * 3)
    await asyncio.sleep(0.7)
    await calls(breakers, *[CallOutcome.FAILED] * 3)
    assert not await is_open(breakers)


async def test_what_was_cut_short_or_never_sent_counts_for_nothing(make: Make) -> None:
    breakers = make()
    await calls(breakers, *[CallOutcome.NONE] * 10, *[CallOutcome.UNSENT] * 10)
    state = await breakers.state("shotstack")
    assert (state.state, state.calls, state.failures) == ("closed", 0, 0)


async def test_an_account_in_trouble_closes_no_other_account(make: Make) -> None:
    breakers = make()
    assert breakers.of("youtube", "a") == ("youtube:a", "youtube")
    assert breakers.of("openai", None) == ("openai",)
    await open_up(breakers, "youtube:a")
    assert await is_open(breakers, "youtube:a")
    assert not await is_open(breakers, "youtube:b")
    assert not await is_open(breakers, "youtube")


async def test_only_one_process_probes_and_its_answer_closes_the_breaker_for_all(make: Make) -> None:
    fleet = [make(POLICY) for _ in range(5)]
    await open_up(fleet[0])
    probing = await probe(fleet[1])
    for breakers in fleet:
        assert await is_open(breakers)
    await fleet[1].settle(probing, CallOutcome.ANSWERED)
    await asyncio.sleep(CACHE_SECONDS)
    for breakers in fleet:
        assert not await is_open(breakers)
    state = await fleet[0].state("shotstack")
    assert (state.state, state.failures) == ("closed", 0)


async def test_a_failed_probe_opens_it_again_for_a_whole_reset_time(make: Make) -> None:
    breakers = make(POLICY)
    await open_up(breakers)
    await breakers.settle(await probe(breakers), CallOutcome.FAILED)
    state = await breakers.state("shotstack")
    assert state.state == "open"
    assert await is_open(breakers)
    assert (await probe(breakers)).probe is not None


async def test_while_redis_learns_of_a_failed_probe_no_call_is_sent_away_for_the_time_of_a_probe(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    breakers = make(POLICY)
    await open_up(breakers)
    await asyncio.sleep(POLICY.reset_seconds)
    leave = await breakers.admit("shotstack", probe_seconds=750)
    assert leave.probe is not None
    waits: list[float] = []
    move = RemoteBreaker.move

    async def slow(remote: RemoteBreaker, state: str, probe: str | None) -> BreakerSnapshot:
        with pytest.raises(BreakerOpen) as caught:
            await breakers.admit("shotstack")
        waits.append(caught.value.retry_after)
        return await move(remote, state, probe)

    monkeypatch.setattr(RemoteBreaker, "move", slow)
    await breakers.settle(leave, CallOutcome.FAILED)
    assert len(waits) == 1
    assert waits[0] <= max(POLICY.reset_seconds, CACHE_SECONDS)


async def test_calls_that_end_late_neither_close_nor_reopen_it_nor_alert_anyone(make: Make) -> None:
    told: list[tuple[str, str]] = []
    breakers = make(POLICY, changed=lambda _name, old, new: told.append((old, new)))
    early = [await breakers.admit("shotstack") for _ in range(8)]
    for leave in early[:4]:
        await breakers.settle(leave, CallOutcome.FAILED)
    await asyncio.sleep(POLICY.reset_seconds)
    await breakers.settle(early[4], CallOutcome.ANSWERED)
    await breakers.settle(early[5], CallOutcome.FAILED)
    assert told == [("closed", "open")]
    probing = await probe(breakers)
    await breakers.settle(early[6], CallOutcome.ANSWERED)
    await breakers.settle(early[7], CallOutcome.FAILED)
    assert (await breakers.state("shotstack")).state == "half-open"
    await breakers.settle(probing, CallOutcome.ANSWERED)
    assert (await breakers.state("shotstack")).state == "closed"
    assert told == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


async def test_a_probe_that_was_never_sent_is_free_for_the_next_at_once(make: Make) -> None:
    breakers = make(POLICY)
    await open_up(breakers)
    await breakers.settle(await probe(breakers), CallOutcome.UNSENT)
    breakers.invalidate("shotstack")
    assert (await breakers.admit("shotstack")).probe is not None


async def test_a_probe_that_was_cut_short_is_not_repeated_before_another_reset_time(make: Make, redis: Redis) -> None:
    breakers = make(POLICY)
    await open_up(breakers)
    await breakers.settle(await probe(breakers), CallOutcome.NONE)
    assert await redis.pttl("phantoms:breaker:shotstack#probe") <= 300
    assert await is_open(breakers)
    assert (await probe(breakers)).probe is not None


async def test_the_probe_of_a_dead_process_is_given_up_after_its_lease(make: Make) -> None:
    policy = BreakerPolicy(minimum_calls=4, reset_seconds=0.1, probe_seconds=0.4)
    dead, alive = make(policy), make(policy)
    await open_up(dead)
    await probe(dead)
    assert await is_open(alive)
    await alive.settle(await probe(alive), CallOutcome.ANSWERED)
    assert not await is_open(alive)


async def test_the_verdict_of_a_probe_whose_lease_ended_is_not_taken(make: Make) -> None:
    policy = BreakerPolicy(minimum_calls=4, reset_seconds=0.1, probe_seconds=0.2)
    slow, other = make(policy), make(policy)
    await open_up(slow)
    late = await probe(slow)
    await asyncio.sleep(0.3)
    await probe(other)
    await slow.settle(late, CallOutcome.ANSWERED)
    assert (await other.state("shotstack")).state == "half-open"


async def test_a_person_opens_it_until_a_person_closes_it(make: Make) -> None:
    breakers, other = make(POLICY), make(POLICY)
    await breakers.trip("shotstack", why="maintenance")
    with pytest.raises(BreakerOpen) as refused:
        await other.admit("shotstack")
    assert refused.value.retry_after <= 60  # it is asked about again: after a reset no call may sleep forever
    state = await other.state("shotstack")
    assert (state.state, state.manual) == ("open", True)
    await breakers.reset("shotstack", why="maintenance is over")
    await asyncio.sleep(CACHE_SECONDS)
    assert not await is_open(other)


async def test_a_person_opens_it_for_a_while_and_then_it_is_probed(make: Make) -> None:
    breakers = make(SLOW)
    await breakers.trip("shotstack", seconds=0.2, why="try again soon")
    assert await is_open(breakers)
    await breakers.settle(await probe(breakers), CallOutcome.ANSWERED)
    assert not await is_open(breakers)


async def test_its_history_tells_every_change_and_why(make: Make) -> None:
    breakers = make(POLICY)
    await open_up(breakers)
    await breakers.settle(await probe(breakers), CallOutcome.FAILED)
    await breakers.settle(await probe(breakers), CallOutcome.ANSWERED)
    await breakers.trip("shotstack", why='a "quoted" reason')
    history = await breakers.history("shotstack")
    assert [(step.old, step.new, step.why) for step in reversed(history)] == [
        ("closed", "open", "too many failures"),
        ("open", "half-open", "probe sent"),
        ("half-open", "open", "probe failed"),
        ("open", "half-open", "probe sent"),
        ("half-open", "closed", "probe answered"),
        ("closed", "open", 'a "quoted" reason'),
    ]
    assert history[0].at > history[-1].at
    assert [state.name for state in await breakers.look()] == ["shotstack"]


async def test_every_listener_hears_of_each_change(make: Make) -> None:
    told: list[tuple[str, str, str]] = []
    breakers = make(POLICY, changed=lambda *change: told.append(change))
    await open_up(breakers)
    await breakers.settle(await probe(breakers), CallOutcome.ANSWERED)
    assert told == [("shotstack", "closed", "open"), ("shotstack", "open", "half-open"), ("shotstack", "half-open", "closed")]


async def test_some_breakers_have_rules_of_their_own(make: Make) -> None:
    touchy = BreakerPolicy(minimum_calls=1, reset_seconds=60)
    breakers = make(SLOW, policies={"tiktok": touchy})
    await calls(breakers, CallOutcome.FAILED, name="tiktok:main")
    await calls(breakers, CallOutcome.FAILED, name="openai")
    assert await is_open(breakers, "tiktok:main")
    assert not await is_open(breakers, "openai")


async def test_a_check_of_a_closed_breaker_asks_redis_four_times_a_second_at_most(make: Make, redis: Redis) -> None:
    breakers = make()
    await calls(breakers, CallOutcome.ANSWERED)
    before = (await redis.info("stats"))["total_commands_processed"]
    began = time.monotonic()
    for _ in range(1000):
        await calls(breakers, CallOutcome.ANSWERED)
    looks = 1 + (time.monotonic() - began) / CACHE_SECONDS
    # One look is the EVALSHA and the half dozen commands inside it; INFO itself is one more.
    assert (await redis.info("stats"))["total_commands_processed"] - before <= 10 * looks + 10


@pytest.mark.parametrize("wrong", [{"failure_rate": 0}, {"failure_rate": 1.5}, {"minimum_calls": 0}, {"reset_seconds": 0}])
def test_a_policy_that_could_not_work_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"."):
        BreakerPolicy(**wrong)  # type: ignore[arg-type]
