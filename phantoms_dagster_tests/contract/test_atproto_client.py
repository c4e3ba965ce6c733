"""The client `atproto`, unchanged, against Bluesky's stand-in. It gets the stand-in's address. The name of the account's own server
leads there, too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import httpx
import pytest
from atproto import Client, models
from atproto.exceptions import BadRequestError, RequestException, UnauthorizedError
from atproto_client.models.dot_dict import DotDict
from atproto_client.request import Request

from phantoms_dagster.sandbox.bluesky.state import SERVER
from phantoms_dagster_tests.contract.bluesky_world import ACCOUNT, Bluesky, world
from phantoms_dagster_tests.made_videos import video_bytes

PASSWORD = f"sandbox-{ACCOUNT}"
T = TypeVar("T")


class OwnServer(httpx.HTTPTransport):
    """Sends what is meant for the account's own server to the stand-in."""

    def __init__(self, origin: str) -> None:
        super().__init__()
        self._origin = httpx.URL(origin)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        if request.url.host == SERVER:
            place = {"scheme": "http", "host": self._origin.host, "port": self._origin.port}
            request.url = request.url.copy_with(**place, raw_path=b"/bluesky" + request.url.raw_path)
        return super().handle_request(request)


class Program:
    """A program that uses the client. Its calls block, so each runs in a thread."""

    def __init__(self, bluesky: Bluesky) -> None:
        self.bluesky = bluesky
        self.client = Client(f"{bluesky.origin}/bluesky", request=Request(transport=OwnServer(bluesky.origin)))
        self.video = Client(f"{bluesky.origin}/bluesky/video")

    def log_in(self, password: str = PASSWORD) -> str:
        # The profile is for people to look at; the stand-in has none.
        self.client.login(ACCOUNT, password, fetch_bsky_profile=False)
        session = self.client.com.atproto.server.get_session()
        return str(session.did)

    def allowed(self, audience: str, method: str) -> dict[str, str]:
        answer = self.client.com.atproto.server.get_service_auth({"aud": audience, "lxm": method})
        return {"Authorization": f"Bearer {answer.token}"}

    def uploaded(self, did: str) -> Any:
        """The blob of a video, when it is processed."""
        # As the real service, the stand-in answers without the `jobStatus` that the client's own `upload_video` needs.
        answer = self.video.invoke_procedure(
            "app.bsky.video.uploadVideo",
            params=DotDict({"did": did, "name": "eels.mp4"}),
            content=video_bytes(seconds=12.0, fps=24, width=64, height=114, moov_first=True),
            headers={**self.allowed(f"did:web:{SERVER}", "com.atproto.repo.uploadBlob"), "Content-Type": "video/mp4"},
        )
        assert isinstance(answer.content, dict)
        job = str(answer.content["jobId"])
        for _ in range(100):
            status = self.video.app.bsky.video.get_job_status({"job_id": job}).job_status
            if status.blob is not None:
                return status.blob
            self.bluesky.sandbox.advance(1)
        raise AssertionError("the video is never processed")

    def record(self, blob: Any, text: str = "Eels cross an ocean.") -> models.AppBskyFeedPost.Record:
        embed = models.AppBskyEmbedVideo.Main(video=blob)
        return models.AppBskyFeedPost.Record(text=text, created_at=self.client.get_current_time_iso(), embed=embed)


@pytest.fixture
async def program() -> AsyncIterator[Program]:
    async with world() as bluesky:
        program = Program(bluesky)
        yield program
        program.client.request.close()
        program.video.request.close()


async def run(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


async def test_it_logs_in_uploads_a_video_posts_it_and_lists_it(program: Program) -> None:
    def work() -> tuple[str, list[str]]:
        did = program.log_in()
        post = program.client.app.bsky.feed.post.create(did, program.record(program.uploaded(did)))
        return post.uri, list(program.client.app.bsky.feed.post.list(did).records)

    uri, listed = await run(work)
    assert listed == [uri]
    assert [entry["remote_id"] for entry in program.bluesky.posts] == [uri]


async def test_a_key_of_ones_own_is_kept_and_taken_once(program: Program) -> None:
    key = "3lbqta3nwzk2c"

    def work() -> str:
        did = program.log_in()
        record = program.record(program.uploaded(did))
        post = program.client.app.bsky.feed.post.create(did, record, key)
        with pytest.raises(RequestException, match="InternalServerError"):
            program.client.app.bsky.feed.post.create(did, record, key)
        assert program.client.app.bsky.feed.post.get(did, key).uri == post.uri
        return str(post.uri)

    assert (await run(work)).endswith(f"/app.bsky.feed.post/{key}")
    assert len(program.bluesky.posts) == 1


async def test_a_wrong_password_and_a_missing_record_are_the_clients_own_errors(program: Program) -> None:
    with pytest.raises(UnauthorizedError):
        await run(lambda: program.log_in("sandbox-other"))
    did = await run(program.log_in)
    with pytest.raises(BadRequestError):
        await run(lambda: program.client.app.bsky.feed.post.get(did, "3lbqta3nwzk2c"))


@pytest.mark.parametrize("limit", ["many", "-1", "0", "101"])
async def test_a_list_of_a_wrong_length_is_a_bad_request(program: Program, limit: str) -> None:
    did = await run(program.log_in)
    asked = DotDict({"repo": did, "collection": "app.bsky.feed.post", "limit": limit})
    with pytest.raises(BadRequestError, match="limit must be from 1 to 100"):
        await run(lambda: program.client.invoke_query("com.atproto.repo.listRecords", params=asked))
