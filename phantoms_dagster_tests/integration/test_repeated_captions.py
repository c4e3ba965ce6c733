"""A caption that one Instagram account would show twice within a day: the reviewer gets a warning, and nothing is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import text
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.wording import compose
from phantoms_dagster.store.decisions import Decided, Decisions
from phantoms_dagster_tests.integration.stage_world import CHANNEL, SCRIPT, World, open_world

RENDERED = ("script", "voiceover", "rendered_video")
ACCOUNT = CHANNEL.accounts[Platform("instagram")]
CAPTION = compose(SCRIPT, CHANNEL, Platform("instagram"))[1]


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def rendered(world: World, count: int = 1, platform: Platform = Platform("instagram")) -> list[str]:
    keys = world.add(count, platforms=(platform,))
    await world.carry(keys, *RENDERED)
    world.catalogue.registered(keys)
    return keys


def posted(
    world: World,
    key: str,
    *,
    hours_ago: float = 1,
    caption: str = CAPTION,
    account: str = ACCOUNT,
    state: str = "published",
    sandbox: bool = False,
) -> None:
    """Write into the ledger that the video was posted on Instagram."""
    statement = """
        INSERT INTO phantoms.posts (video_id, platform, account, state, marker, sandbox, video_sha256, caption_sha256, attempted_at,
            published_at)
        SELECT id, 'instagram', :account, :state, 'm', :sandbox, 'x', :caption, :at, CASE WHEN :state = 'published' THEN :at END
        FROM phantoms.videos WHERE key = :key
    """
    values = {"caption": hashlib.sha256(caption.encode()).hexdigest(), "at": datetime.now(UTC) - timedelta(hours=hours_ago)}
    with world.engine.begin() as connection:
        connection.execute(text(statement), {**values, "key": key, "account": account, "state": state, "sandbox": sandbox})


def approved(world: World, key: str) -> Decided:
    return Decisions(world.engine).decide(key, approved=True, reviewer="ann", via="cli")


@pytest.mark.parametrize("state", ["published", "committing", "unknown"])
async def test_a_caption_that_the_account_posted_within_a_day_is_warned_of_and_approved(world: World, state: str) -> None:
    first, second = await rendered(world, 2)
    posted(world, first, state=state)
    review = Decisions(world.engine).review(second)
    assert review is not None
    decided = approved(world, second)
    assert decided.new
    assert decided.warnings == review.warnings
    [warning] = decided.warnings
    assert first in warning
    assert ACCOUNT in warning
    assert "phantoms edit VIDEO --publish-at" in warning


@pytest.mark.parametrize(
    "facts",
    [
        {"hours_ago": 25},
        {"caption": "Something else."},
        {"account": "another"},
        {"state": "failed"},
        {"sandbox": True},
    ],
    ids=str,
)
async def test_a_post_that_is_not_a_repetition_gets_no_warning(world: World, facts: dict[str, object]) -> None:
    first, second = await rendered(world, 2)
    posted(world, first, **facts)  # type: ignore[arg-type]
    assert approved(world, second).warnings == ()


async def test_a_video_is_not_a_repetition_of_itself_and_other_platforms_have_no_such_rule(world: World) -> None:
    [first] = await rendered(world)
    posted(world, first)
    assert approved(world, first).warnings == ()
    [other] = await rendered(world, platform=Platform("tiktok"))
    assert approved(world, other).warnings == ()


async def test_two_that_are_approved_together_are_warned_of_both(world: World) -> None:
    keys = await rendered(world, 2)
    found = Decisions(world.engine).decide_all(keys, approved=True, reviewer="ann", via="cli")
    for one, other in zip(found, reversed(keys), strict=True):
        assert isinstance(one, Decided)
        assert other in one.warnings[0]
        assert "not posted yet" in one.warnings[0]


async def test_a_rejection_is_not_warned_of(world: World) -> None:
    first, second = await rendered(world, 2)
    approved(world, first)
    assert Decisions(world.engine).decide(second, approved=False, reviewer="ann", via="cli").warnings == ()


async def test_a_post_that_goes_out_more_than_a_day_later_is_not_a_repetition(world: World) -> None:
    first, second = await rendered(world, 2)
    posted(world, first)
    with world.engine.begin() as connection:
        statement = "UPDATE phantoms.videos SET publish_at = clock_timestamp() + interval '2 days' WHERE key = :key"
        connection.execute(text(statement), {"key": second})
    assert approved(world, second).warnings == ()


async def test_show_and_approve_tell_the_reviewer(
    world: World, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    monkeypatch.setenv("PHANTOMS_SANDBOX", "on")
    first, second = await rendered(world, 2)
    posted(world, first, sandbox=True)
    wide = {"COLUMNS": "400"}
    shown = CliRunner().invoke(app, ["show", second], env=wide)
    assert f"{first} has the same caption on account {ACCOUNT} within 24 hours" in shown.stdout
    told = json.loads(CliRunner().invoke(app, ["show", second, "--json"], env=wide).stdout)
    assert len(told["to_review"]["warnings"]) == 1
    result = CliRunner().invoke(app, ["approve", second], env=wide)
    assert result.exit_code == 0
    assert f"approved {second}" in result.stdout
    assert f"warning: {second}: Instagram: {first} has the same caption" in result.stderr
