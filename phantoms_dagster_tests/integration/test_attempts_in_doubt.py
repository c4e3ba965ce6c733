"""What the next attempt learns about earlier attempts with an unknown outcome, and runs that share one event loop's store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.errors import LOOK_UP_FAILED, Unknown
from phantoms_dagster.domain.stages import StageState, stage
from phantoms_dagster_tests.integration.stage_world import SENSOR, World, finished, open_world

UNKNOWN = AttemptOutcome(
    StageState.DEFERRED, counts=False, provider="llm", error_class=Unknown.error_class, message="its answer was lost"
)
UNREAD = replace(UNKNOWN, code=LOOK_UP_FAILED)
THROTTLED = AttemptOutcome(StageState.DEFERRED, counts=False, provider="llm", error_class="throttled", message="too fast")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def test_an_attempt_knows_those_before_it_that_ended_unknown_within_a_run_and_in_a_later_one(world: World) -> None:
    key = world.add()[0]
    store, first = await world.claimed("script", key, owner="first")
    assert (await store.attempt(first)).in_doubt == ()
    second = await store.try_again(first, UNKNOWN)
    assert (await store.attempt(second)).in_doubt == ((await store.attempt(first)).id,)
    assert await store.finish(second, UNKNOWN)
    _, third = await world.claimed("script", key, owner="second")
    assert third.in_doubt == (first.attempt_row, second.attempt_row)


async def test_an_attempt_that_only_read_is_not_in_doubt_but_counts_as_a_read(world: World) -> None:
    """Each one was looked up, too. A lost script was ordered again when six look-ups in a row had met an outage."""
    key = world.add()[0]
    store, lost = await world.claimed("script", key, owner="first")
    reading = await store.try_again(lost, UNKNOWN)
    again = await store.try_again(reading, UNREAD)
    assert (again.in_doubt, again.reads) == ((lost.attempt_row,), 2)
    assert await store.finish(again, UNREAD)
    _, later = await world.claimed("script", key, owner="second")
    assert (later.in_doubt, later.reads) == ((lost.attempt_row,), 3)
    assert (await store.attempt(later)).reads == 3


async def test_an_attempt_whose_runner_was_killed_is_in_doubt(world: World) -> None:
    key = world.add()[0]
    _, killed = await world.claimed("script", key, owner="first")
    world.let_leases_expire()
    _, later = await world.claimed("script", key, owner="second")
    assert later.in_doubt == (killed.attempt_row,)


async def test_a_later_attempt_that_ended_otherwise_has_settled_the_doubt(world: World) -> None:
    key = world.add()[0]
    store, first = await world.claimed("script", key, owner="first")
    second = await store.try_again(first, UNKNOWN)
    third = await store.try_again(second, THROTTLED)
    assert third.in_doubt == ()
    assert await store.finish(third, THROTTLED)
    _, fourth = await world.claimed("script", key, owner="second")
    assert fourth.in_doubt == ()


async def test_two_runs_on_one_store_do_not_take_each_others_claims_for_lost(world: World) -> None:
    one, other = world.add(2)
    store = world.store()
    first = (await store.claim(stage("script"), [one], owner="first", context=SENSOR)).claimed[0]
    second = (await store.claim(stage("script"), [other], owner="second", context=SENSOR)).claimed[0]
    assert await store.finish(first, finished("script"))
    assert await store.finish(second, finished("script"))
    assert world.states("script") == ["done", "done"]


async def test_attempts_that_were_killed_are_no_read_backs_that_make_the_next_one_wait_longer(world: World) -> None:
    """Three kills before the answer was lost made the first read-back come after 8 minutes instead of one."""
    key = world.add()[0]
    for number in range(3):
        await world.claimed("script", key, owner=f"killed {number}")
        world.let_leases_expire()
    store, lost = await world.claimed("script", key, owner="first")
    assert (len(lost.in_doubt), lost.reads) == (3, 0)
    again = await store.try_again(lost, UNKNOWN)
    assert (len(again.in_doubt), again.reads) == (4, 1)
    world.let_leases_expire()
    _, later = await world.claimed("script", key, owner="second")
    assert (len(later.in_doubt), later.reads) == (5, 1)
