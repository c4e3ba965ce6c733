"""Limits on the size of a response body, both as received and as decompressed.

The services we call answer with a few kilobytes of JSON. One that sends more than eight megabytes is broken or hostile, and reading
all of it exhausts memory: 300 MB took 1.1 GB. A download sets its own limit and is written to disk block by block.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

import httpx

MOST_BYTES = 8 << 20
# How much of an oversized answer is kept as evidence.
KEPT_BYTES = 2_000
# Bytes decompressed at a time: a decompression bomb grows a thousandfold.
_STEP = 1 << 18


class AnswerTooLarge(httpx.TransportError):
    """The answer exceeds its limit, and reading stopped there. `status` and `beginning` are evidence of what it was."""

    def __init__(self, message: str, *, request: httpx.Request, status: int, beginning: str) -> None:
        super().__init__(message, request=request)
        self.status = status
        self.beginning = beginning


class Body(Protocol):
    """An answer's bytes as they come."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


def most_bytes_of(request: httpx.Request, status: int) -> int:
    """The limit for an answer in bytes: `extensions["phantoms"]["most_bytes"]` for a 2xx answer, else eight megabytes."""
    said = request.extensions.get("phantoms")
    asked = said.get("most_bytes") if isinstance(said, dict) and 200 <= status < 300 else None
    return int(asked) if asked is not None else MOST_BYTES


class BoundedBody(httpx.AsyncByteStream):
    """A response body that is decompressed here and stops at its limit.

    It removes the encoding from the answer's headers, so that httpx does not decompress it again. Raises AnswerTooLarge, and
    httpx.DecodingError for an encoding that was not requested or bytes that cannot be decompressed.
    """

    def __init__(self, response: httpx.Response, inner: Body, request: httpx.Request) -> None:
        self._inner = inner
        self._request = request
        self._status = response.status_code
        self._most = most_bytes_of(request, response.status_code)
        self._encodings, self._announced = _announced(response.headers.raw)
        if self._encodings:
            response.headers.pop("content-encoding", None)
            response.headers.pop("content-length", None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self._check_announced()
        unpack = self._unpacker()
        beginning, read, made = b"", 0, 0
        async for block in self._inner:
            read += len(block)
            if read > self._most:
                raise self._too_large(beginning or block, "reading stopped there")
            for part in unpack.parts(block) if unpack else (block,):
                made += len(part)
                if made > self._most:
                    raise self._too_large(beginning or part, f"unpacking stopped there, {read:,} bytes of it had been read")
                if len(beginning) < KEPT_BYTES:
                    beginning += part[:KEPT_BYTES]
                yield part

    async def whole(self) -> bytes:
        """The whole body, decompressed."""
        if self._encodings:
            return b"".join([part async for part in self])
        self._check_announced()
        blocks, read = list[bytes](), 0
        async for block in self._inner:
            read += len(block)
            if read > self._most:
                raise self._too_large(b"".join(blocks) or block, "reading stopped there")
            blocks.append(block)
        return b"".join(blocks)

    async def aclose(self) -> None:
        """See the base class."""
        await self._inner.aclose()

    def _check_announced(self) -> None:
        if self._announced.isdigit() and int(self._announced) > self._most and self._request.method != "HEAD":
            raise self._too_large(b"", f"{int(self._announced):,} bytes were announced")

    def _unpacker(self) -> _Unpacker | None:
        if not self._encodings:
            return None
        if len(self._encodings) == 1 and self._encodings[0] in ("gzip", "x-gzip", "deflate"):
            return _Unpacker(self._request)
        raise httpx.DecodingError(
            f"the answer is packed as {', '.join(self._encodings)}, which was not asked for", request=self._request
        )

    def _too_large(self, beginning: bytes, what: str) -> AnswerTooLarge:
        text = f"the answer is larger than {self._most:,} bytes; {what}"
        shown = beginning[:KEPT_BYTES].decode("utf-8", "replace")
        return AnswerTooLarge(text, request=self._request, status=self._status, beginning=shown)


def _announced(headers: Sequence[tuple[bytes, bytes]]) -> tuple[list[str], str]:
    """The body's encodings and its Content-Length (empty without one). One pass: each lookup in httpx' headers decodes all."""
    packed, length = list[str](), ""
    for name, value in headers:
        if len(name) == len(b"content-length") and name.lower() == b"content-length":
            length = value.decode("latin-1")
        elif len(name) == len(b"content-encoding") and name.lower() == b"content-encoding":
            packed += [one.strip().lower() for one in value.decode("latin-1").split(",")]
    return [one for one in packed if one not in ("", "identity")], length


class _Unpacker:
    """Decompresses gzip (also with several members), zlib, and the raw deflate that some servers send as `deflate`."""

    def __init__(self, request: httpx.Request) -> None:
        self._request = request
        self._packed = zlib.decompressobj(zlib.MAX_WBITS | 32)
        self._fresh = True

    def parts(self, block: bytes) -> Iterator[bytes]:
        """The decompressed block, piece by piece, so that the caller can stop."""
        while block:
            part, block = self._step(block)
            yield part

    def _step(self, block: bytes) -> tuple[bytes, bytes]:
        """One decompressed piece of at most 256 KB, and the rest of the compressed block."""
        try:
            part = self._packed.decompress(block, _STEP)
        except zlib.error as error:
            if not self._fresh:
                raise httpx.DecodingError(f"the answer cannot be unpacked: {error}", request=self._request) from error
            self._fresh = False
            self._packed = zlib.decompressobj(-zlib.MAX_WBITS)
            return self._step(block)
        self._fresh = False
        if self._packed.eof and self._packed.unused_data:
            rest = self._packed.unused_data
            self._packed, self._fresh = zlib.decompressobj(zlib.MAX_WBITS | 32), False
            return part, rest
        return part, self._packed.unconsumed_tail
