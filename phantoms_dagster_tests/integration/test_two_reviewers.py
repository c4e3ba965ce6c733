"""Channels that require two different people to approve, or that refuse approval by the author of the brief."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.script_edits import ScriptEdit
from phantoms_dagster.domain.stages import stage
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.decisions import DecidedFirst
from phantoms_dagster.store.pending import PendingDecisions
from phantoms_dagster.store.two_reviewers import WantsAnother
from phantoms_dagster_tests.integration.desk_world import TESTER, DeskWorld, open_desk
from phantoms_dagster_tests.integration.stage_world import CHANNEL, brief, output_of

ANN, BEN = Actor("ann", "desk", "10.0.0.1"), Actor("ben", "desk", "10.0.0.2")
YOUTUBE, TIKTOK, INSTAGRAM = Platform.usual()


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path, desk_undo_seconds=0.0) as opened:
        rules(opened, reviewers=2)
        yield opened


def rules(world: DeskWorld, **changes: Any) -> None:
    """What the channel wants."""
    world.world.catalogue.put_channels([CHANNEL.model_copy(update=changes)])


def approve(world: DeskWorld, key: str, actor: Actor, **given: Any) -> str:
    """Approve the current version. Return the state of the decision, or the message of its refusal."""
    return world.desk.pending.submit(key, "approve", actor, content_sha256=world.content(key), **given).state


def outcome(world: DeskWorld, key: str) -> list[tuple[bool, str | None, str]]:
    """The decisions that count: approved or not, the first person, the person."""
    return [(row["approved"], row["first_reviewer"], row["reviewer"]) for row in world.approvals(key)]


def first(world: DeskWorld, key: str) -> str | None:
    """Return who has approved the current version while a second approval is missing."""
    review = world.desk.decisions.review(key)
    return review.first.reviewer if review is not None and review.first is not None else None


async def test_a_video_goes_out_when_a_second_different_person_approves_the_same_content(world: DeskWorld) -> None:
    [key] = await world.waiting()
    assert approve(world, key, ANN, note="fine") == "committed"
    assert world.approvals(key) == []
    assert world.desk.decisions.undecided() == [key]  # it is in the queue again, for the second
    kept = world.desk.decisions.review(key)
    assert kept is not None
    assert kept.first is not None
    assert (kept.first.person, kept.first.note, kept.first.via) == ("ann", "fine", "desk")
    assert [card.first_by for card in world.desk.queue.cards()] == ["ann"]
    assert approve(world, key, BEN) == "committed"
    assert outcome(world, key) == [(True, "ann", "ben")]
    assert world.desk.decisions.undecided() == []
    deeds = [(row.who, row.action) for row in world.desk.audit.page(subject=key)]
    assert deeds == [("ben", "approve"), ("ann", "approve as first of two")]


async def test_the_same_person_twice_is_told_so_whichever_way_they_come(world: DeskWorld) -> None:
    [key] = await world.waiting()
    approve(world, key, ANN)
    for again in (ANN, Actor("Ann", "api"), replace(ANN, name="ann the great", counts_as="ann")):
        with pytest.raises(WantsAnother, match=r"ann approved .* already.*wants a second, different person"):
            approve(world, key, again)
    [refused] = world.desk.decisions.decide_all([key], approved=True, reviewer="somebody else", via="cli", person="ann")
    assert isinstance(refused, WantsAnother)
    assert world.approvals(key) == []
    assert first(world, key) == "ann"


async def test_a_channel_without_the_rule_is_as_it_was(world: DeskWorld) -> None:
    rules(world)
    [key] = await world.waiting()
    approve(world, key, ANN)
    assert outcome(world, key) == [(True, None, "ann")]


async def test_an_edit_voids_the_first_approval_also_when_it_is_edited_back(world: DeskWorld) -> None:
    [key] = await world.waiting()
    before = world.content(key)
    approve(world, key, ANN)
    edits = world.desk.services.text_edits()
    caption = world.desk.queue.screen(key).script.script.caption  # type: ignore[union-attr]
    edits.edit(key, ScriptEdit(caption="About the very deep sea."), BEN)
    assert first(world, key) is None
    assert [card.first_by for card in world.desk.queue.cards()] == [None]
    edits.edit(key, ScriptEdit(caption=caption), BEN)
    assert first(world, key) is None
    assert world.content(key) == before
    approve(world, key, BEN)
    assert world.approvals(key) == []
    approve(world, key, ANN)
    assert outcome(world, key) == [(True, "ben", "ann")]


async def test_other_words_of_the_channel_void_the_first_approval(world: DeskWorld) -> None:
    """They change what is approved, and no stage of the video."""
    [key] = await world.waiting()
    approve(world, key, ANN)
    assert first(world, key) == "ann"
    rules(world, reviewers=2, hashtags=("#sponsored",))
    assert first(world, key) is None
    assert approve(world, key, BEN) == "committed"
    assert world.approvals(key) == []
    assert first(world, key) == "ben"


async def test_a_new_render_voids_the_first_approval_also_when_it_has_the_same_bytes(world: DeskWorld) -> None:
    [key] = await world.waiting()
    approve(world, key, ANN)
    for master in ("second", "master"):
        await world.world.store().regenerate(stage("rendered_video"), [key])
        again = output_of("rendered_video", master=master)
        await world.world.carry([key], "rendered_video", outputs={"rendered_video": again})
        assert first(world, key) is None
    approve(world, key, BEN)
    assert world.approvals(key) == []


async def test_a_rejection_ends_it_and_a_rejected_video_takes_two_again(world: DeskWorld) -> None:
    [key] = await world.waiting()
    approve(world, key, ANN)
    world.desk.pending.submit(key, "reject", BEN, content_sha256=world.content(key), note="wrong fact")
    assert first(world, key) is None
    world.world.write("UPDATE phantoms.stages SET state = 'rejected' WHERE stage = 'approval'")  # as a run carries it out
    approve(world, key, BEN)
    assert outcome(world, key) == [(False, None, "ben")]
    assert world.desk.decisions.undecided() == [key]  # the second finds it in the queue
    assert world.world.due("approval") == []  # and no run carries out the old rejection
    approve(world, key, ANN)
    assert outcome(world, key) == [(False, None, "ben"), (True, "ben", "ann")]


async def test_a_hold_keeps_the_first_approval(world: DeskWorld) -> None:
    [key] = await world.waiting()
    approve(world, key, ANN)
    world.desk.decisions.hold(key, reviewer="ben", via="desk")
    with pytest.raises(DecidedFirst, match="on hold"):
        approve(world, key, BEN)
    world.desk.decisions.release(key, reviewer="ben", via="desk")
    approve(world, key, BEN)
    assert outcome(world, key) == [(True, "ann", "ben")]


async def test_a_first_approval_can_be_undone_and_then_there_is_none(world: DeskWorld) -> None:
    [key] = await world.waiting()
    slow = PendingDecisions(world.world.engine, world.desk.decisions, window=timedelta(hours=1))
    made = slow.submit(key, "approve", ANN, content_sha256=world.content(key))
    with pytest.raises(DecidedFirst, match="ann was first"):
        approve(world, key, BEN)
    slow.undo(made.id, ANN)
    assert first(world, key) is None
    approve(world, key, BEN)
    assert first(world, key) == "ben"


async def test_of_two_who_approve_at_the_same_second_one_is_first_and_the_other_completes_it(world: DeskWorld) -> None:
    keys = await world.waiting(6)
    for key in keys:
        states = await asyncio.gather(*(asyncio.to_thread(approve, world, key, actor) for actor in (ANN, BEN)))
        assert states == ["committed", "committed"]
        [(approved, one, other)] = outcome(world, key)
        assert approved
        assert {one, other} == {"ann", "ben"}


async def test_a_person_who_sends_it_twice_at_the_same_second_is_one_person(world: DeskWorld) -> None:
    for key in await world.waiting(4):

        def twice(key: str = key) -> str:
            try:
                return approve(world, key, ANN)
            except WantsAnother as error:
                return str(error)

        said = await asyncio.gather(*(asyncio.to_thread(twice) for _ in range(2)))
        assert sorted(one == "committed" for one in said) == [False, True]
        assert world.approvals(key) == []


async def test_the_first_approves_for_fewer_platforms_and_the_second_for_fewer_still(world: DeskWorld) -> None:
    [key] = await world.waiting()
    approve(world, key, ANN, only=[YOUTUBE, TIKTOK])
    assert world.desk.services.catalogue().brief(key).platforms == (YOUTUBE, TIKTOK)
    assert first(world, key) == "ann"
    approve(world, key, BEN, only=[YOUTUBE])
    assert outcome(world, key) == [(True, "ann", "ben")]
    assert world.desk.services.catalogue().brief(key).platforms == (YOUTUBE,)


async def test_a_platform_that_comes_in_after_the_first_approval_voids_it(world: DeskWorld) -> None:
    from phantoms_dagster.domain.brief_changes import BriefChanges  # noqa: PLC0415

    [key] = await world.waiting(platforms=(YOUTUBE,))
    approve(world, key, ANN)
    for wanted in ((YOUTUBE, TIKTOK), (YOUTUBE,)):
        world.desk.services.brief_edits().edit(key, BriefChanges(platforms=wanted), by="ben")
        assert first(world, key) is None


@pytest.mark.parametrize("changes", [{"reviewers": 2}, {"own_briefs": "refuse"}, {"reviewers": 2, "own_briefs": "refuse"}])
async def test_a_run_of_dagster_approves_nothing_where_it_must_be_known_who_asks(world: DeskWorld, changes: dict[str, Any]) -> None:
    rules(world, **changes)
    keys = await world.waiting(2)
    with pytest.raises(InvalidInput, match=f"does not know who asks: approve at the desk, or with `phantoms approve {keys[0]}`"):
        world.desk.services.record_decision(keys[0], approved=True, reviewer="ann", note="")
    world.desk.services.record_decision(keys[1], approved=False, reviewer="ann", note="no")
    assert [outcome(world, key) for key in keys] == [[], [(False, None, "ann")]]


# --- nobody approves a brief of their own


def added(world: DeskWorld, by: str | None) -> str:
    number = world.world.rows("SELECT count(*) AS n FROM phantoms.videos")[0]["n"]
    [one] = world.world.catalogue.add([brief(number)], source="test", added_by=by)
    return one.key


async def test_nobody_approves_a_brief_that_they_added_where_the_channel_refuses_that(world: DeskWorld) -> None:
    rules(world, own_briefs="refuse")
    mine, theirs, nobodys = added(world, "Ann"), added(world, "ben"), added(world, None)
    await world.world.carry([mine, theirs, nobodys], "script", "voiceover", "rendered_video")
    with pytest.raises(WantsAnother, match=r"ann added the brief of .* requires another person to approve it"):
        approve(world, mine, ANN)
    world.desk.pending.submit(mine, "reject", ANN, content_sha256=world.content(mine), note="I was wrong")
    approve(world, theirs, ANN)
    approve(world, nobodys, ANN)
    assert [outcome(world, key)[0][0] for key in (mine, theirs, nobodys)] == [False, True, True]


async def test_who_added_a_brief_is_neither_the_first_nor_the_second_of_two(world: DeskWorld) -> None:
    rules(world, reviewers=2, own_briefs="refuse")
    key = added(world, "ann")
    await world.world.carry([key], "script", "voiceover", "rendered_video")
    with pytest.raises(WantsAnother):
        approve(world, key, ANN)
    approve(world, key, BEN)
    with pytest.raises(WantsAnother):
        approve(world, key, ANN)
    approve(world, key, Actor("cem", "desk"))
    assert outcome(world, key) == [(True, "ben", "cem")]


async def test_the_person_who_adds_at_the_desk_or_by_the_api_is_known_and_an_inbox_file_has_none(world: DeskWorld) -> None:
    browser = await world.logged_in("kim", "operator")
    world.desk.users.add_token("robot", "operator", "phantoms_robot", actor=TESTER)
    await browser.get("/add")
    form = {"channel": "curious", "title": "Why the sea is salty", "platforms": "youtube", "priority": "5"}
    assert (await browser.post("/add", form)).status_code == 303
    await browser.client.post(
        "/api/v1/briefs", json={"briefs": [{"title": "Why bees dance"}]}, headers={"Authorization": "Bearer phantoms_robot"}
    )
    world.world.catalogue.add_from([brief(7, title="Why cats purr")], "inbox:briefs.csv")
    rows = world.world.rows("SELECT title, added_by FROM phantoms.videos ORDER BY id")
    assert {row["title"]: row["added_by"] for row in rows} == {
        "Why the sea is salty": "kim",
        "Why bees dance": "robot",
        "Why cats purr": None,
    }


# --- guests


async def test_a_guest_counts_as_the_person_who_invited_them(world: DeskWorld) -> None:
    [key] = await world.waiting()
    content = world.content(key)
    _, secret = world.desk.guests.add(key, "Dr. Weber", ANN, content_sha256=content, hours=1)
    _, other = world.desk.guests.add(key, "Dr. Acar", ANN, content_sha256=content, hours=1)
    world.desk.guests.decide(secret, "approve", reason="", address="")
    assert first(world, key) == "Dr. Weber (guest of ann)"
    with pytest.raises(WantsAnother, match=r"ann approved .* already \(as Dr. Weber"):
        approve(world, key, ANN)
    with pytest.raises(InvalidInput, match="ann approved"):
        world.desk.guests.decide(other, "approve", reason="", address="")  # two guests of one person are that person
    assert [link.state for link in world.desk.guests.page()] == ["open", "used"]
    with pytest.raises(WantsAnother):
        world.desk.guests.add(key, "Dr. Cole", ANN, content_sha256=content, hours=1)
    approve(world, key, BEN)
    assert outcome(world, key) == [(True, "Dr. Weber (guest of ann)", "ben")]


async def test_a_guest_does_not_approve_the_brief_of_who_invited_them(world: DeskWorld) -> None:
    rules(world, own_briefs="refuse")
    key = added(world, "ann")
    await world.world.carry([key], "script", "voiceover", "rendered_video")
    with pytest.raises(WantsAnother, match="ann added the brief"):
        world.desk.guests.add(key, "Dr. Weber", ANN, content_sha256=world.content(key), hours=1)


# --- what people see


async def test_the_review_says_who_was_first_and_offers_that_person_no_second_approval(world: DeskWorld) -> None:
    [key] = await world.waiting()
    ann, ben = await world.logged_in("ann"), await world.logged_in("ben")
    assert "first of 2" in (await ann.get(f"/review/{key}")).text
    form = {"answer": "approve", "content": world.content(key), "note": "nice"}
    assert (await ann.post(f"/review/{key}/decide", form)).status_code == 303
    mine = (await ann.get(f"/review/{key}")).text
    assert "ann approved this version" in mine
    assert "You cannot approve it: ann approved" in mine
    assert 'value="approve"' not in mine
    assert (await ann.post(f"/review/{key}/decide", form)).status_code == 422
    theirs = (await ben.get(f"/review/{key}")).text
    assert "second of 2" in theirs
    assert 'value="approve"' in theirs
    assert (await ben.post(f"/review/{key}/decide", form)).status_code == 303
    assert "ann and ben" in (await ben.get(f"/review/{key}")).text
    story = (await ben.get(f"/videos/{key}")).text
    assert "approve as first of two by ann" in story
    assert "Approved by ann and ben" in story


async def test_the_api_says_who_was_first(world: DeskWorld) -> None:
    world.desk.users.add_token("robot", "reviewer", "phantoms_robot", actor=TESTER)
    client, headers = world.browser(address="10.0.0.7").client, {"Authorization": "Bearer phantoms_robot"}
    [key] = await world.waiting()
    approve(world, key, ANN)
    look = (await client.get(f"/api/v1/videos/{key}/review", headers=headers)).json()
    assert (look["first"]["person"], look["content"]) == ("ann", world.content(key))
    queue = (await client.get("/api/v1/review", headers=headers)).json()
    assert [card["first_by"] for card in queue["videos"]] == ["ann"]
