"""TikTok: the chunk plan, what follows from a read, and the error table row by row."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from phantoms_dagster.domain.errors import (
    Barred,
    Disconnected,
    Permanent,
    ProviderError,
    Rejected,
    Throttled,
    Transient,
)
from phantoms_dagster.domain.publication import PostRecord
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.tiktok.api import ERRORS, PublishStatus, error_for, same_video
from phantoms_dagster.platforms.tiktok.chunks import next_step, plan_chunks
from phantoms_dagster.platforms.tiktok.requests import utf16_units
from phantoms_dagster.production.publication import publish
from phantoms_dagster_tests.contract.tiktok_world import (
    MB,
    World,
    a_world,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


# --- the plan -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "chunk_size", "count", "last"),
    [
        (1, 1, 1, 1),
        (4_999_999, 4_999_999, 1, 4_999_999),
        (50_000_123, 50_000_123, 1, 50_000_123),
        (64_000_000, 64_000_000, 1, 64_000_000),
        (64_000_001, 32_000_000, 2, 32_000_001),
        (95_999_999, 32_000_000, 2, 63_999_999),
        (96_000_000, 32_000_000, 3, 32_000_000),
        (150_000_000, 32_000_000, 4, 54_000_000),
        (4 << 30, 32_000_000, 134, 38_967_296),
    ],
)
def test_the_chunk_plan_is_the_contracts(size: int, chunk_size: int, count: int, last: int) -> None:
    plan = plan_chunks(size)
    assert (plan.chunk_size, plan.count, plan.size - plan.last_start) == (chunk_size, count, last)
    assert plan.count == size // plan.chunk_size


@pytest.mark.parametrize("size", [1, 64_000_000, 64_000_001, 95_999_999, 127_999_999, 4 << 30])
def test_chunks_touch_each_other_cover_the_file_and_stay_below_64_mb(size: int) -> None:
    plan, offset, sizes = plan_chunks(size), 0, []
    while offset < size:
        end = plan.end(offset)
        sizes.append(end - offset)
        offset = end
    assert sum(sizes) == size
    assert len(sizes) == plan.count
    assert max(sizes) <= 64 * MB
    assert plan.end(plan.last_start) == size


def test_an_emoji_counts_as_two_units_of_the_title() -> None:
    assert (utf16_units("abc"), utf16_units("🐙"), utf16_units("é")) == (3, 2, 1)


# --- the decision after a read --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "seen", "expected"),
    [
        (PostState.OPENED, None, "restart"),
        (PostState.UPLOADING, None, "restart"),
        (PostState.COMMITTING, None, "lost"),
        (PostState.UNKNOWN, None, "lost"),
        (PostState.OPENED, PublishStatus("PROCESSING_UPLOAD", 0), "upload"),
        (PostState.UPLOADING, PublishStatus("PROCESSING_UPLOAD"), "upload"),
        (PostState.UNKNOWN, PublishStatus("PROCESSING_UPLOAD", 50), "upload"),
        (PostState.COMMITTING, PublishStatus("PROCESSING_UPLOAD"), "wait"),
        (PostState.COMMITTING, PublishStatus("PROCESSING_UPLOAD", 100), "wait"),
        (PostState.COMMITTING, PublishStatus("PROCESSING_DOWNLOAD", 0), "wait"),
        (PostState.UNKNOWN, PublishStatus("PUBLISH_COMPLETE", 100), "complete"),
        (PostState.COMMITTING, PublishStatus("FAILED", fail_reason="internal"), "fail"),
    ],
)
def test_only_a_read_that_shows_missing_bytes_allows_another_send(
    state: PostState, seen: PublishStatus | None, expected: str
) -> None:
    assert next_step(seen, PostRecord(state=state, offset=40), 100).do == expected


def test_a_last_chunk_that_tiktok_says_it_has_is_not_sent_again_even_if_the_count_lags() -> None:
    record = PostRecord(state=PostState.COMMITTING)
    lagging = PublishStatus("PROCESSING_UPLOAD", 0)
    assert next_step(lagging, record, 100, counted=True).do == "wait"
    assert next_step(lagging, record, 100, refusal=error_for("upload 416")).do == "wait"
    assert next_step(lagging, record, 100, refusal=error_for("upload 403")).do == "restart"
    assert next_step(lagging, record, 100, refusal=error_for("upload 400")).do == "fail"


def test_a_listed_video_is_ours_only_with_our_caption_length_and_time() -> None:
    since = datetime(2026, 11, 22, tzinfo=UTC)
    video: JsonObject = {"create_time": int(since.timestamp()) + 60, "duration": 30, "video_description": "Three hearts"}
    later = since + timedelta(hours=1)
    assert same_video(video, "Three  hearts ", 30.6, since)
    assert not same_video(video, "Three hearts", 40.0, since)
    assert not same_video(video, "Three hearts and more", 30.0, since)
    assert not same_video(video, "Three hearts", 30.0, later)
    assert same_video(video | {"video_description": "x" * 150}, "x" * 400, 30.0, since)


# --- the error table ------------------------------------------------------------------------------------------------

TABLE = [
    (400, "invalid_param", Permanent),
    (400, "invalid_params", Permanent),
    (400, "app_version_check_failed", Permanent),
    (400, "token_not_authorized_for_specified_publish_id", Permanent),
    (400, "publish_not_cancellable", Permanent),
    (400, "invalid_publish_id", Permanent),
    (401, "access_token_invalid", Disconnected),
    (401, "scope_not_authorized", Barred),
    (400, "scope_permission_missed", Barred),
    (403, "spam_risk_too_many_posts", Throttled),
    (200, "spam_risk_too_many_posts", Throttled),
    (403, "spam_risk_too_many_pending_share", Throttled),
    (403, "spam_risk_user_banned_from_posting", Barred),
    (200, "spam_risk_user_banned_from_posting", Barred),
    (403, "reached_active_user_cap", Throttled),
    (200, "reached_active_user_cap", Throttled),
    (403, "unaudited_client_can_only_post_to_private_accounts", Rejected),
    (403, "url_ownership_unverified", Permanent),
    (403, "privacy_level_option_mismatch", Rejected),
    (429, "rate_limit_exceeded", Throttled),
    (500, "internal_error", Transient),
]
REASONS = {
    "file_format_check_failed": Permanent,
    "duration_check_failed": Permanent,
    "frame_rate_check_failed": Permanent,
    "picture_size_check_failed": Permanent,
    "internal": Transient,
    "video_pull_failed": Transient,
    "photo_pull_failed": Transient,
    "publish_cancelled": Rejected,
    "auth_removed": Disconnected,
    "spam_risk_text": Rejected,
    "spam_risk": Rejected,
}
CHUNKS = {"upload 400": Permanent, "upload 403": Transient, "upload 404": Transient, "upload 416": Transient}


@pytest.mark.parametrize(("status", "code", "kind"), TABLE)
async def test_every_code_of_the_envelope_is_classified(world: World, status: int, code: str, kind: type[ProviderError]) -> None:
    envelope = {"data": {}, "error": {"code": code, "message": "said", "log_id": "L1"}}
    world.fault("init", status=status, body=json.dumps(envelope))
    journal = world.journal()
    with pytest.raises(kind) as raised:
        await publish(world.publisher(), world.job(), journal)
    assert (type(raised.value), raised.value.code, raised.value.evidence.status) == (kind, code, status)
    assert "L1" in raised.value.evidence.body
    fails = issubclass(kind, (Permanent, Rejected)) and not issubclass(kind, Disconnected)
    assert journal.record.state is (PostState.FAILED if fails else PostState.INTENT)


@pytest.mark.parametrize(("code", "kind"), [*REASONS.items(), *CHUNKS.items()])
def test_every_fail_reason_and_every_answer_to_a_chunk_is_classified(code: str, kind: type[ProviderError]) -> None:
    assert type(error_for(code)) is kind


def test_the_table_has_no_row_that_is_not_tested() -> None:
    assert set(ERRORS) == {code for _, code, _ in TABLE} | set(REASONS) | set(CHUNKS)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, "<html>", Disconnected),
        (429, "", Throttled),
        (502, "<html>bad gateway", Transient),
        (503, '{"error":{"code":"never_heard_of"}}', Transient),
        (418, "{}", Permanent),
        (200, "<html>", Transient),
        (200, '{"data":{"publish_id":"x"},"error":{"code":"ok"}}', Transient),
    ],
)
async def test_an_answer_without_a_known_code_is_judged_by_its_status(
    world: World, status: int, body: str, kind: type[ProviderError]
) -> None:
    world.fault("init", status=status, body=body)
    with pytest.raises(kind) as raised:
        await publish(world.publisher(), world.job(), world.journal())
    assert type(raised.value) is kind


async def test_retry_after_is_taken_from_the_answer_when_it_is_there(world: World) -> None:
    world.fault("creator_info", status=429, retry_after=7)
    with pytest.raises(Throttled) as throttled:
        await publish(world.publisher(), world.job(), world.journal())
    assert throttled.value.retry_after == 7


async def test_too_many_inits_in_a_minute_are_throttled_until_the_minute_is_over(world: World) -> None:
    world.sandbox.config["tiktok.rate_limits"] = True
    for _ in range(6):
        await world.client.post(
            f"{world.base_url}/v2/post/publish/video/init/", json={}, headers={"Authorization": "Bearer sandbox-ocean_facts"}
        )
    job, journal = world.job(), world.journal()
    with pytest.raises(Throttled) as throttled:
        await publish(world.publisher(), job, journal)
    world.sandbox.advance(throttled.value.retry_after or 0)
    await publish(world.publisher(), job, journal)
    assert len(world.posts) == 1
