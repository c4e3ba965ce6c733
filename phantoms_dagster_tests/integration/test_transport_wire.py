"""The innermost transport against servers that break connections: sent once, and named for what happened."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import httpx
import pytest

from phantoms_dagster.domain.errors import Transient, Unknown
from phantoms_dagster.providers.http import send
from phantoms_dagster.resilience.transport import CallScope, Deadlines, UnguardedLimits, build_client

Answer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Peer:
    """An HTTP server of ours, byte by byte: `answer(head, writer)` is called for each request, which `requests` collects."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.url = ""


@asynccontextmanager
async def peer(answer: Answer) -> AsyncIterator[Peer]:
    seen = Peer()
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), 0
                )
                seen.requests.append(head + await reader.readexactly(length))
                await answer(head, writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    seen.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/x"
    try:
        yield seen
    finally:
        server.close()
        for writer in open_writers:
            writer.transport.abort()
        await server.wait_closed()


def client(**deadlines: float) -> AbstractAsyncContextManager[httpx.AsyncClient]:
    return build_client(limits=UnguardedLimits(), scope=CallScope("peer"), deadlines=Deadlines(**deadlines))


async def ok(_head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(OK)


async def hang_up(_head: bytes, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


@pytest.mark.parametrize("method", ["PUT", "POST", "GET", "DELETE"])
async def test_a_request_whose_kept_alive_connection_broke_is_not_sent_again(method: str) -> None:
    """aiohttp repeats a PUT on its own. The last chunk of an upload would then make a second post."""
    answers = iter([ok, hang_up, ok, ok])

    async def once_fine_then_broken(head: bytes, writer: asyncio.StreamWriter) -> None:
        await next(answers)(head, writer)

    async with peer(once_fine_then_broken) as server, client() as http:
        assert (await http.get(server.url)).text == "ok"
        with pytest.raises(httpx.ReadError):
            await http.request(method, server.url, content=b"bytes")
        assert len(server.requests) == 2


async def test_a_commit_whose_connection_broke_after_sending_is_unknown_and_any_other_request_transient() -> None:
    """httpx-aiohttp calls it ConnectTimeout, which reads as never sent: the post would be made twice."""
    async with peer(hang_up) as server, client() as http:
        with pytest.raises(Unknown):
            await send(http, "POST", server.url, provider="peer", commits=True, content=b"publish")
        with pytest.raises(Transient):
            await send(http, "POST", server.url, provider="peer", content=b"status?")


async def test_a_commit_that_never_reached_the_platform_may_be_sent_again() -> None:
    async with peer(ok) as server:
        url = server.url
    async with client() as http:
        with pytest.raises(Transient, match="cannot be reached"):
            await send(http, "POST", url, provider="peer", commits=True)


async def test_a_commit_that_is_never_answered_is_unknown() -> None:
    async def silence(_head: bytes, _writer: asyncio.StreamWriter) -> None:
        return

    async with peer(silence) as server, client(read=0.1) as http:
        with pytest.raises(Unknown) as lost:
            await send(http, "POST", server.url, provider="peer", commits=True)
        assert lost.value.code == "ReadTimeout"


@pytest.mark.parametrize(
    "half",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha",
    ],
)
async def test_an_answer_cut_off_in_its_body_is_unknown_for_a_commit(half: bytes) -> None:
    async def cut(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(half)
        await writer.drain()
        await asyncio.sleep(0.05)  # the head arrives by itself
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()  # a reset, not an orderly end

    async with peer(cut) as server, client() as http:
        with pytest.raises(Unknown):
            await send(http, "POST", server.url, provider="peer", commits=True)


@pytest.mark.parametrize("head", [b"Content-Length: 99", b"Transfer-Encoding: chunked"])
async def test_a_client_closed_while_an_answer_arrives_does_not_claim_that_nothing_was_sent(head: bytes) -> None:
    async def half(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\n4\r\nhalf\r\n")

    async with peer(half) as server, client() as http, http.stream("POST", server.url) as response:
        chunks = response.aiter_raw()
        await anext(chunks)
        await http._transport.aclose()
        with pytest.raises(httpx.ReadError):
            await anext(chunks)


async def test_an_answer_that_is_not_http_is_unknown_for_a_commit() -> None:
    async def garbage(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")

    async with peer(garbage) as server, client() as http:
        with pytest.raises(Unknown):
            await send(http, "POST", server.url, provider="peer", commits=True)


async def test_a_body_that_trickles_without_end_ends_at_the_total_deadline() -> None:
    async def trickle(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not writer.is_closing():
            writer.write(b".")
            await writer.drain()
            await asyncio.sleep(0.02)

    async with peer(trickle) as server, client(read=5, total=0.3) as http:
        with pytest.raises(httpx.ReadTimeout, match=r"0\.3 s"):
            await http.get(server.url)


async def test_cookies_of_one_answer_do_not_travel_with_another_call() -> None:
    async def cookie(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nSet-Cookie: account=a\r\nContent-Length: 2\r\n\r\nok")

    async with peer(cookie) as server, client() as first:
        await first.get(server.url)
        transport = first._transport
        async with httpx.AsyncClient(transport=_Borrowed(transport)) as second:
            await second.get(server.url)
        assert b"account=a" not in server.requests[-1]


class _Borrowed(httpx.AsyncBaseTransport):
    """The same connections under another client."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        return await self._transport.handle_async_request(request)


async def test_a_streamed_upload_arrives_whole() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1000

    async with peer(ok) as server, client() as http:
        await http.put(server.url, content=chunks(), headers={"Content-Length": "10000"})
        assert server.requests[0].endswith(b"x" * 10_000)


async def test_an_upload_address_is_used_verbatim() -> None:
    """Its signature covers every byte. Without our setting, aiohttp would turn %2F into / and %7E into ~."""
    address = "/up%2Dload/a%2Fb?upload_id=AB%3D%3D&sig=x%2Fy%7E%3A&s=a+b%20c%2B"
    async with peer(ok) as server, client() as http:
        await http.put(server.url.removesuffix("/x") + address + "#part", content=b"x")
        assert server.requests[0].split(b" ")[1] == address.encode()
