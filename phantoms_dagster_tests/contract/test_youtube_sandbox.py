"""The stand-in of YouTube itself: what it refuses, what it repeats, and that Google's own client works with it unchanged."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.test_utils import TestServer
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import build_from_document
from googleapiclient.discovery_cache import get_static_doc
from googleapiclient.errors import HttpError
from googleapiclient.http import MediaIoBaseUpload

from phantoms_dagster.platforms.youtube.publisher import GRANULE
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.youtube.routes import routes
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal
from phantoms_dagster_tests.contract.test_youtube import make_job, video_bytes, world

DISCOVERY = json.loads(get_static_doc("youtube", "v3"))


@dataclass
class Site:
    """A sandbox and a plain client that has a good token."""

    sandbox: Sandbox
    client: httpx.AsyncClient

    @property
    def sessions(self) -> Any:
        return self.sandbox.state["youtube"].sessions

    async def open(
        self,
        part: str = "snippet,status",
        body: Any = None,
        size: int = GRANULE + 10,
        media_type: str = "video/mp4",
        **headers: Any,
    ) -> httpx.Response:
        body = body if body is not None else {"snippet": {"title": "t"}, "status": {"privacyStatus": "private"}}
        return await self.client.post(
            "/upload/youtube/v3/videos",
            params={"uploadType": "resumable", "part": part},
            json=body,
            headers={"X-Upload-Content-Length": str(size), "X-Upload-Content-Type": media_type, **headers},
        )

    async def upload(self, size: int = 600, **fields: Any) -> str:
        body = {"snippet": {"title": "t"}, "status": {"privacyStatus": "private"}, **fields}
        session = (await self.open(size=size, body=body)).headers["location"]
        response = await self.client.put(session, content=video_bytes(size))
        assert response.status_code == 201
        return str(response.json()["id"])


@asynccontextmanager
async def site() -> AsyncIterator[Site]:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server:
        headers = {"Authorization": "Bearer sandbox-main"}
        async with httpx.AsyncClient(base_url=str(server.make_url("/")), headers=headers) as client:
            yield Site(sandbox, client)


def reason(response: httpx.Response) -> tuple[int, str]:
    body = response.json()["error"]
    assert body["code"] == response.status_code
    return response.status_code, body["errors"][0]["reason"]


async def until_received(s: Site, session: httpx.URL) -> None:
    """Wait until the server has kept something of a request that is still being sent."""
    for _ in range(1_000):
        if s.sessions[session.params["upload_id"]].received:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nothing arrived")


# --- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "why"),
    [({}, "required"), ({"Authorization": "Bearer x"}, "authError"), ({"Authorization": "Bearer sandbox-"}, "authError")],
)
async def test_every_call_needs_a_good_token(header: dict[str, str], why: str) -> None:
    async with site() as s:
        s.client.headers.pop("Authorization")
        for method, path in [
            ("POST", "/upload/youtube/v3/videos"),
            ("POST", "/youtube/v3/videos"),
            ("GET", "/youtube/v3/videos"),
            ("PUT", "/youtube/v3/videos"),
            ("GET", "/youtube/v3/channels"),
            ("GET", "/youtube/v3/playlistItems"),
        ]:
            assert reason(await s.client.request(method, path, headers=header)) == (401, why), (method, path)


@pytest.mark.parametrize(
    ("snippet", "why"),
    [
        ({}, "invalidTitle"),
        ({"title": "  "}, "invalidTitle"),
        ({"title": "x" * 101}, "invalidTitle"),
        ({"title": "a<b"}, "invalidTitle"),
        ({"title": "t", "description": "é" * 2_501}, "invalidDescription"),
        ({"title": "t", "description": "a > b"}, "invalidDescription"),
        ({"title": "t", "tags": ["x" * 250, "y" * 250]}, "invalidTags"),
        ({"title": "t", "tags": ["x " + "x" * 497]}, "invalidTags"),
        ({"title": "t", "categoryId": "999"}, "invalidCategoryId"),
        ({"title": "t", "categoryId": 22}, "invalid"),
        ({"title": "t", "titel": "t"}, "invalid"),
    ],
)
async def test_words_that_youtube_would_refuse_are_refused(snippet: dict[str, Any], why: str) -> None:
    async with site() as s:
        assert reason(await s.open(body={"snippet": snippet, "status": {"privacyStatus": "private"}})) == (400, why)


@pytest.mark.parametrize(
    ("status", "why"),
    [
        ({"privacyStatus": "secret"}, "invalidVideoMetadata"),
        ({"privacyStatus": "private", "selfDeclaredMadeForKids": "no"}, "invalid"),
        ({"privacyStatus": "private", "publishAt": "tomorrow"}, "invalidPublishAt"),
        ({"privacyStatus": "public", "publishAt": "2099-01-01T00:00:00Z"}, "invalidPublishAt"),
    ],
)
async def test_a_status_that_youtube_would_refuse_is_refused(status: dict[str, Any], why: str) -> None:
    async with site() as s:
        assert reason(await s.open(body={"snippet": {"title": "t"}, "status": status})) == (400, why)


async def test_a_request_must_name_the_parts_that_it_writes() -> None:
    async with site() as s:
        assert reason(await s.open(part="")) == (400, "missingRequiredParameter")
        assert reason(await s.open(part="snippet,colour")) == (400, "unknownPart")
        assert reason(await s.open(part="snippet")) == (400, "unexpectedPart")
        assert reason(await s.client.post("/youtube/v3/videos")) == (400, "mediaBodyRequired")
        assert reason(await s.client.post("/upload/youtube/v3/videos?uploadType=media")) == (400, "badRequest")


async def test_files_that_are_too_large_or_no_video_are_refused() -> None:
    async with site() as s:
        assert reason(await s.open(size=274_877_906_945)) == (413, "uploadTooLarge")
        assert reason(await s.open(media_type="text/plain")) == (400, "badContent")


async def test_quotas_are_counted_per_day_and_come_back_at_midnight_in_california() -> None:
    async with site() as s:
        s.sandbox.config.update({"youtube.inserts_per_day": 1, "youtube.units_per_day": 2})
        listing = "/youtube/v3/channels?part=id&mine=true"
        assert (await s.open()).status_code == 200
        assert reason(await s.open()) == (403, "quotaExceeded")
        assert [(await s.client.get(listing)).status_code for _ in range(3)] == [200, 200, 403]
        s.sandbox.advance(25 * 3_600)
        assert (await s.open()).status_code == 200
        assert (await s.client.get(listing)).status_code == 200


async def test_a_channel_has_an_upload_limit_of_its_own() -> None:
    async with site() as s:
        s.sandbox.config["youtube.uploads_per_channel_per_day"] = 1
        await s.upload()
        assert reason(await s.open()) == (400, "uploadLimitExceeded")
        other = await s.open(Authorization="Bearer sandbox-other")
        assert other.status_code == 200


@pytest.mark.parametrize(
    ("content_range", "length", "status"),
    [
        (f"bytes 0-{GRANULE - 2}/{GRANULE + 10}", GRANULE - 1, 400),  # not a multiple of 256 KiB
        (f"bytes 0-{GRANULE - 1}/{GRANULE + 11}", GRANULE, 400),  # another total
        (f"bytes 0-{GRANULE - 1}/{GRANULE + 10}", GRANULE - 5, 400),  # another length
        (f"bytes 0-{GRANULE + 10}/{GRANULE + 10}", GRANULE + 11, 400),  # past the end
        ("bytes banana", 10, 400),
        (f"bytes */{GRANULE + 10}", 10, 400),  # a question with bytes
        (f"bytes {GRANULE}-{GRANULE + 9}/{GRANULE + 10}", 10, 308),  # a gap: nothing is kept
        (f"bytes */{GRANULE + 10}", 0, 308),
    ],
)
async def test_wrong_ranges_keep_nothing(content_range: str, length: int, status: int) -> None:
    async with site() as s:
        session = (await s.open()).headers["location"]
        response = await s.client.put(session, content=b"x" * length, headers={"Content-Range": content_range})
        assert response.status_code == status
        asked = await s.client.put(session, headers={"Content-Range": f"bytes */{GRANULE + 10}"})
        assert asked.status_code == 308
        assert "range" not in asked.headers
        assert s.sandbox.ledger == []


async def test_a_session_answers_what_it_holds_and_repeats_its_end() -> None:
    async with site() as s:
        data = video_bytes(GRANULE + 10)
        session = (await s.open()).headers["location"]
        first = {"Content-Range": f"bytes 0-{GRANULE - 1}/{len(data)}"}
        response = await s.client.put(session, content=data[:GRANULE], headers=first)
        assert (response.status_code, response.headers["range"]) == (308, f"bytes=0-{GRANULE - 1}")
        again = await s.client.put(session, content=data[:GRANULE], headers=first)  # overlaps: nothing is added
        assert (again.status_code, again.headers["range"]) == (308, f"bytes=0-{GRANULE - 1}")
        last = {"Content-Range": f"bytes {GRANULE}-{len(data) - 1}/{len(data)}"}
        done = await s.client.put(session, content=data[GRANULE:], headers=last)
        asked = await s.client.put(session, headers={"Content-Range": f"bytes */{len(data)}"})
        assert done.status_code == asked.status_code == 201
        assert done.json() == asked.json()
        [entry] = s.sandbox.ledger
        assert (entry["kind"], entry["sha256"]) == ("youtube.video", hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("match", [None, "upload_id"])
async def test_of_a_chunk_that_breaks_off_only_whole_granules_are_kept(match: str | None) -> None:
    async with site() as s:
        if match:  # such a fault makes the sandbox read bodies whole: then nothing of the chunk arrives
            s.sandbox.faults.append(Fault(route="other", match=match))
        data = video_bytes(3 * GRANULE)
        session = (await s.open(size=len(data))).headers["location"]
        url = httpx.URL(session)
        _, writer = await asyncio.open_connection(url.host, url.port)
        head = f"PUT {url.raw_path.decode()} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        writer.write(head + data[: GRANULE + 100_000])
        await writer.drain()
        if match is None:
            await until_received(s, url)
        writer.close()
        await writer.wait_closed()
        asked = await s.client.put(session, headers={"Content-Range": f"bytes */{len(data)}"})
        assert asked.status_code == 308
        start = 0 if match else GRANULE
        assert asked.headers.get("range") == (None if match else f"bytes=0-{GRANULE - 1}")
        rest = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        assert (await s.client.put(session, content=data[start:], headers=rest)).status_code == 201
        assert s.sandbox.ledger[0]["sha256"] == hashlib.sha256(data).hexdigest()


async def test_a_stalled_chunk_that_wakes_up_after_another_request_finished_the_file_adds_nothing() -> None:
    async with site() as s:
        data = video_bytes(3 * GRANULE)
        session = (await s.open(size=len(data))).headers["location"]
        url = httpx.URL(session)
        reader, writer = await asyncio.open_connection(url.host, url.port)
        head = f"PUT {url.raw_path.decode()} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        writer.write(head + data[:GRANULE])
        await writer.drain()
        await until_received(s, url)
        rest = {"Content-Range": f"bytes {GRANULE}-{len(data) - 1}/{len(data)}"}
        done = await s.client.put(session, content=data[GRANULE:], headers=rest)
        assert done.status_code == 201
        writer.write(data[GRANULE:])
        await writer.drain()
        assert (await reader.readline()).startswith(b"HTTP/1.1 201")
        writer.close()
        await writer.wait_closed()
        assert [e["sha256"] for e in s.sandbox.ledger] == [hashlib.sha256(data).hexdigest()]


async def test_an_expired_or_unknown_session_is_404() -> None:
    async with site() as s:
        s.sandbox.config["youtube.session_seconds"] = 60
        session = (await s.open()).headers["location"]
        s.sandbox.advance(61)
        assert reason(await s.client.put(session, headers={"Content-Range": "bytes */1"})) == (404, "notFound")
        assert (await s.client.put("/upload/youtube/v3/videos?upload_id=nobody")).status_code == 404


async def test_the_other_spelling_of_the_upload_path_works_too() -> None:
    async with site() as s:
        body = {"snippet": {"title": "t"}, "status": {"privacyStatus": "private"}}
        opened = await s.client.post("/resumable/upload/youtube/v3/videos?uploadType=resumable&part=snippet,status", json=body)
        assert opened.status_code == 200
        assert (await s.client.put(opened.headers["location"], content=video_bytes(300))).status_code == 201


# --- videos ---------------------------------------------------------------------------------------------------------


async def test_a_post_is_recorded_once_however_often_its_privacy_changes() -> None:
    async with site() as s:
        video_id = await s.upload()
        for privacy in ("private", "unlisted", "public", "private", "public"):
            body = {"id": video_id, "status": {"privacyStatus": privacy}}
            response = await s.client.put("/youtube/v3/videos?part=status", json=body)
            assert response.json()["status"]["privacyStatus"] == privacy
        assert [(e["kind"], e["privacy"]) for e in s.sandbox.ledger] == [("youtube.video", "private"), ("post", "unlisted")]


async def test_an_update_deletes_what_it_leaves_out_and_a_missing_privacy_means_public() -> None:
    async with site() as s:
        video_id = await s.upload(status={"privacyStatus": "private", "containsSyntheticMedia": True})
        answer = await s.client.put("/youtube/v3/videos?part=status", json={"id": video_id, "status": {"embeddable": False}})
        status = answer.json()["status"]
        assert status["privacyStatus"] == "public"
        assert "containsSyntheticMedia" not in status


async def test_an_update_is_refused_for_others_for_missing_videos_and_without_title_or_category() -> None:
    async with site() as s:
        video_id = await s.upload()

        async def put(body: dict[str, Any], part: str = "status", **headers: str) -> tuple[int, str]:
            return reason(await s.client.put("/youtube/v3/videos", params={"part": part}, json=body, headers=headers))

        public = {"privacyStatus": "public"}
        assert await put({"id": "none", "status": public}) == (404, "videoNotFound")
        assert await put({"id": video_id, "status": public}, Authorization="Bearer sandbox-other") == (403, "forbidden")
        assert await put({"id": video_id, "snippet": {"categoryId": "22"}}, "snippet") == (400, "invalidTitle")
        assert await put({"id": video_id, "snippet": {"title": "t"}}, "snippet") == (400, "invalidCategoryId")
        assert [e["kind"] for e in s.sandbox.ledger] == ["youtube.video"]


async def test_a_scheduled_video_goes_public_when_its_time_has_come() -> None:
    async with site() as s:
        at = "2099-01-01T00:00:00Z"
        video_id = await s.upload(status={"privacyStatus": "private", "publishAt": at})
        listing = f"/youtube/v3/videos?part=status&id={video_id}"
        assert (await s.client.get(listing)).json()["items"][0]["status"]["publishAt"] == at
        s.sandbox.advance(100 * 366 * 86_400)
        assert (await s.client.get(listing)).json()["items"][0]["status"]["privacyStatus"] == "public"
        assert [e["kind"] for e in s.sandbox.ledger] == ["youtube.video", "post"]


async def test_a_time_in_the_past_publishes_at_once_and_none_is_taken_after_that() -> None:
    async with site() as s:
        past = {"privacyStatus": "private", "publishAt": "2020-01-01T00:00:00Z"}
        video_id = await s.upload(status=past)
        listing = f"/youtube/v3/videos?part=status&id={video_id}"
        status = (await s.client.get(listing)).json()["items"][0]["status"]
        assert (status["privacyStatus"], "publishAt" in status) == ("public", False)
        again = await s.client.put("/youtube/v3/videos?part=status", json={"id": video_id, "status": past})
        assert reason(again) == (400, "invalidPublishAt")


async def test_an_account_without_a_channel_is_told_to_sign_up() -> None:
    async with site() as s:
        s.sandbox.config["youtube.without_channel"] = ["main"]
        assert reason(await s.open()) == (401, "youtubeSignupRequired")
        assert "items" not in (await s.client.get("/youtube/v3/channels?part=status&mine=true")).json()


async def test_a_thumbnail_is_taken_only_after_the_processing() -> None:
    async with site() as s:
        s.sandbox.config["youtube.processing_seconds"] = 60
        video_id = await s.upload()
        url = f"/upload/youtube/v3/thumbnails/set?uploadType=media&videoId={video_id}"
        jpeg = {"content": b"\xff\xd8\xff" + bytes(100), "headers": {"Content-Type": "image/jpeg"}}
        assert reason(await s.client.post(url, **jpeg)) == (403, "forbidden")  # type: ignore[arg-type]
        s.sandbox.advance(61)
        assert (await s.client.post(url, **jpeg)).status_code == 200  # type: ignore[arg-type]


async def test_private_videos_and_file_details_are_for_the_owner() -> None:
    async with site() as s:
        other = {"Authorization": "Bearer sandbox-other"}
        private, public = await s.upload(), await s.upload(status={"privacyStatus": "public"})
        listing = f"/youtube/v3/videos?part=status&id={private},{public},none"
        assert [v["id"] for v in (await s.client.get(listing)).json()["items"]] == [private, public]
        assert [v["id"] for v in (await s.client.get(listing, headers=other)).json()["items"]] == [public]
        details = f"/youtube/v3/videos?part=fileDetails&id={public}"
        assert reason(await s.client.get(details, headers=other)) == (403, "forbidden")
        too_many = "/youtube/v3/videos?part=id&id=" + ",".join(str(n) for n in range(51))
        assert reason(await s.client.get(too_many)) == (400, "invalidFilters")
        assert (await s.client.get(f"/watch/{private}")).status_code == 404
        assert (await s.client.get(f"/watch/{public}")).status_code == 200


async def test_the_uploads_playlist_is_newest_first_and_has_pages() -> None:
    async with site() as s:
        channel = (await s.client.get("/youtube/v3/channels?part=contentDetails&mine=true")).json()["items"][0]
        uploads = channel["contentDetails"]["relatedPlaylists"]["uploads"]
        query = {"part": "contentDetails", "playlistId": uploads, "maxResults": "2"}
        assert reason(await s.client.get("/youtube/v3/playlistItems", params=query)) == (404, "playlistNotFound")
        ids = [await s.upload() for _ in range(3)]
        first = (await s.client.get("/youtube/v3/playlistItems", params=query)).json()
        second = (await s.client.get("/youtube/v3/playlistItems", params={**query, "pageToken": first["nextPageToken"]})).json()
        listed = [i["contentDetails"]["videoId"] for i in first["items"] + second["items"]]
        assert listed == ids[::-1]
        assert "nextPageToken" not in second


async def test_a_page_escapes_what_it_shows() -> None:
    async with site() as s:
        video_id = await s.upload(snippet={"title": 'a "b" & c'}, status={"privacyStatus": "public"})
        assert "a &quot;b&quot; &amp; c" in (await s.client.get(f"/watch/{video_id}")).text


# --- the specification ----------------------------------------------------------------------------------------------


def check(value: Any, schema: dict[str, Any], path: str = "") -> None:
    """Hold a value against a schema of the discovery document: no unknown fields, right types, known enums."""
    if "$ref" in schema:
        schema = DISCOVERY["schemas"][schema["$ref"]]
    kind = {"string": str, "integer": int, "boolean": bool, "array": list, "object": dict, "number": float}[schema["type"]]
    assert isinstance(value, kind), f"{path} is no {schema['type']}"
    assert value in schema.get("enum", [value]), f"{path}: {value}"
    if isinstance(value, list):
        for i, item in enumerate(value):
            check(item, schema["items"], f"{path}[{i}]")
    if isinstance(value, dict):
        for name, item in value.items():
            assert name in schema["properties"], f"{path} has no {name}"
            check(item, schema["properties"][name], f"{path}.{name}")


async def test_what_is_sent_and_answered_is_as_googles_specification_says(tmp_path: Path) -> None:
    async with world() as w:
        post = await publish(w.publisher, make_job(tmp_path), FakeJournal())
        sent = [json.loads(r.content) for r in w.transport.requests if r.headers.get("content-type") == "application/json"]
        assert len(sent) == 2
        for body in sent:
            check(body, {"$ref": "Video"})
        w.client.headers["Authorization"] = "Bearer sandbox-main"
        parts = "snippet,status,contentDetails,processingDetails,fileDetails,statistics"
        videos = (await w.client.get(f"{w.base_url}/youtube/v3/videos?part={parts}&id={post.remote_id}")).json()
        assert set(parts.split(",")) < set(videos["items"][0])
        check(videos, {"$ref": "VideoListResponse"})
        channels = (await w.client.get(f"{w.base_url}/youtube/v3/channels?part=contentDetails,snippet&mine=true")).json()
        check(channels, {"$ref": "ChannelListResponse"})
        uploads = channels["items"][0]["contentDetails"]["relatedPlaylists"]["uploads"]
        query = f"part=snippet,contentDetails,status&playlistId={uploads}"
        check((await w.client.get(f"{w.base_url}/youtube/v3/playlistItems?{query}")).json(), {"$ref": "PlaylistItemListResponse"})


# --- Google's own client --------------------------------------------------------------------------------------------


@asynccontextmanager
async def google_site() -> AsyncIterator[tuple[Sandbox, Any]]:
    """A sandbox, and Google's client. Only the root URL in the client's discovery document has changed."""
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server:
        root = str(server.make_url("/"))
        document = {**DISCOVERY, "rootUrl": root, "baseUrl": root}
        service = await asyncio.to_thread(build_from_document, document, credentials=Credentials(token="sandbox-main"))
        try:
            yield sandbox, service
        finally:
            await asyncio.to_thread(service.close)


def insert(service: Any, data: bytes, title: str = "From Google's client") -> Any:
    body = {"snippet": {"title": title, "categoryId": "22"}, "status": {"privacyStatus": "private"}}
    media = MediaIoBaseUpload(io.BytesIO(data), mimetype="video/mp4", chunksize=GRANULE, resumable=True)
    return service.videos().insert(part="snippet,status", body=body, media_body=media)


async def test_googles_client_uploads_lists_and_publishes() -> None:
    data = video_bytes(3 * GRANULE + 77)

    def work(service: Any) -> tuple[str, dict[str, Any], dict[str, Any]]:
        request, chunks, done = insert(service, data), 0, None
        while done is None:
            _, done = request.next_chunk()
            chunks += 1
        assert chunks == 4
        mine = service.channels().list(part="contentDetails", mine=True).execute()
        uploads = mine["items"][0]["contentDetails"]["relatedPlaylists"]["uploads"]
        items = service.playlistItems().list(part="contentDetails", playlistId=uploads, maxResults=50).execute()
        assert [i["contentDetails"]["videoId"] for i in items["items"]] == [done["id"]]
        body = {"id": done["id"], "status": {"privacyStatus": "public", "selfDeclaredMadeForKids": False}}
        changed = service.videos().update(part="status", body=body).execute()
        listed = service.videos().list(part=["status", "statistics"], id=done["id"]).execute()
        return done["id"], changed, listed

    async with google_site() as (sandbox, service):
        video_id, changed, listed = await asyncio.to_thread(work, service)
        assert changed["status"]["privacyStatus"] == "public"
        assert listed["items"][0]["statistics"]["viewCount"] == "0"
        posts = [e for e in sandbox.ledger if e["kind"] == "post"]
        assert [(p["remote_id"], p["sha256"]) for p in posts] == [(video_id, hashlib.sha256(data).hexdigest())]


async def test_googles_client_goes_on_with_a_session_after_a_restart() -> None:
    data = video_bytes(2 * GRANULE + 5)

    def first_process(service: Any) -> str:
        request = insert(service, data)
        _, done = request.next_chunk()
        assert done is None
        return str(request.resumable_uri)

    def second_process(service: Any, session: str) -> dict[str, Any]:
        request = insert(service, data)
        request.resumable_uri, request._in_error_state = session, True
        return dict(request.execute())

    async with google_site() as (sandbox, service):
        session = await asyncio.to_thread(first_process, service)
        done = await asyncio.to_thread(second_process, service, session)
        assert done["snippet"]["title"] == "From Google's client"
        assert [(e["kind"], e["sha256"]) for e in sandbox.ledger] == [("youtube.video", hashlib.sha256(data).hexdigest())]


async def test_googles_client_understands_the_errors() -> None:
    def refused(service: Any) -> HttpError:
        with pytest.raises(HttpError) as caught:
            insert(service, video_bytes(100), title="a < b").execute()
        return caught.value

    async with google_site() as (sandbox, service):
        error = await asyncio.to_thread(refused, service)
        assert error.resp.status == 400
        assert error.error_details[0]["reason"] == "invalidTitle"
        assert sandbox.ledger == []
