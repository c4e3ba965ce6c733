"""The story of a video says what it waited for when pools were full or a breaker was open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.attempt_context import WaitingClock
from phantoms_dagster.domain.claims import AttemptOutcome, StageResult, StageTask
from phantoms_dagster.domain.pacing import describe_waits
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import STAGES, StageState
from phantoms_dagster.production.runner import StageRunner
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope, redis_limits
from phantoms_dagster.resilience.pools import PoolLimits
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster_tests.integration.desk_world import open_desk
from phantoms_dagster_tests.integration.stage_world import PERSON, SENSOR, World, finished, open_world, output_of

SCRIPT = STAGES["script"]
PUT_OFF = AttemptOutcome(StageState.DEFERRED, retry_at=datetime(2020, 1, 1, tzinfo=UTC), counts=False, message="full", unsent=True)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def ended(world: World, key: str, outcome: AttemptOutcome) -> None:
    store, claim = await world.claimed("script", key)
    assert await store.finish(claim, outcome)


def pass_time(world: World, seconds: int) -> None:
    """Pretend that this much time has passed since the stage was deferred."""
    world.write("UPDATE phantoms.stages SET waits_since = waits_since - make_interval(secs => :s)", s=seconds)


async def test_a_wait_for_a_pool_is_kept_with_the_attempt_that_waited(world: World, redis_url: str) -> None:
    [key] = world.add()
    clock = WaitingClock(SystemClock())
    async with redis_limits(redis_url, clock=clock, pools={"script": PoolLimits(rates=((1, 1.0, 1),))}) as limits:

        async def two_calls(_: StageTask) -> StageResult:
            for _call in range(2):
                permit = await limits.admit(CallScope("openai", pool="script"), max_wait=30, hold_seconds=30)
                await limits.settle(permit, CallOutcome.ANSWERED)
            return StageResult(output_of("script"))

        runner = StageRunner(
            store=world.store(),
            use_cases={"script": two_calls},
            clock=clock,
            policy=RetryPolicy(),
            random=lambda: 1.0,
            new_owner=lambda: "runner",
            in_flight=10,
            heartbeat_seconds=20,
        )
        [result] = await runner.run(SCRIPT, [key], PERSON)
    assert result.outcome == "done"
    [attempt] = world.attempts(key, "script")
    assert attempt["paced"].keys() == {"script"}
    assert 0.5 <= attempt["paced"]["script"] < 30


async def test_a_run_that_may_not_wait_leaves_the_name_of_what_is_full(world: World, redis_url: str) -> None:
    [key] = world.add()
    clock = WaitingClock(SystemClock())
    async with redis_limits(redis_url, clock=clock, pools={"script": PoolLimits(rates=((1, 3_600.0, 1),))}) as limits:
        scope = CallScope("openai", pool="script")
        await limits.settle(await limits.admit(scope, max_wait=1, hold_seconds=30), CallOutcome.ANSWERED)

        async def one_call(_: StageTask) -> StageResult:
            await limits.admit(scope, max_wait=1, hold_seconds=30)
            raise AssertionError("the pool is full")

        runner = StageRunner(
            store=world.store(),
            use_cases={"script": one_call},
            clock=clock,
            policy=RetryPolicy(),
            random=lambda: 1.0,
            new_owner=lambda: "runner",
            in_flight=10,
            heartbeat_seconds=20,
        )
        [result] = await runner.run(SCRIPT, [key], SENSOR)
    assert result.outcome == "deferred"
    row = world.row(key, "script")
    assert (row["waits_for"], row["waits_since"] is not None, world.attempts(key, "script")) == ("script", True, [])


async def test_what_was_waited_in_the_table_belongs_to_the_next_attempt_that_sends_something(world: World) -> None:
    [key] = world.add()
    await ended(world, key, replace(PUT_OFF, waits_for="script", paced={"script": 2.0}))
    pass_time(world, 40)
    await ended(world, key, replace(PUT_OFF, waits_for="sandbox/openai"))
    pass_time(world, 600)
    await ended(world, key, replace(finished("script"), paced={"script": 5.0, "other": 0.1}))
    [attempt] = world.attempts(key, "script")
    paced = attempt["paced"]
    assert paced.keys() == {"script", "sandbox/openai"}
    # What the test itself takes is in there, too.
    assert 47 <= paced["script"] < 77
    assert 600 <= paced["sandbox/openai"] < 630
    row = world.row(key, "script")
    assert (row["paced"], row["waits_for"], row["waits_since"]) == (None, None, None)


async def test_an_attempt_that_failed_keeps_its_waits_and_the_next_one_begins_without_them(world: World) -> None:
    [key] = world.add()
    await ended(world, key, replace(PUT_OFF, waits_for="script"))
    pass_time(world, 30)
    store, claim = await world.claimed("script", key)
    failed = AttemptOutcome(StageState.DEFERRED, counts=True, error_class="transient", code="503", message="no")
    again = await store.try_again(claim, failed)
    assert await store.finish(again, finished("script"))
    first, second = world.attempts(key, "script")
    assert 30 <= first["paced"]["script"] < 60
    assert second["paced"] is None


async def test_an_attempt_that_waited_for_nothing_says_nothing(world: World) -> None:
    [key] = world.add()
    await ended(world, key, replace(PUT_OFF, message="its hour has not come"))
    await ended(world, key, finished("script"))
    assert [attempt["paced"] for attempt in world.attempts(key, "script")] == [None]


async def test_the_desk_and_the_command_line_say_what_a_video_waited_for(
    database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_desk(database_url, redis_url, tmp_path) as desk:
        [key] = desk.world.add()
        await ended(desk.world, key, replace(finished("script"), paced={"sandbox/publish_tiktok": 41.2}))
        viewer = await desk.logged_in("vic", "viewer")
        assert "waited 41 s for publish_tiktok" in (await viewer.get(f"/videos/{key}")).text
        timeline = (await viewer.get(f"/api/v1/videos/{key}")).json()["timeline"]
        assert any("waited 41 s for publish_tiktok" in one["detail"] for one in timeline)
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    shown = CliRunner().invoke(app, ["show", key], env={"COLUMNS": "140"})
    assert "waited 41 s for publish_tiktok" in " ".join(shown.output.split())


def test_waits_are_shown_in_a_fitting_unit_the_longest_first() -> None:
    assert describe_waits({}) == ""
    told = describe_waits({"a": 1.24, "sandbox/publish_tiktok:main": 41.2, "b": 180, "c": 9_000})
    assert told == "waited 2.5 h for c, waited 3 min for b, waited 41 s for publish_tiktok:main, waited 1.2 s for a"
