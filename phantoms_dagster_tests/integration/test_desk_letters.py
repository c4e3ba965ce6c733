"""Dead letters by cause: issues that reopen by themselves, and replays that say first what they would do."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.errors import Evidence
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import StageState
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.issues import Issues
from phantoms_dagster_tests.integration.desk_world import MADE, DeskWorld, open_desk

ANN = Actor("ann", "desk", "10.0.0.1")


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


async def fail(
    world: DeskWorld,
    keys: list[str],
    stage: str = "script",
    message: str = "the model answered 503 about {key}",
    **outcome: Any,
) -> None:
    """Let a stage of these fail for good, each with a message of its own."""
    store, claims = await world.world.claim(stage, keys, owner="failing")
    assert len(claims.claimed) == len(keys), claims.unclaimed
    given = {"provider": "openai", "error_class": "transient", "code": "503", "evidence": Evidence(status=503), **outcome}
    for claim, key in zip(claims.claimed, keys, strict=True):
        await store.finish(claim, AttemptOutcome(StageState.FAILED, message=message.format(key=key), **given))


def issues(world: DeskWorld) -> Issues:
    return Issues(world.desk.services.engine)


def same(world: DeskWorld, one: str, other: str) -> bool:
    """Whether two messages have one cause."""
    statement = "SELECT phantoms.cause_of('openai', 'script', 'transient', NULL, :m) AS cause"
    first, second = (world.world.rows(statement, m=message)[0]["cause"] for message in (one, other))
    return bool(first == second)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("render 17 failed after 31.5 s", "render 4242 failed after 8 s"),
        ("no video the-blue-whale-of-patagonia here", "no video why-cats-purr here"),
        ('unknown voice "anna"', 'unknown voice "Bob the second"'),
        ("`title` is too long", "`caption` is too long"),
        ("the field 'title' can't be empty", "the field 'caption' can't be empty"),
        ("GET https://a.example/x?y=1 gave no file", "GET https://b.example/long/path gave no file"),
        ("upload deadbeefcafe was lost", "upload abadcafefeed was lost"),
        ("session e3b0c44298fc1c149afbf4c8996fb924 ended", "session 27ae41e4649b934ca495991b7852b855 ended"),
        ("missing: 1, 2, 3", "missing: 7"),
    ],
)
async def test_what_differs_from_letter_to_letter_is_not_the_cause(world: DeskWorld, one: str, other: str) -> None:
    assert same(world, one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("the key is not valid", "the quota is used up"),
        ("it doesn't know the voice and can't say more", "it doesn't know the video and can't say more"),
        ("privacy_level_option_mismatch", "unaudited_client_can_only_post"),
    ],
)
async def test_other_words_are_another_cause(world: DeskWorld, one: str, other: str) -> None:
    assert not same(world, one, other)


async def test_letters_of_one_cause_are_one_issue_with_its_count_and_trend(world: DeskWorld) -> None:
    keys = world.world.add(4)
    await fail(world, keys[:3])
    await fail(world, keys[3:], code="invalid_api_key", error_class="permanent", message="the key was refused")
    world.world.write("UPDATE phantoms.dead_letters SET created_at = now() - interval '2 days' WHERE id = 1")
    found = issues(world).all()
    assert [(one.error_class, one.open, one.total, one.state) for one in found] == [
        ("permanent", 1, 1, "open"),
        ("transient", 3, 3, "open"),
    ]
    today = datetime.now(UTC).date()
    trend = issues(world).trend([found[1].cause], since=today - timedelta(days=13))
    assert trend[found[1].cause] == {today - timedelta(days=2): 1, today: 2}
    browser = await world.logged_in("kim", "viewer")
    text = (await browser.get("/dead-letters")).text
    assert "<b>3</b> open" in text
    assert "3 letters in the last 14 days" in text  # said to who cannot see the plot
    assert "script: 503 from openai (transient)" in text
    only = (await browser.get("/dead-letters", params={"provider": "tiktok"})).text
    assert "script: 503" not in only
    assert (await browser.get("/dead-letters", params={"state": "sleepy"})).status_code == 422


async def test_issues_are_found_by_words_of_their_stage_provider_code_message_and_note(world: DeskWorld) -> None:
    keys = world.world.add(2)
    await fail(world, keys[:1])
    await fail(world, keys[1:], code="invalid_api_key", error_class="permanent", message="the key was refused")
    [refused, busy] = issues(world).all()
    issues(world).say(busy.cause, "open", ANN, seen=busy.newest, reason="Known at the Vendor")
    browser = await world.logged_in("kim", "viewer")
    for q, found in (("KEY refused", refused), ("openai 503", busy), ("vendor", busy), ("permanent script", refused)):
        page = (await browser.get("/dead-letters", params={"q": q, "state": "all"})).text
        assert [one for one in (refused, busy) if f'href="/dead-letters/{one.cause}"' in page] == [found], q
        assert f'value="{q}"' in page
        assert f"q={q.replace(' ', '+')}" in page  # the tabs keep the search
    nothing = (await browser.get("/dead-letters", params={"q": "glacier"})).text
    assert "No issue in this list contains all of these words: glacier" in nothing


async def test_an_issue_opens_again_with_the_next_letter_of_its_cause(world: DeskWorld) -> None:
    keys = world.world.add(3)
    await fail(world, keys[:1])
    [one] = issues(world).all()
    for state in ("acknowledged", "resolved"):
        said = issues(world).say(one.cause, state, ANN, seen=one.newest, reason="we know")
        assert (said.state, said.came_back, said.said_by) == (state, False, "ann")
    await fail(world, keys[1:2])
    [one] = issues(world).all()
    assert (one.state, one.came_back, one.open) == ("open", True, 2)
    issues(world).say(one.cause, "acknowledged", ANN, seen=one.newest)
    await fail(world, keys[2:])
    assert issues(world).get(one.cause).state == "open"
    assert {row.action for row in world.desk.audit.page(subject=f"issue {one.cause}")} == {"acknowledge issue", "resolve issue"}


async def test_a_letter_that_came_while_a_person_looked_is_not_resolved_unseen(world: DeskWorld) -> None:
    keys = world.world.add(2)
    await fail(world, keys[:1])
    [one] = issues(world).all()
    operator = await world.logged_in("olga", "operator")
    await operator.get(f"/dead-letters/{one.cause}")
    await fail(world, keys[1:])
    answer = await operator.post(f"/dead-letters/{one.cause}/say", {"state": "resolved", "seen": str(one.newest)})
    assert answer.status_code == 303
    assert "a new letter with this cause came after" in (await operator.get(answer.headers["location"])).text
    assert issues(world).get(one.cause).state == "open"


async def test_an_issue_without_an_open_letter_is_resolved_and_one_that_is_not_there_is_not_found(world: DeskWorld) -> None:
    keys = world.world.add(1)
    await fail(world, keys)
    [one] = issues(world).all()
    world.desk.bulk.submit("discard", [(keys[0], 1)], ANN, arguments={"reason": "no longer true"})
    world.desk.bulk.advance()
    assert issues(world).get(one.cause).state == "resolved"
    browser = await world.logged_in("kim", "viewer")
    assert "No open issues" in (await browser.get("/dead-letters")).text
    shown = (await browser.get(f"/dead-letters/{one.cause}")).text
    assert "no longer true" in shown
    assert (await browser.get("/dead-letters/0123456789abcdef")).status_code == 404


async def test_the_page_of_an_issue_shows_examples_without_secrets_and_viewers_cannot_act(world: DeskWorld) -> None:
    keys = world.world.add(1)
    evidence = Evidence(status=503, body='{"access_token": "hush-hush", "error": "overloaded"}')
    await fail(world, keys, evidence=evidence, message="503 for https://api.example/v1?token=hush-hush")
    [one] = issues(world).all()
    viewer = await world.logged_in("vic", "viewer")
    text = (await viewer.get(f"/dead-letters/{one.cause}")).text
    assert "overloaded" in text
    assert "hush-hush" not in text
    assert 'name="letter"' not in text
    assert 'value="resolved"' not in text
    await viewer.get("/audit")
    for path, form in ((f"/dead-letters/{one.cause}/say", {"state": "resolved"}), (f"/dead-letters/{one.cause}/act", {})):
        assert (await viewer.post(path, form)).status_code == 403
    assert (await viewer.get(f"/dead-letters/{one.cause}/act?whole=1")).status_code == 403


async def test_a_replay_says_first_what_each_letter_would_do(world: DeskWorld) -> None:
    keys = world.world.add(4, platforms=(Platform("youtube"),))
    await world.world.carry(keys, *MADE, "approval", "youtube/variant")
    await fail(world, keys, "youtube/post", "the upload of {key} broke off", provider="youtube")
    ids = {row["key"]: row["id"] for row in world.world.rows("SELECT key, id FROM phantoms.videos")}
    post = """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256, sandbox)
        VALUES (:id, 'youtube', 'a', :state, 'm', '', '', :sandbox)"""
    world.world.write(post, id=ids[keys[0]], state="committing", sandbox=False)
    world.world.write(post, id=ids[keys[0]], state="failed", sandbox=True)  # one letter all the same
    world.world.write(post, id=ids[keys[1]], state="failed", sandbox=False)
    world.world.write("UPDATE phantoms.dead_letters SET code = 'ambiguous' WHERE video_id = :id", id=ids[keys[2]])
    by_code = {found.code: found for found in issues(world).all()}
    one, ambiguous = by_code["503"], by_code["ambiguous"]
    assert [(letter.key, letter.verdict) for letter in issues(world).chosen(one.cause, None, limit=10)] == [
        (keys[1], "safe"),
        (keys[3], "safe"),
        (keys[0], "read_back"),
    ]
    assert [letter.verdict for letter in issues(world).letters(ambiguous.cause)] == ["person"]
    operator = await world.logged_in("olga", "operator")
    asked = (await operator.get(f"/dead-letters/{one.cause}/act?whole=1")).text
    assert "<h1>Replay 3 dead letters</h1>" in asked
    assert '<b>2</b> <span class="verdict is-safe">safe</span>' in asked
    assert '<b>1</b> <span class="verdict is-read_back">checked with the provider first</span>' in asked
    assert (await operator.get(f"/dead-letters/{one.cause}/act")).status_code == 422  # nothing is selected
    answer = await operator.post(f"/dead-letters/{one.cause}/act", {"action": "replay", "whole": "1", "verdict": ["safe"]})
    number = int(answer.headers["location"].rsplit("/", 1)[1])
    world.desk.bulk.advance()
    assert world.desk.bulk.counts(number) == {"pending": 0, "done": 2, "failed": 0, "skipped": 0}
    assert issues(world).get(one.cause).open == 1


async def test_the_canary_of_a_replay_goes_alone_and_the_rest_follows_when_it_succeeded(world: DeskWorld) -> None:
    keys = world.world.add(3)
    await fail(world, keys)
    [one] = issues(world).all()
    operator = await world.logged_in("olga", "operator")
    form = {"action": "replay", "whole": "1", "verdict": ["safe"], "canary": "1"}
    answer = await operator.post(f"/dead-letters/{one.cause}/act", form)
    for _ in range(3):
        world.desk.bulk.advance()
    assert world.world.states("script") == ["ready", "failed", "failed"]
    shown = (await operator.get(answer.headers["location"])).text
    assert "Trying one first" in shown
    assert f'href="/dead-letters/{one.cause}"' in shown
    await world.world.carry(keys[:1], "script")
    for _ in range(3):
        world.desk.bulk.advance()
    assert world.world.states("script") == ["done", "ready", "ready"]
    assert issues(world).get(one.cause).open == 0


async def test_a_canary_whose_letter_comes_back_stops_the_rest(world: DeskWorld) -> None:
    keys = world.world.add(3)
    await fail(world, keys)
    [one] = issues(world).all()
    letters = issues(world).chosen(one.cause, None, limit=10)
    number = world.desk.bulk.submit("replay", [(letter.key, letter.id) for letter in letters], ANN, canary=True)
    world.desk.bulk.advance()
    await fail(world, keys[:1])
    world.desk.bulk.advance()
    assert world.desk.bulk.get(number).state == "stopped"
    assert world.world.states("script") == ["failed"] * 3
    assert issues(world).get(one.cause).open == 3


async def test_a_discard_needs_a_reason_and_takes_the_letters_that_are_ticked(world: DeskWorld) -> None:
    keys = world.world.add(2)
    await fail(world, keys)
    [one] = issues(world).all()
    operator = await world.logged_in("olga", "operator")
    assert "<textarea" in (await operator.get(f"/dead-letters/{one.cause}/act?action=discard&letter={one.newest}")).text
    form: dict[str, Any] = {"action": "discard", "letter": [str(one.newest)]}
    refused = await operator.post(f"/dead-letters/{one.cause}/act", form)
    assert refused.status_code == 422
    assert "needs a reason" in refused.text
    assert (await operator.post(f"/dead-letters/{one.cause}/act", {**form, "reason": "out of date"})).status_code == 303
    world.desk.bulk.advance()
    assert sorted(world.world.states("script")) == ["discarded", "failed"]
    again = await operator.post(f"/dead-letters/{one.cause}/act", {**form, "reason": "out of date"})
    assert "none of these letters is still open" in again.text
    for wrong in ({"action": "burn", "whole": "1"}, {"action": "replay", "letter": ["x"]}, {"action": "replay", "whole": "1"}):
        assert (await operator.post(f"/dead-letters/{one.cause}/act", wrong)).status_code == 422
