"""The draft in the creator's inbox: what is sent, what the ledger says meanwhile, and how it ends."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from phantoms_dagster.domain.errors import NotYet, Permanent, Rejected, Throttled
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.tiktok.chunks import plan_chunks
from phantoms_dagster.platforms.tiktok.requests import source_info
from phantoms_dagster.production.publication import publish
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal, MortalTransport
from phantoms_dagster_tests.contract.tiktok_world import World, a_world

HOUR, DAY = 3_600.0, 86_400.0


@pytest.fixture
async def transport() -> MortalTransport:
    return MortalTransport()


@pytest.fixture
async def world(tmp_path: Path, transport: MortalTransport) -> AsyncIterator[World]:
    async with a_world(tmp_path, transport=transport) as found:
        yield found


async def handed_over(world: World, job: PublishJob | None = None) -> tuple[PublishJob, FakeJournal, NotYet]:
    """A job whose draft is in the creator's inbox."""
    job, journal = job or world.job(route="inbox"), world.journal()
    with pytest.raises(NotYet, match="waiting for the creator") as waits:
        await publish(world.publisher(), job, journal)
    return job, journal, waits.value


def publish_id(journal: FakeJournal) -> str:
    return str(journal.record.handle["publish_id"])


async def test_a_draft_is_sent_without_any_settings_of_a_post(world: World, transport: MortalTransport) -> None:
    await handed_over(world)
    [init] = [request for request in transport.requests if "init" in request.url.path]
    assert init.url.path.endswith("/v2/post/publish/inbox/video/init/")
    assert set(_json(init)) == {"source_info"}
    assert world.calls("creator_info") == 0


async def test_a_draft_in_the_inbox_is_handed_over_and_not_published(world: World) -> None:
    _, journal, waits = await handed_over(world)
    assert journal.states == [PostState.OPENED, PostState.COMMITTING, PostState.HANDED_OVER]
    assert (journal.record.remote_id, journal.record.url) == (None, None)
    assert waits.retry_after == HOUR
    assert len(world.drafts) == 1
    assert world.posts == []


async def test_a_draft_that_waits_is_asked_for_hourly_and_after_three_days_daily(world: World) -> None:
    job, journal, _ = await handed_over(world)
    pauses = []
    for _ in range(75):
        with pytest.raises(NotYet) as waits:
            await publish(world.publisher(), job, journal)
        pauses.append(waits.value.retry_after)
        world.sandbox.advance(waits.value.retry_after)
    assert set(pauses[:70]) == {HOUR}
    assert set(pauses[-2:]) == {DAY}
    assert journal.states[-1] is PostState.HANDED_OVER
    assert journal.states.count(PostState.HANDED_OVER) == 1, "a read that shows nothing new saves nothing"
    assert len(world.drafts) == 1


async def test_a_draft_that_the_creator_posts_for_everyone_gets_its_public_id(world: World) -> None:
    job, journal, _ = await handed_over(world)
    world.creator_posts(publish_id(journal), title="the creator's own words")
    post = await publish(world.publisher(), job, journal)
    assert journal.states[-2:] == [PostState.PUBLISHED, PostState.CONFIRMED]
    assert post.remote_id == world.posts[0]["remote_id"]


async def test_a_draft_that_the_creator_posts_for_himself_is_done_without_a_public_id(world: World) -> None:
    job, journal, _ = await handed_over(world)
    world.creator_posts(publish_id(journal), privacy_level="SELF_ONLY")
    post = await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.CONFIRMED
    assert post.remote_id == publish_id(journal)


async def test_the_public_id_of_a_draft_that_comes_late_is_found(world: World) -> None:
    job, journal, _ = await handed_over(world)
    world.sandbox.config["tiktok.moderation_seconds"] = 600.0
    world.creator_posts(publish_id(journal))
    await publish(world.publisher(), job, journal)
    assert journal.record.remote_id == publish_id(journal)
    world.sandbox.advance(601)
    found = await world.late_ids().public_id(job.account, journal.record.handle, last=False)
    assert found is not None
    assert found.remote_id == world.posts[0]["remote_id"]


async def test_a_draft_that_the_creator_deletes_stays_handed_over_because_tiktok_says_nothing(world: World) -> None:
    job, journal, _ = await handed_over(world)
    world.sandbox.state["tiktok"].delete_draft(publish_id(journal))
    with pytest.raises(NotYet, match="waiting for the creator"):
        await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.HANDED_OVER


async def test_a_draft_whose_publish_id_tiktok_forgets_stays_handed_over(world: World) -> None:
    job, journal, _ = await handed_over(world)
    world.known_uploads().clear()
    with pytest.raises(NotYet, match="waiting for the creator"):
        await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.HANDED_OVER


@pytest.mark.parametrize("retitled", [False, True])
async def test_a_posted_draft_is_found_by_its_caption_when_tiktok_forgot_the_publish_id(world: World, retitled: bool) -> None:
    """A day after the creator posted it, say because our machine was off."""
    job, journal, _ = await handed_over(world)
    world.creator_posts(publish_id(journal), title="the creator's own words" if retitled else job.caption)
    world.sandbox.advance(2 * DAY)
    if retitled:
        with pytest.raises(NotYet, match="waiting for the creator"):
            await publish(world.publisher(), job, journal)
        assert journal.record.state is PostState.HANDED_OVER
    else:
        assert (await publish(world.publisher(), job, journal)).remote_id == world.posts[0]["remote_id"]
    assert len(world.posts) == len(world.drafts) == 1


async def test_a_posted_draft_is_found_by_its_caption_if_its_status_does_not_tell(world: World) -> None:
    world.sandbox.config["tiktok.drafts_tell"] = False
    job, journal, _ = await handed_over(world)
    with pytest.raises(NotYet, match="waiting for the creator"):
        await publish(world.publisher(), job, journal)
    world.creator_posts(publish_id(journal), title=job.caption)
    assert (await publish(world.publisher(), job, journal)).remote_id == world.posts[0]["remote_id"]
    assert journal.record.state is PostState.CONFIRMED


async def test_a_forgotten_draft_waits_on_even_if_the_token_may_not_list_videos(world: World) -> None:
    job, journal, _ = await handed_over(world)
    world.known_uploads().clear()
    world.sandbox.config["tiktok.scopes"] = {"ocean_facts": ["user.info.basic", "video.upload"]}
    with pytest.raises(NotYet, match="waiting for the creator"):
        await publish(world.publisher(), job, journal)
    world.sandbox.config["tiktok.revoked"] = ["ocean_facts"]
    with pytest.raises(Permanent, match="reconnect"):
        await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.HANDED_OVER


async def test_a_draft_that_tiktok_lost_right_after_its_last_chunk_needs_a_person(world: World) -> None:
    job, journal = world.job(route="inbox"), world.journal()
    world.sandbox.config["tiktok.processing_seconds"] = 1_000.0
    with pytest.raises(NotYet):
        await publish(world.publisher(), job, journal)
    world.known_uploads().clear()
    with pytest.raises(Rejected, match="inbox of the account"):
        await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.UNKNOWN
    assert len(world.drafts) == 1


async def test_a_draft_that_fails_after_it_was_handed_over_goes_back_with_tiktoks_word(world: World) -> None:
    job, journal, _ = await handed_over(world)
    world.known_uploads()[publish_id(journal)].fail_reason = "publish_cancelled"
    with pytest.raises(Rejected, match="publish_cancelled"):
        await publish(world.publisher(), job, journal)
    assert journal.states[-2:] == [PostState.INTENT, PostState.FAILED]
    assert "publish_cancelled" in journal.proofs[-2].evidence


async def test_a_token_that_may_only_upload_can_hand_over(world: World) -> None:
    world.sandbox.config["tiktok.scopes"] = {"ocean_facts": ["user.info.basic", "video.upload"]}
    await handed_over(world)
    with pytest.raises(Permanent, match="scope_not_authorized"):
        await publish(world.publisher(), world.job(), world.journal())


async def test_the_sixth_draft_of_a_day_parks_for_hours_and_a_day_later_there_is_room(world: World) -> None:
    for size in range(20_000, 20_005):
        _, journal, _ = await handed_over(world, world.job(size, route="inbox"))
        world.creator_posts(publish_id(journal))
    sixth, journal = world.job(20_010, route="inbox"), world.journal()
    with pytest.raises(Throttled, match="spam_risk_too_many_pending_share") as waits:
        await publish(world.publisher(), sixth, journal)
    assert waits.value.retry_after is not None
    assert waits.value.retry_after >= HOUR
    assert journal.states == []
    world.sandbox.advance(DAY + 1)
    await handed_over(world, sixth)


async def test_the_inbox_takes_no_post_info(world: World) -> None:
    body = {"source_info": source_info(plan_chunks(20_000)), "post_info": {"title": "x"}}
    answer = await world.client.post(
        f"{world.base_url}/v2/post/publish/inbox/video/init/", json=body, headers={"Authorization": "Bearer sandbox-ocean_facts"}
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_param")


async def test_people_see_and_finish_drafts_over_http(world: World) -> None:
    job, journal, _ = await handed_over(world)
    drafts = world.base_url.removesuffix("/tiktok") + "/_sandbox/tiktok/drafts"
    [draft] = (await world.client.get(drafts)).json()["drafts"]
    assert draft == {"publish_id": publish_id(journal), "account": job.account, "state": "waiting"}
    assert (await world.client.post(drafts, json={"publish_id": draft["publish_id"], "do": "post"})).status_code == 200
    assert (await world.client.post(drafts, json={"publish_id": draft["publish_id"], "do": "delete"})).status_code == 404
    await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.CONFIRMED


def _json(request: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(request.content)
    return found
