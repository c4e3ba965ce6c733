"""`phantoms retire` and `unretire` against a real database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster_tests.integration.retirement_world import end
from phantoms_dagster_tests.integration.stage_world import World, open_world


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str) -> AsyncIterator[World]:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    async with open_world(database_url) as opened:
        yield opened


def phantoms(*arguments: str) -> Result:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "100"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def ended(world: World, count: int = 1, *, days: int = 40) -> list[str]:
    """Videos that ended so many days ago."""
    keys = world.add(count)
    world.catalogue.registered(keys)
    end(world, keys, ago=timedelta(days=days))
    return keys


def retired(world: World) -> list[str]:
    return [row["key"] for row in world.rows("SELECT key FROM phantoms.videos WHERE retired_at IS NOT NULL ORDER BY id")]


def test_named_videos_are_retired_and_found_by_status_and_show(world: World) -> None:
    one, other = ended(world, 2)
    result = phantoms("retire", one, one)
    assert (result.exit_code, result.stdout.splitlines()[:2]) == (0, [one, "1 video retired"])
    assert "launch retirement_job" in result.stdout
    assert retired(world) == [one]
    assert phantoms("retire", one).stdout.splitlines() == ["0 videos retired", f"{one} is already retired"]
    lines = phantoms("status").stdout.splitlines()
    assert ["retired" in line for key in (one, other) for line in lines if key in line] == [True, False]
    shown = phantoms("show", one).stdout
    assert "only its Dagster partition is gone" in shown
    assert f"phantoms unretire {one}\n" in shown
    assert json.loads(phantoms("show", one, "--json").stdout)["retired_at"]
    assert json.loads(phantoms("show", other, "--json").stdout)["retired_at"] is None


def test_what_is_not_finished_is_refused_with_the_reason_and_the_others_are_retired(world: World) -> None:
    broken, fine = ended(world, 2)
    world.write("UPDATE phantoms.stages SET state = 'failed' WHERE stage = 'script' AND video_id = 1")
    [new] = world.add()
    result = phantoms("retire", broken, new, fine)
    assert result.exit_code == 2
    assert f"{broken} is not finished: script failed: replay or discard its dead letter" in result.stderr
    assert f"{new} is not finished: it is new" in result.stderr
    assert retired(world) == [fine]


def test_all_that_ended_before_a_time_are_retired_unless_it_is_only_asked(world: World) -> None:
    old = ended(world, 3)
    ended(world, 2, days=5)
    asked = phantoms("retire", "--finished-before", "30d", "--dry-run")
    assert asked.stdout.splitlines() == [*old, "3 videos would be retired"]
    assert retired(world) == []
    assert "3 videos retired" in phantoms("retire", "--finished-before", "4w").stdout
    assert retired(world) == old


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "give either videos or --finished-before"),
        (["x", "--finished-before", "3d"], "give either videos or --finished-before"),
        (["--finished-before", "soon"], "--finished-before 'soon' is not a time; give 30d, 2w or 2026-11-01"),
        (["nobody"], "no video 'nobody'"),
    ],
)
def test_bad_input_changes_nothing_and_says_what_to_give(world: World, arguments: list[str], says: str) -> None:
    ended(world)
    result = phantoms("retire", *arguments)
    assert result.exit_code == 2
    assert says in result.stderr
    assert retired(world) == []


def test_a_video_is_taken_back_with_a_word_about_its_files(world: World) -> None:
    one, other = ended(world, 2)
    phantoms("retire", one)
    world.write("UPDATE phantoms.stages SET cleaned_at = now() WHERE stage IN ('voiceover', 'youtube/variant')")
    result = phantoms("unretire", one, other)
    assert result.stdout.splitlines() == [
        f"brought back {one}",
        "  its files were deleted; to make it again, start with: voiceover",
        f"{other} is not retired",
    ]
    assert retired(world) == []
    assert "only its Dagster partition" not in phantoms("show", one).stdout
    assert "files cleaned up" in phantoms("show", one).stdout
