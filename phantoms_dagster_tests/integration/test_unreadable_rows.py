"""Something stored about a video no longer fits its model: only that video stops, and a dead letter says what to do."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.store.cleaning import RetiredFiles
from phantoms_dagster.store.decisions import Decided, Decisions
from phantoms_dagster_tests.integration.stage_world import CHANNEL, SENSOR, World, finished, media_file, open_world

RENDERED = ("script", "voiceover", "rendered_video")


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    async with open_world(database_url) as opened:
        yield opened


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def break_brief(world: World, key: str) -> None:
    world.write("""UPDATE phantoms.videos SET brief = brief || '{"priority": 77}' WHERE key = :key""", key=key)


def break_output(world: World, key: str, name: str) -> None:
    world.write(
        """UPDATE phantoms.stages s SET output = s.output || '{"seconds": "long", "model": 7, "renderer": []}'
        FROM phantoms.videos v WHERE v.id = s.video_id AND v.key = :key AND s.stage = :stage""",
        key=key,
        stage=name,
    )


def break_channel(world: World) -> str:
    """A second channel that cannot be read; its name."""
    config = {**json.loads(CHANNEL.model_dump_json()), "name": "broken"}
    world.catalogue.put_channels([CHANNEL.model_copy(update={"name": "broken"})])
    config["target_seconds"] = 4_000
    world.write("UPDATE phantoms.channels SET config = CAST(:config AS jsonb) WHERE name = 'broken'", config=json.dumps(config))
    return "broken"


async def test_a_stored_brief_channel_or_output_that_is_broken_stops_its_own_video_alone(world: World) -> None:
    good, bad_brief, bad_output, also_good = world.add(4)
    [bad_channel] = world.add(channel=break_channel(world))
    keys = [good, bad_brief, bad_output, also_good]
    await world.carry(keys, "script")
    world.write("UPDATE phantoms.stages SET state = 'ready', ready_at = now() WHERE stage = 'voiceover'")
    break_brief(world, bad_brief)
    break_output(world, bad_output, "script")
    store, claims = await world.claim("voiceover", [*keys, bad_channel], context=SENSOR)
    assert [claim.video.key for claim in claims.claimed] == [good, also_good]
    told = {one.key: (one.outcome, one.error_class) for one in claims.unclaimed}
    assert told == dict.fromkeys((bad_brief, bad_output, bad_channel), ("failed", "permanent"))
    for claim in claims.claimed:
        assert await store.finish(claim, finished("voiceover"))
    letters = {key: [(row["state"], row["error_class"], row["message"]) for row in world.letters(key)] for key in told}
    for key, field, step in (
        (bad_brief, "priority", f"phantoms edit {bad_brief}"),
        (bad_output, "script.script.model", f"phantoms retry {bad_output} --from script"),
        (bad_channel, "target_seconds", "channels.yaml"),
    ):
        [(state, error_class, message)] = letters[key]
        assert (state, error_class) == ("open", "permanent")
        assert field in message
        assert step in message
        assert world.row(key, "voiceover")["state"] == "failed"
        assert world.attempts(key, "voiceover") == []  # nothing was sent
    assert not world.letters(good)


async def test_an_answer_that_was_paid_for_outlasts_the_letter_of_a_broken_row(world: World) -> None:
    [key] = world.add()
    store, claim = await world.claimed("script", key, context=SENSOR)
    await (await store.attempt(claim)).received({"paid": "answer"})
    world.let_leases_expire()
    break_brief(world, key)
    _, claims = await world.claim("script", [key], owner="second", context=SENSOR)
    assert not claims.claimed
    edited = run("edit", key, "--priority", "3")
    assert edited.exit_code == 2  # the world has no channels.yaml: the next step is said
    world.write("""UPDATE phantoms.videos SET brief = brief || '{"priority": 3}' WHERE key = :key""", key=key)
    _, again = await world.claimed("script", key, owner="third")
    assert again.stored_response == {"paid": "answer"}
    assert [row["state"] for row in world.letters(key)] == ["replayed"]


async def test_a_done_stage_whose_output_is_broken_fails_only_its_own_video(world: World) -> None:
    good, bad = world.add(2)
    await world.carry([good, bad], "script")
    break_output(world, bad, "script")
    _, claims = await world.claim("script", [good, bad])
    assert [(one.key, one.outcome) for one in claims.unclaimed] == [(good, "done"), (bad, "failed")]
    assert f"--from {stage('script').name}" in claims.unclaimed[1].reason


async def test_one_broken_video_does_not_stop_the_approval_of_the_others(world: World) -> None:
    good, bad = world.add(2)
    await world.carry([good, bad], *RENDERED)
    break_output(world, bad, "rendered_video")
    approved, refused = Decisions(world.engine).decide_all([good, bad], approved=True, reviewer="ann", via="cli")
    assert isinstance(approved, Decided)
    assert isinstance(refused, InvalidInput)
    assert f"phantoms retry {bad} --from rendered_video" in str(refused)


async def test_a_broken_video_is_shown_with_what_to_do_and_its_stage_can_be_made_again(world: World) -> None:
    [key] = world.add()
    await world.carry([key], *RENDERED)
    break_brief(world, key)
    break_output(world, key, "voiceover")
    shown = run("show", key)
    assert shown.exit_code == 0
    assert f"phantoms edit {key}" in shown.output
    assert f"phantoms retry {key} --from voiceover" in shown.output
    told = json.loads(run("show", key, "--json").output)
    assert (told["brief"], len(told["unreadable"])) == (None, 2)
    assert run("status").exit_code == 0
    assert run("retry", key, "--from", "voiceover", "--yes").exit_code == 0
    assert world.row(key, "voiceover")["state"] == "ready"


async def test_a_broken_brief_is_made_good_by_an_edit(world: World, tmp_path: Path) -> None:
    [key] = world.add()
    break_brief(world, key)
    (tmp_path / "channels.yaml").write_text(
        "channels:\n  facts: {title: Facts, brand_voice: calm, accounts: {youtube: main}}\n", encoding="utf-8"
    )
    edited = run("edit", key, "--priority", "3")
    assert edited.exit_code == 0, edited.output
    assert world.catalogue.brief(key).priority == 3


async def test_files_of_a_broken_video_stay_and_those_of_its_neighbours_are_cleaned(world: World) -> None:
    keys = world.add(3)
    await world.carry(keys, *RENDERED)
    file = json.dumps(media_file("voice of the last", ".wav").model_dump(mode="json"))
    for key in keys:
        world.write(
            """UPDATE phantoms.stages s SET output = s.output || jsonb_build_object('audio', CAST(:file AS jsonb))
            FROM phantoms.videos v WHERE v.id = s.video_id AND v.key = :key AND s.stage = 'voiceover'""",
            key=key,
            file=file if key == keys[-1] else '{"sha256": "no hash"}',
        )
    world.write("UPDATE phantoms.stages SET state = 'done', finished_at = now() - interval '40 days'")
    world.write("UPDATE phantoms.videos SET retired_at = now() - interval '9 days'")
    files = RetiredFiles(world.engine)
    with files.cleaning(["voiceover"], datetime.now(UTC) - timedelta(days=7), 1) as batch:
        assert [one.key for one in batch.stages] == [keys[-1]]
        batch.cleaned()
    with files.cleaning(["voiceover"], datetime.now(UTC) - timedelta(days=7), 1) as batch:
        assert not batch.stages
