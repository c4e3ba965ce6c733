"""Reviewers' decisions: bound to exactly what the reviewer saw, and the last one counts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from phantoms_dagster.domain.claims import AttemptOutcome, Result, StageResult, StageTask
from phantoms_dagster.domain.errors import HumanRejection, InvalidInput, NotYet
from phantoms_dagster.domain.models import ApprovalOutput, Platform, content_hash
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import StageState, stage
from phantoms_dagster.domain.wording import post_words
from phantoms_dagster.production.runner import StageRunner
from phantoms_dagster.production.stages.approval import Approve
from phantoms_dagster.store.decisions import Decided, Decisions
from phantoms_dagster_tests.integration.stage_world import (
    CHANNEL,
    SCRIPT,
    SENSOR,
    FakeClock,
    World,
    deciding,
    done,
    finished,
    media_file,
    open_world,
    output_of,
)

RENDERED = ("script", "voiceover", "rendered_video")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def rendered(world: World, count: int = 1) -> list[str]:
    keys = world.add(count)
    await world.carry(keys, *RENDERED)
    world.catalogue.registered(keys)
    return keys


async def sense(world: World) -> list[Result]:
    """What the sensor would do now: a run over every approval that the planner sees."""
    keys = world.due("approval")
    runner = StageRunner(
        store=world.store(),
        use_cases={"approval": Approve(FakeClock())},
        clock=FakeClock(),
        policy=RetryPolicy(),
        random=lambda: 0.5,
        new_owner=lambda: "sensor",
        in_flight=10,
        heartbeat_seconds=20,
    )
    return await runner.run(stage("approval"), keys, SENSOR)


async def test_a_video_waits_for_review_and_does_not_run_until_a_person_decides(world: World) -> None:
    key = (await rendered(world))[0]
    decisions = Decisions(world.engine)
    assert decisions.undecided() == [key]
    assert await sense(world) == []
    assert decisions.decide(key, approved=True, reviewer="ann", note="nice", via="cli").new
    assert decisions.undecided() == []
    result = (await sense(world))[0]
    assert result.outcome == "done"
    assert isinstance(result.output, ApprovalOutput)
    assert (result.output.reviewer, result.output.note) == ("ann", "nice")
    assert world.row(key, "youtube/variant")["state"] == "ready"


async def test_many_are_decided_at_once_and_what_cannot_be_decided_stops_none_of_them(world: World) -> None:
    first, second, third = await rendered(world, 3)
    fresh = world.add(1)[0]
    decisions = Decisions(world.engine)
    decisions.decide(second, approved=True, reviewer="ann", via="cli")
    await sense(world)
    found = decisions.decide_all([third, second, fresh, "no such video", first], approved=True, reviewer="bob", via="desk")
    assert found[:2] == [Decided(third, approved=True, new=True), Decided(second, approved=True, new=False)]
    assert ["not rendered yet" in str(problem) for problem in found[2:4]] == [True, True]
    assert found[4] == Decided(first, approved=True, new=True)
    assert [r.key for r in await sense(world) if r.outcome == "done"] == [first, third]
    who = world.rows("SELECT v.key, d.reviewer AS r FROM phantoms.approvals d JOIN phantoms.videos v ON v.id = d.video_id")
    assert {row["key"]: row["r"] for row in who} == {first: "bob", second: "ann", third: "bob"}
    again = decisions.decide_all([first], approved=False, reviewer="bob", via="desk")
    assert "is approved already" in str(again[0])


async def test_an_approval_is_bound_to_the_hash_of_the_bytes_and_words_that_were_reviewed(world: World) -> None:
    key = (await rendered(world))[0]
    Decisions(world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    content = content_hash(SCRIPT, media_file("master"), post_words(SCRIPT, CHANNEL, [Platform("youtube")]))
    assert world.rows("SELECT content_sha256 AS c FROM phantoms.approvals")[0]["c"] == content
    output = (await sense(world))[0].output
    assert isinstance(output, ApprovalOutput)
    assert output.content_sha256 == content


async def test_regenerating_the_render_voids_the_approval_and_asks_the_reviewer_again(world: World) -> None:
    key = (await rendered(world))[0]
    decisions = Decisions(world.engine)
    decisions.decide(key, approved=True, reviewer="ann", via="cli")
    await sense(world)
    await world.store().regenerate(stage("rendered_video"), [key])
    assert world.row(key, "approval")["state"] == "blocked"
    with pytest.raises(InvalidInput, match="not rendered yet"):
        decisions.decide(key, approved=True, reviewer="ann", via="cli")
    await world.carry([key], "rendered_video", outputs={"rendered_video": output_of("rendered_video", master="second")})
    assert decisions.undecided() == [key]
    assert await sense(world) == []
    assert world.row(key, "youtube/variant")["state"] == "blocked"


async def test_an_old_approval_does_not_carry_over_to_new_bytes_even_when_a_person_runs_the_stage(world: World) -> None:
    key = (await rendered(world))[0]
    Decisions(world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    await sense(world)
    await world.store().regenerate(stage("rendered_video"), [key])
    await world.carry([key], "rendered_video", outputs={"rendered_video": output_of("rendered_video", master="second")})
    store, claim = await world.claimed("approval", key)
    with pytest.raises(NotYet, match="the decision was about an earlier version"):
        await Approve(FakeClock())(StageTask(claim, await store.attempt(claim)))


@pytest.mark.parametrize("changed", ["title", "caption", "hashtags"])
def test_other_words_are_other_content(changed: str) -> None:
    other = SCRIPT.model_copy(update={changed: ("#other",) if changed == "hashtags" else "other"})
    assert content_hash(other, media_file("master")) != content_hash(SCRIPT, media_file("master"))


async def test_a_rejected_video_goes_no_further_and_is_not_a_dead_letter(world: World) -> None:
    key = (await rendered(world))[0]
    Decisions(world.engine).decide(key, approved=False, reviewer="ann", note="too loud", via="desk")
    result = (await sense(world))[0]
    assert (result.outcome, result.message) == ("rejected", "rejected by ann: too loud")
    assert world.row(key, "approval")["state"] == "rejected"
    assert world.row(key, "youtube/variant")["state"] == "blocked"
    assert not world.letters(key)
    assert await sense(world) == []


async def test_a_rejected_video_can_be_approved_after_all(world: World) -> None:
    key = (await rendered(world))[0]
    decisions = Decisions(world.engine)
    decisions.decide(key, approved=False, reviewer="ann", via="cli")
    await sense(world)
    decisions.decide(key, approved=True, reviewer="bob", via="cli")
    assert [result.outcome for result in await sense(world)] == ["done"]


async def test_the_last_decision_counts(world: World) -> None:
    key = (await rendered(world))[0]
    decisions = Decisions(world.engine)
    decisions.decide(key, approved=True, reviewer="ann", via="cli")
    decisions.decide(key, approved=False, reviewer="bob", via="cli")
    assert [result.outcome for result in await sense(world)] == ["rejected"]
    assert len(world.rows("SELECT id FROM phantoms.approvals")) == 2


async def test_an_approved_video_is_not_rejected_any_more_and_approving_twice_changes_nothing(world: World) -> None:
    key = (await rendered(world))[0]
    decisions = Decisions(world.engine)
    decisions.decide(key, approved=True, reviewer="ann", via="cli")
    await sense(world)
    assert not decisions.decide(key, approved=True, reviewer="bob", via="cli").new
    with pytest.raises(InvalidInput, match=r"approved already. To take that back .* --from script"):
        decisions.decide(key, approved=False, reviewer="bob", via="cli")
    assert len(world.rows("SELECT id FROM phantoms.approvals")) == 1


@pytest.mark.parametrize("stages", [(), ("script",), ("script", "voiceover")])
async def test_there_is_nothing_to_review_before_the_render(world: World, stages: tuple[str, ...]) -> None:
    key = world.add()[0]
    await world.carry([key], *stages)
    with pytest.raises(InvalidInput, match=f"{key} is not rendered yet"):
        Decisions(world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    assert Decisions(world.engine).undecided() == []


async def test_a_video_that_waits_for_a_person_is_due_the_moment_one_decides(world: World) -> None:
    key = (await rendered(world))[0]
    store, claim = await world.claimed("approval", key)
    later = datetime.now(UTC) + timedelta(days=3650)
    await store.finish(claim, AttemptOutcome(StageState.DEFERRED, retry_at=later, counts=False))
    assert await sense(world) == []
    Decisions(world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    assert [result.outcome for result in await sense(world)] == ["done"]


async def test_a_decision_made_while_a_run_is_about_to_wait_for_one_is_not_forgotten(world: World) -> None:
    """The run read "nobody has decided", and would have put the stage off for ten years."""
    key = (await rendered(world))[0]
    store, claim = await world.claimed("approval", key)
    assert claim.decision is None
    Decisions(world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    later = datetime.now(UTC) + timedelta(days=3650)
    assert not await store.finish(claim, AttemptOutcome(StageState.DEFERRED, retry_at=later, counts=False))
    assert [result.outcome for result in await sense(world)] == ["done"]


async def test_a_decision_in_the_run_config_is_carried_out_and_a_no_raises_a_rejection(world: World) -> None:
    yes, no = await rendered(world, 2)
    approve = Approve(FakeClock())
    store, claim = await world.claimed("approval", yes, context=deciding())
    made = await approve(StageTask(claim, await store.attempt(claim)))
    assert isinstance(made, StageResult)
    assert await store.finish(claim, done(made))
    store, claim = await world.claimed("approval", no, context=deciding(approved=False))
    with pytest.raises(HumanRejection, match="rejected by ann"):
        await approve(StageTask(claim, await store.attempt(claim)))


async def test_reviewers_see_what_is_published_soonest_first_then_by_priority(world: World) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    keys = [
        world.add(**changes)[0] for changes in ({}, {"priority": 1}, {"publish_at": soon + timedelta(days=1)}, {"publish_at": soon})
    ]
    await world.carry(keys, *RENDERED)
    assert Decisions(world.engine).undecided() == [keys[3], keys[2], keys[1], keys[0]]
    assert Decisions(world.engine).undecided(limit=1) == [keys[3]]


async def test_an_approved_video_gets_its_variant_and_then_its_post_ready(world: World) -> None:
    key = (await rendered(world))[0]
    store, claim = await world.claimed("approval", key, context=deciding())
    assert await store.finish(claim, finished("approval"))
    await world.carry([key], "youtube/variant")
    assert world.row(key, "youtube/post")["state"] == "ready"
