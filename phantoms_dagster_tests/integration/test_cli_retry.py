"""`phantoms retry` from every state of a stage, against a real database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.stages import StageState
from phantoms_dagster.store.retrying import Retrying
from phantoms_dagster_tests.integration.stage_world import World, open_world


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    async with open_world(database_url) as opened:
        yield opened


def retry(*arguments: str) -> Result:
    result = CliRunner().invoke(app, ["retry", *arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def put(world: World, key: str, stage: str, state: str, more: str = "") -> None:
    world.write(
        f"""UPDATE phantoms.stages SET state = :state, attempts = 3{more}
        WHERE stage = :stage AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)""",
        key=key,
        stage=stage,
        state=state,
    )


def due(world: World) -> bool:
    """Whether what waits may be taken now."""
    rows = world.rows("SELECT retry_at <= clock_timestamp() AS due FROM phantoms.stages WHERE state = 'deferred'")
    return [row["due"] for row in rows] == [True]


LATER = ", retry_at = now() + interval '9 hours'"


async def test_a_deferred_stage_is_tried_now_with_a_fresh_budget(world: World) -> None:
    key = world.add()[0]
    put(world, key, "script", "deferred", LATER)
    asked = CliRunner().invoke(app, ["retry", key], input="n\n", env={"COLUMNS": "200"})
    assert "script waits until" in asked.output
    assert "nothing was changed" in asked.output
    assert not due(world)
    assert "will run again" in retry(key, "--yes").output
    row = world.row(key, "script")
    assert (row["state"], row["attempts"]) == ("deferred", 0)
    assert due(world)


async def test_a_failed_stage_is_replayed_by_its_letter(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    await store.finish(claim, AttemptOutcome(StageState.FAILED, error_class="permanent", message="no"))
    assert retry(key, "--yes").exit_code == 0
    assert world.row(key, "script")["state"] == "ready"
    assert [letter["state"] for letter in world.letters(key)] == ["replayed"]


async def test_a_run_that_is_alive_is_left_alone_and_a_dead_one_is_said_to_be_taken_over(world: World) -> None:
    key = world.add()[0]
    await world.claimed("script", key)
    alive = retry(key, "--yes")
    assert alive.exit_code == 2
    assert "is being worked on" in alive.output
    world.let_leases_expire()
    assert "takes it over by itself" in retry(key, "--yes").output


async def test_a_render_that_hangs_is_given_up_and_booked_only_when_asked_for(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], "script", "voiceover")
    _, claim = await world.claimed("rendered_video", key)
    world.write(
        """INSERT INTO phantoms.renders (video_id, revision, state, render_id, attempt_id)
        VALUES (:v, 1, 'submitted', 'r1', :a)""",
        v=claim.video_id,
        a=f"a{claim.attempt_row}-{key}",
    )
    put(world, key, "rendered_video", "deferred", LATER)
    retrying = Retrying(world.engine, price_per_minute=Decimal("0.60"))
    same = retrying.plan(key)
    assert (same.how, "costs nothing" in same.lines[1]) == ("wake", True)
    plan = retrying.plan(key, "rendered_video")
    assert plan.lines[0] == "render r1 is given up and booked as spent: 0.20 USD"
    retrying.carry_out(plan, by="ann")
    assert world.rows("SELECT state, render_id FROM phantoms.renders")[0] == {"state": "intent", "render_id": None}
    assert [a["cost"] for a in world.attempts(key, "rendered_video")] == [Decimal("0.2000")]
    assert due(world)


@pytest.mark.parametrize("post", ["unknown", "handed_over"])
async def test_a_done_stage_is_made_again_unless_a_post_is_in_doubt(world: World, post: str) -> None:
    key = world.add()[0]
    await world.carry([key], "script", "voiceover", "rendered_video")
    assert "--from STAGE" in retry(key, "--yes").output or "approval" in retry(key, "--yes").output
    video = world.row(key, "script")["video_id"]
    world.write(
        """INSERT INTO phantoms.posts (video_id, platform, account, marker, video_sha256, caption_sha256, sandbox, state)
        VALUES (:v, 'youtube', 'a', 'm', 'x', 'x', true, :post)""",
        v=video,
        post=post,
    )
    refused = retry(key, "--from", "rendered_video", "--yes")
    assert refused.exit_code == 2
    assert "read back, never sent again" in refused.output
    world.write_post("UPDATE phantoms.posts SET state = 'confirmed'")
    assert retry(key, "--from", "rendered_video", "--yes").exit_code == 0
    row = world.row(key, "rendered_video")
    assert (row["state"], row["revision"]) == ("ready", 2)
    assert retry(key, "--from", "nonsense").exit_code == 2


async def test_a_user_without_a_name_on_this_machine_can_ask(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a number."""

    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr("getpass.getuser", unknown)
    key = world.add()[0]
    put(world, key, "script", "deferred", LATER)
    assert retry(key, "--yes").exit_code == 0
    assert due(world)
