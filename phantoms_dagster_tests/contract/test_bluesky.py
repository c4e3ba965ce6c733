"""Bluesky's adapters against the stand-in over HTTP. Kills and lost answers are in `test_publication_kills`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from phantoms_dagster.domain.errors import Barred, Disconnected, NotYet, Permanent, ProviderError, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.bluesky.adapters import BlueskyIdentity
from phantoms_dagster.platforms.bluesky.metrics import BlueskyMetricsReader
from phantoms_dagster.platforms.bluesky.record import facets, key_of
from phantoms_dagster.platforms.bluesky.rules import size
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.bluesky.state import SERVER, TID, did
from phantoms_dagster_tests.contract.bluesky_world import ACCOUNT, CAPTION, Bluesky, make_job, world
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal


@pytest.fixture
async def sky() -> AsyncIterator[Bluesky]:
    async with world() as made:
        yield made


async def test_a_post_has_the_video_the_words_and_its_marks(sky: Bluesky, tmp_path: Path) -> None:
    job, journal = make_job(tmp_path), FakeJournal(clock=sky.clock)
    post = await publish(sky.publisher(), job, journal)
    [entry] = sky.posts
    assert (entry["remote_id"], entry["sha256"], entry["caption"]) == (post.remote_id, job.sha256, CAPTION)
    value = sky.sandbox.state["bluesky"].records[post.remote_id].value
    assert value["embed"]["aspectRatio"] == {"width": 1080, "height": 1920}
    text = CAPTION.encode()
    marked = [text[f["index"]["byteStart"] : f["index"]["byteEnd"]].decode() for f in value["facets"]]
    assert marked == ["#ocean", "#Ökologie", "https://example.org/eels"]
    shown = await sky.client.get(post.url)
    assert "Eels cross an ocean" in shown.text


async def test_a_record_that_is_there_already_is_answered_500_and_found(sky: Bluesky, tmp_path: Path) -> None:
    """The answer of the first is lost, the read-back does not see it yet, and the repeat meets the record."""
    job, journal = make_job(tmp_path), FakeJournal(clock=sky.clock)
    sky.fail("create", "drop_after")
    with pytest.raises(Unknown):
        await publish(sky.publisher(), job, journal)
    sky.refuse("read", "RecordNotFound")
    with pytest.raises(Unknown, match="500"):
        await publish(sky.publisher(), job, journal)
    assert journal.record.state is PostState.UNKNOWN
    await publish(sky.publisher(), job, journal)
    assert len(sky.posts) == 1
    assert sky.asked("create") == 2


async def test_a_session_whose_access_has_expired_is_renewed_without_the_password(sky: Bluesky, tmp_path: Path) -> None:
    publisher = sky.publisher()
    await publish(publisher, make_job(tmp_path), FakeJournal(clock=sky.clock))
    sky.sandbox.advance(7_300)
    await publish(publisher, make_job(tmp_path, marker="m-2"), FakeJournal(clock=sky.clock))
    assert (sky.asked("session"), sky.asked("refresh"), len(sky.posts)) == (1, 1, 2)


async def test_a_session_that_was_not_used_for_two_months_is_opened_again_with_the_password(sky: Bluesky, tmp_path: Path) -> None:
    publisher = sky.publisher()
    await publish(publisher, make_job(tmp_path), FakeJournal(clock=sky.clock))
    sky.sandbox.advance(61 * 86_400)
    await publish(publisher, make_job(tmp_path, marker="m-2"), FakeJournal(clock=sky.clock))
    assert (sky.asked("session"), len(sky.posts)) == (2, 2)


async def test_a_deleted_app_password_is_noticed_when_the_session_ends_and_a_new_one_works(sky: Bluesky, tmp_path: Path) -> None:
    publisher, journal = sky.publisher(), FakeJournal(clock=sky.clock)
    await publish(publisher, make_job(tmp_path), FakeJournal(clock=sky.clock))
    sky.sandbox.config["bluesky.revoked"] = [ACCOUNT]
    sky.sandbox.advance(7_300)
    with pytest.raises(Disconnected, match="app password"):
        await publish(publisher, make_job(tmp_path, marker="m-2"), journal)
    sky.sandbox.config["bluesky.revoked"] = []
    await publish(publisher, make_job(tmp_path, marker="m-2"), journal)
    assert len(sky.posts) == 2


async def test_a_server_that_no_longer_knows_the_session_is_not_a_refused_password(sky: Bluesky, tmp_path: Path) -> None:
    """A server that is moved or restored answers InvalidToken. The app password still opens a session."""
    publisher = sky.publisher()
    await publish(publisher, make_job(tmp_path), FakeJournal(clock=sky.clock))
    sky.sandbox.state["bluesky"].sessions.clear()
    await publish(publisher, make_job(tmp_path, marker="m-2"), FakeJournal(clock=sky.clock))
    assert (sky.asked("session"), len(sky.posts)) == (2, 2)


@pytest.mark.parametrize("name", ["InvalidRequest", "RecordAlreadyExists"])
async def test_a_repeat_that_is_refused_by_name_is_read_back_and_not_reported_as_failed(
    sky: Bluesky, tmp_path: Path, name: str
) -> None:
    job, journal = make_job(tmp_path), FakeJournal(clock=sky.clock)
    sky.fail("create", "drop_after")
    with pytest.raises(Unknown):
        await publish(sky.publisher(), job, journal)
    sky.refuse("read", "RecordNotFound")
    sky.refuse("create", name)
    post = await publish(sky.publisher(), job, journal)
    assert [entry["remote_id"] for entry in sky.posts] == [post.remote_id]
    assert journal.record.state is PostState.CONFIRMED


async def test_a_password_that_is_not_taken_is_the_accounts_trouble(sky: Bluesky, tmp_path: Path) -> None:
    sky.tokens.revoked.add(ACCOUNT)
    journal = FakeJournal(clock=sky.clock)
    with pytest.raises(Disconnected, match="app password"):
        await publish(sky.publisher(), make_job(tmp_path), journal)
    assert journal.record.state is not PostState.FAILED


async def test_an_account_that_was_taken_down_waits(sky: Bluesky, tmp_path: Path) -> None:
    sky.sandbox.config["bluesky.barred"] = [ACCOUNT]
    with pytest.raises(Barred, match="may not post"):
        await publish(sky.publisher(), make_job(tmp_path), FakeJournal(clock=sky.clock))


async def test_an_account_without_room_today_waits_before_it_uploads(sky: Bluesky, tmp_path: Path) -> None:
    sky.sandbox.config["bluesky.videos_per_day"] = 0
    with pytest.raises(Throttled, match="may not upload another video"):
        await publish(sky.publisher(), make_job(tmp_path), FakeJournal(clock=sky.clock))
    assert sky.asked("upload") == 0
    sky.sandbox.config |= {"bluesky.videos_per_day": 5, "bluesky.may_upload": False}
    with pytest.raises(Barred, match="not allowed to upload"):
        await publish(sky.publisher(), make_job(tmp_path), FakeJournal(clock=sky.clock))


async def test_the_video_services_token_is_made_out_to_the_accounts_own_server(sky: Bluesky) -> None:
    session = await sky.calls().session(ACCOUNT)
    assert (session.did, session.server) == (did(ACCOUNT), f"did:web:{SERVER}")


async def test_a_video_that_was_deleted_before_its_record_is_sent_again_under_a_new_key(sky: Bluesky, tmp_path: Path) -> None:
    job, journal = make_job(tmp_path), FakeJournal(clock=sky.clock)
    sky.refuse("create", "RateLimitExceeded", 429, retry_after=30)
    with pytest.raises(Throttled):
        await publish(sky.publisher(), job, journal)
    first = journal.record.handle["rkey"]
    sky.sandbox.advance(7 * 3_600)
    with pytest.raises(Transient):
        await publish(sky.publisher(), job, journal)
    await publish(sky.publisher(), job, journal)
    assert len(sky.posts) == 1
    assert journal.record.handle["rkey"] != first


@pytest.mark.parametrize(
    ("failure", "kind", "uploads"), [("validation_failure", Permanent, 1), ("pds_upload_failure", Transient, 2)]
)
async def test_a_video_that_is_not_processed_is_sent_again_only_if_its_file_may_be_good(
    sky: Bluesky, tmp_path: Path, failure: str, kind: type[ProviderError], uploads: int
) -> None:
    sky.sandbox.config["bluesky.failure"] = failure
    job, journal = make_job(tmp_path), FakeJournal(clock=sky.clock)
    with pytest.raises(ProviderError, match=failure) as caught:
        await publish(sky.publisher(), job, journal)
    assert type(caught.value) is kind
    if uploads == 2:
        sky.sandbox.config["bluesky.failure"] = None
        await publish(sky.publisher(), job, journal)
    assert (sky.asked("upload"), len(sky.posts)) == (uploads, uploads - 1)


async def test_a_video_whose_processing_does_not_end_costs_attempts_and_so_reaches_a_person(sky: Bluesky, tmp_path: Path) -> None:
    sky.sandbox.config["bluesky.processing_seconds"] = 4 * 3_600
    job, journal = make_job(tmp_path), FakeJournal(clock=sky.clock)
    with pytest.raises(NotYet):
        await publish(sky.publisher(max_wait=1), job, journal)
    sky.sandbox.advance(2 * 3_600)
    with pytest.raises(Transient, match="has not processed the video in two hours"):
        await publish(sky.publisher(max_wait=1), job, journal)
    sky.sandbox.advance(3 * 3_600)
    await publish(sky.publisher(), job, journal)
    assert len(sky.posts) == 1


async def test_a_post_that_waited_for_its_hours_is_dated_when_it_goes_out(sky: Bluesky, tmp_path: Path) -> None:
    allowed = iter([True, False])

    async def may_go() -> None:
        if not next(allowed, True):
            raise NotYet("outside of the hours", retry_after=3_600)

    job, journal = make_job(tmp_path, may_go=may_go), FakeJournal(clock=sky.clock)
    with pytest.raises(NotYet):
        await publish(sky.publisher(), job, journal)
    sky.sandbox.advance(3_600)
    post = await publish(sky.publisher(), job, journal)
    assert abs((post.published_at - sky.clock.now()).total_seconds()) < 60


@pytest.mark.parametrize(
    ("status", "name", "kind"),
    [
        (400, "InvalidRequest", Permanent),
        (401, "AuthenticationRequired", Disconnected),
        (401, "AccountTakedown", Barred),
        (429, "RateLimitExceeded", Throttled),
        (502, "UpstreamFailure", Unknown),
        (400, None, Unknown),  # no refusal of the server itself
    ],
)
async def test_each_refusal_of_a_record_is_its_own_error(
    sky: Bluesky, tmp_path: Path, status: int, name: str | None, kind: type[ProviderError]
) -> None:
    sky.refuse("create", name, status)
    with pytest.raises(ProviderError) as caught:
        await publish(sky.publisher(), make_job(tmp_path), FakeJournal(clock=sky.clock))
    assert type(caught.value) is kind


async def test_numbers_are_read_in_pages_of_25_and_what_is_gone_is_said(sky: Bluesky, tmp_path: Path) -> None:
    post = await publish(sky.publisher(), make_job(tmp_path), FakeJournal(clock=sky.clock))
    sky.sandbox.advance(30 * 86_400)
    strange = [f"at://{did(ACCOUNT)}/app.bsky.feed.post/3{n:012d}" for n in range(26)]
    pages = [page async for page in BlueskyMetricsReader(sky.calls()).pages(ACCOUNT, [post.remote_id, *strange])]
    assert [len(page.gone) for page in pages] == [24, 2]
    [metrics] = pages[0].metrics
    assert metrics.views is None
    assert (metrics.likes or 0) > 0


@pytest.mark.parametrize("hours", [-24, -1, 1, 24])
async def test_a_post_goes_out_whatever_our_clock_says(sky: Bluesky, tmp_path: Path, hours: int) -> None:
    """The service's token ended by our clock, and its refusal counted as that of the app password."""
    sky.clock.offset = hours * 3_600.0
    await publish(sky.publisher(), make_job(tmp_path), FakeJournal(clock=sky.clock))
    assert len(sky.posts) == 1


async def test_a_clock_that_is_set_between_two_calls_costs_one_attempt(sky: Bluesky) -> None:
    calls = sky.calls()
    await calls.session(ACCOUNT)
    sky.clock.offset = 7_200.0
    with pytest.raises(Transient, match="expiration"):
        await calls.service_token(ACCOUNT, audience="did:web:video", method="m")
    assert await calls.service_token(ACCOUNT, audience="did:web:video", method="m")


async def test_a_refused_token_of_the_video_service_does_not_stop_the_account(sky: Bluesky, tmp_path: Path) -> None:
    sky.refuse("upload", "InvalidToken", 401)
    journal = FakeJournal(clock=sky.clock)
    with pytest.raises(Transient, match="refused its token"):
        await publish(sky.publisher(), make_job(tmp_path), journal)
    await publish(sky.publisher(), make_job(tmp_path), journal)
    assert len(sky.posts) == 1


async def test_the_owner_of_an_app_password_is_named(sky: Bluesky) -> None:
    owner = await BlueskyIdentity(sky.calls()).read(ACCOUNT)
    assert (owner.subject, owner.label) == (did(ACCOUNT), ACCOUNT)


def test_a_key_is_a_tid_and_keys_sort_by_time() -> None:
    first, second = (key_of("m", datetime(2026, 11, 22, 9, minute, tzinfo=UTC)) for minute in (0, 1))
    assert TID.fullmatch(first)
    assert first < second
    assert key_of("m", datetime(2026, 11, 22, tzinfo=UTC)) != key_of("n", datetime(2026, 11, 22, tzinfo=UTC))


def test_a_text_counts_in_graphemes_but_never_beyond_its_bytes() -> None:
    family = "👨‍👩‍👧‍👦"
    assert size("abc") == 3
    assert size(family) == 3  # 25 bytes are worth three graphemes
    assert size(family * 120) == 300
    (mark,) = facets("a #b")
    assert mark["features"] == [{"$type": "app.bsky.richtext.facet#tag", "tag": "b"}]


def test_a_long_caption_is_cut_to_what_bluesky_takes() -> None:
    assert Platform("bluesky").spec.words.room == 300
