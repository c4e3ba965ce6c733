"""How much of an answer is read, with real HTTP servers that send far more. The tests count bytes, never time."""

from __future__ import annotations

import asyncio
import gzip
import resource
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import Transient, Unknown
from phantoms_dagster.providers.http import send
from phantoms_dagster.resilience.bodies import MOST_BYTES, AnswerTooLarge
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope, Permit, UnguardedLimits
from phantoms_dagster.resilience.transport import build_client

HUGE = 300 << 20
MEGABYTE = 1 << 20


class Counting(UnguardedLimits):
    """Remembers how each call ended."""

    def __init__(self) -> None:
        self.outcomes: list[CallOutcome] = []

    async def settle(self, permit: Permit, outcome: CallOutcome) -> None:
        """See the protocol."""
        self.outcomes.append(outcome)


class Server:
    """Answers with `size` bytes and counts those that it could send; `announced` says how many there are."""

    def __init__(self, size: int = HUGE, *, announced: bool = False, status: int = 200) -> None:
        self.size, self.announced, self.status = size, announced, status
        self.sent = 0
        self.ended = asyncio.Event()

    async def plain(self, request: web.Request) -> web.StreamResponse:
        headers = {"Content-Type": "application/json"} | ({"Content-Length": str(self.size)} if self.announced else {})
        answer = web.StreamResponse(status=self.status, headers=headers)
        try:
            await answer.prepare(request)
            block = b'{"data": "' + b"x" * 65_526
            while self.sent < self.size:
                await answer.write(block)
                self.sent += len(block)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.ended.set()
        return answer


@asynccontextmanager
async def serving(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/x", handler)
    async with TestServer(app) as server:
        yield str(server.make_url("/x"))


def packed(content: bytes, encoding: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=content, headers={"Content-Encoding": encoding, "Content-Type": "application/json"})

    return handler


def peak_megabytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def client(limits: UnguardedLimits | None = None) -> httpx.AsyncClient:
    return build_client(limits=limits or Counting(), scope=CallScope("peer"))


@pytest.mark.parametrize("announced", [False, True])
async def test_an_answer_of_300_megabytes_is_not_read_to_its_end(announced: bool) -> None:
    """It used to take 1.1 GB."""
    server, limits, before = Server(announced=announced), Counting(), peak_megabytes()
    async with serving(server.plain) as url, client(limits) as http:
        with pytest.raises(Transient, match="larger than 8,388,608 bytes") as caught:
            await send(http, "GET", url, provider="peer")
        await asyncio.wait_for(server.ended.wait(), 30)
    # What lies in the buffers of both ends and of the system may be sent, and never be read.
    assert server.sent < MOST_BYTES + 40 * MEGABYTE
    assert peak_megabytes() - before < 100
    assert (caught.value.code, caught.value.evidence.status) == ("AnswerTooLarge", 200)
    assert caught.value.evidence.body.startswith("" if announced else '{"data": "xxx')
    assert limits.outcomes == [CallOutcome.FAILED]


async def test_a_commit_whose_answer_is_too_large_may_have_taken_effect() -> None:
    async with serving(Server().plain) as url, client() as http:
        with pytest.raises(Unknown):
            await send(http, "POST", url, provider="peer", commits=True)


@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_small_answer_that_unpacks_to_300_megabytes_is_not_unpacked(encoding: str) -> None:
    packer = zlib.compressobj(9, wbits=31 if encoding == "gzip" else 15)
    bomb = b"".join([*(packer.compress(bytes(MEGABYTE)) for _ in range(300)), packer.flush()])
    assert len(bomb) < MEGABYTE
    before = peak_megabytes()
    async with serving(packed(bomb, encoding)) as url, client() as http:
        with pytest.raises(Transient, match="unpacking stopped there") as caught:
            await send(http, "GET", url, provider="peer")
    assert peak_megabytes() - before < 100
    assert caught.value.code == "AnswerTooLarge"


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        (gzip.compress(b'{"a": 1}', mtime=0), "gzip"),
        (gzip.compress(b'{"a"', mtime=0) + gzip.compress(b": 1}", mtime=0), "x-gzip"),
        (zlib.compress(b'{"a": 1}'), "deflate"),
        (zlib.compress(b'{"a": 1}', wbits=-15), "deflate"),
        (b'{"a": 1}', "identity"),
    ],
)
async def test_what_was_packed_is_read(content: bytes, encoding: str) -> None:
    async with serving(packed(content, encoding)) as url, client() as http:
        assert (await send(http, "GET", url, provider="peer")).json() == {"a": 1}
        async with http.stream("GET", url) as response:
            assert await response.aread() == b'{"a": 1}'


@pytest.mark.parametrize(
    ("content", "encoding"), [(b"no gzip", "gzip"), (b"??", "br"), (gzip.compress(b"x", mtime=0), "gzip, gzip")]
)
async def test_an_answer_that_cannot_be_unpacked_is_unreadable(content: bytes, encoding: str) -> None:
    async with serving(packed(content, encoding)) as url, client() as http:
        with pytest.raises(Transient, match="DecodingError"):
            await send(http, "GET", url, provider="peer")


async def test_a_stream_has_the_same_bound_and_a_download_says_its_own(tmp_path: Path) -> None:
    size = MOST_BYTES + 4 * MEGABYTE
    async with serving(Server(size).plain) as url, client() as http:
        with pytest.raises(AnswerTooLarge):
            async with http.stream("GET", url) as response:
                await response.aread()
    async with serving(Server(size).plain) as url, client() as http:
        written = 0
        async with http.stream("GET", url, extensions={"phantoms": {"most_bytes": 64 * MEGABYTE}}) as response:
            with (tmp_path / "video").open("wb") as file:
                async for block in response.aiter_bytes():
                    written += file.write(block)
    assert written >= size


async def test_the_error_of_a_download_has_no_larger_bound_than_any() -> None:
    async with serving(Server(status=500).plain) as url, client() as http:
        with pytest.raises(AnswerTooLarge):
            async with http.stream("GET", url, extensions={"phantoms": {"most_bytes": HUGE * 2}}) as response:
                await response.aread()


async def test_an_answer_just_within_the_bound_is_read_whole() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=b"x" * MOST_BYTES)

    async with serving(handler) as url, client() as http:
        assert len((await send(http, "GET", url, provider="peer")).content) == MOST_BYTES
