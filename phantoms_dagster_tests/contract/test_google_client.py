"""Google's own clients (google-api-python-client, google-auth), unchanged, against the stand-ins: only the addresses in their
discovery documents, and the token endpoint, are others. Resumable uploads are in `test_youtube_sandbox`."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from google.auth.exceptions import RefreshError
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build_from_document
from googleapiclient.discovery_cache import get_static_doc
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaIoBaseUpload

from phantoms_dagster.platforms.youtube.publisher import GRANULE
from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.sandbox.youtube.routes import routes
from phantoms_dagster_tests.contract.test_youtube import video_bytes

DAY = 86_400
JPEG = b"\xff\xd8\xff\xe0" + bytes(500)
SRT = b"1\n00:00:00,000 --> 00:00:01,000\nThe sea glows.\n"


class Google:
    """The clients and what they talk to. Their calls block, so each runs in a thread."""

    def __init__(self, sandbox: Sandbox, root: str) -> None:
        self.sandbox, self.root = sandbox, root

    def credentials(self, token: str | None = "sandbox-main") -> Credentials:
        return Credentials(
            token=token, refresh_token="1//sandbox-main", token_uri=f"{self.root}token", client_id="app", client_secret="secret"
        )

    def service(self, name: str, version: str, credentials: Credentials) -> Any:
        document = {**json.loads(get_static_doc(name, version)), "rootUrl": self.root, "baseUrl": self.root}
        return build_from_document(document, credentials=credentials)

    async def youtube(self, work: Callable[[Any], Any], *, credentials: Credentials | None = None) -> Any:
        return await self._run("youtube", "v3", work, credentials)

    async def analytics(self, work: Callable[[Any], Any]) -> Any:
        return await self._run("youtubeAnalytics", "v2", work, None)

    async def _run(self, name: str, version: str, work: Callable[[Any], Any], credentials: Credentials | None) -> Any:
        def run() -> Any:
            with self.service(name, version, credentials or self.credentials()) as service:
                return work(service)

        return await asyncio.to_thread(run)


@pytest.fixture
async def google() -> AsyncIterator[Google]:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server:
        sandbox.base_url = str(server.make_url("/")).rstrip("/")
        yield Google(sandbox, str(server.make_url("/")))


def insert(service: Any, data: bytes = video_bytes(900), *, resumable: bool = False, **status: Any) -> dict[str, Any]:
    body = {
        "snippet": {"title": "Why the sea glows", "categoryId": "22", "tags": ["sea"], "defaultLanguage": "en"},
        "status": {"privacyStatus": "public", "selfDeclaredMadeForKids": False, **status},
    }
    media = MediaIoBaseUpload(io.BytesIO(data), mimetype="video/mp4", resumable=resumable)
    return dict(service.videos().insert(part="snippet,status", body=body, media_body=media).execute())


def refused(work: Callable[[], Any]) -> tuple[int, str]:
    with pytest.raises(HttpError) as caught:
        work()
    return caught.value.resp.status, caught.value.error_details[0]["reason"]


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_video_is_inserted_in_one_request_of_two_parts_as_well_as_in_a_session(google: Google, resumable: bool) -> None:
    video = await google.youtube(lambda service: insert(service, video_bytes(5_000), resumable=resumable))
    [made] = [e for e in google.sandbox.ledger if e["kind"] == "youtube.video"]
    assert (made["remote_id"], made["size"]) == (video["id"], 5_000)
    assert +google.sandbox.state["youtube"].quota.used == {"inserts": 1}


async def test_what_was_listed_is_changed_and_sent_back_whole(google: Google) -> None:
    """Fields that are the API's own to say are ignored in an update, as YouTube ignores them; the sandbox refused them."""

    def work(service: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        video_id = insert(service)["id"]
        google.sandbox.advance(60)
        parts = "snippet,status,statistics,contentDetails"
        [listed] = service.videos().list(part=parts, id=video_id).execute()["items"]
        listed["snippet"]["title"] = "Why the sea glows at night"
        service.videos().update(part=parts, body=listed).execute()
        [again] = service.videos().list(part=parts, id=video_id).execute()["items"]
        return listed, again

    sent, read = await google.youtube(work)
    assert read["snippet"]["title"] == "Why the sea glows at night"
    for name in ("tags", "defaultLanguage", "publishedAt", "channelId", "categoryId"):
        assert read["snippet"][name] == sent["snippet"][name]
    assert read["status"] == sent["status"]


async def test_a_field_that_does_not_exist_is_still_refused(google: Google) -> None:
    def work(service: Any) -> tuple[int, str]:
        body = {"id": insert(service)["id"], "snippet": {"title": "t", "categoryId": "22", "titel": "t"}}
        return refused(service.videos().update(part="snippet", body=body).execute)

    assert await google.youtube(work) == (400, "invalid")


async def test_a_deleted_video_is_gone_and_another_accounts_video_cannot_be_deleted(google: Google) -> None:
    mine = (await google.youtube(insert))["id"]
    others = (await google.youtube(insert, credentials=google.credentials("sandbox-other")))["id"]

    def work(service: Any) -> list[Any]:
        assert service.videos().delete(id=mine).execute() == ""
        listed = service.videos().list(part="id", id=f"{mine},{others}").execute()["items"]
        return [
            [video["id"] for video in listed],
            refused(service.videos().delete(id=mine).execute),
            refused(service.videos().delete(id=others).execute),
        ]

    assert await google.youtube(work) == [[others], (404, "videoNotFound"), (403, "forbidden")]


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_thumbnail_is_set_as_often_as_one_likes(google: Google, resumable: bool) -> None:
    google.sandbox.config["youtube.processing_seconds"] = 0

    def work(service: Any) -> tuple[Any, ...]:
        video_id = insert(service)["id"]

        def put(data: bytes) -> Any:
            media = MediaIoBaseUpload(io.BytesIO(data), mimetype="image/jpeg", resumable=resumable)
            return service.thumbnails().set(videoId=video_id, media_body=media)

        before = service.videos().list(part="snippet", id=video_id).execute()["items"][0]["snippet"]["thumbnails"]
        first, second = put(JPEG).execute(), put(JPEG).execute()
        after = service.videos().list(part="snippet", id=video_id).execute()["items"][0]["snippet"]["thumbnails"]
        return before, first, second, after, refused(put(b"no picture").execute)

    before, first, second, after, why = await google.youtube(work)
    assert first["kind"] == "youtube#thumbnailSetResponse"
    assert first["items"] == second["items"] == [after]
    assert before != after
    assert why == (400, "invalidImage")


@pytest.mark.parametrize("resumable", [False, True])
async def test_a_caption_track_is_inserted_once_and_listed(google: Google, resumable: bool) -> None:
    google.sandbox.config["youtube.caption_seconds"] = 0

    def work(service: Any) -> tuple[Any, ...]:
        video_id = insert(service)["id"]

        def add(name: str, data: bytes = SRT) -> Any:
            body = {"snippet": {"videoId": video_id, "language": "en", "name": name}}
            media = MediaIoBaseUpload(io.BytesIO(data), mimetype="application/octet-stream", resumable=resumable)
            return service.captions().insert(part="snippet", body=body, media_body=media)

        made = add("attempt-1").execute()
        failed = add("attempt-2", b"no captions").execute()
        listed = service.captions().list(part="snippet", videoId=video_id).execute()["items"]
        return made, failed, listed, refused(add("attempt-1").execute)

    made, failed, listed, again = await google.youtube(work)
    assert listed == [made, failed]
    assert (made["snippet"]["status"], failed["snippet"]["failureReason"]) == ("serving", "unknownFormat")
    assert again == (409, "captionExists")
    # Three inserts at 400 units, one list at 50: refused ones cost as much.
    assert google.sandbox.state["youtube"].quota.used["units"] == 3 * 400 + 50


async def test_numbers_are_read_in_batches_from_a_bucket_of_their_own(google: Google) -> None:
    def work(service: Any) -> tuple[str, Any]:
        video_id = insert(service)["id"]
        google.sandbox.advance(5 * DAY)
        return video_id, service.videos().batchGetStats(
            part="statistics,contentDetails,snippet", id=[video_id, "unknown"]
        ).execute()

    video_id, answer = await google.youtube(work)
    assert answer["kind"] == "youtube#batchGetStatsResponse"
    [item] = answer["items"]
    assert (item["id"], item["kind"]) == (video_id, "youtube#videoStats")
    assert int(item["statistics"]["viewCount"]) > 0
    assert +google.sandbox.state["youtube"].quota.used == {"stats": 1}  # the insert was on another day


async def test_a_report_adds_up_to_what_the_counters_say(google: Google) -> None:
    video = await google.youtube(insert)
    google.sandbox.advance(10 * DAY)
    today = datetime.fromtimestamp(google.sandbox.now(), UTC).date()

    def work(service: Any) -> Any:
        return (
            service.reports()
            .query(
                ids="channel==MINE",
                startDate=(today - timedelta(days=12)).isoformat(),
                endDate=today.isoformat(),
                metrics="views,likes,averageViewPercentage",
                dimensions="day",
                filters=f"video=={video['id']}",
                sort="day",
            )
            .execute()
        )

    report = await google.analytics(work)
    assert [h["name"] for h in report["columnHeaders"]] == ["day", "views", "likes", "averageViewPercentage"]
    assert [h["columnType"] for h in report["columnHeaders"]] == ["DIMENSION", "METRIC", "METRIC", "METRIC"]
    days = [date.fromisoformat(row[0]) for row in report["rows"]]
    assert days == sorted(days)
    assert days[-1] == today - timedelta(days=2)  # the youngest days are not there yet
    state = google.sandbox.state["youtube"].videos[video["id"]]
    end = datetime.combine(days[-1] + timedelta(days=1), datetime.min.time(), UTC).timestamp()
    assert sum(row[1] for row in report["rows"]) == state.counters(google.sandbox, end)["viewCount"]


async def test_a_report_by_video_needs_an_order_and_a_metric_that_exists(google: Google) -> None:
    first, second = [(await google.youtube(insert))["id"] for _ in range(2)]
    google.sandbox.advance(10 * DAY)
    end = datetime.fromtimestamp(google.sandbox.now(), UTC).date()
    given = {"ids": "channel==MINE", "startDate": "2026-01-01", "endDate": end.isoformat(), "dimensions": "video"}

    def work(service: Any) -> tuple[Any, ...]:
        query = service.reports().query
        good = query(**given, metrics="views", sort="-views", maxResults=10).execute()
        return good, refused(query(**given, metrics="views").execute), refused(query(**given, metrics="plays").execute)

    report, unordered, unknown = await google.analytics(work)
    assert {row[0] for row in report["rows"]} == {first, second}
    views = [row[1] for row in report["rows"]]
    assert views == sorted(views, reverse=True)
    assert (unordered, unknown) == ((400, "badRequest"), (400, "badRequest"))


async def test_a_token_is_fetched_with_the_refresh_token_and_again_when_the_old_one_is_dead(google: Google) -> None:
    fresh = google.credentials(token=None)
    channels = await google.youtube(lambda service: service.channels().list(part="id", mine=True).execute(), credentials=fresh)
    assert len(channels["items"]) == 1
    assert str(fresh.token).startswith("sandbox-main~")
    assert google.sandbox.calls["google.token"] == 1
    google.sandbox.config["youtube.revoked"] = [fresh.token]
    await google.youtube(lambda service: service.channels().list(part="id", mine=True).execute(), credentials=fresh)
    assert google.sandbox.calls["google.token"] == 2


async def test_an_upload_in_chunks_outlives_its_token_and_its_process(google: Google) -> None:
    """The token dies after the first chunk. Another process has only the refresh token and the address of the session."""
    data = video_bytes(3 * GRANULE + 77)

    def request(service: Any) -> Any:
        body = {"snippet": {"title": "In chunks", "categoryId": "22"}, "status": {"privacyStatus": "private"}}
        media = MediaIoBaseUpload(io.BytesIO(data), mimetype="video/mp4", chunksize=GRANULE, resumable=True)
        return service.videos().insert(part="snippet,status", body=body, media_body=media)

    def first_process(service: Any) -> str:
        upload = request(service)
        status, done = upload.next_chunk()
        assert (status.resumable_progress, done) == (GRANULE, None)
        return str(upload.resumable_uri)

    def second_process(service: Any, session: str) -> dict[str, Any]:
        upload = request(service)
        upload.resumable_uri, upload._in_error_state = session, True
        return dict(upload.execute())

    first = google.credentials(token=None)
    session = await google.youtube(first_process, credentials=first)
    google.sandbox.config["youtube.revoked"] = [first.token]
    second = google.credentials(token=first.token)
    done = await google.youtube(lambda service: second_process(service, session), credentials=second)
    assert second.token != first.token
    [made] = [entry for entry in google.sandbox.ledger if entry["kind"] == "youtube.video"]
    assert (made["remote_id"], made["sha256"]) == (done["id"], hashlib.sha256(data).hexdigest())
    assert google.sandbox.calls["google.token"] == 2
    assert google.sandbox.state["youtube"].quota.used["inserts"] == 1


async def test_a_refresh_token_that_is_dead_is_an_error_that_is_not_worth_a_second_call(google: Google) -> None:
    google.sandbox.config["google.dead_refresh_tokens"] = ["1//sandbox-main"]
    with pytest.raises(RefreshError, match="invalid_grant") as caught:
        await google.youtube(
            lambda s: s.channels().list(part="id", mine=True).execute(), credentials=google.credentials(token=None)
        )
    assert not caught.value.retryable
    assert google.sandbox.calls["google.token"] == 1


async def test_a_token_without_the_scope_is_refused_as_youtube_does(google: Google) -> None:
    google.sandbox.config["youtube.scopes"] = {"main": ["youtube.upload"]}

    def work(service: Any) -> tuple[Any, ...]:
        video_id = insert(service)["id"]
        return refused(service.videos().list(part="id", id=video_id).execute), refused(service.videos().delete(id=video_id).execute)

    assert await google.youtube(work) == ((403, "insufficientPermissions"), (403, "insufficientPermissions"))
