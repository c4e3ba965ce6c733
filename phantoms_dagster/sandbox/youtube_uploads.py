"""Resumable upload sessions: which bytes are kept, what a Content-Range must look like, when a session is over.

What becomes of a finished file belongs in `youtube`.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

from aiohttp import ClientError, web

from phantoms_dagster.sandbox.core import body_blocks
from phantoms_dagster.sandbox.youtube_rules import ApiError

GRANULE = 262_144  # every chunk but the last is a multiple of this
HEAD_BYTES = 4_096  # enough for the file type and the length of an MP4 whose moov box is first
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


@dataclass
class Session:
    """One upload. `total` is None as long as nobody said how long the file is; `final` is the answer given at its end."""

    id: str
    account: str
    body: dict[str, Any]
    parts: tuple[str, ...]
    file_name: str
    total: int | None
    expires_at: float
    received: int = 0
    head: bytearray = field(default_factory=bytearray)
    final: tuple[int, dict[str, Any]] | None = None
    _digest: Any = field(default_factory=hashlib.sha256)

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.total is not None and self.received == self.total

    @property
    def sha256(self) -> str:
        """The hash of the bytes kept so far."""
        return str(self._digest.hexdigest())

    def incomplete(self) -> web.Response:
        """308 with what is kept; no Range header means nothing."""
        headers = {"Range": f"bytes=0-{self.received - 1}"} if self.received else {}
        return web.Response(status=308, reason="Resume Incomplete", headers=headers)

    def keep(self, at: int, block: bytes) -> bool:
        """Keep a block that continues the file; one that overlaps or leaves a gap is dropped."""
        if at != self.received:
            return False
        self._digest.update(block)
        self.head += block[: HEAD_BYTES - len(self.head)]
        self.received += len(block)
        return True


async def receive(session: Session, request: web.Request) -> None:
    """Take the bytes of one PUT. Of a request that breaks off, whole granules are kept. Raises ApiError 400."""
    wanted = _wanted(session, request)
    if wanted is None:
        return
    first, last = wanted
    if first != session.received:
        await request.release()
        return
    position, pending = first, bytearray()
    try:
        async for block in body_blocks(request, GRANULE):
            pending += block
            whole = len(pending) // GRANULE * GRANULE
            if whole and not session.keep(position, bytes(pending[:whole])):
                return
            position += whole
            del pending[:whole]
    except (ClientError, ConnectionError) as error:
        raise ConnectionResetError("the client went away in the middle of a chunk") from error
    if position + len(pending) == last + 1:
        session.keep(position, bytes(pending))


def _wanted(session: Session, request: web.Request) -> tuple[int, int] | None:
    """First and last byte of this request's block; None when it only asks for the progress."""
    length = request.content_length or 0
    header = request.headers.get("Content-Range")
    if header is None:
        session.total = length if session.total is None else session.total
        if length != session.total:
            raise _bad("Content-Length differs from X-Upload-Content-Length and there is no Content-Range.")
        return 0, length - 1
    match = _RANGE.fullmatch(header)
    if match is None:
        raise _bad("Failed to parse Content-Range header.")
    first, last, total = match.groups()
    if total != "*":
        session.total = int(total) if session.total is None else session.total
        if int(total) != session.total:
            raise _bad("The total size in Content-Range differs from the size of the upload.")
    if first is None:
        if length:
            raise _bad("A request for the progress carries no bytes.")
        return None
    start, end = int(first), int(last)
    if end < start or length != end - start + 1 or (session.total is not None and end >= session.total):
        raise _bad("Invalid Content-Range.")
    if (session.total is None or end + 1 < session.total) and length % GRANULE:
        raise _bad(f"Every chunk but the last must be a multiple of {GRANULE} bytes.")
    return start, end


def _bad(message: str) -> ApiError:
    return ApiError(400, "badRequest", message, domain="global")
