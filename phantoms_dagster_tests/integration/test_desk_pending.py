"""Decisions at the desk: they can be undone for a while, and then any process commits them. One decision per video counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.decisions import DecidedFirst
from phantoms_dagster.store.pending import PendingDecisions
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk
from phantoms_dagster_tests.integration.stage_world import SCRIPT, output_of

ANN, BEN = Actor("ann", "desk", "10.0.0.1"), Actor("ben", "desk", "10.0.0.2")
YOUTUBE, TIKTOK, INSTAGRAM = Platform.usual()


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


def pending(world: DeskWorld, seconds: float) -> PendingDecisions:
    """Another process, with its own time for undoing."""
    return PendingDecisions(world.world.engine, world.desk.decisions, window=timedelta(seconds=seconds))


def make_due(world: DeskWorld) -> None:
    """As if the time for undoing were over."""
    world.world.write("UPDATE phantoms.pending_decisions SET commit_at = clock_timestamp() - interval '1 second'")


async def test_a_decision_counts_only_when_it_can_no_longer_be_undone(world: DeskWorld) -> None:
    [key] = await world.waiting()
    made = pending(world, 3600).submit(key, "approve", ANN, content_sha256=world.content(key), note="fine")
    assert made.state == "pending"
    assert world.desk.decisions.undecided() == []  # nobody else decides on it meanwhile
    assert pending(world, 3600).commit_due() == []
    assert world.approvals(key) == []
    make_due(world)
    [committed] = pending(world, 3600).commit_due()
    assert committed.state == "committed"
    [decision] = world.approvals(key)
    assert (decision["approved"], decision["reviewer"], decision["note"], decision["via"]) == (True, "ann", "fine", "desk")


async def test_a_decision_of_a_desk_that_was_killed_is_committed_by_the_next(world: DeskWorld) -> None:
    [key] = await world.waiting()
    pending(world, 10).submit(key, "reject", ANN, content_sha256=world.content(key), note="wrong fact")
    make_due(world)
    async with world.app.router.lifespan_context(world.app):
        for _ in range(600):
            if world.approvals(key):
                break
            await asyncio.sleep(0.05)
    [decision] = world.approvals(key)
    assert (decision["approved"], decision["note"]) == (False, "wrong fact")


async def test_a_decision_that_was_undone_leaves_the_video_in_the_queue_and_no_trace_but_the_log(world: DeskWorld) -> None:
    [key] = await world.waiting()
    made = pending(world, 3600).submit(key, "approve", ANN, content_sha256=world.content(key))
    assert pending(world, 3600).undo(made.id, ANN).state == "undone"
    make_due(world)
    assert pending(world, 3600).commit_due() == []
    assert world.approvals(key) == []
    assert world.desk.decisions.undecided() == [key]
    assert [row.action for row in world.desk.audit.page(subject=key)] == ["undo approve"]


async def test_a_due_decision_cannot_be_undone_even_if_it_is_not_committed_yet(world: DeskWorld) -> None:
    [key] = await world.waiting()
    made = pending(world, 3600).submit(key, "approve", ANN, content_sha256=world.content(key))
    make_due(world)
    with pytest.raises(InvalidInput, match="cannot be undone any more"):
        pending(world, 3600).undo(made.id, ANN)
    assert [one.state for one in pending(world, 3600).commit_due()] == ["committed"]


async def test_only_who_decided_or_an_operator_undoes(world: DeskWorld) -> None:
    [key] = await world.waiting()
    made = pending(world, 3600).submit(key, "approve", ANN, content_sha256=world.content(key))
    with pytest.raises(InvalidInput, match="ann's"):
        pending(world, 3600).undo(made.id, BEN)
    assert pending(world, 3600).undo(made.id, BEN, others=True).state == "undone"


async def test_without_a_window_a_decision_is_committed_at_once(world: DeskWorld) -> None:
    [key] = await world.waiting()
    made = pending(world, 0).submit(key, "approve", ANN, content_sha256=world.content(key))
    assert made.state == "committed"
    assert len(world.approvals(key)) == 1


@pytest.mark.parametrize("seconds", [0, 3600])
async def test_of_two_who_decide_at_the_same_second_one_counts_and_the_other_is_told_who_was_first(
    world: DeskWorld, seconds: float
) -> None:
    keys = await world.waiting(6)
    contents = {key: world.content(key) for key in keys}

    def decide(actor: Actor, key: str) -> str:
        try:
            answer: Literal["approve", "reject"] = "approve" if actor is ANN else "reject"
            pending(world, seconds).submit(key, answer, actor, content_sha256=contents[key], note="no")
        except DecidedFirst as error:
            return str(error)
        return ""

    for key in keys:
        said = await asyncio.gather(*(asyncio.to_thread(decide, actor, key) for actor in (ANN, BEN)))
        assert sorted(bool(one) for one in said) == [False, True], said
        winner = "ann" if said[0] == "" else "ben"
        assert f"{winner} was first" in "".join(said)
    make_due(world)
    pending(world, seconds).commit_due()
    assert [len(world.approvals(key)) for key in keys] == [1] * 6


async def test_of_two_processes_that_commit_at_once_one_does(world: DeskWorld) -> None:
    keys = await world.waiting(5)
    for key in keys:
        pending(world, 3600).submit(key, "approve", ANN, content_sha256=world.content(key))
    make_due(world)
    both = await asyncio.gather(*(asyncio.to_thread(pending(world, 1).commit_due) for _ in range(2)))
    assert sorted(one.key for done in both for one in done) == sorted(keys)
    assert [len(world.approvals(key)) for key in keys] == [1] * 5


async def test_a_decision_about_what_changed_meanwhile_is_refused_and_changes_nothing(world: DeskWorld) -> None:
    [key] = await world.waiting()
    pending(world, 3600).submit(key, "approve", ANN, content_sha256=world.content(key), only=[YOUTUBE])
    changed = output_of("script", script=SCRIPT.model_copy(update={"title": "Another title"})).model_dump_json()
    world.world.write("UPDATE phantoms.stages SET output = CAST(:o AS jsonb) WHERE stage = 'script'", o=changed)
    make_due(world)
    [refused] = pending(world, 3600).commit_due()
    assert refused.state == "refused"
    assert "is not what was looked at" in (refused.outcome or "")
    assert world.approvals(key) == []
    assert world.desk.services.catalogue().brief(key).platforms == Platform.usual()
    assert world.desk.decisions.undecided() == [key]


async def test_the_command_line_mentions_a_decision_that_can_still_be_undone(world: DeskWorld) -> None:
    [key] = await world.waiting()
    pending(world, 3600).submit(key, "hold", ANN, content_sha256=world.content(key))
    with pytest.raises(DecidedFirst, match="ann was first: held"):
        world.desk.decisions.decide(key, approved=True, reviewer="ben", via="cli")


async def test_a_video_that_is_approved_for_two_of_three_platforms_goes_to_those_only(world: DeskWorld) -> None:
    [key] = await world.waiting()
    pending(world, 0).submit(key, "approve", ANN, content_sha256=world.content(key), only=[INSTAGRAM, YOUTUBE])
    assert world.desk.services.catalogue().brief(key).platforms == (YOUTUBE, INSTAGRAM)
    stages = world.desk.services.catalogue().stages(key)
    assert {name for name in stages if "/" in name} == {"youtube/variant", "youtube/post", "instagram/variant", "instagram/post"}
    [decision] = world.approvals(key)
    assert {post["platform"] for post in decision["words"]} == {"youtube", "instagram"}
    # The approval's own use case finds that the decision is about exactly this.
    from phantoms_dagster.domain.claims import StageTask  # noqa: PLC0415
    from phantoms_dagster.production.stages.approval import Approve  # noqa: PLC0415
    from phantoms_dagster_tests.integration.stage_world import FakeClock  # noqa: PLC0415

    _, claim = await world.world.claimed("approval", key)
    made = await Approve(FakeClock())(StageTask(claim, None))  # type: ignore[arg-type]
    assert [post.platform for post in made.output.words] == [YOUTUBE, INSTAGRAM]  # type: ignore[union-attr]


async def test_nobody_approves_for_a_platform_that_the_video_does_not_go_to(world: DeskWorld) -> None:
    [key] = await world.waiting(platforms=(YOUTUBE,))
    with pytest.raises(InvalidInput, match="does not go to TikTok"):
        pending(world, 0).submit(key, "approve", ANN, content_sha256=world.content(key), only=[TIKTOK])
    assert world.approvals(key) == []


async def test_a_rejection_needs_a_reason(world: DeskWorld) -> None:
    [key] = await world.waiting()
    with pytest.raises(InvalidInput, match="needs a reason"):
        pending(world, 0).submit(key, "reject", ANN, content_sha256=world.content(key), note="  ")


async def test_a_video_on_hold_leaves_the_queue_until_it_is_taken_back(world: DeskWorld) -> None:
    keys = await world.waiting(2)
    world.desk.decisions.hold(keys[0], reviewer="ann", note="waits for the lawyer", via="desk")
    assert world.desk.decisions.undecided() == keys[1:]
    assert [card.key for card in world.desk.queue.cards()] == keys[1:]
    assert [card.held_by for card in world.desk.queue.cards(held=True)] == ["ann"]
    assert [(one.key, one.note) for one in world.desk.decisions.held()] == [(keys[0], "waits for the lawyer")]
    with pytest.raises(DecidedFirst, match=r"on hold by ann since .*: waits for the lawyer; take it back with"):
        world.desk.decisions.decide(keys[0], approved=True, reviewer="ben", via="cli")
    with pytest.raises(DecidedFirst):
        world.desk.decisions.hold(keys[0], reviewer="ben", via="cli")
    world.desk.decisions.release(keys[0], reviewer="ben", via="cli")
    assert world.desk.decisions.undecided() == keys
    world.desk.decisions.decide(keys[0], approved=True, reviewer="ben", via="cli")
    deeds = [(row.who, row.action) for row in world.desk.audit.page(subject=keys[0])]
    assert deeds == [("ben", "approve"), ("ben", "take back from hold"), ("ann", "hold")]
