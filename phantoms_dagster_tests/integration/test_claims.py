"""Claims and outcomes: who may work on a video, and whose writes are refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from phantoms_dagster.domain.claims import AttemptOutcome, RunContext, StageResult
from phantoms_dagster.domain.errors import Evidence, StaleClaim
from phantoms_dagster.domain.models import Platform, ScriptOutput
from phantoms_dagster.domain.stages import StageState, stage
from phantoms_dagster.store import outcomes
from phantoms_dagster.store.outcomes import Closing
from phantoms_dagster_tests.integration.stage_world import PERSON, SENSOR, World, deciding, done, finished, open_world, output_of

SCRIPT_STAGE = stage("script")
SOON = timedelta(minutes=10)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


def failure(message: str = "no", **more: object) -> AttemptOutcome:
    fields: dict[str, object] = {"provider": "llm", "error_class": "permanent", "code": "bad", "message": message}
    return AttemptOutcome(StageState.FAILED, **{**fields, **more})  # type: ignore[arg-type]


def deferral(seconds: float = 600, *, counts: bool = False) -> AttemptOutcome:
    return AttemptOutcome(
        StageState.DEFERRED, retry_at=datetime.now(UTC) + timedelta(seconds=seconds), counts=counts, message="not yet"
    )


async def test_a_fresh_video_is_claimed_with_all_that_its_use_case_reads(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], "script")
    _, claim = await world.claimed("voiceover", key)
    assert claim.video.key == key
    assert claim.video.channel.name == "facts"
    assert claim.output("script", ScriptOutput) == output_of("script")
    assert (claim.attempts_used, claim.revision, claim.stored_response) == (0, 1, None)
    assert [(a["state"], a["run_id"]) for a in world.attempts(key, "voiceover")] == [("intent", PERSON.run_id)]


async def test_a_done_video_answers_with_its_stored_output_and_opens_no_attempt(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], "script")
    _, claims = await world.claim("script", [key])
    assert not claims.claimed
    assert [(u.outcome, u.output) for u in claims.unclaimed] == [("done", output_of("script"))]
    assert len(world.attempts(key, "script")) == 1


async def test_what_another_runner_holds_is_deferred_until_its_lease_ends(world: World) -> None:
    key = world.add()[0]
    await world.claimed("script", key, owner="first")
    _, claims = await world.claim("script", [key], owner="second", context=SENSOR)
    assert [(u.outcome, u.retry_at) for u in claims.unclaimed] == [("deferred", world.row(key, "script")["lease_until"])]


async def test_a_run_that_is_resumed_takes_its_videos_back_at_once_and_its_dead_process_can_write_nothing(world: World) -> None:
    key = world.add()[0]
    store, first = await world.claimed("script", key, owner="killed", context=SENSOR)
    _, second = await world.claimed("script", key, owner="resumed", context=SENSOR)
    assert second.generation == first.generation + 1
    assert not await store.finish(first, finished("script"))
    assert [a["state"] for a in world.attempts(key, "script")] == ["abandoned", "intent"]


async def test_a_video_whose_lease_ran_out_is_taken_over_and_its_attempt_abandoned(world: World) -> None:
    key = world.add()[0]
    _, first = await world.claimed("script", key, owner="first")
    world.let_leases_expire()
    _, second = await world.claimed("script", key, owner="second", context=SENSOR)
    assert second.generation == first.generation + 1
    assert [a["state"] for a in world.attempts(key, "script")] == ["abandoned", "intent"]


async def test_a_stale_runner_cannot_finish_what_was_taken_over(world: World) -> None:
    key = world.add()[0]
    stale, old = await world.claimed("script", key, owner="first")
    world.let_leases_expire()
    await world.claimed("script", key, owner="second")
    assert not await stale.finish(old, finished("script"))
    row = world.row(key, "script")
    assert (row["state"], row["output"], row["lease_owner"]) == ("running", None, "second")
    assert world.row(key, "voiceover")["state"] == "blocked"
    assert [a["state"] for a in world.attempts(key, "script")] == ["abandoned", "intent"]


async def test_a_stale_runner_cannot_bury_what_another_one_made(world: World) -> None:
    key = world.add()[0]
    stale, old = await world.claimed("script", key, owner="first")
    world.let_leases_expire()
    store, new = await world.claimed("script", key, owner="second")
    assert await store.finish(new, finished("script"))
    assert not await stale.finish(old, failure())
    assert world.row(key, "script")["state"] == "done"
    assert not world.letters(key)


async def test_a_stale_runner_cannot_open_another_attempt(world: World) -> None:
    key = world.add()[0]
    stale, old = await world.claimed("script", key, owner="first")
    world.let_leases_expire()
    await world.claimed("script", key, owner="second")
    with pytest.raises(StaleClaim):
        await stale.try_again(old, deferral(counts=True))
    assert len(world.attempts(key, "script")) == 2
    assert world.row(key, "script")["attempts"] == 0


async def test_a_lease_that_ran_out_but_was_not_taken_over_may_still_finish(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    world.let_leases_expire()
    assert await store.finish(claim, finished("script"))
    assert world.row(key, "script")["state"] == "done"


async def test_a_failed_video_is_claimable_by_a_person_with_a_fresh_budget_but_not_by_the_sensor(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    await store.finish(claim, failure("bad input"))
    _, claims = await world.claim("script", [key], context=SENSOR)
    assert [(u.outcome, u.reason, u.error_class) for u in claims.unclaimed] == [("failed", "bad input", "permanent")]
    _, again = await world.claimed("script", key, context=PERSON)
    assert again.attempts_used == 0


async def test_a_deferred_video_is_claimed_early_by_a_person_and_only_when_due_by_the_sensor(world: World) -> None:
    keys = world.add(2)
    store, claims = await world.claim("script", keys)
    await asyncio.gather(*(store.finish(claim, deferral()) for claim in claims.claimed))
    _, early = await world.claim("script", keys, context=SENSOR)
    assert [(u.outcome, u.reason) for u in early.unclaimed] == [("deferred", "not yet")] * 2
    assert all(u.retry_at is not None and u.retry_at > datetime.now(UTC) for u in early.unclaimed)
    await world.claimed("script", keys[0], context=PERSON)
    world.write("UPDATE phantoms.stages SET retry_at = clock_timestamp() WHERE state = 'deferred'")
    await world.claimed("script", keys[1], context=SENSOR)


async def test_a_post_that_is_not_due_waits_for_the_sensor(world: World) -> None:
    later = datetime.now(UTC) + timedelta(days=1)
    key = world.add(publish_at=later)[0]
    await world.carry([key], "script", "voiceover", "rendered_video")
    store, claim = await world.claimed("approval", key, context=deciding())
    await store.finish(claim, finished("approval"))
    await world.carry([key], "youtube/variant")
    _, claims = await world.claim("youtube/post", [key], context=SENSOR)
    assert [(u.outcome, u.retry_at) for u in claims.unclaimed] == [("deferred", later)]


async def test_each_video_that_cannot_be_worked_on_says_why(world: World) -> None:
    key = world.add(platforms=(Platform("youtube"),))[0]
    _, unknown = await world.claim("script", ["20260101-nothing-0000"])
    assert [(u.outcome, u.error_class) for u in unknown.unclaimed] == [("failed", "unknown_video")]
    _, unwanted = await world.claim("tiktok/post", [key])
    assert [(u.outcome, u.reason) for u in unwanted.unclaimed] == [("skipped", "not wanted on tiktok")]
    await world.carry([key], "script")
    _, missing = await world.claim("rendered_video", [key])
    assert [(u.outcome, u.error_class, u.reason) for u in missing.unclaimed] == [("failed", "missing_input", "waits for voiceover")]


async def test_a_rejected_video_is_skipped_unless_a_person_brings_a_decision(world: World) -> None:
    key = world.add()[0]
    await world.carry([key], "script", "voiceover", "rendered_video")
    store, claim = await world.claimed("approval", key)
    await store.finish(claim, AttemptOutcome(StageState.REJECTED, message="too loud"))
    assert not world.letters(key)
    _, claims = await world.claim("approval", [key])
    assert [(u.outcome, u.reason) for u in claims.unclaimed] == [("skipped", "too loud")]
    await world.claimed("approval", key, context=deciding())


async def test_the_answers_come_in_the_order_of_the_keys(world: World) -> None:
    keys = world.add(5)
    _, claims = await world.claim("script", list(reversed(keys)))
    assert [claim.video.key for claim in claims.claimed] == list(reversed(keys))


async def test_a_key_given_twice_is_claimed_once(world: World) -> None:
    key = world.add()[0]
    _, claims = await world.claim("script", [key, key])
    assert [claim.video.key for claim in claims.claimed] == [key]


async def test_overlapping_claims_at_once_never_both_get_a_video(world: World) -> None:
    keys = world.add(120)
    ranges = [keys[:80], list(reversed(keys[40:])), keys, list(reversed(keys))]
    stores = [world.store() for _ in ranges]
    found = await asyncio.gather(
        *(
            s.claim(SCRIPT_STAGE, part, owner=f"o{n}", context=RunContext(run_id=f"run-{n}", by="person"))
            for n, (s, part) in enumerate(zip(stores, ranges, strict=True))
        )
    )
    won = [claim.video.key for claims in found for claim in claims.claimed]
    assert sorted(won) == sorted(keys)
    assert len(world.rows("SELECT id FROM phantoms.attempts")) == 120


async def test_a_dead_letter_tells_every_attempt_and_is_closed_when_the_video_is_claimed_again(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    first = AttemptOutcome(StageState.DEFERRED, provider="llm", error_class="transient", code="503", message="overloaded")
    claim = await store.try_again(claim, first)
    evidence = Evidence(status=400, body="no such model")
    assert await store.finish(claim, failure("bad model", evidence=evidence))
    letter = world.letters(key)[0]
    assert (letter["stage"], letter["provider"], letter["error_class"], letter["code"]) == ("script", "llm", "permanent", "bad")
    assert (letter["message"], letter["run_id"], letter["state"]) == ("bad model", PERSON.run_id, "open")
    assert letter["evidence"] == {"status": 400, "body": "no such model"}
    assert [(a["class"], a["message"]) for a in letter["attempts"]] == [("transient", "overloaded"), ("permanent", "bad model")]
    assert world.row(key, "script")["attempts"] == 2

    store, claim = await world.claimed("script", key)
    closed = world.letters(key)[0]
    assert (closed["state"], closed["closed_by"]) == ("replayed", PERSON.run_id)
    await store.finish(claim, failure("bad again"))
    assert [letter["state"] for letter in world.letters(key)] == ["replayed", "open"]


async def test_what_was_received_before_a_kill_is_used_again_and_closed_once_used(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key, owner="first")
    attempt = await store.attempt(claim)
    await attempt.received({"text": "paid"}, provider_ref="resp-1", cost=Decimal("0.02"))
    world.let_leases_expire()
    store, again = await world.claimed("script", key, owner="second")
    assert (await store.attempt(again)).stored_response == {"text": "paid"}
    assert again.spent == Decimal("0.02")
    assert await store.finish(again, done(StageResult(output_of("script"), Decimal(0), "resp-1")))
    assert [a["state"] for a in world.attempts(key, "script")] == ["done", "done"]
    assert world.row(key, "script")["cost"] == Decimal("0.02")


async def test_a_received_answer_that_turned_out_bad_is_not_used_again(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    await (await store.attempt(claim)).received({"text": "cut sho"}, cost=Decimal("0.02"))
    retried = await store.try_again(claim, deferral(counts=True))
    assert retried.stored_response is None
    world.let_leases_expire()
    _, later = await world.claimed("script", key, owner="second")
    assert (later.stored_response, later.attempts_used) == (None, 1)


async def test_what_was_paid_for_is_remembered_even_by_a_runner_that_lost_its_claim(world: World) -> None:
    key = world.add()[0]
    store, claim = await world.claimed("script", key, owner="first")
    world.let_leases_expire()
    await world.claimed("script", key, owner="second")
    await (await store.attempt(claim)).received({"text": "late"}, cost=Decimal("0.03"))
    world.let_leases_expire()
    _, third = await world.claimed("script", key, owner="third")
    assert (third.stored_response, third.spent) == ({"text": "late"}, Decimal("0.03"))


async def test_released_videos_can_be_claimed_at_once_and_lose_no_attempt(world: World) -> None:
    keys = world.add(3)
    store, _ = await world.claim("script", keys, owner="first")
    await store.release("first")
    assert world.states("script") == ["deferred"] * 3
    _, claims = await world.claim("script", keys, owner="second", context=SENSOR)
    assert [claim.attempts_used for claim in claims.claimed] == [0] * 3


async def test_an_ending_that_arrives_after_the_release_is_refused_and_spoils_nothing(world: World) -> None:
    """A cancelled video's group commit may still run; it must not close the attempt whose answer was paid for."""
    key = world.add()[0]
    store, claim = await world.claimed("script", key)
    await (await store.attempt(claim)).received({"text": "paid"}, cost=Decimal("0.02"))
    await store.release("runner")
    assert not await store.finish(claim, deferral())
    _, again = await world.claimed("script", key, context=SENSOR)
    assert again.stored_response == {"text": "paid"}


async def test_a_heartbeat_renews_only_what_its_owner_holds(world: World) -> None:
    mine, other = world.add(2)
    store, _ = await world.claimed("script", mine, owner="me")
    await world.claimed("script", other, owner="other")
    world.let_leases_expire()
    await store.heartbeat("me")
    now = datetime.now(UTC)
    assert world.row(mine, "script")["lease_until"] > now + timedelta(seconds=30)
    assert world.row(other, "script")["lease_until"] < now


async def test_a_claim_whose_answer_was_lost_can_be_made_again(world: World) -> None:
    key = world.add()[0]
    _, first = await world.claimed("script", key, owner="same")
    store, second = await world.claimed("script", key, owner="same")
    assert second.generation == first.generation + 1
    assert [a["state"] for a in world.attempts(key, "script")] == ["abandoned", "intent"]
    assert not await store.finish(first, finished("script"))
    assert world.row(key, "script")["state"] == "running"
    assert await store.finish(second, finished("script"))


async def test_an_ending_whose_answer_was_lost_can_be_written_again(world: World) -> None:
    key = world.add()[0]
    _, claim = await world.claimed("script", key)
    closing = Closing(claim, failure())
    for _ in range(2):
        async with world.async_engine.begin() as connection:
            assert await outcomes.finish(connection, [closing]) == [True]
    assert world.row(key, "script")["attempts"] == 1
    assert len(world.letters(key)) == 1


async def test_a_next_attempt_whose_answer_was_lost_is_not_opened_twice(world: World) -> None:
    key = world.add()[0]
    _, claim = await world.claimed("script", key)
    closing = Closing(claim, deferral(counts=True))
    opened = []
    for _ in range(2):
        async with world.async_engine.begin() as connection:
            opened += await outcomes.next_attempts(connection, [closing])
    assert opened == [world.attempts(key, "script")[-1]["id"]] * 2
    assert [a["state"] for a in world.attempts(key, "script")] == ["deferred", "intent"]
    assert world.row(key, "script")["attempts"] == 1


async def test_characters_that_postgresql_cannot_store_do_not_fail_other_videos(world: World) -> None:
    keys = world.add(2)
    store, claims = await world.claim("script", keys)
    bad, good = claims.claimed
    evidence = Evidence(status=500, body="half \ud800 and \x00 and \\u0000")
    await (await store.attempt(bad)).received({"raw": "a\x00b"})
    ended = await asyncio.gather(store.finish(bad, failure("nul \x00", evidence=evidence)), store.finish(good, finished("script")))
    assert list(ended) == [True, True]
    assert world.states("script") == ["failed", "done"]
    assert world.letters(keys[0])[0]["evidence"]["body"] == "half ? and \ufffd and \\u0000"
    assert world.attempts(keys[0], "script")[0]["response"] == {"raw": "a\ufffdb"}


async def test_finishing_makes_exactly_the_next_stages_ready(world: World) -> None:
    key = world.add(platforms=(Platform("youtube"), Platform("tiktok")))[0]
    await world.carry([key], "script", "voiceover", "rendered_video")
    store, claim = await world.claimed("approval", key, context=deciding())
    assert claim.decision is not None
    await store.finish(claim, finished("approval"))
    states = {row["stage"]: row["state"] for row in world.rows("SELECT stage, state FROM phantoms.stages")}
    assert states == {
        **dict.fromkeys(("script", "voiceover", "rendered_video", "approval"), "done"),
        **dict.fromkeys(("youtube/variant", "tiktok/variant"), "ready"),
        **dict.fromkeys(("youtube/post", "tiktok/post"), "blocked"),
    }


async def test_the_planner_reads_what_is_ready_due_or_abandoned_once_dagster_knows_it(world: World) -> None:
    keys = world.add(5)
    assert world.due("script") == []
    world.catalogue.registered(keys[:4])
    store, claims = await world.claim("script", keys[1:4])
    await store.finish(claims.claimed[0], deferral(-1))
    await store.finish(claims.claimed[1], deferral(SOON.total_seconds()))
    world.write("UPDATE phantoms.stages SET lease_until = clock_timestamp() WHERE state = 'running'")
    assert world.due("script") == [keys[0], keys[1], keys[3]]
