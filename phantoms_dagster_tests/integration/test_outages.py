"""An outage or a wait costs a video no attempt, no row and no dead letter. The runner uses the real table, and calls use Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from phantoms_dagster.domain.attempt_context import WaitingClock
from phantoms_dagster.domain.claims import AttemptOutcome, Result, StageResult, StageTask
from phantoms_dagster.domain.errors import NotYet, Permanent, Throttled, Transient
from phantoms_dagster.domain.retry import ASK_AGAIN_MAX_SECONDS, RetryPolicy
from phantoms_dagster.domain.stages import StageState, stage
from phantoms_dagster.production.runner import StageRunner, UseCase
from phantoms_dagster.providers.http import send, server_error
from phantoms_dagster.resilience.breakers.breaker import BreakerPolicy
from phantoms_dagster.resilience.limits import RedisLimits, redis_limits
from phantoms_dagster.resilience.pools import PoolLimits
from phantoms_dagster.resilience.transport import CallScope, Deadlines, build_client
from phantoms_dagster.store.dead_letters.letters import DeadLetters, LetterFilter
from phantoms_dagster_tests.integration.stage_world import SENSOR, FakeClock, World, open_world, output_of

POLICY = RetryPolicy(attempts=2, backoff_seconds=2, backoff_max_seconds=900, max_wait_seconds=120, give_up_seconds=0)
SCRIPT_STAGE = stage("script")
MADE = StageResult(output_of("script"))
URL = "https://api.example/script"


class RealClock:
    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
async def limits(redis_url: str) -> AsyncIterator[RedisLimits]:
    policy = BreakerPolicy(minimum_calls=3, reset_seconds=0.05)
    pools = {"script": PoolLimits(slots=1)}
    async with redis_limits(redis_url, clock=WaitingClock(RealClock()), pools=pools, policy=policy) as opened:
        yield opened


class Provider:
    """Drops or refuses calls until it has had so many, then answers. `use_case` calls it once, as an adapter does."""

    def __init__(self, limits: RedisLimits, *, dead_for: int, status: int | None = None, permanent: bool = False) -> None:
        self.calls = 0
        self._dead_for, self._status, self._permanent = dead_for, status, permanent
        self.client = build_client(
            limits=limits,
            scope=CallScope("openai", pool="script"),
            deadlines=Deadlines(max_wait=5),
            inner=httpx.MockTransport(self._answer),
        )

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        if self.calls > self._dead_for:
            return httpx.Response(200)
        if self._status is not None:
            return httpx.Response(self._status)
        raise httpx.ConnectError("refused", request=request)

    async def use_case(self, task: StageTask) -> StageResult:
        response = await send(self.client, "POST", URL, provider="openai")
        if response.status_code >= 500:
            raise Permanent("no", provider="openai") if self._permanent else server_error(response, provider="openai")
        return MADE


def runner(
    world: World, use_case: UseCase, clock: object, *, policy: RetryPolicy = POLICY, luck: float = 0.0, in_flight: int = 100
) -> StageRunner:
    return StageRunner(
        store=world.store(),
        use_cases={"script": use_case},
        clock=clock,  # type: ignore[arg-type]
        policy=policy,
        random=lambda: luck,
        new_owner=lambda: "runner",
        in_flight=in_flight,
        heartbeat_seconds=20,
    )


async def opened(limits: RedisLimits) -> None:
    """Its breaker, opened by calls that are no video's."""
    dead = Provider(limits, dead_for=100)
    for _ in range(3):
        with pytest.raises(httpx.ConnectError):
            await dead.client.post(URL)
    assert (await limits.breakers.state("openai")).state == "open"


@pytest.mark.parametrize("status", [None, 503])
async def test_a_probe_of_an_open_breaker_costs_no_attempt(world: World, limits: RedisLimits, status: int | None) -> None:
    await opened(limits)
    key, provider = world.add()[0], Provider(limits, dead_for=4, status=status)
    result = (await runner(world, provider.use_case, RealClock()).run(SCRIPT_STAGE, [key], SENSOR))[0]
    assert (result.outcome, provider.calls) == ("done", 5)
    assert world.row(key, "script")["attempts"] == 0
    assert not world.letters(key)


async def test_the_call_whose_failure_opens_the_breaker_costs_no_attempt_and_those_before_it_do(
    world: World, limits: RedisLimits
) -> None:
    key, provider = world.add()[0], Provider(limits, dead_for=3)
    policy = replace(POLICY, attempts=9)
    result = (await runner(world, provider.use_case, RealClock(), policy=policy).run(SCRIPT_STAGE, [key], SENSOR))[0]
    assert (result.outcome, provider.calls) == ("done", 4)
    assert world.row(key, "script")["attempts"] == 2


async def test_a_failure_after_an_answer_is_the_videos_own_again(world: World, limits: RedisLimits) -> None:
    await opened(limits)
    key, provider = world.add()[0], Provider(limits, dead_for=0)

    async def malformed(task: StageTask) -> StageResult:
        await provider.use_case(task)
        raise Transient("no JSON", provider="openai")

    result = (await runner(world, malformed, RealClock()).run(SCRIPT_STAGE, [key], SENSOR))[0]
    assert (result.outcome, world.row(key, "script")["attempts"]) == ("failed", 2)


async def test_a_video_that_is_given_up_while_it_probes_leaves_the_probe_to_the_next(world: World, limits: RedisLimits) -> None:
    await opened(limits)
    first, second = world.add(2)
    refusing = Provider(limits, dead_for=9, status=503, permanent=True)
    clock = RealClock()
    await asyncio.sleep(0.3)
    assert (await runner(world, refusing.use_case, clock).run(SCRIPT_STAGE, [first], SENSOR))[0].outcome == "failed"
    well = Provider(limits, dead_for=0)
    assert (await runner(world, well.use_case, clock).run(SCRIPT_STAGE, [second], SENSOR))[0].outcome == "done"
    assert (await limits.breakers.state("openai")).state == "closed"


async def test_the_age_of_a_videos_failures_starts_again_after_an_outage(world: World, limits: RedisLimits) -> None:
    await opened(limits)
    key = world.add()[0]
    world.write("UPDATE phantoms.stages SET attempts = 7, failing_since = clock_timestamp() - interval '2 hours'")
    provider = Provider(limits, dead_for=1)
    policy = replace(POLICY, give_up_seconds=1800)

    async def then_malformed(task: StageTask) -> StageResult:
        await provider.use_case(task)
        raise Transient("no JSON", provider="openai", retry_after=600)

    result = (await runner(world, then_malformed, RealClock(), policy=policy).run(SCRIPT_STAGE, [key], SENSOR))[0]
    row = world.row(key, "script")
    assert (result.outcome, row["attempts"]) == ("deferred", 8)
    assert row["failing_since"] > datetime.now(UTC) - timedelta(minutes=1)


# --- waiting


async def test_waiting_for_a_breaker_leaves_no_row_and_asks_ever_more_rarely(world: World, limits: RedisLimits) -> None:
    await limits.breakers.trip("openai", why="by hand")
    key, provider = world.add()[0], Provider(limits, dead_for=0)
    gaps = []
    for _ in range(5):
        clock = FakeClock()
        result = (await runner(world, provider.use_case, clock, luck=1.0).run(SCRIPT_STAGE, [key], SENSOR))[0]
        assert result.outcome == "deferred"
        assert sum(clock.slept) <= POLICY.max_wait_seconds
        assert result.retry_at is not None
        gaps.append((result.retry_at - clock.now()).total_seconds())
        world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() WHERE state = 'deferred'")
    assert not world.attempts(key, "script")
    assert provider.calls == 0
    assert gaps[-1] == pytest.approx(ASK_AGAIN_MAX_SECONDS, abs=1)
    assert world.row(key, "script")["waits"] == 5


async def test_all_waits_of_one_claim_share_one_budget_and_then_go_to_the_table(world: World) -> None:
    clock, key = FakeClock(), world.add()[0]

    async def throttled(task: StageTask) -> StageResult:
        raise Throttled("slow down", provider="llm", retry_after=50)

    result = (await runner(world, throttled, clock).run(SCRIPT_STAGE, [key], SENSOR))[0]
    assert (result.outcome, clock.slept) == ("deferred", [50, 50])
    assert len(world.attempts(key, "script")) == 3


async def test_what_an_adapter_waits_inside_a_try_is_spent_from_the_same_budget(world: World) -> None:
    clock, key = FakeClock(), world.add()[0]
    waiting = WaitingClock(clock)

    async def polling(task: StageTask) -> StageResult:
        await waiting.sleep(70)
        raise NotYet("still processing", retry_after=20)

    result = (await runner(world, polling, clock).run(SCRIPT_STAGE, [key], SENSOR))[0]
    assert (result.outcome, clock.slept) == ("deferred", [70, 20, 70])


async def test_a_run_that_others_wait_behind_cuts_its_waits_short(world: World) -> None:
    clock, key = FakeClock(), world.add()[0]
    waiting = WaitingClock(clock)

    async def polling(task: StageTask) -> StageResult:
        for _ in range(9):
            await waiting.sleep(2)
        return MADE

    hurried = replace(SENSOR, max_wait_seconds=5)
    result = (await runner(world, polling, clock).run(SCRIPT_STAGE, [key], hurried))[0]
    assert (result.outcome, clock.slept) == ("deferred", [2, 2])


@pytest.mark.parametrize("inside", [False, True])
async def test_a_video_that_waits_leaves_its_place_in_flight_to_others(world: World, *, inside: bool) -> None:
    keys = world.add(2)
    other_done = asyncio.Event()

    class Watched(FakeClock):
        async def sleep(self, seconds: float) -> None:
            async with asyncio.timeout(30):
                await other_done.wait()
            await super().sleep(seconds)

    clock = Watched()
    waiting, tries = WaitingClock(clock), 0

    async def use_case(task: StageTask) -> StageResult:
        nonlocal tries
        if task.video.key == keys[1]:
            other_done.set()
            return MADE
        tries += 1
        if inside:
            await waiting.sleep(5)
        elif tries == 1:
            raise NotYet("not now", retry_after=5)
        return MADE

    results = await runner(world, use_case, clock, in_flight=1).run(SCRIPT_STAGE, keys, SENSOR)
    assert [r.outcome for r in results] == ["done", "done"]


# --- attempts and age


async def fail_for_ever(world: World, key: str, clock: FakeClock, policy: RetryPolicy) -> Result:
    async def dead(task: StageTask) -> StageResult:
        raise Transient("down", provider="llm", code="503")

    return (await runner(world, dead, clock, policy=policy, luck=1.0).run(SCRIPT_STAGE, [key], SENSOR))[0]


async def test_a_blip_that_uses_up_the_attempts_makes_no_dead_letter_before_the_first_failure_is_old_enough(world: World) -> None:
    key, policy = world.add()[0], replace(POLICY, attempts=5, give_up_seconds=1800)
    clock = FakeClock()
    result = await fail_for_ever(world, key, clock, policy)
    assert result.outcome == "deferred"
    assert clock.slept == [2, 4, 8, 16, 32]
    assert world.row(key, "script")["attempts"] == 6
    assert world.row(key, "script")["failing_since"] is not None
    await another_video_gets_through(world)
    world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp(), failing_since = failing_since - interval '34 minutes'")
    assert (await fail_for_ever(world, key, FakeClock(), policy)).outcome == "failed"
    [letter] = DeadLetters(world.engine).list()
    assert letter.counted == 7
    assert letter.failing_since is not None
    assert letter.created_at - letter.failing_since == pytest.approx(timedelta(minutes=34), abs=timedelta(minutes=1))


async def another_video_gets_through(world: World) -> None:
    async def works(task: StageTask) -> StageResult:
        return MADE

    [result] = await runner(world, works, FakeClock()).run(SCRIPT_STAGE, world.add(), SENSOR)
    assert result.outcome == "done"


async def test_a_video_waits_for_days_while_no_other_gets_through_its_stage_either(world: World) -> None:
    key, policy = world.add()[0], replace(POLICY, attempts=1, give_up_seconds=1800)
    await another_video_gets_through(world)  # before the first failure, so it proves nothing
    await fail_for_ever(world, key, FakeClock(), policy)
    for hours, outcome in ((1, "deferred"), (70, "deferred"), (1, "failed")):
        world.write(
            f"""UPDATE phantoms.stages SET retry_at = clock_timestamp(), failing_since = failing_since - interval '{hours} hours',
                finished_at = finished_at - interval '{hours} hours'"""
        )
        assert (await fail_for_ever(world, key, FakeClock(), policy)).outcome == outcome


async def test_a_replay_starts_with_a_fresh_age(world: World) -> None:
    key, policy = world.add()[0], replace(POLICY, attempts=1, give_up_seconds=1800)
    await fail_for_ever(world, key, FakeClock(), policy)
    await another_video_gets_through(world)
    world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp(), failing_since = failing_since - interval '1 hour'")
    assert (await fail_for_ever(world, key, FakeClock(), policy)).outcome == "failed"
    DeadLetters(world.engine).replay(LetterFilter(), by="ann")
    row = world.row(key, "script")
    assert (row["failing_since"], row["attempts"], row["waits"]) == (None, 0, 0)
    assert (await fail_for_ever(world, key, FakeClock(), policy)).outcome == "deferred"


async def test_a_letter_keeps_the_first_and_last_of_a_thousand_tries_and_counts_the_rest(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    world.write(
        """INSERT INTO phantoms.attempts (video_id, stage, revision, generation, state, error_class, message)
        SELECT :id, 'script', 1, 1, 'deferred', CASE WHEN n % 4 = 0 THEN 'transient' ELSE 'throttled' END, repeat('x', 5000)
        FROM generate_series(1, 1000) AS n""",
        id=claim.video_id,
    )
    assert await store.finish(claim, AttemptOutcome(StageState.FAILED, error_class="permanent", message="no"))
    [letter] = DeadLetters(world.engine).list()
    detail = DeadLetters(world.engine).show(letter.id)
    assert letter.tries == 1001
    assert len(detail.attempts) == 21
    assert detail.attempts[5]["message"] == "981 more: 736 throttled, 245 transient"
    assert len(str(detail.attempts)) < 20_000
