"""If a takeover is being committed while the old runner writes, the writer waits for it and then sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from sqlalchemy import text

from phantoms_dagster.domain.claims import Claim
from phantoms_dagster.domain.errors import NotYet, StaleClaim
from phantoms_dagster.domain.paid_job import PaidState
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster_tests.integration.stage_world import World, finished, media_file, open_world

BEFORE_POST = ("script", "voiceover", "rendered_video", "approval", "youtube/variant")
TAKEOVER = text(
    """UPDATE phantoms.stages SET generation = generation + 1, lease_owner = 'other', run_id = 'other'
    WHERE video_id = :video AND stage = :stage"""
)
WAITING = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def during_a_takeover(world: World, claim: Claim, write: Awaitable[Any]) -> Any:
    """What the write comes to when it begins before the takeover is committed and cannot end before it is."""
    async with world.async_engine.connect() as connection:
        await connection.execute(TAKEOVER, {"video": claim.video_id, "stage": claim.stage.name})
        task = asyncio.ensure_future(write)
        while not world.rows(WAITING):
            assert not task.done(), "it did not wait"
            await asyncio.sleep(0.01)
        await connection.commit()
    return await task


async def test_an_ending_that_meets_a_takeover_is_refused_whole(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    assert await during_a_takeover(world, claim, store.finish(claim, finished("script"))) is False
    row = world.row(key, "script")
    assert (row["state"], row["output"], row["lease_owner"]) == ("running", None, "other")
    assert world.row(key, "voiceover")["state"] == "blocked"
    assert [a["state"] for a in world.attempts(key, "script")] == ["intent"]


async def test_an_ending_whose_first_writing_is_still_being_committed_is_not_taken_for_lost(world: World) -> None:
    # Its connection broke, and PostgreSQL has not noticed: the second writing waits for the first.
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    async with world.async_engine.connect() as first:
        values = {"video": claim.video_id, "stage": "script"}
        statement = "UPDATE phantoms.stages SET state = 'done', lease_owner = NULL WHERE video_id = :video AND stage = :stage"
        await first.execute(text(statement), values)
        second = asyncio.ensure_future(store.finish(claim, finished("script")))
        while not world.rows(WAITING):
            assert not second.done(), "it did not wait"
            await asyncio.sleep(0.01)
        await first.commit()
    assert await second is True


async def test_a_step_of_a_post_that_meets_a_takeover_is_refused(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], *BEFORE_POST)
    _, claim = await world.claimed("youtube/post", key)
    ledgers = PostgresLedgers(world.async_engine)
    video = media_file("master")
    journal = await ledgers.post(claim, account="main", marker=key, video=video, caption="words", sandbox=False)
    with pytest.raises(StaleClaim):
        await during_a_takeover(world, claim, journal.save(PostState.OPENED, handle={"session": "s1"}))
    assert world.rows("SELECT state FROM phantoms.posts")[0]["state"] == "intent"


async def test_a_step_of_a_render_that_meets_a_takeover_is_refused(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], "script", "voiceover")
    _, claim = await world.claimed("rendered_video", key)
    journal = await PostgresLedgers(world.async_engine).render(claim, sandbox=False)
    with pytest.raises(StaleClaim):
        await during_a_takeover(world, claim, journal.save(PaidState.SENDING, attempt_id="a1"))
    assert world.rows("SELECT state FROM phantoms.renders")[0]["state"] == "intent"


async def test_two_processes_that_open_posts_on_one_account_at_the_same_moment_leave_one_winner(world: World) -> None:
    keys = world.add(2)
    await world.carry(keys, *BEFORE_POST)
    journals, claims = [], []
    for key in keys:
        _, claim = await world.claimed("youtube/post", key, owner=key)
        ledgers = PostgresLedgers(world.async_engine)  # as each process has its own
        video = media_file("master")
        journals.append(await ledgers.post(claim, account="main", marker=key, video=video, caption="words", sandbox=False))
        claims.append(claim)
    async with world.async_engine.connect() as connection:
        # The first has looked at the account and cannot write yet.
        lock = "SELECT FROM phantoms.stages WHERE video_id = :video AND stage = 'youtube/post' FOR UPDATE"
        await connection.execute(text(lock), {"video": claims[0].video_id})
        first = asyncio.ensure_future(journals[0].save(PostState.OPENED))
        while not world.rows(WAITING):
            assert not first.done(), "it did not wait"
            await asyncio.sleep(0.01)
        second = asyncio.ensure_future(journals[1].save(PostState.OPENED))
        while len(world.rows(WAITING)) < 2:
            if second.done():
                break  # nothing made it wait
            await asyncio.sleep(0.01)
        await connection.commit()
    await first
    with pytest.raises(NotYet, match=f"{keys[0]} is being published"):
        await second
