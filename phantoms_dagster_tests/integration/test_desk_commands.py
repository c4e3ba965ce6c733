"""`phantoms users`, `hold`, `unhold` and `approve --only`, as people type them."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.models import Platform
from phantoms_dagster_tests.integration.stage_world import World, open_world

TWICE = "one long one\none long one\n"
MADE = ("script", "voiceover", "rendered_video")


@pytest.fixture
async def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    async with open_world(database_url) as opened:
        yield opened


def phantoms(*arguments: str, given: str = "", width: int = 200) -> Result:
    result = CliRunner().invoke(app, arguments, input=given, env={"COLUMNS": str(width)})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def assert_zones() -> None:
    lines = phantoms("users", "list").stdout.strip().splitlines()[1:]
    assert lines
    for line in lines:
        assert re.search(r"\d\d:\d\d [A-Z]", line), f"a time without its zone: {line}"


async def test_a_user_is_added_from_a_prompt_or_a_file_and_never_from_an_argument(world: World, tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from a long file\n")
    assert "added kim as operator" in phantoms("users", "add", "Kim", "--role", "operator", given=TWICE).stdout
    assert "added lee as reviewer" in phantoms("users", "add", "lee", "--password-file", str(tmp_path / "password")).stdout
    assert phantoms("users", "add", "mia", "a password here").exit_code == 2
    users = json.loads(phantoms("users", "list", "--json").stdout)["users"]
    assert_zones()
    assert [(user["name"], user["role"]) for user in users] == [("kim", "operator"), ("lee", "reviewer")]
    again = phantoms("users", "add", "kim", given="one long one\none long one\n")
    assert again.exit_code == 2
    assert "phantoms users passwd kim" in again.stderr
    short = phantoms("users", "add", "mia", given="short\nshort\n")
    assert "10 characters" in short.stderr
    assert "removed lee" in phantoms("users", "remove", "lee").stdout
    assert phantoms("users", "remove", "lee").exit_code == 2
    assert "is now viewer" in phantoms("users", "role", "kim", "viewer").stdout
    actions = [row["action"] for row in world.rows("SELECT action FROM phantoms.audit_log ORDER BY id")]
    assert actions == ["add user", "add user", "remove user", "change role"]


async def test_a_token_is_shown_once_and_can_be_revoked(world: World) -> None:
    secret = phantoms("users", "token", "robot", "--role", "reviewer").stdout.strip()
    assert secret.startswith("phantoms_")
    assert secret not in phantoms("users", "list", "--json").stdout
    assert_zones()
    assert secret not in str(world.rows("SELECT * FROM phantoms.api_tokens"))
    assert "revoked robot" in phantoms("users", "token", "robot", "--revoke").stdout
    assert phantoms("users", "token", "robot", "--revoke").exit_code == 2


async def test_a_video_is_held_and_taken_back(world: World) -> None:
    [key] = world.add()
    await world.carry([key], *MADE)
    assert phantoms("hold", key, "--note", "legal", "--reviewer", "ann").exit_code == 0
    assert "On hold by ann: legal" in phantoms("show", key).stdout
    assert json.loads(phantoms("show", key, "--json").stdout)["held"]["by"] == "ann"
    refused = phantoms("approve", key)
    assert refused.exit_code == 2
    assert "on hold by ann" in refused.stderr
    assert "nothing is waiting for review" in phantoms("approve", "--all").stdout
    assert phantoms("unhold", key).exit_code == 0
    assert phantoms("unhold", key).exit_code == 2
    assert f"approved {key}" in phantoms("approve", key).stdout


async def test_an_approval_for_some_platforms_takes_the_others_out_of_the_brief(world: World) -> None:
    [key] = world.add(platforms=Platform.usual())
    await world.carry([key], *MADE)
    assert phantoms("approve", key, "--only", "vimeo").exit_code == 2
    assert f"approved {key}" in phantoms("approve", key, "--only", "YouTube, tiktok").stdout
    assert world.catalogue.brief(key).platforms == (Platform("youtube"), Platform("tiktok"))


async def test_a_due_decision_of_the_desk_is_committed_before_anyone_decides(world: World) -> None:
    [key] = world.add()
    await world.carry([key], *MADE)
    world.write(
        """INSERT INTO phantoms.pending_decisions (video_id, answer, reviewer, content_sha256, via, commit_at)
        SELECT id, 'hold', 'ann', '', 'desk', now() - interval '1 minute' FROM phantoms.videos"""
    )
    assert "on hold by ann" in phantoms("approve", key).stderr


async def test_a_guest_link_is_printed_once_listed_and_revoked(world: World) -> None:
    [key] = world.add()
    assert "nothing to review" in phantoms("guest-links", "add", key, "--guest", "Dr. [b]Weber").stderr
    await world.carry([key], *MADE)
    assert "no guest links" in phantoms("guest-links", "list").stdout
    made = phantoms("guest-links", "add", key, "--guest", "Dr. [b]Weber", "--hours", "2")
    assert made.exit_code == 0, made.output
    secret = made.stdout.splitlines()[0].rpartition("/guest/")[2]
    assert len(secret) > 40
    assert "phantoms guest-links revoke 1" in made.stdout
    listed = phantoms("guest-links", "list")
    assert "Dr. [b]Weber" in listed.stdout
    assert key in phantoms("guest-links", "list", width=40).stdout
    assert secret not in listed.stdout + phantoms("guest-links", "list", "--json").stdout
    assert phantoms("guest-links", "revoke", "1").exit_code == 0
    assert json.loads(phantoms("guest-links", "list", "--json").stdout)["links"][0]["state"] == "revoked"
    assert phantoms("guest-links", "revoke", "9").exit_code == 2
    assert phantoms("guest-links", "add", key, "--guest", " ").exit_code == 2
    phantoms("approve", key)
    refused = phantoms("guest-links", "add", key, "--guest", "Dr. Weber")
    assert (refused.exit_code, "was first" in refused.stderr) == (2, True)


async def test_the_command_line_counts_as_the_user_of_the_machine_whatever_name_is_given(world: World) -> None:
    from phantoms_dagster_tests.integration.stage_world import CHANNEL  # noqa: PLC0415

    world.catalogue.put_channels([CHANNEL.model_copy(update={"reviewers": 2})])
    [key] = world.add()
    await world.carry([key], *MADE)
    given = phantoms("approve", key, "--reviewer", "ann")
    assert "as the first of two" in given.stdout
    assert "next:" not in given.stdout  # nothing goes out yet
    assert "Approved by ann" in phantoms("show", key).stdout
    assert json.loads(phantoms("show", key, "--json").stdout)["to_review"]["first_approval"]["reviewer"] == "ann"
    assert "ann approved this one" in phantoms("status").stdout
    assert json.loads(phantoms("status", "--json").stdout)["first_approvals"] == {key: "ann"}
    again = phantoms("approve", key, "--reviewer", "ben")
    assert again.exit_code == 2
    assert "wants a second, different person" in again.stderr
    assert world.rows("SELECT * FROM phantoms.approvals") == []


async def test_a_brief_of_the_command_line_is_that_of_the_user_of_the_machine(world: World) -> None:
    from phantoms_dagster.wiring.this_user import this_user  # noqa: PLC0415

    assert phantoms("add", "Why the sea is salty").exit_code == 0
    assert world.rows("SELECT added_by FROM phantoms.videos")[0]["added_by"] == this_user()
