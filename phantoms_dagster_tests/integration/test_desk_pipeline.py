"""The page Pipeline finds videos. Its bulk actions run once, can be stopped, and survive the desk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.errors import Evidence, InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.search import Search
from phantoms_dagster.domain.stages import StageState
from phantoms_dagster.store import board
from phantoms_dagster.store.audit import Actor
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk

ANN = Actor("ann", "desk", "10.0.0.1")


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


async def fail(world: DeskWorld, keys: list[str], stage: str = "script") -> None:
    """Let a stage of these fail for good."""
    store, claims = await world.world.claim(stage, keys, owner="failing")
    assert len(claims.claimed) == len(keys), claims.unclaimed
    for claim in claims.claimed:
        await store.finish(claim, failed(f"the model answered 503 about {claim.video_id}"))


def failed(message: str) -> AttemptOutcome:
    return AttemptOutcome(
        StageState.FAILED, provider="openai", error_class="transient", code="503", message=message, evidence=Evidence(status=503)
    )


async def test_a_search_finds_by_words_and_qualifiers_and_says_what_is_wrong(world: DeskWorld) -> None:
    keys = world.world.add(3, platforms=Platform.usual())
    await fail(world, keys[:1])
    browser = await world.logged_in("kim", "viewer")
    every = (await browser.get("/pipeline")).text
    assert all(key in every for key in keys)
    assert "3 videos" in every
    found = (await browser.get("/pipeline", params={"q": "stage:script state:failed since:1h platform:tiktok"})).text
    assert keys[0] in found
    assert keys[1] not in found
    found = (await browser.get("/pipeline", params={"q": "ocean " + keys[1]})).text
    assert keys[1] in found
    assert keys[2] not in found
    refused = await browser.get("/pipeline", params={"q": "state:faild"})
    assert refused.status_code == 422
    assert "did you mean failed?" in refused.text
    assert 'value="state:faild"' in refused.text
    assert (await browser.get("/pipeline", params={"q": "o'neil & x | !y:* \\"})).status_code == 200


async def test_a_count_stops_at_its_limit(world: DeskWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(board, "MOST_COUNTED", 2)
    world.world.add(5)
    assert world.desk.board.count(Search()) == 3


async def test_pages_go_by_key_and_show_every_video_once(world: DeskWorld) -> None:
    keys = world.world.add(120)
    browser = await world.logged_in("kim", "viewer")
    seen: list[str] = []
    path = "/pipeline"
    while path:
        text = (await browser.get(path)).text
        seen += [key for key in keys if f">{key}<" in text]
        _, _, rest = text.partition('rel="next"')
        path = text.split('rel="next"')[0].rsplit('href="', 1)[1].split('"')[0].replace("&amp;", "&") if rest else ""
    assert sorted(seen) == sorted(keys)


async def test_only_operators_act_and_they_see_first_what_would_be_done(world: DeskWorld) -> None:
    keys = world.world.add(2)
    await fail(world, keys)
    viewer = await world.logged_in("vic", "viewer")
    assert 'name="action"' not in (await viewer.get("/pipeline")).text
    operator = await world.logged_in("olga", "operator")
    asked = (await operator.get("/pipeline/act", params={"action": "retry", "q": "state:failed", "whole": "1"})).text
    assert "2 videos" in asked
    assert "script is failed: it starts over with a fresh budget" in asked
    answer = await operator.get("/pipeline/act", params={"action": "retry"})
    assert answer.status_code == 422
    assert "nothing is selected" in answer.text
    form = {"action": "discard", "q": "state:failed", "whole": "1"}
    assert (await operator.post("/pipeline/act", form)).status_code == 422  # without a reason
    form = {"action": "retry", "q": "state:failed", "whole": "1"}
    answer = await operator.post("/pipeline/act", form)
    assert answer.headers["location"] == "/bulk/1"
    assert world.desk.bulk.advance() == 2
    assert world.world.states("script") == ["ready", "ready"]
    assert "<b>2</b> done" in (await operator.get("/bulk/1")).text
    assert {row.action for row in world.desk.audit.page(subject=keys[0])} == {"retry"}


async def test_a_selection_can_be_held_given_a_priority_and_moved(world: DeskWorld) -> None:
    keys = await world.waiting(2)
    operator = await world.logged_in("olga", "operator")
    for form in (
        {"action": "priority", "priority": "1"},
        {"action": "move", "at": "2027-01-02T18:00", "zone": "Europe/Berlin"},
        {"action": "hold", "reason": "the lawyer looks"},
    ):
        assert (await operator.post("/pipeline/act", {**form, "key": keys})).status_code == 303
    world.desk.bulk.advance()
    for key in keys:
        brief = world.desk.services.catalogue().brief(key)
        assert (brief.priority, brief.publish_at) == (1, datetime(2027, 1, 2, 17, tzinfo=UTC))
    assert {one.note for one in world.desk.decisions.held()} == {"the lawyer looks"}
    assert (await operator.post("/pipeline/act", {"action": "priority", "priority": "12", "key": keys})).status_code == 422
    assert (await operator.post("/pipeline/act", {"action": "move", "at": "soon", "key": keys})).status_code == 422


async def test_a_step_that_cannot_be_done_fails_alone_and_says_why(world: DeskWorld) -> None:
    keys = world.world.add(2)
    await fail(world, keys[:1])
    number = world.desk.bulk.submit("discard", [(key, None) for key in keys], ANN, arguments={"reason": "no longer true"})
    world.desk.bulk.advance()
    assert world.desk.bulk.counts(number) == {"pending": 0, "done": 1, "failed": 1, "skipped": 0}
    [item] = world.desk.bulk.items(number, "failed")
    assert (item.key, item.outcome) == (keys[1], "it has no open dead letter")
    assert sorted(world.world.states("script")) == ["discarded", "ready"]


async def test_a_canary_goes_alone_and_the_rest_follows_when_its_stage_is_done(world: DeskWorld) -> None:
    keys = world.world.add(3)
    await fail(world, keys)
    number = world.desk.bulk.submit("retry", [(key, None) for key in keys], ANN, canary=True)
    for _ in range(3):
        world.desk.bulk.advance()
    assert world.world.states("script") == ["ready", "failed", "failed"]
    await world.world.carry(keys[:1], "script")
    for _ in range(3):
        world.desk.bulk.advance()
    assert world.world.states("script") == ["done", "ready", "ready"]
    assert world.desk.bulk.get(number).state == "ended"


async def test_a_canary_that_fails_again_stops_the_rest_until_a_person_lets_it_go_on(world: DeskWorld) -> None:
    keys = world.world.add(3)
    await fail(world, keys)
    number = world.desk.bulk.submit("retry", [(key, None) for key in keys], ANN, canary=True)
    world.desk.bulk.advance()
    await fail(world, keys[:1])
    world.desk.bulk.advance()
    bulk = world.desk.bulk.get(number)
    assert bulk.state == "stopped"
    assert "the canary failed again: script of " in bulk.note
    assert world.world.states("script") == ["failed"] * 3
    operator = await world.logged_in("olga", "operator")
    assert (await operator.post(f"/bulk/{number}/go-on")).status_code == 303
    world.desk.bulk.advance()
    world.desk.bulk.advance()
    assert world.world.states("script") == ["failed", "ready", "ready"]
    assert (await operator.post(f"/bulk/{number}/stop")).status_code == 422


async def test_an_action_that_was_stopped_begins_nothing_more(world: DeskWorld) -> None:
    keys = world.world.add(4)
    await fail(world, keys)
    number = world.desk.bulk.submit("retry", [(key, None) for key in keys], ANN)
    world.desk.bulk.advance(steps=2)
    world.desk.bulk.stop(number, ANN)
    assert world.desk.bulk.advance() == 0
    assert world.world.states("script") == ["ready", "ready", "failed", "failed"]
    assert world.desk.bulk.counts(number)["pending"] == 2


async def test_what_a_killed_desk_left_is_done_by_the_next_and_nothing_twice(world: DeskWorld) -> None:
    keys = world.world.add(30)
    await fail(world, keys)
    number = world.desk.bulk.submit("retry", [(key, None) for key in keys], ANN)
    world.desk.bulk.advance(steps=7)
    async with world.app.router.lifespan_context(world.app):
        for _ in range(600):
            if world.desk.bulk.get(number).state == "ended":
                break
            await asyncio.sleep(0.05)
        assert world.desk.bulk.counts(number) == {"pending": 0, "done": 30, "failed": 0, "skipped": 0}
    assert [row["n"] for row in world.world.rows("SELECT count(*) AS n FROM phantoms.audit_log WHERE action = 'retry'")] == [30]


async def test_two_desks_carry_one_action_on_and_each_step_is_done_once(world: DeskWorld) -> None:
    keys = world.world.add(20)
    await fail(world, keys)
    number = world.desk.bulk.submit("retry", [(key, None) for key in keys], ANN)
    for _ in range(3):
        await asyncio.gather(*(asyncio.to_thread(world.desk.bulk.advance) for _ in range(2)))
    assert world.desk.bulk.counts(number)["done"] == 20
    assert [row["n"] for row in world.world.rows("SELECT count(*) AS n FROM phantoms.audit_log WHERE action = 'retry'")] == [20]


async def test_an_empty_selection_and_an_unknown_action_are_refused(world: DeskWorld) -> None:
    with pytest.raises(InvalidInput, match="nothing is selected"):
        world.desk.bulk.submit("retry", [], ANN)
    with pytest.raises(InvalidInput, match="no action 'burn'"):
        world.desk.bulk.submit("burn", [("a", None)], ANN)
