"""Editing stored briefs: every change reaches the stages that depend on it, and what is posted stays posted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from phantoms_dagster.domain.brief_changes import BriefChanges, EditedBrief
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store.brief_edits import BriefEdits
from phantoms_dagster_tests.integration.stage_world import World, finished, open_world

MAKING = ("script", "voiceover", "rendered_video", "approval")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


def edit(world: World, key: str, **changes: object) -> EditedBrief:
    return BriefEdits(world.engine).edit(key, BriefChanges(**changes), by="test")  # type: ignore[arg-type]


def states(world: World, key: str) -> dict[str, str]:
    return {name: row.state for name, row in world.catalogue.stages(key).items()}


async def test_a_platform_that_comes_in_asks_for_a_new_approval_and_leaves_what_is_posted(world: World) -> None:
    [key] = world.add()
    world.catalogue.registered(world.catalogue.unregistered())
    await world.carry([key], *MAKING, "youtube/variant", "youtube/post")
    edited = edit(world, key, platforms=(Platform("youtube"), Platform("tiktok")))
    assert edited.notes == ("nobody has approved the words for TikTok: approve the video again",)
    assert states(world, key) == {
        **dict.fromkeys(("script", "voiceover", "rendered_video", "youtube/variant", "youtube/post"), "done"),
        "approval": "ready",
        "tiktok/variant": "blocked",
        "tiktok/post": "blocked",
    }
    await world.carry([key], "approval")
    assert world.due("tiktok/variant") == [key]


async def test_an_approved_post_that_is_not_out_yet_waits_for_the_new_approval_too(world: World) -> None:
    [key] = world.add()
    world.catalogue.registered(world.catalogue.unregistered())
    await world.carry([key], *MAKING, "youtube/variant")
    edit(world, key, platforms=(Platform("youtube"), Platform("tiktok")))
    assert {states(world, key)[name] for name in ("youtube/variant", "youtube/post", "tiktok/variant")} == {"blocked"}


async def test_a_platform_that_goes_takes_its_stages_and_its_letters_along(world: World) -> None:
    [key] = world.add(platforms=(Platform("youtube"), Platform("tiktok")))
    world.catalogue.registered(world.catalogue.unregistered())
    await world.carry([key], *MAKING)
    world.write(
        """INSERT INTO phantoms.dead_letters (video_id, stage, revision, error_class, message, attempts)
        SELECT id, 'tiktok/variant', 1, 'permanent', 'broken', '[]' FROM phantoms.videos"""
    )
    edit(world, key, platforms=(Platform("youtube"),))
    assert set(states(world, key)) == {*MAKING, "youtube/variant", "youtube/post"}
    assert [letter["state"] for letter in world.letters(key)] == ["discarded"]
    assert world.due("youtube/variant") == [key]


@pytest.mark.parametrize("post", ["published", "confirmed"])
async def test_a_platform_that_is_posted_cannot_go(world: World, post: str) -> None:
    [key] = world.add(platforms=(Platform("youtube"), Platform("tiktok")))
    world.catalogue.registered(world.catalogue.unregistered())
    ledger(world, "tiktok", post)
    with pytest.raises(InvalidInput, match="already posted on TikTok, and that post stays"):
        edit(world, key, platforms=(Platform("youtube"),))
    assert "tiktok/post" in states(world, key)


@pytest.mark.parametrize("post", ["opened", "uploading", "committing", "unknown", "handed_over"])
async def test_platforms_do_not_change_while_a_post_is_under_way(world: World, post: str) -> None:
    [key] = world.add(platforms=(Platform("youtube"), Platform("tiktok")))
    world.catalogue.registered(world.catalogue.unregistered())
    ledger(world, "tiktok", post)
    for platforms in [(Platform("youtube"),), (Platform("tiktok"),), Platform.usual()]:
        with pytest.raises(InvalidInput, match="on its way to TikTok now"):
            edit(world, key, platforms=platforms)
    assert edit(world, key, priority=0).after.priority == 0


async def test_an_edit_that_meets_the_end_of_a_render_is_carried_out(world: World) -> None:
    """The edit held the approval and waited for the render, whose end held the render and waited for the approval."""
    [key] = world.add()
    await world.carry([key], "script", "voiceover")
    store, claim = await world.claimed("rendered_video", key)
    with world.engine.begin() as first:
        first.execute(text("SELECT FROM phantoms.stages WHERE stage = 'rendered_video' FOR UPDATE"))
        ending = asyncio.create_task(store.finish(claim, finished("rendered_video")))
        await asyncio.to_thread(world.until_blocked)
        editing = asyncio.create_task(asyncio.to_thread(edit, world, key, priority=0))
        await asyncio.to_thread(world.until_blocked, 2)
    assert await ending
    assert (await editing).after.priority == 0
    assert states(world, key)["approval"] == "ready"


def ledger(world: World, platform: str, state: str) -> None:
    world.write(
        """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256)
        SELECT id, :platform, 'a', :state, 'm', 'v', 'c' FROM phantoms.videos""",
        platform=platform,
        state=state,
    )


async def test_a_new_time_moves_the_post_that_waits_for_the_old_one(world: World) -> None:
    first, second, third = world.add(3, publish_at=datetime.now(UTC) + timedelta(days=30))
    world.catalogue.registered(world.catalogue.unregistered())
    keys = [first, second, third]
    await world.carry(keys, *MAKING, "youtube/variant")
    reasons = {second: "goes out at 2030-01-01 10:00 UTC", third: "the breaker of youtube is open"}
    for key, reason in reasons.items():
        world.write(
            """UPDATE phantoms.stages SET state = 'deferred', retry_at = clock_timestamp() + interval '1 day', reason = :reason
            WHERE stage = 'youtube/post' AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)""",
            key=key,
            reason=reason,
        )
    assert world.due("youtube/post") == []
    for key in keys:
        edit(world, key, publish_now=True)
    assert sorted(world.due("youtube/post")) == sorted([first, second])
    edit(world, first, publish_at=datetime.now(UTC) + timedelta(days=1))
    assert world.due("youtube/post") == [second]


async def test_a_new_title_keeps_the_key_and_says_what_the_script_was_made_from(world: World) -> None:
    first, second = world.add(2)
    assert edit(world, first, title="Another").notes == ()
    await world.carry([second], "script")
    [note] = edit(world, second, title="Something else").notes
    assert "written from the old title" in note
    assert [video.title for video in world.catalogue.videos(keys=[first, second])] == ["Something else", "Another"]
    with pytest.raises(InvalidInput, match=f"video {second} already has this brief"):
        edit(world, first, title="Something else")


async def test_what_cannot_be_is_refused_with_the_reason(world: World) -> None:
    [key] = world.add()
    world.catalogue.registered(world.catalogue.unregistered())
    with pytest.raises(NotFound, match="no video"):
        edit(world, "nothing", priority=1)
    with pytest.raises(InvalidInput, match="priority"):
        edit(world, key, priority=11)
    with pytest.raises(InvalidInput, match="no account on tiktok"):
        BriefEdits(world.engine).edit(
            key, BriefChanges(platforms=(Platform("tiktok"),)), by="test", offered=lambda _: [Platform("youtube")]
        )
