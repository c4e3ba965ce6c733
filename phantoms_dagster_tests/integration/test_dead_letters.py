"""Dead letters in the table: found, replayed with a full budget, started again from an earlier stage, or discarded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import text

from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.errors import Evidence, InvalidInput, NotFound
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import PostState, StageState, stage
from phantoms_dagster.store.dead_letters.letters import DeadLetters, LetterFilter, stages_named
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster_tests.integration.stage_world import PERSON, SENSOR, World, finished, media_file, open_world

COMMON = ("script", "voiceover", "rendered_video", "approval")
BOTH = (Platform("youtube"), Platform("tiktok"))
EVERYTHING = LetterFilter()


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def letters(world: World) -> DeadLetters:
    return DeadLetters(world.engine)


def dead(error_class: str = "transient", provider: str | None = "shotstack", message: str = "answered 503") -> AttemptOutcome:
    evidence = Evidence(status=503, body="down", request="POST /render")
    return AttemptOutcome(
        StageState.FAILED, provider=provider, error_class=error_class, code="503", message=message, evidence=evidence
    )


async def fail(world: World, keys: Sequence[str], name: str, outcome: AttemptOutcome | None = None) -> None:
    store, claims = await world.claim(name, keys, owner=f"fails-{name}")
    assert len(claims.claimed) == len(keys), claims.unclaimed
    assert all(await asyncio.gather(*(store.finish(claim, outcome or dead()) for claim in claims.claimed)))


async def open_post(world: World, key: str, state: PostState, *, platform: str = "youtube") -> None:
    """A post whose protocol stopped in that state and whose stage failed."""
    store, claim = await world.claimed(f"{platform}/post", key)
    ledgers = PostgresLedgers(world.async_engine)
    journal = await ledgers.post(claim, account="main", marker="m", video=media_file("v"), caption="", sandbox=False)
    await journal.save(PostState.OPENED, handle={"session": "s"})
    world.write_post("UPDATE phantoms.posts SET state = :state", state=str(state))
    assert await store.finish(claim, dead("permanent", platform))


def ready(world: World, name: str) -> list[str]:
    """What the planner would run."""
    world.write("UPDATE phantoms.videos SET registered_at = now(), place = id")
    return world.due(name)


def states(world: World, key: str) -> dict[str, str]:
    return {name: row.state for name, row in world.catalogue.stages(key).items()}


# --- looking


async def test_a_letter_tells_what_happened_and_every_attempt(world: World, letters: DeadLetters) -> None:
    key = world.add()[0]
    await fail(world, [key], "script")
    [letter] = letters.list()
    assert (letter.key, letter.stage, letter.provider, letter.error_class, letter.code) == (
        key,
        "script",
        "shotstack",
        "transient",
        "503",
    )
    assert (letter.state, letter.tries, letter.run_id, letter.closed_at) == ("open", 1, PERSON.run_id, None)
    detail = letters.show(letter.id)
    assert detail.letter == letter
    assert detail.evidence == {"status": 503, "body": "down", "request": "POST /render"}
    assert [a["message"] for a in detail.attempts] == ["answered 503"]
    assert detail.stage_state == "failed"
    assert letters.of_video(key) == [detail]


def test_a_letter_that_is_not_there_says_how_to_find_those_that_are(letters: DeadLetters) -> None:
    with pytest.raises(NotFound, match="no dead letter 7; `phantoms dead-letters list"):
        letters.show(7)


async def test_letters_are_found_by_stage_provider_class_time_state_and_video(world: World, letters: DeadLetters) -> None:
    one, two, three = world.add(3)
    await world.carry([one], "script")
    await fail(world, [one], "voiceover", dead("permanent", None))
    await fail(world, [two], "script", dead("rejected", "openai"))
    await fail(world, [three], "script")
    world.write("UPDATE phantoms.dead_letters SET created_at = now() - interval '3 hours' WHERE error_class = 'rejected'")

    def found(**fields: object) -> list[str]:
        wanted = LetterFilter(**fields)  # type: ignore[arg-type]
        keys = [letter.key for letter in letters.list(wanted)]
        assert letters.count(wanted) == len(keys)
        return keys

    assert found() == [three, two, one]
    assert found(stages=["script"]) == [three, two]
    assert found(provider="openai") == [two]
    assert found(provider="none") == [one]
    assert found(error_class="permanent") == [one]
    assert found(since=datetime.now(UTC) - timedelta(hours=1)) == [three, one]
    assert found(keys=[two, three], stages=["voiceover"]) == []
    assert found(state="discarded") == []
    assert [letter.key for letter in letters.list(limit=1)] == [three]
    assert letters.open_by_stage() == {"script": (2, letters.list()[0].id), "voiceover": (1, letters.list()[2].id)}


def test_a_kind_of_stage_means_all_its_platforms_and_an_unknown_one_is_refused() -> None:
    assert stages_named("post") == tuple(f"{platform}/post" for platform in Platform)
    assert stages_named("tiktok/post") == ("tiktok/post",)
    with pytest.raises(InvalidInput, match="unknown stage 'posts'; the stages are script, "):
        stages_named("posts")


# --- replaying


async def test_a_replayed_stage_is_ready_at_once_with_a_fresh_budget_and_its_letter_closed(
    world: World, letters: DeadLetters
) -> None:
    key = world.add()[0]
    await fail(world, [key], "script")
    before = world.row(key, "script")
    handled = letters.replay(EVERYTHING, by="ann")
    row = world.row(key, "script")
    assert (row["state"], row["attempts"], row["retry_at"], row["lease_owner"]) == ("ready", 0, None, None)
    assert (row["revision"], row["generation"]) == (before["revision"], before["generation"] + 1)
    [letter] = handled.closed
    assert (letter.state, letter.closed_by, letter.closed_reason) == ("replayed", "ann", "replayed")
    assert letter.closed_at is not None
    assert ready(world, "script") == [key]
    _, claim = await world.claimed("script", key, context=SENSOR)
    assert claim.attempts_used == 0


async def test_replaying_everything_drains_to_zero_and_the_videos_get_through(world: World, letters: DeadLetters) -> None:
    keys = world.add(20)
    await fail(world, keys[:12], "script")
    await world.carry(keys[12:], "script")
    await fail(world, keys[12:], "voiceover", dead("internal", None))
    assert len(letters.replay(EVERYTHING, by="ann").closed) == 20
    assert letters.count() == 0
    await world.carry(keys[:12], "script")
    await world.carry(keys, "voiceover")
    assert set(world.states("rendered_video")) == {"ready"}
    assert letters.replay(EVERYTHING, by="ann").closed == ()


async def test_only_the_letters_that_are_meant_are_replayed(world: World, letters: DeadLetters) -> None:
    one, two = world.add(2)
    await fail(world, [one], "script", dead("rejected", "openai"))
    await fail(world, [two], "script")
    letters.replay(LetterFilter(provider="shotstack", stages=["script"]), by="ann")
    assert (states(world, one)["script"], states(world, two)["script"]) == ("failed", "ready")
    assert [letter.key for letter in letters.list()] == [one]


async def test_a_letter_that_was_replayed_before_is_not_replayed_again(world: World, letters: DeadLetters) -> None:
    key = world.add()[0]
    await fail(world, [key], "script")
    wanted = LetterFilter(ids=[letters.list()[0].id], state=None)
    letters.replay(wanted, by="ann")
    await world.carry([key], "script")
    handled = letters.replay(wanted, by="bob")
    assert handled.closed == ()
    assert [r.reason for r in handled.refused] == ["it was replayed before"]
    assert states(world, key)["script"] == "done"


async def test_a_runner_that_takes_the_stage_first_wins_and_is_not_disturbed(world: World, letters: DeadLetters) -> None:
    key = world.add()[0]
    await fail(world, [key], "script")
    _, claim = await world.claimed("script", key)
    assert letters.replay(EVERYTHING, by="ann").closed == ()
    assert world.row(key, "script")["generation"] == claim.generation
    assert [row["closed_by"] for row in world.letters(key)] == [PERSON.run_id]


async def test_a_replay_waits_for_who_holds_the_row_and_then_sees_what_they_did(world: World, letters: DeadLetters) -> None:
    key = world.add()[0]
    await fail(world, [key], "script")
    with world.engine.begin() as connection:
        connection.execute(text("SELECT FROM phantoms.stages FOR UPDATE"))
        replaying = asyncio.create_task(asyncio.to_thread(letters.replay, EVERYTHING, by="ann"))
        await asyncio.sleep(0.2)
        assert not replaying.done()
        connection.execute(text("UPDATE phantoms.stages SET state = 'running' WHERE stage = 'script'"))
        connection.execute(text("UPDATE phantoms.dead_letters SET state = 'replayed', closed_by = 'quicker'"))
    assert (await replaying).closed == ()
    assert states(world, key)["script"] == "running"


async def test_a_letter_whose_stage_was_voided_is_closed_and_the_stage_left_alone(world: World, letters: DeadLetters) -> None:
    key = world.add()[0]
    await world.carry([key], "script")
    await fail(world, [key], "voiceover")
    await world.store().regenerate(stage("script"), [key])
    assert letters.replay(EVERYTHING, by="ann").closed == ()
    [letter] = letters.list(LetterFilter(state=None))
    assert (letter.state, letter.closed_reason) == ("replayed", "an earlier stage was regenerated")
    assert states(world, key)["voiceover"] == "blocked"


@pytest.mark.parametrize("state", [PostState.OPENED, PostState.UPLOADING, PostState.COMMITTING, PostState.UNKNOWN])
async def test_a_replayed_post_keeps_its_ledger_row_to_be_read_back(world: World, letters: DeadLetters, state: PostState) -> None:
    key = world.add()[0]
    await world.carry([key], *COMMON, "youtube/variant")
    await open_post(world, key, state)
    before = world.rows("SELECT * FROM phantoms.posts")
    assert len(letters.replay(EVERYTHING, by="ann").closed) == 1
    assert world.rows("SELECT * FROM phantoms.posts") == before
    _, claim = await world.claimed("youtube/post", key, context=SENSOR)
    ledgers = PostgresLedgers(world.async_engine)
    journal = await ledgers.post(claim, account="main", marker="m", video=media_file("other"), caption="", sandbox=False)
    assert (journal.record.state, journal.record.handle) == (state, {"session": "s"})


# --- starting over from an earlier stage


async def test_starting_over_makes_a_new_revision_and_voids_what_follows(world: World, letters: DeadLetters) -> None:
    key = world.add()[0]
    await world.carry([key], *COMMON)
    await fail(world, [key], "youtube/variant", dead("permanent", "studio"))
    [letter] = letters.replay(EVERYTHING, by="ann", start="rendered_video").closed
    assert (letter.stage, letter.closed_by, letter.closed_reason) == ("youtube/variant", "ann", "replayed from rendered_video")
    blocked = dict.fromkeys(("approval", "youtube/variant", "youtube/post"), "blocked")
    assert states(world, key) == {"script": "done", "voiceover": "done", "rendered_video": "ready", **blocked}
    assert (world.row(key, "rendered_video")["revision"], world.row(key, "approval")["revision"]) == (2, 2)
    assert ready(world, "rendered_video") == [key]
    await world.carry([key], "rendered_video")
    assert states(world, key)["approval"] == "ready"


async def test_regenerating_closes_all_dead_letters_of_the_regenerated_stages(world: World, letters: DeadLetters) -> None:
    key = world.add(platforms=BOTH)[0]
    await world.carry([key], *COMMON)
    await fail(world, [key], "youtube/variant")
    await fail(world, [key], "tiktok/variant")
    handled = letters.replay(LetterFilter(stages=["tiktok/variant"]), by="ann", start="approval")
    assert {letter.stage for letter in handled.closed} == {"youtube/variant", "tiktok/variant"}
    assert letters.count() == 0


async def test_what_is_published_is_never_touched_by_starting_over(world: World, letters: DeadLetters) -> None:
    key = world.add(platforms=BOTH)[0]
    await world.carry([key], *COMMON, "youtube/variant", "tiktok/variant", "youtube/post")
    await fail(world, [key], "tiktok/post")
    published = [dict(world.row(key, name)) for name in ("youtube/variant", "youtube/post")]
    assert len(letters.replay(EVERYTHING, by="ann", start="script").closed) == 1
    assert [dict(world.row(key, name)) for name in ("youtube/variant", "youtube/post")] == published
    assert states(world, key)["tiktok/post"] == "blocked"


@pytest.mark.parametrize("state", [PostState.OPENED, PostState.UPLOADING, PostState.COMMITTING, PostState.UNKNOWN])
@pytest.mark.parametrize("start", ["script", "approval", "youtube/variant"])
async def test_nothing_starts_over_under_a_post_that_is_open(
    world: World, letters: DeadLetters, start: str, state: PostState
) -> None:
    key = world.add()[0]
    await world.carry([key], *COMMON, "youtube/variant")
    await open_post(world, key, state)
    handled = letters.replay(EVERYTHING, by="ann", start=start)
    assert handled.closed == ()
    assert [r.reason for r in handled.refused] == ["it is being published on youtube; replay youtube/post, or wait for its end"]
    assert states(world, key) | {"youtube/post": "failed"} == states(world, key)
    assert letters.count() == 1


async def test_a_post_that_is_just_being_made_keeps_its_video_too_and_others_start_over(world: World, letters: DeadLetters) -> None:
    busy, free = world.add(2, platforms=BOTH)
    await world.carry([busy, free], *COMMON, "youtube/variant")
    await fail(world, [busy, free], "tiktok/variant")
    _, claim = await world.claimed("youtube/post", busy)
    handled = letters.replay(EVERYTHING, by="ann", start="script")
    assert [letter.key for letter in handled.closed] == [free]
    assert [(r.letter.key, r.reason[:32]) for r in handled.refused] == [(busy, "it is being published on youtube")]
    assert world.row(busy, "youtube/post")["generation"] == claim.generation
    own = letters.replay(EVERYTHING, by="ann", start="tiktok/variant")
    assert [letter.key for letter in own.closed] == [busy]


async def test_one_starts_over_only_from_an_earlier_stage_that_is_done(world: World, letters: DeadLetters) -> None:
    key = world.add(platforms=BOTH)[0]
    await world.carry([key], *COMMON, "tiktok/variant")
    await fail(world, [key], "youtube/variant")
    handled = letters.replay(EVERYTHING, by="ann", start="tiktok/variant")
    assert [r.reason for r in handled.refused] == ["youtube/variant does not come after tiktok/variant"]
    world.write("UPDATE phantoms.stages SET state = 'deferred' WHERE stage = 'approval'")
    handled = letters.replay(EVERYTHING, by="ann", start="approval")
    assert [r.reason for r in handled.refused] == ["approval is deferred: there is no revision of it to replace"]
    with pytest.raises(InvalidInput, match="nothing starts over from youtube/post"):
        letters.replay(EVERYTHING, by="ann", start="youtube/post")
    assert letters.count() == 1


async def test_starting_over_from_the_stage_that_failed_is_a_plain_replay(world: World, letters: DeadLetters) -> None:
    key = world.add()[0]
    await fail(world, [key], "script")
    assert len(letters.replay(EVERYTHING, by="ann", start="script").closed) == 1
    assert (world.row(key, "script")["state"], world.row(key, "script")["revision"]) == ("ready", 1)


# --- discarding


async def test_a_discarded_stage_stays_so_its_letter_is_kept_and_nothing_after_it_is_made(
    world: World, letters: DeadLetters
) -> None:
    key = world.add()[0]
    await world.carry([key], "script")
    await fail(world, [key], "voiceover")
    [letter] = letters.discard(EVERYTHING, by="ann", reason=" not worth it ").closed
    assert (letter.state, letter.closed_by, letter.closed_reason) == ("discarded", "ann", "not worth it")
    assert (letter.message, letters.show(letter.id).evidence["status"]) == ("answered 503", 503)
    assert world.row(key, "voiceover")["state"] == "discarded"
    assert states(world, key)["rendered_video"] == "blocked"
    assert (letters.count(), letters.list(LetterFilter(state="discarded"))) == (0, [letter])
    _, claims = await world.claim("voiceover", [key])
    assert (claims.claimed, claims.unclaimed[0].outcome) == ([], "skipped")


@pytest.mark.parametrize("reason", ["", "  \n"])
async def test_a_discard_without_a_reason_is_refused(world: World, letters: DeadLetters, reason: str) -> None:
    key = world.add()[0]
    await fail(world, [key], "script")
    with pytest.raises(InvalidInput, match="needs a reason"):
        letters.discard(EVERYTHING, by="ann", reason=reason)
    assert states(world, key)["script"] == "failed"


async def test_a_discarded_letter_may_be_replayed_by_its_number_and_remembers_why_it_was_given_up(
    world: World, letters: DeadLetters
) -> None:
    key = world.add()[0]
    await fail(world, [key], "script")
    [letter] = letters.discard(EVERYTHING, by="ann", reason="100% dull").closed
    assert letters.replay(EVERYTHING, by="bob").closed == ()
    [again] = letters.replay(LetterFilter(ids=[letter.id], state=None), by="bob").closed
    assert (again.state, again.closed_by) == ("replayed", "bob")
    assert again.closed_reason is not None
    assert again.closed_reason.startswith("replayed (discarded before by ann at 2")
    assert again.closed_reason.endswith(": 100% dull)")
    assert states(world, key)["script"] == "ready"


async def test_two_people_who_replay_at_once_replay_each_letter_once(world: World, letters: DeadLetters) -> None:
    keys = world.add(30)
    await fail(world, keys, "script")
    both = await asyncio.gather(*(asyncio.to_thread(letters.replay, EVERYTHING, by=name) for name in ("ann", "bob")))
    assert sum(len(handled.closed) for handled in both) == 30
    assert {world.row(key, "script")["generation"] for key in keys} == {2}


async def test_a_replay_that_is_chosen_to_end_a_deadlock_is_repeated(world: World, letters: DeadLetters) -> None:
    keys = world.add(2)
    await fail(world, keys, "script")
    lock = text(
        """SELECT FROM phantoms.stages WHERE stage = 'script'
            AND video_id = (SELECT id FROM phantoms.videos WHERE key = :k) FOR UPDATE"""
    )
    waiting = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with world.engine.begin() as connection:
        # The side that first looks for a deadlock gives way, and this side does not look.
        connection.execute(text("SET LOCAL deadlock_timeout = '10min'"))
        connection.execute(lock, {"k": keys[1]})
        replaying = asyncio.create_task(asyncio.to_thread(letters.replay, EVERYTHING, by="ann"))
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(world.rows, waiting):  # noqa: ASYNC110 - PostgreSQL sends no notification
                await asyncio.sleep(0.01)
        # The replay holds the first row and waits for the second.
        await asyncio.to_thread(connection.execute, lock, {"k": keys[0]})
    assert len((await replaying).closed) == 2


async def test_a_late_ending_of_a_voided_runner_writes_nothing(world: World, letters: DeadLetters) -> None:
    key = world.add(platforms=BOTH)[0]
    await world.carry([key], *COMMON)
    await fail(world, [key], "tiktok/variant")
    store, claim = await world.claimed("youtube/variant", key)
    assert letters.replay(EVERYTHING, by="ann", start="rendered_video").refused == ()
    assert not await store.finish(claim, finished("youtube/variant"))
    assert states(world, key)["youtube/variant"] == "blocked"
