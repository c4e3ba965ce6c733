"""Regenerating: a new revision of one stage voids what depended on the old one, except what is published."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from phantoms_dagster.domain.errors import InvalidInput, StaleClaim
from phantoms_dagster.domain.models import Platform, ScriptOutput
from phantoms_dagster.domain.stages import PostState, stage
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster_tests.integration.stage_world import SCRIPT, World, finished, media_file, open_world, output_of

COMMON = ("script", "voiceover", "rendered_video", "approval")
BOTH = (Platform("youtube"), Platform("tiktok"))


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


def states(world: World, key: str) -> dict[str, str]:
    return {name: row.state for name, row in world.catalogue.stages(key).items()}


async def test_a_regenerated_script_is_ready_as_a_new_revision_and_everything_after_it_blocked(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], *COMMON)
    await world.store().regenerate(stage("script"), [key])
    assert states(world, key) == {
        "script": "ready",
        **dict.fromkeys(("voiceover", "rendered_video", "approval", "youtube/variant", "youtube/post"), "blocked"),
    }
    assert world.row(key, "script")["revision"] == 2
    assert world.row(key, "approval")["output"] is None


async def test_the_stages_before_the_regenerated_one_stay_done_and_are_its_inputs(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], *COMMON)
    await world.store().regenerate(stage("rendered_video"), [key])
    _, claim = await world.claimed("rendered_video", key)
    assert sorted(claim.inputs) == ["script", "voiceover"]
    assert (claim.revision, claim.attempts_used) == (2, 0)


async def test_what_follows_is_made_of_the_new_revision(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], *COMMON)
    await world.store().regenerate(stage("script"), [key])
    new = output_of("script", script=SCRIPT.model_copy(update={"title": "Newer"}))
    await world.carry([key], "script", outputs={"script": new})
    _, claim = await world.claimed("voiceover", key)
    assert claim.output("script", ScriptOutput).script.title == "Newer"


async def test_a_runner_that_works_on_a_voided_stage_is_refused(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], "script")
    store, claim = await world.claimed("voiceover", key)
    await world.store().regenerate(stage("script"), [key])
    assert not await store.finish(claim, finished("voiceover"))
    assert states(world, key)["voiceover"] == "blocked"
    assert states(world, key)["rendered_video"] == "blocked"


async def test_a_paid_answer_of_the_old_revision_is_not_used_for_the_new_one(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    await store.finish(claim, finished("script"))
    await (await store.attempt(claim)).received({"text": "old"})
    await store.regenerate(stage("script"), [key])
    _, again = await world.claimed("script", key)
    assert again.stored_response is None


async def test_what_is_not_done_is_not_regenerated_but_simply_still_to_be_made(world: World) -> None:
    key = world.add()[0]
    store = world.store()
    await store.regenerate(stage("script"), [key])
    assert (world.row(key, "script")["revision"], world.row(key, "script")["state"]) == (1, "ready")


async def test_only_the_named_videos_are_regenerated(world: World) -> None:
    one, other = world.add(2)
    await world.carry([one, other], "script", "voiceover")
    await world.store().regenerate(stage("script"), [one])
    assert states(world, other)["voiceover"] == "done"
    assert states(world, one)["voiceover"] == "blocked"


async def test_what_was_published_stays_published_with_its_variant_and_the_rest_is_regenerated(world: World) -> None:
    key = world.add(platforms=BOTH)[0]
    await world.carry([key], *COMMON, "youtube/variant", "tiktok/variant", "youtube/post")
    await world.store().regenerate(stage("rendered_video"), [key])
    found = states(world, key)
    assert (found["youtube/variant"], found["youtube/post"]) == ("done", "done")
    assert (found["tiktok/variant"], found["tiktok/post"], found["approval"]) == ("blocked", "blocked", "blocked")
    await world.carry([key], "rendered_video", "approval")
    assert states(world, key)["youtube/post"] == "done"
    assert states(world, key)["tiktok/variant"] == "ready"


@pytest.mark.parametrize(
    "state", [PostState.OPENED, PostState.UPLOADING, PostState.COMMITTING, PostState.UNKNOWN, PostState.HANDED_OVER]
)
async def test_a_video_that_is_being_published_is_not_regenerated_under_the_publishers_feet(world: World, state: PostState) -> None:
    key = world.add()[0]
    await world.carry([key], *COMMON, "youtube/variant")
    _, claim = await world.claimed("youtube/post", key)
    ledgers = PostgresLedgers(world.async_engine)
    journal = await ledgers.post(claim, account="main", marker="m", video=media_file("v"), caption="", sandbox=False)
    await journal.save(PostState.OPENED)
    world.write_post("UPDATE phantoms.posts SET state = :state", state=str(state))
    with pytest.raises(InvalidInput, match=f"{key} is being published on youtube"):
        await world.store().regenerate(stage("script"), [key])
    assert states(world, key)["approval"] == "done"


async def test_a_video_whose_publication_begins_during_the_regeneration_is_not_regenerated(world: World) -> None:
    """The check came before the locks, so the words of a post that was going out were made again, and its end was not recorded."""
    key = world.add()[0]
    await world.carry([key], *COMMON, "youtube/variant")
    _, claim = await world.claimed("youtube/post", key)
    ledgers = PostgresLedgers(world.async_engine)
    journal = await ledgers.post(claim, account="main", marker="m", video=media_file("v"), caption="", sandbox=False)
    with world.engine.begin() as another:
        another.execute(text("SELECT FROM phantoms.stages WHERE stage = 'script' FOR UPDATE"))
        asked = asyncio.create_task(world.store().regenerate(stage("script"), [key]))
        await asyncio.to_thread(world.until_blocked)
        await journal.save(PostState.OPENED)
        await journal.save(PostState.COMMITTING)
    with pytest.raises(InvalidInput, match=f"{key} is being published on youtube"):
        await asked
    await journal.save(PostState.PUBLISHED, remote_id="v1")
    assert states(world, key)["approval"] == "done"


async def test_a_post_whose_stage_was_voided_before_it_opened_is_never_opened(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], *COMMON, "youtube/variant")
    _, claim = await world.claimed("youtube/post", key)
    ledgers = PostgresLedgers(world.async_engine)
    journal = await ledgers.post(claim, account="main", marker="m", video=media_file("v"), caption="", sandbox=False)
    await world.store().regenerate(stage("script"), [key])
    with pytest.raises(StaleClaim):
        await journal.save(PostState.OPENED)


@pytest.mark.parametrize("name", ["approval", "youtube/variant", "youtube/post"])
async def test_a_post_is_never_made_twice_and_a_decision_not_taken_back_by_regenerating(world: World, name: str) -> None:
    key = world.add()[0]
    await world.carry([key], *COMMON, "youtube/variant", "youtube/post")
    with pytest.raises(InvalidInput, match=f"{name} cannot be regenerated"):
        await world.store().regenerate(stage(name), [key])
    assert set(states(world, key).values()) == {"done"}


async def test_a_run_that_is_resumed_does_not_make_again_what_it_made(world: World) -> None:
    """A resumed run repeats its step from the top with the same run config: a render must not be billed a second time."""
    key = world.add()[0]
    await world.carry([key], "script")
    made_by = world.row(key, "script")["run_id"]
    await world.store().regenerate(stage("script"), [key], run_id=made_by)
    assert world.row(key, "script")["revision"] == 1
    await world.store().regenerate(stage("script"), [key], run_id="another-run")
    assert world.row(key, "script")["revision"] == 2
