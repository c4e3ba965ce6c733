"""The ledgers of posts and paid renders: legal steps only, one at a time on an account, and no stale runner."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy.exc import DBAPIError

from phantoms_dagster.domain.claims import AttemptOutcome, Claim
from phantoms_dagster.domain.errors import IllegalTransition, NotYet, Rejected, StaleClaim, Transient
from phantoms_dagster.domain.paid_job import PAID_TRANSITIONS, NotBilled, PaidState, WrittenOff, check_paid_step
from phantoms_dagster.domain.publication import POST_TRANSITIONS, NotPublished, check_step
from phantoms_dagster.domain.stages import PostState, StageState
from phantoms_dagster.store.ledgers import PostgresLedgers, PostgresPostJournal
from phantoms_dagster_tests.integration.stage_world import World, finished, media_file, open_world

BEFORE_POST = ("script", "voiceover", "rendered_video", "approval", "youtube/variant")
NOT_BILLED = NotBilled("the order was refused")
WRITTEN_OFF = WrittenOff("the service forgot it", Decimal("0.20"), Transient("gone", provider="render-api"))
STEPS = (PostState.OPENED, PostState.UPLOADING, PostState.COMMITTING, PostState.PUBLISHED, PostState.CONFIRMED)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


async def ready_to_post(world: World, count: int = 1) -> list[str]:
    keys = world.add(count)
    await world.carry(keys, *BEFORE_POST)
    return keys


async def opened(world: World, claim: Claim, *, account: str = "main", video: str = "master") -> PostgresPostJournal:
    ledgers = PostgresLedgers(world.async_engine)
    return await ledgers.post(
        claim, account=account, marker=f"{claim.video.key}-youtube", video=media_file(video), caption="words", sandbox=False
    )


async def test_a_post_keeps_why_its_results_are_set_apart_once_it_was_sent(world: World) -> None:
    """The channel may change its mind meanwhile. The post was sent as a trial."""
    key = (await ready_to_post(world))[0]
    _, claim = await world.claimed("youtube/post", key)
    ledgers = PostgresLedgers(world.async_engine)

    async def post(set_apart: str | None) -> PostgresPostJournal:
        return await ledgers.post(
            claim, account="main", marker="m", video=media_file("v"), caption="", sandbox=False, set_apart=set_apart
        )

    def kept() -> list[str | None]:
        return [row["set_apart"] for row in world.rows("SELECT set_apart FROM phantoms.posts")]

    await post(None)
    assert kept() == [None]
    journal = await post("trial reel")
    assert kept() == ["trial reel"]
    await journal.save(PostState.OPENED, handle={"container": "c"})
    await post(None)
    assert kept() == ["trial reel"]


async def journal_of(world: World, key: str, *, owner: str = "runner") -> PostgresPostJournal:
    _, claim = await world.claimed("youtube/post", key, owner=owner)
    return await opened(world, claim)


async def test_a_post_goes_through_its_protocol_and_remembers_every_handle(world: World) -> None:
    key = (await ready_to_post(world))[0]
    journal = await journal_of(world, key)
    assert journal.record.state is PostState.INTENT
    assert journal.record.attempted_at is None
    await journal.save(PostState.OPENED, handle={"session": "s1"})
    first_sent = journal.record.attempted_at
    await journal.save(PostState.UPLOADING, offset=500)
    await journal.save(PostState.COMMITTING)
    await journal.save(PostState.PUBLISHED, remote_id="42", url="https://example.org/42")
    record = await journal.save(PostState.CONFIRMED)
    assert (record.state, record.handle, record.offset, record.remote_id) == (PostState.CONFIRMED, {"session": "s1"}, 500, "42")
    assert record.attempted_at == first_sent is not None
    row = world.rows("SELECT * FROM phantoms.posts")[0]
    assert (row["marker"], row["video_sha256"]) == (f"{key}-youtube", media_file("master").sha256)
    assert row["caption_sha256"] == hashlib.sha256(b"words").hexdigest()
    assert row["published_at"] is not None


@pytest.mark.parametrize("state", PostState)
async def test_a_step_that_the_table_does_not_allow_is_refused_and_not_written(world: World, state: PostState) -> None:
    key = (await ready_to_post(world))[0]
    journal = await journal_of(world, key)
    world.write_post("UPDATE phantoms.posts SET state = :state", state=str(state))
    world.let_leases_expire()
    journal = await journal_of(world, key, owner="second")
    for step in set(PostState) - POST_TRANSITIONS[state]:
        with pytest.raises(IllegalTransition, match=f"a post that is {state} cannot become {step}"):
            await journal.save(step)
    assert world.rows("SELECT state FROM phantoms.posts")[0]["state"] == state


@pytest.mark.parametrize("before", PostState)
async def test_the_database_refuses_a_step_of_a_post_that_the_table_forbids_or_that_lacks_its_proof(
    world: World, before: PostState
) -> None:
    """Whatever code asks for it. A step that keeps the state is not checked there: a repeated commit finds its own row."""
    key = (await ready_to_post(world))[0]
    await journal_of(world, key)
    proof = NotPublished("the platform says so", then="open")
    for after in set(PostState) - {before}:
        for given in (None, proof):
            world.write_post("UPDATE phantoms.posts SET state = :s, proof = 'older', proved_at = '2026-01-01'", s=str(before))
            brought = ", proof = 'fresh', proved_at = clock_timestamp()" if given else ""
            refused = refusal(before, after, given)
            expected = nullcontext() if refused is None else pytest.raises(DBAPIError, match=refused)
            with expected:
                world.write(f"UPDATE phantoms.posts SET state = :s{brought}", s=str(after))


def refusal(before: PostState, after: PostState, proof: NotPublished | None) -> str | None:
    """What the table says against a step; None: nothing."""
    try:
        check_step(before, after, proof)
    except IllegalTransition as refused:
        return str(refused)
    return None


async def test_the_ledger_keeps_the_platforms_word_that_led_a_post_back(world: World) -> None:
    key = (await ready_to_post(world))[0]
    journal = await journal_of(world, key)
    await journal.save(PostState.OPENED, handle={"session": "s1"})
    await journal.save(PostState.COMMITTING)
    await journal.save(PostState.UNKNOWN)
    with pytest.raises(IllegalTransition, match="only with the proof that it is not published"):
        await journal.save(PostState.INTENT, handle={})
    await journal.save(PostState.INTENT, handle={}, proof=NotPublished("the session is gone, its video is not listed", then="open"))
    row = world.rows("SELECT state, proof, proved_at FROM phantoms.posts")[0]
    assert (row["state"], row["proof"]) == ("intent", "the session is gone, its video is not listed")
    assert row["proved_at"] is not None
    await journal.save(PostState.OPENED, handle={"session": "s2"})
    assert world.rows("SELECT proof FROM phantoms.posts")[0]["proof"] is None


async def test_after_a_kill_the_journal_is_where_its_last_step_left_it(world: World) -> None:
    key = (await ready_to_post(world))[0]
    journal = await journal_of(world, key)
    await journal.save(PostState.OPENED, handle={"session": "s1"})
    await journal.save(PostState.UPLOADING, offset=700)
    world.let_leases_expire()
    again = await journal_of(world, key, owner="second")
    assert (again.record.state, again.record.handle, again.record.offset) == (PostState.UPLOADING, {"session": "s1"}, 700)
    assert len(world.rows("SELECT id FROM phantoms.posts")) == 1


@pytest.mark.parametrize("steps", range(5))
async def test_a_runner_that_was_taken_over_cannot_move_the_post_at_any_step(world: World, steps: int) -> None:
    key = (await ready_to_post(world))[0]
    journal = await journal_of(world, key)
    for step in STEPS[:steps]:
        await journal.save(step)
    before = world.rows("SELECT state, updated_at FROM phantoms.posts")
    world.let_leases_expire()
    await world.claimed("youtube/post", key, owner="second")
    with pytest.raises(StaleClaim):
        await journal.save(STEPS[steps])
    assert world.rows("SELECT state, updated_at FROM phantoms.posts") == before


async def test_only_one_post_is_in_flight_on_an_account(world: World) -> None:
    one, other = await ready_to_post(world, 2)
    first, second = await journal_of(world, one), await journal_of(world, other)
    await first.save(PostState.OPENED)
    with pytest.raises(NotYet, match=f"{one} is being published on youtube:main") as busy:
        await second.save(PostState.OPENED)
    assert busy.value.held
    assert second.record.state is PostState.INTENT
    for step in STEPS[1:4]:
        await first.save(step)
    await second.save(PostState.OPENED)


async def test_many_that_open_at_once_on_one_account_leave_one_winner(world: World) -> None:
    journals = [await journal_of(world, key) for key in await ready_to_post(world, 8)]
    ended = await asyncio.gather(*(journal.save(PostState.OPENED) for journal in journals), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in ended) == ["NotYet"] * 7 + ["PostRecord"]
    assert [row["n"] for row in world.rows("SELECT count(*) AS n FROM phantoms.posts WHERE state = 'opened'")] == [1]


async def test_posts_on_different_accounts_do_not_wait_for_each_other(world: World) -> None:
    one, other = await ready_to_post(world, 2)
    _, first = await world.claimed("youtube/post", one)
    _, second = await world.claimed("youtube/post", other)
    await (await opened(world, first, account="a")).save(PostState.OPENED)
    await (await opened(world, second, account="b")).save(PostState.OPENED)


@pytest.mark.parametrize("how", ["killed", "deferred"])
async def test_an_abandoned_post_does_not_keep_its_account_busy(world: World, how: str) -> None:
    one, other = await ready_to_post(world, 2)
    store, claim = await world.claimed("youtube/post", one)
    await (await opened(world, claim)).save(PostState.OPENED)
    if how == "killed":
        world.let_leases_expire()
    else:
        await store.finish(
            claim, AttemptOutcome(StageState.DEFERRED, retry_at=datetime.now(UTC) + timedelta(hours=1), counts=False)
        )
    await (await journal_of(world, other, owner="second")).save(PostState.OPENED)


async def test_a_refused_post_takes_the_new_bytes_and_an_open_one_keeps_its_own(world: World) -> None:
    key = (await ready_to_post(world))[0]
    _, claim = await world.claimed("youtube/post", key)
    journal = await opened(world, claim, video="first")
    await journal.save(PostState.OPENED)
    await opened(world, claim, video="second")
    assert world.rows("SELECT video_sha256 AS s FROM phantoms.posts")[0]["s"] == media_file("first").sha256
    await journal.save(PostState.FAILED)
    await opened(world, claim, video="second")
    assert world.rows("SELECT video_sha256 AS s FROM phantoms.posts")[0]["s"] == media_file("second").sha256


async def test_a_post_that_starts_over_forgets_when_it_was_first_sent(world: World) -> None:
    key = (await ready_to_post(world))[0]
    journal = await journal_of(world, key)
    await journal.save(PostState.OPENED, handle={"session": "s1"})
    record = await journal.save(PostState.INTENT, proof=NotPublished("the session was refused", then="open"))
    assert (record.attempted_at, record.handle) == (None, {"session": "s1"})


# --- a post is bound to the account it was opened on ----------------------------------------------------------------


@pytest.mark.parametrize("state", [s for s in PostState if s is not PostState.INTENT])
async def test_a_renamed_account_continues_the_post_that_was_opened_under_its_old_name(world: World, state: PostState) -> None:
    key = (await ready_to_post(world))[0]
    _, claim = await world.claimed("youtube/post", key)
    await (await opened(world, claim, account="main")).save(PostState.OPENED, handle={"session": "s1"})
    world.write_post("UPDATE phantoms.posts SET state = :state, remote_id = '42'", state=str(state))
    again = await opened(world, claim, account="studio")
    assert (again.record.state, again.record.account, again.record.handle) == (state, "main", {"session": "s1"})
    assert [tuple(r.values()) for r in world.rows("SELECT account, state FROM phantoms.posts")] == [("main", str(state))]


@pytest.mark.parametrize("failed", [False, True])
async def test_a_post_of_which_nothing_was_sent_moves_to_the_new_account(world: World, failed: bool) -> None:
    key = (await ready_to_post(world))[0]
    _, claim = await world.claimed("youtube/post", key)
    journal = await opened(world, claim, account="main")
    if failed:
        await journal.save(PostState.FAILED)
    assert (await opened(world, claim, account="studio")).record.account == "studio"
    assert [r["account"] for r in world.rows("SELECT account FROM phantoms.posts")] == ["studio"]


async def test_a_remote_post_belongs_to_one_video_only_and_neighbours_in_the_batch_are_saved(world: World) -> None:
    one, other, third = await ready_to_post(world, 3)
    ledgers = PostgresLedgers(world.async_engine)
    journals = []
    for n, key in enumerate((one, other, third)):
        _, claim = await world.claimed("youtube/post", key)
        journal = await ledgers.post(claim, account=f"a{n}", marker=key, video=media_file("v"), caption="", sandbox=False)
        await journal.save(PostState.OPENED)
        await journal.save(PostState.COMMITTING)
        journals.append(journal)
    await journals[0].save(PostState.PUBLISHED, remote_id="42")
    ended = await asyncio.gather(
        journals[1].save(PostState.PUBLISHED, remote_id="42"),
        journals[2].save(PostState.PUBLISHED, remote_id="43"),
        return_exceptions=True,
    )
    assert isinstance(ended[0], Rejected)
    assert f"names 42 as this post, but it belongs to {one}" in str(ended[0])
    assert not isinstance(ended[1], BaseException)
    states = [r["state"] for r in world.rows("SELECT state FROM phantoms.posts ORDER BY id")]
    assert states == ["published", "committing", "published"]


# --- nothing crosses the border between the sandbox and the real platforms ------------------------------------------


async def with_sandbox(world: World, claim: Claim, *, sandbox: bool) -> PostgresPostJournal:
    ledgers = PostgresLedgers(world.async_engine)
    return await ledgers.post(claim, account="main", marker="m", video=media_file("v"), caption="", sandbox=sandbox)


@pytest.mark.parametrize("state", [s for s in PostState if s is not PostState.INTENT])
async def test_a_post_begun_in_the_sandbox_is_begun_again_for_real(world: World, state: PostState) -> None:
    key = (await ready_to_post(world))[0]
    _, claim = await world.claimed("youtube/post", key)
    await (await with_sandbox(world, claim, sandbox=True)).save(PostState.OPENED, handle={"session": "http://127.0.0.1/s"})
    world.write_post("UPDATE phantoms.posts SET state = :state, remote_id = 'sandbox-1'", state=str(state))
    real = await with_sandbox(world, claim, sandbox=False)
    assert (real.record.state, real.record.handle, real.record.remote_id) == (PostState.INTENT, {}, None)
    rows = world.rows("SELECT sandbox, state FROM phantoms.posts ORDER BY id")
    assert [r["sandbox"] for r in rows] == [True, False]
    assert rows[0]["state"] in ("failed", "published", "confirmed")  # it needs no one any more
    await real.save(PostState.OPENED)


@pytest.mark.parametrize("state", [PostState.OPENED, PostState.COMMITTING, PostState.UNKNOWN, PostState.PUBLISHED])
async def test_a_post_begun_for_real_is_not_made_in_the_sandbox(world: World, state: PostState) -> None:
    key = (await ready_to_post(world))[0]
    _, claim = await world.claimed("youtube/post", key)
    await (await with_sandbox(world, claim, sandbox=False)).save(PostState.OPENED, handle={"session": "s1"})
    world.write_post("UPDATE phantoms.posts SET state = :state", state=str(state))
    with pytest.raises(NotYet, match="started at the real YouTube and the sandbox cannot finish it"):
        await with_sandbox(world, claim, sandbox=True)
    assert (await with_sandbox(world, claim, sandbox=False)).record.handle == {"session": "s1"}


async def test_a_post_that_failed_for_real_before_anything_was_sent_may_be_tried_in_the_sandbox(world: World) -> None:
    key = (await ready_to_post(world))[0]
    _, claim = await world.claimed("youtube/post", key)
    await (await with_sandbox(world, claim, sandbox=False)).save(PostState.FAILED)
    assert (await with_sandbox(world, claim, sandbox=True)).record.state is PostState.INTENT


async def test_a_render_is_one_row_a_revision_and_starts_empty_after_regeneration(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], "script", "voiceover")
    ledgers = PostgresLedgers(world.async_engine)
    store, claim = await world.claimed("rendered_video", key)
    journal = await ledgers.render(claim, sandbox=False)
    await journal.save(PaidState.SENDING, attempt_id="a1")
    await journal.save(PaidState.SUBMITTED, remote_id="r1")
    assert (await ledgers.render(claim, sandbox=False)).record == journal.record
    await store.finish(claim, finished("rendered_video"))
    await store.regenerate(claim.stage, [key])
    _, again = await world.claimed("rendered_video", key, owner="second")
    fresh = await ledgers.render(again, sandbox=False)
    assert (fresh.record.state, fresh.record.remote_id, fresh.record.attempt_id) == ("intent", None, None)
    assert len(world.rows("SELECT id FROM phantoms.renders")) == 2


async def test_a_render_knows_when_it_was_sent_and_an_intent_forgets_the_old_render(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], "script", "voiceover")
    _, claim = await world.claimed("rendered_video", key)
    journal = await PostgresLedgers(world.async_engine).render(claim, sandbox=False)
    assert journal.record.attempted_at is None
    sent = (await journal.save(PaidState.SENDING, attempt_id="a1")).attempted_at
    assert sent is not None
    assert (await journal.save(PaidState.SUBMITTED, remote_id="r1")).attempted_at == sent
    record = await journal.save(PaidState.INTENT, proof=WRITTEN_OFF)
    assert (record.remote_id, record.attempt_id, record.attempted_at) == (None, "a1", None)


async def test_a_runner_that_was_taken_over_cannot_move_the_render(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], "script", "voiceover")
    _, claim = await world.claimed("rendered_video", key)
    journal = await PostgresLedgers(world.async_engine).render(claim, sandbox=False)
    await journal.save(PaidState.SENDING, attempt_id="a1")
    world.let_leases_expire()
    await world.claimed("rendered_video", key, owner="second")
    with pytest.raises(StaleClaim):
        await journal.save(PaidState.INTENT, proof=NOT_BILLED)
    assert world.rows("SELECT state FROM phantoms.renders")[0]["state"] == "sending"


@pytest.mark.parametrize("before", PaidState)
async def test_the_database_refuses_a_step_of_a_render_that_the_table_forbids_or_that_lacks_its_proof(
    world: World, before: PaidState
) -> None:
    """Whatever code asks for it. What was certainly paid is ordered again only when it is written off."""
    await submitted(world, sandbox=False)
    for after in set(PaidState) - {before}:
        for given in (None, NOT_BILLED, WRITTEN_OFF):
            world.write_render(
                "UPDATE phantoms.renders SET state = :s, proof = 'older', proved_at = '2026-01-01', written_off = NULL",
                s=str(before),
            )
            brought = ", proof = 'fresh', proved_at = clock_timestamp()" if given else ""
            brought += ", written_off = 0.2" if given is WRITTEN_OFF else ""
            refused = paid_refusal(before, after, given)
            expected = nullcontext() if refused is None else pytest.raises(DBAPIError, match=refused)
            with expected:
                world.write(f"UPDATE phantoms.renders SET state = :s{brought}", s=str(after))


def paid_refusal(before: PaidState, after: PaidState, proof: NotBilled | WrittenOff | None) -> str | None:
    """What the table says against a step; None: nothing."""
    try:
        check_paid_step(before, after, proof)
    except IllegalTransition as refused:
        return str(refused).replace("a paid job", "a render")
    return None


@pytest.mark.parametrize(("before", "after"), [("intent", "sending"), ("sending", "submitted")])
async def test_the_database_refuses_a_render_that_could_not_be_found_again(world: World, before: str, after: str) -> None:
    await submitted(world, sandbox=False)
    world.write_render("UPDATE phantoms.renders SET state = :s, attempt_id = NULL, render_id = NULL", s=before)
    with pytest.raises(DBAPIError, match=f"a render that is {after} has an id"):
        world.write("UPDATE phantoms.renders SET state = :s", s=after)


@pytest.mark.parametrize("state", PaidState)
async def test_a_step_of_a_render_that_the_table_does_not_allow_is_refused_and_not_written(world: World, state: PaidState) -> None:
    claim = await submitted(world, sandbox=False)
    world.write_render("UPDATE phantoms.renders SET state = :state", state=str(state))
    journal = await PostgresLedgers(world.async_engine).render(claim, sandbox=False)
    for step in set(PaidState) - PAID_TRANSITIONS[state]:
        with pytest.raises(IllegalTransition, match=f"a paid job that is {state} cannot become {step}"):
            await journal.save(step)
    assert world.rows("SELECT state FROM phantoms.renders")[0]["state"] == state


async def test_the_ledger_keeps_why_a_render_was_written_off_and_books_it_with_the_attempt_that_sent_it(world: World) -> None:
    claim = await submitted(world, sandbox=False)
    attempt = world.rows("SELECT id FROM phantoms.attempts WHERE stage = 'rendered_video'")[0]["id"]
    world.write("UPDATE phantoms.renders SET attempt_id = :a", a=f"a{attempt}-x")
    journal = await PostgresLedgers(world.async_engine).render(claim, sandbox=False)
    for lacking in (None, NOT_BILLED):
        with pytest.raises(IllegalTransition, match="ordered again only when it was not billed, or is written off"):
            await journal.save(PaidState.INTENT, proof=lacking)
    await journal.save(PaidState.INTENT, proof=WRITTEN_OFF)
    row = world.rows("SELECT state, proof, written_off FROM phantoms.renders")[0]
    assert (row["state"], row["proof"], row["written_off"]) == ("intent", "the service forgot it", Decimal("0.20"))
    assert world.rows("SELECT cost FROM phantoms.attempts WHERE id = :a", a=attempt)[0]["cost"] == Decimal("0.20")


async def submitted(world: World, *, sandbox: bool) -> Claim:
    """A render that was submitted there."""
    key = world.add()[0]
    await world.carry([key], "script", "voiceover")
    _, claim = await world.claimed("rendered_video", key)
    journal = await PostgresLedgers(world.async_engine).render(claim, sandbox=sandbox)
    await journal.save(PaidState.SENDING, attempt_id="a1")
    await journal.save(PaidState.SUBMITTED, remote_id="r1")
    return claim


async def test_a_render_begun_in_the_sandbox_is_begun_again_at_the_real_service(world: World) -> None:
    claim = await submitted(world, sandbox=True)
    ledgers = PostgresLedgers(world.async_engine)
    assert (await ledgers.render(claim, sandbox=True)).record.remote_id == "r1"
    real = await ledgers.render(claim, sandbox=False)
    assert (real.record.state, real.record.remote_id, real.record.attempt_id) == ("intent", None, None)
    await real.save(PaidState.SENDING, attempt_id="a2")
    await real.save(PaidState.SUBMITTED, remote_id="r2")
    assert (await ledgers.render(claim, sandbox=False)).record.remote_id == "r2"


async def test_a_real_render_is_never_looked_up_in_the_sandbox(world: World) -> None:
    claim = await submitted(world, sandbox=False)
    ledgers = PostgresLedgers(world.async_engine)
    with pytest.raises(NotYet, match="give the service its key again"):
        await ledgers.render(claim, sandbox=True)
    assert (await ledgers.render(claim, sandbox=False)).record.remote_id == "r1"


async def test_a_render_of_an_older_version_belongs_to_the_attempt_that_continues_it(world: World) -> None:
    claim = await submitted(world, sandbox=False)
    world.write("UPDATE phantoms.renders SET sandbox = NULL")
    assert (await PostgresLedgers(world.async_engine).render(claim, sandbox=True)).record.remote_id == "r1"
