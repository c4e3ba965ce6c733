"""TikTok's publisher against the stand-in: what a post becomes, what it waits for, and how it fails.

`test_tiktok_kills.py` tests what happens when the process dies, and `test_tiktok_sandbox.py` what the stand-in refuses.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest
from httpx_aiohttp import AiohttpTransport

from phantoms_dagster.domain.errors import (
    NotYet,
    Permanent,
    ProviderError,
    Rejected,
    Throttled,
    Transient,
    Unknown,
)
from phantoms_dagster.domain.ports import FoundPost
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.tiktok import chunks as tiktok_chunks
from phantoms_dagster.production.publication import publish
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal, Killed, at, never
from phantoms_dagster_tests.contract.tiktok_world import (
    CAPTION,
    MB,
    World,
    a_world,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans of 5 MB, the minimum at TikTok, so that three chunks are only 15 MB."""
    monkeypatch.setattr(tiktok_chunks, "ONE_CHUNK_BYTES", 8 * MB)
    monkeypatch.setattr(tiktok_chunks, "CHUNK_BYTES", 5 * MB)


# --- a post ---------------------------------------------------------------------------------------------------------


async def test_a_video_is_posted_once_with_its_bytes_its_caption_and_the_ai_label(world: World) -> None:
    job, journal = world.job(), world.journal()
    post = await publish(world.publisher(), job, journal)
    (truth,) = world.posts
    assert truth["remote_id"] == post.remote_id == journal.record.remote_id
    assert (truth["sha256"], truth["size"]) == (job.sha256, job.size)
    assert (truth["account"], truth["caption"], truth["is_aigc"]) == ("ocean_facts", CAPTION, True)
    assert journal.states == [PostState.OPENED, PostState.COMMITTING, PostState.PUBLISHED, PostState.CONFIRMED]
    assert post.published_at <= world.clock.now()
    page = await world.client.get(post.url)
    assert page.status_code == 200
    assert "@ocean_facts" in page.text


@pytest.mark.parametrize("aiohttp_transport", [False, True])
async def test_a_file_over_64_mb_goes_up_in_chunks_and_arrives_whole(tmp_path: Path, aiohttp_transport: bool) -> None:
    async with a_world(tmp_path, transport=AiohttpTransport() if aiohttp_transport else None) as world:
        job, journal = world.job(96 * MB + 5), world.journal()
        await publish(world.publisher(), job, journal)
        assert [post["sha256"] for post in world.posts] == [job.sha256]
        assert world.calls("upload") == 3
        uploading = [record.offset for record in journal.saves if record.state is PostState.UPLOADING]
        assert uploading == [32 * MB, 64 * MB]


async def test_outside_the_sandbox_the_url_is_tiktoks_own(world: World) -> None:
    post = await publish(world.publisher(sandbox=False), world.job(), world.journal())
    assert post.url == f"https://www.tiktok.com/@ocean_facts/video/{post.remote_id}"


async def test_a_video_is_never_sent_to_a_stored_address_of_another_host(world: World) -> None:
    job, journal = world.job(), world.journal()
    with pytest.raises(NotYet):
        await publish(world.publisher(), replace(job, may_go=stop_before_the_last_chunk(journal)), journal)
    foreign = {**journal.record.handle, "upload_url": "http://stranger.invalid/upload"}
    await journal.save(PostState.UPLOADING, handle=foreign, offset=0)
    post = await publish(world.publisher(sandbox=False), job, journal)
    assert [entry["sha256"] for entry in world.posts] == [job.sha256]
    assert "stranger" not in str(journal.record.handle)
    assert post.remote_id == journal.record.remote_id


def stop_before_the_last_chunk(journal: FakeJournal) -> Callable[[], Awaitable[None]]:
    """Channel hours that end once the upload is open."""

    async def may_go() -> None:
        if journal.record.state is not PostState.INTENT:
            raise NotYet("closed", retry_after=1)

    return may_go


async def test_a_post_that_is_out_is_answered_from_the_journal_without_a_call(world: World) -> None:
    job, journal = world.job(), world.journal()
    first = await publish(world.publisher(), job, journal)
    before = dict(world.sandbox.calls)
    assert await publish(world.publisher(), job, journal) == first
    assert world.sandbox.calls == before


async def test_what_the_creator_has_switched_off_is_switched_off_in_the_post(world: World) -> None:
    world.sandbox.config["tiktok.creator"] = {"comment_disabled": True, "stitch_disabled": True}
    await publish(world.publisher(), world.job(comments=True, duets=True, stitches=True), world.journal())
    (upload,) = world.known_uploads().values()
    disabled = {name: upload.post_info[name] for name in ("disable_comment", "disable_duet", "disable_stitch")}
    assert disabled == {"disable_comment": True, "disable_duet": False, "disable_stitch": True}


async def test_interactions_are_off_and_nothing_is_disclosed_unless_the_channel_says_otherwise(world: World) -> None:
    await publish(world.publisher(), world.job(), world.journal())
    await publish(world.publisher(), world.job(caption="More", comments=True, stitches=True, your_brand=True), world.journal())
    sent = [upload.post_info for upload in world.known_uploads().values()]
    names = ("disable_comment", "disable_duet", "disable_stitch", "brand_organic_toggle", "brand_content_toggle", "is_aigc")
    assert [sent[0][name] for name in names] == [True, True, True, False, False, True]
    assert [sent[1][name] for name in names] == [False, True, False, True, False, True]


async def test_a_post_without_a_chosen_privacy_is_refused_before_anything_is_sent(world: World) -> None:
    with pytest.raises(Permanent, match=r"tiktok: \{privacy: ...\}") as refused:
        await publish(world.publisher(), replace(world.job(), terms=None, privacy="public"), world.journal())
    assert refused.value.code == "no_choice"
    assert world.sandbox.calls == {}


async def test_a_video_whose_hours_end_before_its_last_chunk_is_published_in_the_morning(world: World) -> None:
    left = 2  # creator_info and init; the last chunk publishes

    async def may_go() -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise NotYet("goes out in the morning", retry_after=3_600)

    job, journal = replace(world.job(), may_go=may_go), world.journal()
    with pytest.raises(NotYet, match="in the morning"):
        await publish(world.publisher(), job, journal)
    assert (world.posts, world.calls("upload"), journal.record.state) == ([], 0, PostState.UPLOADING)
    left = 10
    await publish(world.publisher(), job, journal)
    assert (len(world.posts), world.calls("init"), world.calls("upload")) == (1, 1, 1)


async def test_creator_info_is_asked_before_every_post(world: World) -> None:
    for expected in (1, 2):
        await publish(world.publisher(), world.job(), world.journal())
        assert world.calls("creator_info") == expected


async def test_a_privacy_level_that_is_not_offered_is_rejected_and_the_offer_is_named(world: World) -> None:
    with pytest.raises(Rejected, match=r"FOLLOWER_OF_CREATOR.*PUBLIC_TO_EVERYONE, MUTUAL_FOLLOW_FRIENDS, SELF_ONLY"):
        await publish(world.publisher(), world.job(privacy="FOLLOWER_OF_CREATOR"), world.journal())
    assert world.calls("init") == 0


@pytest.mark.parametrize(("caption", "fits"), [("🐙" * 1_100, True), ("🐙" * 1_100 + "a", False)])
async def test_the_caption_is_measured_in_utf16_units(world: World, caption: str, fits: bool) -> None:
    if fits:
        await publish(world.publisher(), world.job(caption=caption), world.journal())
        assert world.posts[0]["caption"] == caption
    else:
        with pytest.raises(Permanent, match="2201 UTF-16 units"):
            await publish(world.publisher(), world.job(caption=caption), world.journal())
        assert not world.sandbox.calls


async def test_a_video_longer_than_the_creator_may_post_is_permanent_before_an_upload_is_opened(world: World) -> None:
    world.sandbox.config["tiktok.creator"] = {"max_video_post_duration_sec": 20}
    with pytest.raises(Permanent, match="may post at most 20 seconds"):
        await publish(world.publisher(), world.job(seconds=30), world.journal())
    assert world.calls("init") == 0


async def test_a_file_that_is_not_what_the_job_says_is_permanent(world: World) -> None:
    job = world.job()
    with pytest.raises(Permanent, match="bytes, not"):
        await publish(world.publisher(), replace(job, size=job.size + 1), world.journal())
    with pytest.raises(Permanent, match="cannot be read"):
        await publish(world.publisher(), replace(job, file=job.file.with_name("gone.mp4")), world.journal())
    with pytest.raises(Permanent, match=r"accepts .*not \.avi"):
        await publish(world.publisher(), replace(job, file=job.file.with_suffix(".avi")), world.journal())


async def test_a_refused_token_says_to_reconnect_and_does_not_show_itself(world: World) -> None:
    world.tokens.revoked.add("ocean_facts")
    with pytest.raises(Permanent, match="reconnect") as refused:
        await publish(world.publisher(), world.job(), world.journal())
    assert refused.value.code == "access_token_invalid"
    assert refused.value.evidence.status == 401
    assert "revoked-" not in f"{refused.value} {refused.value.evidence}"


async def test_an_upload_address_never_appears_in_an_error(world: World) -> None:
    world.fault("upload", status=503)
    journal = world.journal()
    with pytest.raises(Unknown) as lost:
        await publish(world.publisher(), world.job(), journal)
    secret = str(journal.record.handle["upload_url"]).rpartition("=")[2]
    assert len(secret) > 20
    assert secret not in f"{lost.value} {lost.value.evidence}"


# --- waiting --------------------------------------------------------------------------------------------------------


async def test_processing_longer_than_the_patience_is_deferred_and_finished_later(world: World) -> None:
    world.sandbox.config["tiktok.processing_seconds"] = 100
    job, journal = world.job(), world.journal()
    with pytest.raises(NotYet):
        await publish(world.publisher(max_wait=60), job, journal)
    assert journal.record.state is PostState.COMMITTING
    assert sum(world.clock.slept) <= 60
    world.sandbox.advance(60)
    post = await publish(world.publisher(), job, journal)
    assert [p["remote_id"] for p in world.posts] == [post.remote_id]
    assert world.calls("upload") == 1


async def test_polling_stays_below_the_status_limit(world: World) -> None:
    world.sandbox.config |= {"tiktok.processing_seconds": 1_000, "tiktok.rate_limits": True}
    with pytest.raises(NotYet):
        await publish(world.publisher(max_wait=180), world.job(), world.journal())
    assert sum(world.clock.slept) > 170


async def test_a_published_video_without_a_public_id_settles_with_its_publish_id_at_once(world: World) -> None:
    world.sandbox.config["tiktok.moderation_seconds"] = 7_200
    job, journal = world.job(), world.journal()
    post = await publish(world.publisher(sandbox=False), job, journal)
    assert post.remote_id == world.posts[0]["publish_id"]
    assert post.url == "https://www.tiktok.com/@ocean_facts"
    assert journal.record.state is PostState.CONFIRMED
    assert sum(world.clock.slept) < 10, "the account is not held while TikTok moderates"
    assert len(world.posts) == 1


async def test_a_public_id_that_comes_hours_later_is_found_by_the_publish_id(world: World) -> None:
    world.sandbox.config["tiktok.moderation_seconds"] = 7_200
    journal = world.journal()
    post = await publish(world.publisher(), world.job(), journal)
    assert await world.late_ids().public_id("ocean_facts", journal.record.handle, last=False) is None
    assert await world.late_ids().public_id("ocean_facts", journal.record.handle, last=True) is None
    world.sandbox.advance(7_200)
    found = await world.late_ids(sandbox=False).public_id("ocean_facts", journal.record.handle, last=False)
    number = world.posts[0]["remote_id"]
    assert found == FoundPost(number, f"https://www.tiktok.com/@ocean_facts/video/{number}")
    assert post.remote_id != number
    assert world.calls("list") == 1, "the list is the last resort"


async def test_a_public_id_is_found_in_the_list_when_tiktok_forgot_the_publish_id(world: World) -> None:
    world.sandbox.config["tiktok.moderation_seconds"] = 3_600
    journal = world.journal()
    await publish(world.publisher(), replace(world.job(), caption="Another video"), world.journal())
    await publish(world.publisher(), world.job(), journal)
    world.sandbox.advance(3_700)
    world.known_uploads().clear()
    found = await world.late_ids().public_id("ocean_facts", journal.record.handle, last=False)
    assert found is not None
    assert found.remote_id == world.posts[1]["remote_id"]


async def test_two_listed_videos_that_look_alike_are_not_guessed_between(world: World) -> None:
    journal = world.journal()
    await publish(world.publisher(), world.job(), journal)
    await publish(world.publisher(), world.job(), world.journal())
    world.sandbox.advance(60)
    world.known_uploads().clear()
    assert await world.late_ids().public_id("ocean_facts", journal.record.handle, last=True) is None


async def test_a_post_for_oneself_alone_never_gets_a_public_id_and_is_not_waited_for(world: World) -> None:
    post = await publish(world.publisher(), world.job(privacy="SELF_ONLY"), world.journal())
    assert post.remote_id == world.posts[0]["publish_id"]
    assert sum(world.clock.slept) < 10
    assert (await world.client.get(post.url)).status_code == 200


# --- failures of a post ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reason", "kind", "state"),
    [
        ("picture_size_check_failed", Permanent, PostState.FAILED),
        ("spam_risk_text", Rejected, PostState.FAILED),
        ("spam_risk_too_many_posts", Throttled, PostState.INTENT),
        ("internal", Transient, PostState.INTENT),
        ("never_heard_of", Permanent, PostState.FAILED),
    ],
)
async def test_a_failed_processing_ends_as_its_reason_asks(
    world: World, reason: str, kind: type[ProviderError], state: PostState
) -> None:
    world.sandbox.config["tiktok.fail_reason"] = reason
    job, journal = world.job(), world.journal()
    with pytest.raises(kind) as failed:
        await publish(world.publisher(), job, journal)
    assert type(failed.value) is kind
    assert failed.value.code == reason
    assert journal.record.state is state
    del world.sandbox.config["tiktok.fail_reason"]
    await publish(world.publisher(), job, journal)
    assert len(world.posts) == 1
    assert len(world.known_uploads()) == 2


async def test_the_daily_cap_is_seen_before_an_upload_is_opened_and_waits_a_day(world: World) -> None:
    world.sandbox.config["tiktok.daily_posts"] = 1
    await publish(world.publisher(), world.job(), world.journal())
    job, journal = world.job(), world.journal()
    with pytest.raises(Throttled) as capped:
        await publish(world.publisher(), job, journal)
    assert capped.value.evidence.status == 200
    assert world.calls("init") == 1
    world.sandbox.advance(capped.value.retry_after or 0)
    await publish(world.publisher(), job, journal)
    assert len(world.posts) == 2


async def test_a_dead_upload_address_leads_to_a_new_upload_not_to_two_posts(world: World, small_chunks: None) -> None:
    job, journal = world.job(15 * MB), world.journal()
    journal.kill = at("after save", 2)
    with pytest.raises(Killed):
        await publish(world.publisher(), job, journal)
    journal.kill = never
    assert (journal.record.state, journal.record.offset) == (PostState.UPLOADING, 5 * MB)
    world.sandbox.advance(3_700)
    post = await publish(world.publisher(), job, journal)
    assert [p["remote_id"] for p in world.posts] == [post.remote_id]
    assert len(world.known_uploads()) == 2


async def test_an_upload_that_was_forgotten_before_its_last_chunk_begins_again(world: World, small_chunks: None) -> None:
    job, journal = world.job(15 * MB), world.journal()
    journal.kill = at("after save", 2)
    with pytest.raises(Killed):
        await publish(world.publisher(), job, journal)
    journal.kill = never
    assert (journal.record.state, journal.record.offset) == (PostState.UPLOADING, 5 * MB)
    world.known_uploads().clear()
    await publish(world.publisher(), job, journal)
    assert len(world.posts) == 1


async def test_an_upload_that_tiktok_lost_after_the_last_chunk_was_sent_goes_back_to_opened(
    world: World, small_chunks: None
) -> None:
    job, journal = world.job(15 * MB), world.journal()
    journal.kill = at("before save", 4)
    with pytest.raises(Killed):
        await publish(world.publisher(), job, journal)
    journal.kill = never
    await journal.save(PostState.COMMITTING)
    await journal.save(PostState.UNKNOWN)
    (upload,) = world.known_uploads().values()
    upload.uploaded, upload.digest, upload.head = 0, hashlib.sha256(), b""
    await publish(world.publisher(), job, journal)
    assert [post["sha256"] for post in world.posts] == [job.sha256]
    assert journal.states[5:7] == [PostState.OPENED, PostState.UPLOADING]


@pytest.mark.parametrize("change", ["caption", "bytes"])
async def test_a_half_done_upload_of_an_older_revision_is_left_behind(world: World, small_chunks: None, change: str) -> None:
    job, journal = world.job(15 * MB), world.journal()
    journal.kill = at("after save", 2)
    with pytest.raises(Killed):
        await publish(world.publisher(), job, journal)
    journal.kill = never
    newer = replace(job, caption="A better caption") if change == "caption" else world.job(15 * MB + 1)
    await publish(world.publisher(), newer, journal)
    assert [(post["sha256"], post["caption"]) for post in world.posts] == [(newer.sha256, newer.caption)]
    assert len(world.known_uploads()) == 2


async def test_an_older_revision_whose_last_chunk_may_still_come_has_to_expire_first(world: World) -> None:
    job, journal = world.job(), world.journal()
    world.fault("upload", "drop_before")
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    newer = replace(job, caption="A better caption")
    with pytest.raises(NotYet) as later:
        await publish(world.publisher(), newer, journal)
    world.sandbox.advance(later.value.retry_after)
    await publish(world.publisher(), newer, journal)
    assert [post["caption"] for post in world.posts] == ["A better caption"]


async def test_a_chunk_that_is_refused_for_good_fails_the_post_after_a_read(world: World) -> None:
    journal = world.journal()
    world.fault("upload", status=400)
    with pytest.raises(Permanent) as refused:
        await publish(world.publisher(), world.job(), journal)
    assert refused.value.code == "upload 400"
    assert journal.record.state is PostState.FAILED
    assert world.calls("status") == 2, "one read could be of a count that lags"


async def test_a_400_for_a_last_chunk_that_was_counted_nevertheless_is_not_a_failure(world: World) -> None:
    """A gateway between us and TikTok can answer for it after the chunk has passed."""
    job, journal = world.job(), world.journal()
    world.fault("upload", "drop_after")
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    world.fault("upload", status=400)
    assert (await publish(world.publisher(), job, journal)).remote_id == world.posts[0]["remote_id"]
    assert world.calls("upload") == 1


@pytest.mark.parametrize("status", [None, 400])
async def test_a_last_chunk_that_tiktok_took_but_counts_late_is_not_followed_by_a_second_post(
    world: World, status: int | None
) -> None:
    """Its answer was lost, and the upload's hour ended before the count caught up. So TikTok refuses the chunk, but has it."""
    world.sandbox.config["tiktok.count_lag_seconds"] = 3_610
    job, journal = world.job(), world.journal()
    world.fault("upload", "drop_after")
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    world.sandbox.advance(3_601)
    if status is not None:
        world.fault("upload", status=status)
    await world.persist(job, journal)
    assert len(world.posts) == len(world.known_uploads()) == 1
    assert journal.record.state is PostState.CONFIRMED


@pytest.mark.parametrize("route", ["", "inbox"])
async def test_a_video_that_tiktok_processes_for_hours_comes_to_a_person_and_is_still_read(world: World, route: str) -> None:
    """It was polled for ever, and only its stage showed that, after a day."""
    world.sandbox.config["tiktok.processing_seconds"] = 8_000
    job, journal = world.job(route=route), world.journal()
    with pytest.raises(NotYet, match="still processing"):
        await publish(world.publisher(), job, journal)
    world.sandbox.advance(3_600)
    with pytest.raises(Unknown, match=r"6[01] minutes ago") as slow:
        await publish(world.publisher(), job, journal)
    assert (slow.value.code, journal.record.state) == ("processing", PostState.UNKNOWN)
    world.sandbox.advance(8_000)
    if route:
        with pytest.raises(NotYet, match="waiting for the creator"):
            await publish(world.publisher(), job, journal)
    else:
        await publish(world.publisher(), job, journal)
    assert len(world.posts + world.drafts) == world.calls("upload") == 1


async def test_an_app_at_its_limit_of_users_waits_for_hours_and_no_account_is_blocked(world: World) -> None:
    world.sandbox.config["tiktok.daily_users"] = 1
    await publish(world.publisher(), world.job(account="reef_facts"), world.journal())
    job, journal = world.job(), world.journal()
    with pytest.raises(Throttled, match="limit of users") as capped:
        await publish(world.publisher(), job, journal)
    assert (capped.value.evidence.status, world.calls("init")) == (200, 1)
    assert capped.value.retry_after == 4 * 3_600
    await publish(world.publisher(), world.job(account="reef_facts"), world.journal())
    await world.persist(job, journal)
    assert len(world.posts) == 3


async def test_a_last_chunk_that_never_arrived_is_sent_again_only_after_a_read(world: World) -> None:
    job, journal = world.job(), world.journal()
    world.fault("upload", "drop_before")
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.UNKNOWN
    assert world.calls("status") == 0
    await publish(world.publisher(), job, journal)
    assert len(world.posts) == len(world.known_uploads()) == 1
    assert world.calls("upload") == 2


async def test_a_video_whose_publish_id_was_forgotten_is_found_in_the_accounts_list(world: World) -> None:
    job, journal = world.job(caption="Long caption. " * 20), world.journal()
    await publish(world.publisher(), replace(world.job(), caption="Another video"), world.journal())
    world.fault("upload", "drop_after")
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    world.known_uploads().clear()
    post = await world.persist(job, journal)
    assert post.remote_id == world.posts[1]["remote_id"]
    assert len(world.posts) == 2


async def test_a_forgotten_publish_id_without_a_video_in_the_list_ends_with_a_person(world: World) -> None:
    world.sandbox.config["tiktok.moderation_seconds"] = 7_200
    job, journal = world.job(), world.journal()
    world.fault("upload", "drop_after")
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    world.known_uploads().clear()
    with pytest.raises(NotYet):
        await publish(world.publisher(), job, journal)
    world.sandbox.advance(601)
    with pytest.raises(Rejected, match="look at the account"):
        await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.UNKNOWN
    assert len(world.posts) == 1


async def test_the_ten_minutes_for_a_lost_upload_count_from_its_last_chunk(world: World, small_chunks: None) -> None:
    """An upload over a slow line had used them up before its last chunk was sent."""
    world.sandbox.config["tiktok.moderation_seconds"] = 7_200
    job, journal = world.job(15 * MB), world.journal()
    journal.kill = at("after save", 3)
    with pytest.raises(Killed):
        await publish(world.publisher(), job, journal)
    journal.kill = never
    assert (journal.record.state, journal.record.offset) == (PostState.UPLOADING, 10 * MB)
    world.sandbox.advance(1_800)
    world.fault("upload", "drop_after")
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    world.known_uploads().clear()
    with pytest.raises(NotYet):
        await publish(world.publisher(), job, journal)
