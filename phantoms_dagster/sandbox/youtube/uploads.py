"""Resumable upload sessions: which bytes are kept, the format of Content-Range, and the end of a session."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

from aiohttp import ClientError, web

from phantoms_dagster.sandbox.core import Sandbox, body_blocks
from phantoms_dagster.sandbox.uploaded_videos import Intake, intake
from phantoms_dagster.sandbox.youtube.rules import YouTubeApiError, json_body
from phantoms_dagster.sandbox.youtube.videos import DAY, short_hash

GRANULE = 262_144  # every chunk except the last is a multiple of this
HEAD_BYTES = 4_096  # enough for the file type and the length of an MP4 whose moov box is first
KIND = "youtube.session"  # the kind of its rows in the sandbox's store
_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")


# Processes a complete file. Returns the answer's status and body. Raises YouTubeApiError.
Finish: TypeAlias = Callable[["SandboxUploadSession"], tuple[int, dict[str, Any]]]
Check: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]


@dataclass
class SandboxUploadSession:
    """One upload. `total` is None until the file's length is known; `final` is the answer given at its end.

    `use` names how the complete file is processed, see `Sessions.uses`. `kept`, created by `to_file`, has the bytes of an
    incomplete upload, only so that a later process can continue its hash.
    """

    id: str
    account: str
    use: str
    body: dict[str, Any]
    parts: tuple[str, ...]
    file_name: str
    total: int | None
    expires_at: float
    received: int = 0
    head: bytearray = field(default_factory=bytearray)
    final: tuple[int, dict[str, Any]] | None = None
    kept: Intake | None = field(default=None, metadata={"saved": False})
    to_file: Callable[[], Intake] | None = field(default=None, metadata={"saved": False})
    digest: Any = field(default_factory=hashlib.sha256, metadata={"saved": False})

    @property
    def complete(self) -> bool:
        """Whether all bytes have arrived."""
        return self.total is not None and self.received == self.total

    @property
    def sha256(self) -> str:
        """The hash of the bytes kept so far."""
        return str(self.digest.hexdigest())

    def incomplete(self) -> web.Response:
        """The answer 308 with the range that is kept. No Range header means that nothing is kept."""
        headers = {"Range": f"bytes=0-{self.received - 1}"} if self.received else {}
        return web.Response(status=308, reason="Resume Incomplete", headers=headers)

    def keep(self, at: int, block: bytes) -> bool:
        """Keep a block that continues the file. A block that overlaps or leaves a gap is dropped: then False."""
        if at != self.received:
            return False
        self.digest.update(block)
        self.head += block[: HEAD_BYTES - len(self.head)]
        self.received += len(block)
        if self.to_file is not None and not self.complete:  # most uploads are complete with their first block
            self.kept = self.kept or self.to_file()
            self.kept.write(at, block)
        return True


class Sessions(dict[str, SandboxUploadSession]):
    """The resumable uploads by id. It also handles uploads in one request, which need no session."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__()
        self.sandbox = sandbox
        self.uses: dict[str, Finish] = {}
        """What becomes of a whole file, by the name that a session has for it."""
        self._restore()

    def _restore(self) -> None:
        """Restore the unexpired sessions of an earlier process."""
        now = self.sandbox.now()
        for session in self.sandbox.kept(KIND, SandboxUploadSession):
            if session.expires_at <= now:
                self.sandbox.forget(KIND, session.id)
                continue
            self._know(session)
            if session.final is None and session.received:
                self._continue(session)
        if self.sandbox.store is not None:
            self.sandbox.store.keep_uploads("youtube", (_file_name(s) for s in self.values() if s.final is None))

    def _know(self, session: SandboxUploadSession) -> None:
        self[session.id] = session
        if self.sandbox.store is not None:
            session.to_file = partial(intake, self.sandbox, _file_name(session))

    def _continue(self, session: SandboxUploadSession) -> None:
        session.kept = intake(self.sandbox, _file_name(session))
        try:
            session.digest = session.kept.digest(session.received)
        except ValueError:  # the file was removed: the upload starts again
            session.received, session.head = 0, bytearray()

    def progress(self, session: SandboxUploadSession) -> None:
        """Save the session with its state at the end of this request."""
        self.sandbox.keep(KIND, session.id, session)

    def close(self, session: SandboxUploadSession) -> tuple[int, dict[str, Any]]:
        """Process the complete file. Returns the answer, which later requests get too. Raises YouTubeApiError."""
        session.final = final = self.uses[session.use](session)
        if session.kept is not None:
            session.kept.discard()
            session.kept = None
        return final

    async def begin(
        self,
        request: web.Request,
        account: str,
        parts: tuple[str, ...],
        use: str,
        *,
        check: Check = dict,
        most: int,
        types: tuple[str, ...] = (),
        alone: bool = False,
    ) -> web.Response:
        """POST: start a resumable upload (the answer's Location is its session URI), or accept a file in one request.

        `use`: one of `uses`. `check` checks the metadata and returns what is kept of them. `most`: the largest size in bytes.
        `types`: the accepted media types (empty: any). `alone`: the file comes without metadata. Raises YouTubeApiError.
        """
        how = request.query.get("uploadType")
        if how == "resumable":
            total = _declared_size(request, most, types)
            body = check({} if alone else json_body(await request.read()))
            session = self._made(request, account, body=body, parts=parts, total=total, use=use)
            self._know(session)
            self.progress(session)
            location = request.url.with_query({"uploadType": "resumable", "upload_id": session.id})
            return web.Response(headers={"Location": str(location), "X-GUploader-UploadID": session.id})
        if how == ("media" if alone else "multipart"):
            metadata, media = (b"", await request.read()) if alone else await _related(request)
            if len(media) > most:
                raise YouTubeApiError(413, "uploadTooLarge", "The media is too large.", domain="global")
            body = check(json_body(metadata))
            session = self._made(request, account, body=body, parts=parts, total=len(media), use=use)
            session.keep(0, media)
            _, answer = self.uses[use](session)
            return web.json_response(answer)
        raise _bad("uploadType must be resumable, or media or multipart where the method takes a file in one request.")

    def _made(
        self, request: web.Request, account: str, *, body: dict[str, Any], parts: tuple[str, ...], total: int | None, use: str
    ) -> SandboxUploadSession:
        return SandboxUploadSession(
            id=short_hash("session", self.sandbox.seed, account, self.sandbox.number("youtube.session"), length=40),
            account=account,
            use=use,
            body=body,
            parts=parts,
            file_name=request.headers.get("Slug", "unknown"),
            total=total,
            expires_at=self.sandbox.now() + self.sandbox.setting("youtube.session_seconds", 7 * DAY),
        )


def _file_name(session: SandboxUploadSession) -> str:
    return f"youtube.{session.id}"


async def _related(request: web.Request) -> tuple[bytes, bytes]:
    """The two parts of a multipart/related body: metadata and file.

    Google's client ends lines without a carriage return, which Google accepts but aiohttp's reader does not.
    """
    boundary = re.search(r'boundary="?([^";]+)"?', request.headers.get("Content-Type", ""))
    if not request.content_type.startswith("multipart/") or boundary is None:
        raise _bad("A multipart upload has a body of multipart/related.")
    pieces = re.split(rb"(?:\r?\n|\A)--" + re.escape(boundary.group(1).encode()), await request.read())
    found = [re.split(rb"\r?\n\r?\n", piece, maxsplit=1)[-1] for piece in pieces[1:-1]]
    if len(found) != 2:
        raise _bad("A multipart upload has two parts: the metadata and the file.")
    return found[0], found[1]


def _declared_size(request: web.Request, most: int, types: tuple[str, ...]) -> int | None:
    kind = request.headers.get("X-Upload-Content-Type", "application/octet-stream")
    if types and not kind.startswith(types):
        message = f"Media type '{kind}' is not supported. Valid media types: [{', '.join(types)}]"
        raise YouTubeApiError(400, "badContent", message, domain="global")
    declared = request.headers.get("X-Upload-Content-Length")
    if declared is None:
        return None
    if not declared.isascii() or not declared.isdigit():
        raise YouTubeApiError(400, "badRequest", "Invalid X-Upload-Content-Length.", domain="global")
    if int(declared) > most:
        raise YouTubeApiError(413, "uploadTooLarge", "The media is too large.", domain="global")
    return int(declared)


async def receive(session: SandboxUploadSession, request: web.Request) -> None:
    """Receive the bytes of one PUT. If the request breaks off, complete granules are kept. Raises YouTubeApiError 400."""
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


def _wanted(session: SandboxUploadSession, request: web.Request) -> tuple[int, int] | None:
    """The first and last byte of this request's block; None if it only asks for the progress."""
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


def _bad(message: str) -> YouTubeApiError:
    return YouTubeApiError(400, "badRequest", message, domain="global")
