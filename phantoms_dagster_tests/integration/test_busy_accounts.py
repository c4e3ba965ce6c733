"""Posts that wait for their account: they wake when it is free, and waiting costs no attempt."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from phantoms_dagster.domain.attempt_context import AttemptContext, acquire_within, slot_released, track_attempt
from phantoms_dagster.domain.claims import AttemptOutcome, Claim, StageResult, StageTask
from phantoms_dagster.domain.retry import HELD_MAX_SECONDS, RetryPolicy
from phantoms_dagster.domain.stages import PostState, StageState, stage
from phantoms_dagster.production.runner import StageRunner
from phantoms_dagster.store.ledgers import PostgresLedgers, PostgresPostJournal
from phantoms_dagster.store.outcomes import WOKEN
from phantoms_dagster.store.planning import Planning
from phantoms_dagster_tests.integration.stage_world import SENSOR, FakeClock, World, finished, media_file, open_world, output_of

BEFORE_POST = ("script", "voiceover", "rendered_video", "approval", "youtube/variant")
POST = stage("youtube/post")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def journal(world: World, claim: Claim, account: str = "main") -> PostgresPostJournal:
    ledgers = PostgresLedgers(world.async_engine)
    words = {"marker": f"{claim.video.key}-youtube", "video": media_file("master"), "caption": "words", "sandbox": False}
    return await ledgers.post(claim, account=account, **words)  # type: ignore[arg-type]


async def run_posts(world: World, keys: list[str], *, account: str = "main") -> list[str]:
    """The outcomes of a run that posts these at once, as the sensor asks for it."""

    async def use_case(task: StageTask) -> StageResult:
        post = await journal(world, task.claim, account)
        await post.save(PostState.OPENED, handle={"session": "s"})
        return StageResult(output_of("youtube/post"))

    runner = StageRunner(
        store=world.store(),
        use_cases={"post": use_case},
        clock=FakeClock(),
        policy=RetryPolicy(),
        random=lambda: 1.0,
        new_owner=lambda: "second",
        in_flight=100,
        heartbeat_seconds=20,
    )
    return [result.outcome for result in await runner.run(POST, keys, SENSOR)]


async def held(world: World, count: int) -> tuple[str, list[str]]:
    """A post that a run holds open on the account, and others that found it busy."""
    keys = world.add(count + 1)
    world.catalogue.registered(keys)
    await world.carry(keys, *BEFORE_POST)
    _, claim = await world.claimed("youtube/post", keys[0], owner="first")
    await (await journal(world, claim)).save(PostState.OPENED, handle={"session": "s"})
    assert await run_posts(world, keys[1:]) == ["deferred"] * count
    return keys[0], keys[1:]


async def end(world: World, key: str, outcome: AttemptOutcome) -> None:
    row = world.row(key, "youtube/post")
    claims = await world.store().claim(POST, [key], owner=row["lease_owner"], context=SENSOR)
    assert await world.store().finish(claims.claimed[0], outcome)


async def test_a_post_that_found_its_account_busy_sent_nothing_and_left_no_attempt(world: World) -> None:
    _, [waiting] = await held(world, 1)
    assert not world.attempts(waiting, "youtube/post")
    assert world.row(waiting, "youtube/post")["reason"].endswith("is being published on youtube:main")


@pytest.mark.parametrize("how", ["done", "failed", "deferred"])
async def test_a_waiting_post_is_due_and_the_sensor_told_as_soon_as_its_account_is_free(world: World, how: str) -> None:
    holder, [waiting] = await held(world, 1)
    world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() + interval '5 minutes' WHERE error_class = 'held'")
    assert world.due("youtube/post") == []
    outcomes = {
        "done": finished("youtube/post"),
        "failed": AttemptOutcome(StageState.FAILED, error_class="permanent", message="no"),
        "deferred": AttemptOutcome(
            StageState.DEFERRED, retry_at=datetime.now(UTC) + timedelta(hours=1), counts=False, message="quota"
        ),
    }
    with Planning(world.engine).listen(["youtube/post"]) as listener:
        await end(world, holder, outcomes[how])
        assert await asyncio.to_thread(listener.wait, 10)
    assert world.due("youtube/post") == [waiting]
    assert await run_posts(world, [waiting]) == ["done"]


async def test_a_post_on_another_account_is_not_woken(world: World) -> None:
    holder, [waiting] = await held(world, 1)
    world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() + interval '5 minutes' WHERE error_class = 'held'")
    world.write("UPDATE phantoms.posts SET account = 'other' WHERE state = 'intent'")
    await end(world, holder, finished("youtube/post"))
    assert world.due("youtube/post") == []
    assert world.row(waiting, "youtube/post")["state"] == "deferred"


async def test_of_many_that_wait_a_few_are_woken_at_once_the_most_urgent_first(world: World) -> None:
    holder, waiting = await held(world, WOKEN + 3)
    world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() + interval '5 minutes' WHERE error_class = 'held'")
    world.write("UPDATE phantoms.videos SET priority = 0 WHERE key = :key", key=waiting[-1])
    await end(world, holder, finished("youtube/post"))
    due = world.due("youtube/post")
    assert due == [waiting[-1], *waiting[: WOKEN - 1]]


async def test_no_post_is_woken_while_a_run_is_still_at_another_post_of_the_account(world: World) -> None:
    holder, [line, waiting] = await held(world, 2)
    world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() WHERE error_class = 'held'")
    await world.claimed("youtube/post", line, owner="third")
    world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() + interval '5 minutes' WHERE state = 'deferred'")
    await end(world, holder, finished("youtube/post"))
    assert world.due("youtube/post") == []
    await end(world, line, finished("youtube/post"))
    assert world.due("youtube/post") == [waiting]


async def test_a_waiting_post_that_is_not_woken_asks_less_and_less_often(world: World) -> None:
    _, [waiting] = await held(world, 1)
    gaps = []
    for _ in range(7):
        row = world.row(waiting, "youtube/post")
        gaps.append((row["retry_at"] - row["updated_at"]).total_seconds())
        world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() WHERE error_class = 'held'")
        assert await run_posts(world, [waiting]) == ["deferred"]
    assert gaps[0] < 10 < gaps[3] < gaps[6] <= HELD_MAX_SECONDS
    assert not world.attempts(waiting, "youtube/post")


# --- lines inside a run


async def test_a_post_that_waits_for_an_account_does_not_count_as_in_flight() -> None:
    lock, slots = asyncio.Lock(), asyncio.Semaphore(1)
    await lock.acquire()

    async def in_line() -> bool:
        await slots.acquire()
        with track_attempt(AttemptContext(slot=slots)) as this:
            got = await acquire_within(lock, 30)
            assert this.slot is slots
            return got

    waiting = asyncio.create_task(in_line())
    async with asyncio.timeout(30):
        for _ in range(3):
            await asyncio.sleep(0)
        await slots.acquire()  # another video's
        slots.release()
    lock.release()
    assert await waiting
    assert lock.locked()


async def test_a_line_that_is_too_long_sends_the_video_back_to_the_table_and_leaves_the_lock_alone() -> None:
    lock = asyncio.Lock()
    await lock.acquire()
    with track_attempt(AttemptContext()) as this:
        assert not await acquire_within(lock, 0.01)
    assert this.waited > 0
    lock.release()
    assert await acquire_within(lock, 0)


async def test_a_cancelled_wait_gives_its_place_away_once_only() -> None:
    slots = asyncio.Semaphore(1)

    async def stopped() -> None:
        await slots.acquire()
        this = AttemptContext(slot=slots)
        try:
            with track_attempt(this):
                async with slot_released():
                    await asyncio.sleep(3600)
        finally:
            if this.slot is not None:
                this.slot.release()

    task = asyncio.create_task(stopped())
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await slots.acquire()
    assert slots.locked()
