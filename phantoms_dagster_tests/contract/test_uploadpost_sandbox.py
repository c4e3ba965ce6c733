"""Upload-Post's stand-in by itself: what its documentation says of schedules, retries, limits and deletions."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster_tests.contract.uploadpost_world import UploadPost, a_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[UploadPost]:
    async with a_world(tmp_path) as found:
        yield found


async def call(world: UploadPost, method: str, path: str, **request: Any) -> httpx.Response:
    headers = {"Authorization": f"Apikey {world.key}", **(request.pop("headers", None) or {})}
    return await world.client.request(method, f"{world.origin}/uploadpost/api{path}", headers=headers, **request)


async def upload(world: UploadPost, content: bytes = b"a video", platform: str = "tiktok", **fields: str) -> httpx.Response:
    given = {"user": "ocean", "platform[]": platform, "privacy_level": "PUBLIC_TO_EVERYONE", "title": "t", "async_upload": "true"}
    return await call(world, "POST", "/upload", data={**given, **fields}, files={"video": ("v.mp4", content)})


async def status(world: UploadPost, **query: str) -> httpx.Response:
    return await call(world, "GET", "/uploadposts/status", params=query)


def ahead(world: UploadPost, seconds: float) -> str:
    return datetime.fromtimestamp(world.sandbox.now() + seconds, UTC).isoformat()


# --- requests


async def test_an_asynchronous_upload_is_accepted_at_once_and_done_later(world: UploadPost) -> None:
    request_id = (await upload(world)).json()["request_id"]
    assert (await status(world, request_id=request_id)).status_code == 404
    world.sandbox.advance(2)
    found = (await status(world, request_id=request_id)).json()
    assert (found["status"], found["results"][0]["success"]) == ("completed", True)


@pytest.mark.parametrize(("seconds", "asynchronous"), [(30.0, False), (60.0, True)])
async def test_a_synchronous_upload_becomes_asynchronous_when_it_takes_a_minute(
    world: UploadPost, seconds: float, asynchronous: bool
) -> None:
    world.sandbox.config["uploadpost.processing_seconds"] = seconds
    answer = (await upload(world, async_upload="false")).json()
    assert ("results" not in answer) is asynchronous
    assert answer["request_id"]


async def test_a_request_with_a_known_key_or_id_is_the_same_one(world: UploadPost) -> None:
    request_id = str(uuid.uuid4())
    for name in ("request_id", "X-Request-Id", "X-Idempotency-Key", "Idempotency-Key"):
        chosen = {name: request_id}
        fields, headers = (chosen, None) if name == "request_id" else ({}, chosen)
        given = {"user": "ocean", "platform[]": "tiktok", "privacy_level": "SELF_ONLY", "async_upload": "true", **fields}
        answer = await call(world, "POST", "/upload", data=given, files={"video": ("v.mp4", b"v")}, headers=headers)
        assert answer.json()["request_id"] == request_id
    assert len(world.posts) == 1


async def test_fields_that_the_platform_ignores_are_in_the_warnings(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.ignored_fields"] = ["description"]
    request_id = (await upload(world, description="d")).json()["request_id"]
    world.sandbox.advance(2)
    [result] = (await status(world, request_id=request_id)).json()["results"]
    assert result["warnings"] == ["description is ignored by tiktok"]


async def test_the_history_has_pages_of_set_lengths_with_the_newest_first(world: UploadPost) -> None:
    for number in range(12):
        await upload(world, content=b"%d" % number)
        world.sandbox.advance(2)
    first = (await call(world, "GET", "/uploadposts/history")).json()
    second = (await call(world, "GET", "/uploadposts/history", params={"page": "2"})).json()
    assert (len(first["history"]), len(second["history"]), first["total"]) == (10, 2, 12)
    assert first["history"][0]["request_id"] == world.requests[-1].id
    for query in ({"limit": "11"}, {"page": "0"}):
        assert (await call(world, "GET", "/uploadposts/history", params=query)).status_code == 400


# --- another run


async def test_only_what_failed_is_run_again_and_the_status_is_stale_for_a_while(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.retryable_runs"] = 1
    request_id = (await upload(world)).json()["request_id"]
    again = {"json": {"request_id": request_id}}
    assert (await call(world, "POST", "/uploadposts/posts/retry", **again)).status_code == 409, "it is still running"
    world.sandbox.advance(2)
    assert (await status(world, request_id=request_id)).json()["results"][0]["status"] == "retryable"
    assert (await call(world, "POST", "/uploadposts/posts/retry", **again)).status_code == 200
    world.sandbox.advance(200)
    assert (await status(world, request_id=request_id)).json()["results"][0]["status"] == "retryable"
    world.sandbox.advance(100)
    assert (await status(world, request_id=request_id)).json()["status"] == "completed"
    assert (await call(world, "POST", "/uploadposts/posts/retry", **again)).status_code == 409
    assert (await call(world, "POST", "/uploadposts/posts/retry", json={"request_id": "x"})).status_code == 404
    assert len(world.posts) == 1


# --- schedules


async def test_a_scheduled_post_is_listed_moved_and_published_at_its_time(world: UploadPost) -> None:
    answer = await upload(world, scheduled_date=ahead(world, 3_600))
    job_id = answer.json()["job_id"]
    assert (answer.status_code, world.posts) == (202, [])
    [listed] = (await call(world, "GET", "/uploadposts/schedule")).json()["scheduled_posts"]
    assert listed["job_id"] == job_id
    moved = await call(world, "PATCH", f"/uploadposts/schedule/{job_id}", json={"scheduled_date": ahead(world, 7_200)})
    assert moved.status_code == 200
    world.sandbox.advance(3_700)
    assert (await status(world, job_id=job_id)).json()["status"] == "pending"
    world.sandbox.advance(3_700)
    await status(world, job_id=job_id)
    world.sandbox.advance(2)
    assert (await status(world, job_id=job_id)).json()["status"] == "completed"
    assert len(world.posts) == 1
    assert (await call(world, "DELETE", f"/uploadposts/schedule/{job_id}")).status_code == 404


async def test_a_schedule_that_is_cancelled_or_too_far_away_publishes_nothing(world: UploadPost) -> None:
    job_id = (await upload(world, scheduled_date=ahead(world, 60))).json()["job_id"]
    assert (await call(world, "DELETE", f"/uploadposts/schedule/{job_id}")).status_code == 200
    for date in (ahead(world, -60), ahead(world, 366 * 86_400), "tomorrow"):
        assert (await upload(world, scheduled_date=date)).status_code == 400
    world.sandbox.advance(120)
    assert (await call(world, "GET", "/uploadposts/schedule")).json()["scheduled_posts"] == []
    assert world.posts == []


# --- limits and deletions


async def test_the_plan_has_a_limit_of_uploads_for_each_calendar_month(world: UploadPost) -> None:
    world.sandbox.config["uploadpost.monthly_uploads"] = 1
    await upload(world)
    refused = await upload(world, content=b"another")
    assert (refused.status_code, refused.headers["X-RateLimit-Remaining"]) == (429, "0")
    reset = datetime.fromtimestamp(int(refused.headers["X-RateLimit-Reset"]), UTC)
    assert (reset.day, reset.hour) == (1, 0)
    world.sandbox.advance(reset.timestamp() - world.sandbox.now() + 1)
    assert (await upload(world, content=b"another")).status_code == 200


async def test_tiktok_posts_cannot_be_deleted_through_the_gateway(world: UploadPost) -> None:
    await upload(world)
    told = {"user": "ocean", "platform": "tiktok", "post_id": world.posts[0]["remote_id"]}
    refused = await call(world, "POST", "/uploadposts/posts/unpublish", json=told)
    assert (refused.status_code, refused.json()["error_code"]) == (400, "platform_not_supported")


async def test_a_video_on_youtube_can_be_deleted_once(world: UploadPost) -> None:
    await upload(world, platform="youtube")
    world.sandbox.advance(2)
    told = {"user": "ocean", "platform": "youtube", "post_id": world.posts[0]["remote_id"]}
    answers = [await call(world, "POST", "/uploadposts/posts/unpublish", json=told) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 404]
