"""TikTok posts through Upload-Post: what is sent, what a status proves, and what its refusals mean."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster.domain.errors import Barred, Disconnected, NotYet, Permanent, Rejected, Throttled, Transient, Unknown
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.publication import PublishedPost
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.production.publication import publish
from phantoms_dagster.providers.uploadpost.api import UploadPostApi, refusal_of
from phantoms_dagster.providers.uploadpost.publisher import UploadPostPost
from phantoms_dagster.resilience.limits import CallScope, Permit, UnguardedLimits
from phantoms_dagster.resilience.pools import Pools
from phantoms_dagster.resilience.scopes import scope_of
from phantoms_dagster.resilience.transport import build_client
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal
from phantoms_dagster_tests.contract.uploadpost_world import UploadPost, a_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[UploadPost]:
    async with a_world(tmp_path) as found:
        yield found


async def persist(world: UploadPost, job: PublishJob, journal: FakeJournal, tries: int = 12) -> PublishedPost:
    for _ in range(tries):
        try:
            return await publish(world.publisher(), job, journal)
        except (NotYet, Transient, Unknown) as later:
            world.sandbox.advance((getattr(later, "retry_after", None) or 0.0) + 1.0)
    raise AssertionError(f"not published after {tries} tries: {journal.states}")


def sent(world: UploadPost) -> list[Any]:
    return [request for request in world.transport.requests if request.url.path.endswith("/upload")]


# --- what is sent


async def test_each_choice_is_sent_and_the_ai_label_always(world: UploadPost) -> None:
    job, journal = world.job(privacy="SELF_ONLY", comments=True, your_brand=True), world.journal()
    await publish(world.publisher(), job, journal)
    [request] = world.sandbox.state["uploadpost"].requests
    assert request.fields == {
        "user": "ocean_facts",
        "platform[]": "tiktok",
        "request_id": request.id,
        "async_upload": "true",
        "title": job.caption,
        "privacy_level": "SELF_ONLY",
        "disable_comment": "false",
        "disable_duet": "true",
        "disable_stitch": "true",
        "brand_content_toggle": "false",
        "brand_organic_toggle": "true",
        "is_aigc": "true",
        "post_mode": "DIRECT_POST",
    }
    assert world.posts[0]["sha256"] == job.sha256


async def test_the_request_id_is_the_idempotency_key_and_in_the_ledger_before_it_is_sent(world: UploadPost) -> None:
    journal = world.journal()
    await publish(world.publisher(), world.job(), journal)
    [request] = sent(world)
    assert request.headers["Idempotency-Key"] == journal.saves[0].handle["request_id"]
    assert request.headers["Authorization"] == "Apikey sandbox-key"
    assert journal.states == [PostState.OPENED, PostState.COMMITTING, PostState.PUBLISHED, PostState.CONFIRMED]


async def test_a_post_has_the_platforms_own_id_and_its_url(world: UploadPost) -> None:
    journal = world.journal()
    post = await publish(world.publisher(), world.job(), journal)
    assert post.remote_id == world.posts[0]["remote_id"]
    assert post.url.endswith(f"/uploadpost/watch/{post.remote_id}")
    assert "ocean_facts" in (await world.client.get(post.url)).text


async def test_the_account_must_offer_the_privacy_level(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.tiktok"] = {"privacy_level_options": ["SELF_ONLY"]}
    with pytest.raises(Rejected, match="does not offer the privacy level"):
        await publish(world.publisher(), world.job(), world.journal())
    assert sent(world) == []


async def test_a_post_that_was_approved_with_other_terms_before_it_was_sent_is_prepared_again(world: UploadPost) -> None:
    journal = world.journal()
    async with world.publisher().verbs(world.job()) as verbs:
        handle = await verbs.open()
    await journal.save(PostState.OPENED, handle=handle)
    await persist(world, world.job(privacy="SELF_ONLY"), journal)
    assert [post["privacy"] for post in world.posts] == ["SELF_ONLY"]


# --- what a status proves


async def test_a_lost_request_is_sent_again_with_the_same_id_after_two_answers_a_minute_apart(world: UploadPost) -> None:
    world.fault("upload", "drop_before")
    job, journal = world.job(), world.journal()
    began = world.clock.now()
    await persist(world, job, journal)
    first, second = sent(world)
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]
    assert (world.clock.now() - began).total_seconds() >= 60
    [proof] = [proof for proof in journal.proofs if proof is not None]
    assert "answered 404 for request" in proof.evidence
    assert len(world.posts) == 1


async def test_a_second_answer_within_the_minute_proves_nothing(world: UploadPost) -> None:
    world.fault("upload", "drop_before")
    job, journal = world.job(), world.journal()
    for seconds in (0, 5, 30):
        world.sandbox.advance(seconds)
        with pytest.raises((Unknown, NotYet)):
            await publish(world.publisher(), job, journal)
    assert len(sent(world)) == 1


async def test_a_request_that_shows_up_after_it_was_declared_missing_is_still_one_post(world: UploadPost) -> None:
    """Upload-Post lags by more than a minute. Its idempotency key is what makes one post of two requests."""
    world.sandbox.config["uploadpost.status_lag_seconds"] = 100.0
    world.fault("upload", "drop_after")
    journal = world.journal()
    await persist(world, world.job(), journal)
    assert len(sent(world)) == 2
    assert len(world.posts) == 1
    assert journal.record.state is PostState.CONFIRMED


async def test_an_accepted_request_that_is_not_in_the_status_yet_is_not_in_doubt(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.status_lag_seconds"] = 40.0
    journal = world.journal()
    await publish(world.publisher(), world.job(), journal)
    assert PostState.UNKNOWN not in journal.states


async def test_content_that_upload_post_has_already_is_followed_under_its_first_id(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.dedupe_seconds"] = 600.0
    first = world.journal()
    await publish(world.publisher(), world.job(), first)
    again = FakeJournal(clock=world.clock)
    world.sandbox.advance(5)
    post = await persist(world, world.job(), again)
    assert post.remote_id == first.record.remote_id
    assert len(world.posts) == 1


async def test_a_draft_is_handed_over_and_never_published(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.fallback_to_inbox"] = True
    job, journal = world.job(), world.journal()
    for _ in range(2):
        with pytest.raises(NotYet, match="waiting for the creator"):
            await publish(world.publisher(), job, journal)
        world.sandbox.advance(3_600)
    assert journal.states == [PostState.OPENED, PostState.COMMITTING, PostState.HANDED_OVER]
    assert journal.record.handle["handed_over_at"] is not None
    assert world.posts == []


async def test_a_request_that_only_timed_out_at_the_gateway_needs_a_person(world: UploadPost) -> None:
    """ "failed (also after 1 h without activity)" says nothing about the platform."""
    world.sandbox.config["uploadpost.error_code"] = "stuck"
    job, journal = world.job(), world.journal()
    with pytest.raises(NotYet):
        await publish(world.publisher(), job, journal)
    world.sandbox.advance(3_601)
    with pytest.raises(Rejected, match="does not say whether the post is out"):
        await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.UNKNOWN


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("account_reauth_required", Disconnected, "connect the account again at Upload-Post"),
        ("account_blocked", Barred, "needs its owner"),
        ("tiktok_privacy_unavailable", Rejected, "does not offer this privacy level"),
        ("reached_active_user_cap", Throttled, "Upload-Post's app has reached its limit"),
        ("spam_risk_too_many_posts", Throttled, "used up"),
        ("duration_check_failed", Permanent, "does not fit"),
        ("a_new_code", Rejected, "a_new_code"),
    ],
)
async def test_a_refusal_of_the_platform_is_proof_that_nothing_was_posted(
    world: UploadPost, code: str, error: type[Exception], said: str
) -> None:
    world.sandbox.config["uploadpost.error_code"] = code
    job, journal = world.job(), world.journal()
    with pytest.raises(error, match=said):
        await publish(world.publisher(), job, journal)
    assert journal.record.state in (PostState.OPENED, PostState.FAILED)
    del world.sandbox.config["uploadpost.error_code"]
    await persist(world, job, journal)
    assert (len(sent(world)), world.calls("retry")) == (1, 1)
    assert journal.record.remote_id == world.posts[0]["remote_id"]
    assert len(world.posts) == 1


# --- another run of what failed


async def test_a_failure_that_may_pass_is_run_again_by_upload_post_and_never_uploaded_again(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.retryable_runs"] = 3
    journal = world.journal()
    await persist(world, world.job(), journal, tries=60)
    assert (len(sent(world)), world.calls("retry")) == (1, 3)
    assert len(world.posts) == 1
    assert journal.record.remote_id == world.posts[0]["remote_id"]


async def test_the_result_of_the_run_before_proves_nothing_about_a_run_whose_answer_was_lost(world: UploadPost) -> None:
    """The server shows a final status for five minutes. Taken as new, it would start a run beside the one that publishes."""
    world.sandbox.config["uploadpost.retryable_runs"] = 1
    world.fault("retry", "drop_after")
    job, journal = world.job(), world.journal()
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    for _ in range(4):
        with pytest.raises(NotYet, match="result of the last run"):
            await publish(world.publisher(), job, journal)
        world.sandbox.advance(60)
    assert journal.record.state is PostState.UNKNOWN
    await persist(world, job, journal)
    assert world.calls("retry") == 1
    assert len(world.posts) == 1


async def test_a_run_that_was_asked_for_twice_is_one_run(world: UploadPost) -> None:
    world.sandbox.config |= {"uploadpost.retryable_runs": 1, "uploadpost.final_seconds": 0.0}
    world.fault("retry", status=409)
    journal = world.journal()
    await persist(world, world.job(), journal, tries=60)
    assert len(sent(world)) == len(world.posts) == 1


async def test_a_failed_request_that_upload_post_does_not_keep_is_sent_again_under_another_id(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.retryable_runs"] = 1
    world.fault("retry", status=404)
    journal = world.journal()
    with pytest.raises(Transient, match="did not take the post"):
        await publish(world.publisher(), world.job(), journal)
    world.sandbox.config["uploadpost.retryable_runs"] = 0
    await persist(world, world.job(), journal, tries=60)
    first, second = sent(world)
    assert first.headers["Idempotency-Key"] != second.headers["Idempotency-Key"]
    assert len(world.posts) == 1


@pytest.mark.parametrize(("status", "uploads"), [(401, 1), (429, 1), (400, 2)])
async def test_a_refusal_of_another_run_keeps_the_request_if_the_reason_can_pass(
    world: UploadPost, status: int, uploads: int
) -> None:
    world.sandbox.config["uploadpost.retryable_runs"] = 1
    world.fault("retry", status=status)
    job, journal = world.job(), world.journal()
    with pytest.raises((Disconnected, Throttled, Permanent)):
        await publish(world.publisher(), job, journal)
    world.sandbox.advance(3_600)
    world.sandbox.config["uploadpost.retryable_runs"] = 0
    await persist(world, job, journal, tries=60)
    assert (len(sent(world)), len(world.posts)) == (uploads, 1)


async def test_other_words_get_another_request_after_a_failure(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.error_code"] = "tiktok_privacy_unavailable"
    journal = world.journal()
    with pytest.raises(Rejected):
        await publish(world.publisher(), world.job(), journal)
    del world.sandbox.config["uploadpost.error_code"]
    await persist(world, world.job(privacy="SELF_ONLY"), journal)
    assert (len(sent(world)), world.calls("retry")) == (2, 0)
    assert [post["privacy"] for post in world.posts] == ["SELF_ONLY"]


async def test_a_request_that_is_unknown_after_another_run_needs_a_person(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.retryable_runs"] = 1
    world.fault("retry", "drop_after")
    job, journal = world.job(), world.journal()
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    world.fault("status", status=404, body='{"status": "not_found"}')
    with pytest.raises(Rejected, match="look at the account"):
        await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.UNKNOWN


# --- what a refusal of the request means


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (400, Permanent, "400"),
        (401, Disconnected, "PHANTOMS_UPLOADPOST_API_KEY"),
        (404, Disconnected, "no such profile"),
        (429, Throttled, "takes no more posts"),
    ],
)
async def test_a_request_that_was_refused_was_not_posted(world: UploadPost, status: int, error: type[Exception], said: str) -> None:
    world.fault("upload", status=status, body=json.dumps({"success": False, "message": "no"}))
    job, journal = world.job(), world.journal()
    with pytest.raises(error, match=said):
        await publish(world.publisher(), job, journal)
    assert journal.states[:3] == [PostState.OPENED, PostState.COMMITTING, PostState.INTENT]
    await persist(world, job, journal)
    assert len(world.posts) == 1


@pytest.mark.parametrize("status", [409, 500, 503])
async def test_any_other_answer_leaves_the_post_in_doubt(world: UploadPost, status: int) -> None:
    world.fault("upload", status=status)
    job, journal = world.job(), world.journal()
    with pytest.raises(Unknown):
        await publish(world.publisher(), job, journal)
    assert journal.record.state is PostState.UNKNOWN
    await persist(world, job, journal)
    assert len(world.posts) == 1


async def test_the_sixteenth_post_of_a_day_waits(world: UploadPost) -> None:
    for size in range(20_000, 20_015):
        await publish(world.publisher(), replace(world.job(size), marker=f"m{size}"), world.journal())
    with pytest.raises(Throttled, match="takes no more posts") as full:
        await publish(world.publisher(), world.job(20_100), world.journal())
    assert len(world.posts) == 15
    reset = world.requests[0].accepted_at + 86_400 - world.sandbox.now()
    assert full.value.retry_after == pytest.approx(reset, abs=3)


@pytest.mark.parametrize(
    ("headers", "wait"),
    [
        ({}, 3_600.0),
        ({"Retry-After": "30", "X-RateLimit-Reset": "90"}, 30.0),
        ({"X-RateLimit-Reset": "90"}, 90.0),
        ({"X-RateLimit-Reset": "soon"}, 3_600.0),
        ({"X-RateLimit-Reset": "1764234000"}, 3_600.0),
        ({"X-RateLimit-Reset": "1764234000", "Date": "Thu, 27 Nov 2025 08:50:00 GMT"}, 600.0),
        ({"X-RateLimit-Reset": "1764234000", "Date": "Thu, 27 Nov 2025 10:00:00 GMT"}, 1.0),
        ({"X-RateLimit-Reset": "999999999999", "Date": "Thu, 27 Nov 2025 10:00:00 GMT"}, 86_400.0),
    ],
)
def test_a_limit_is_waited_for_as_long_as_upload_post_says(headers: dict[str, str], wait: float) -> None:
    refusal = refusal_of(httpx.Response(429, headers=headers, json={"message": "full"}, request=httpx.Request("POST", "http://u")))
    assert isinstance(refusal, Throttled)
    assert refusal.retry_after == wait


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("account_reauth_required", Disconnected, "connect the account again"),
        ("reached_active_user_cap", Throttled, "limit of users"),
        ("a_new_code", Disconnected, "does not accept the key"),
    ],
)
def test_the_code_of_a_refusal_says_more_than_its_status(code: str, error: type[Exception], said: str) -> None:
    body = {"success": False, "message": "no", "error_code": code}
    refusal = refusal_of(httpx.Response(403, json=body, request=httpx.Request("POST", "http://u")))
    assert isinstance(refusal, error)
    assert said in str(refusal)
    assert refusal.evidence.status == 403


async def test_an_account_without_a_profile_stops_before_anything_is_sent(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.unknown_profiles"] = ["ocean_facts"]
    with pytest.raises(Disconnected, match="create it there under the name of the account"):
        await publish(world.publisher(), world.job(), world.journal())
    with pytest.raises(Disconnected):
        await world.publisher().read("ocean_facts")
    assert sent(world) == []


async def test_the_owner_of_an_account_is_its_profile(world: UploadPost) -> None:
    assert (await world.publisher().read("ocean_facts")).subject == "uploadpost:ocean_facts"


async def test_the_key_is_never_in_a_message_or_its_evidence(world: UploadPost) -> None:
    world.key = "sk-very-secret-key"
    world.sandbox.config["uploadpost.revoked_keys"] = [world.key]
    with pytest.raises(Disconnected) as refused:
        await UploadPostApi(world.service()).check_key()
    assert world.key not in str(refused.value)
    assert world.key not in refused.value.evidence.model_dump_json()


async def test_ten_wrong_keys_block_for_five_minutes(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.revoked_keys"] = [world.key]
    for _ in range(10):
        with pytest.raises(Disconnected):
            await UploadPostApi(world.service()).check_key()
    with pytest.raises(Throttled) as blocked:
        await UploadPostApi(world.service()).check_key()
    assert blocked.value.retry_after == 300


async def test_an_id_that_is_no_uuid_is_refused_by_the_stand_in(world: UploadPost) -> None:
    publisher, job = world.publisher(), world.job()
    verbs = UploadPostPost(publisher, job)
    handle = {**await verbs.open(), "request_id": "m-1"}
    journal = world.journal()
    await journal.save(PostState.OPENED, handle=handle)
    with pytest.raises(Permanent, match="must be a UUID"):
        await publish(publisher, job, journal)


# --- through the product's own client


class Noted(UnguardedLimits):
    """Admits everything, and notes what each call counts for."""

    def __init__(self) -> None:
        self.pools: list[str | None] = []

    async def admit(self, scope: CallScope, *, max_wait: float, hold_seconds: float) -> Permit:
        self.pools.append(scope.pool)
        return await super().admit(scope, max_wait=max_wait, hold_seconds=hold_seconds)


async def test_a_post_by_the_gateway_counts_for_the_posts_of_its_platform_and_asks_whether_it_may_go(world: UploadPost) -> None:
    """TikTok counts the posts of all routes, so the pool of direct posts is the pool of these."""
    limits, asked = Noted(), []

    async def may_go() -> None:
        asked.append(list(limits.pools))

    async with build_client(limits=limits, scope=scope_of("uploadpost")) as client:
        world.client = client
        job = replace(world.job(2_500_000), may_go=may_go)
        await publish(world.publisher(), job, world.journal())
    assert world.posts[0]["sha256"] == job.sha256
    assert limits.pools[:2] == ["uploadpost", "publish_tiktok"]
    assert set(limits.pools[2:]) == {"uploadpost"}
    assert asked[-1] == ["uploadpost", "publish_tiktok"], "right before the file is sent, after it was admitted"
    assert Pools().of("publish_tiktok", "ocean_facts") == ["publish_tiktok", "publish_tiktok:ocean_facts"]
