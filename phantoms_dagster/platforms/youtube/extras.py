"""Adds a caption track and a thumbnail to a published video.

A track has the name of its post's marker, and YouTube takes a name only once for a video and a language (409 captionExists). So a
track that is there already is adopted, even if its answer was lost. After a lost answer, or while YouTube prepares the track, the
tracks are listed first, because a list costs 50 units and an insert 400. A thumbnail replaces the one before, so it may be set any
number of times.
"""

from __future__ import annotations

import asyncio
import json
import uuid

import httpx

from phantoms_dagster.domain.errors import Permanent, Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, ExtraJob, Tokens
from phantoms_dagster.platforms.youtube.api import PROVIDER, YouTubeCalls, accepted, part, text
from phantoms_dagster.providers.http import evidence, objects

# The guides name 2 MB and the discovery document 50 MB. The smaller one is safe.
MOST_PICTURE_BYTES = 2_000_000
# The answers to an upload whose content is refused, besides those in the table of `api`.
_ADVICE = {
    "forbidden": "the account may not set thumbnails: verify its phone number at youtube.com/verify",
    "insufficientPermissions": "connect the account again with all scopes of docs/accounts.md",
}


class YouTubeExtras:
    """Implements `ports.ExtraAdder`."""

    provider = PROVIDER
    platform = Platform("youtube")

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, clock: Clock, sandbox: bool = False) -> None:
        self.sandbox = sandbox
        self._calls = YouTubeCalls(client, base_url, tokens, clock)
        self._clock = clock

    async def add(self, extra: ExtraJob) -> str:
        """See the port."""
        return await (self._captions(extra) if extra.name == "captions" else self._thumbnail(extra))

    async def _captions(self, extra: ExtraJob) -> str:
        if extra.again and (known := await self._track(extra)) is not None:
            return known
        snippet = {"videoId": extra.remote_id, "language": extra.language, "name": extra.marker, "isDraft": False}
        boundary = uuid.uuid4().hex
        parts = (
            ("application/json; charset=UTF-8", json.dumps({"snippet": snippet})),
            ("application/octet-stream", extra.subtitles),
        )
        body = "".join(f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n{content}\r\n" for kind, content in parts)
        response = await self._calls.send(
            extra.account,
            "POST",
            self._calls.url("upload/youtube/v3/captions"),
            params={"uploadType": "multipart", "part": "snippet"},
            headers={"Content-Type": f"multipart/related; boundary={boundary}"},
            content=f"{body}--{boundary}--\r\n".encode(),
        )
        if response.status_code == 409:
            known = await self._track(extra)
            if known is None:
                message = "YouTube says that the caption track exists, but does not list it"
                raise Permanent(message, provider=PROVIDER, code="captionExists", evidence=evidence(response))
            return known
        made = part(accepted(response, self._clock.now()), "snippet")
        return _said(text(made, "status"), text(made, "failureReason"), extra)

    async def _track(self, extra: ExtraJob) -> str | None:
        """What became of the post's own caption track; None if the video has none."""
        listing = await self._calls.get(extra.account, "captions", part="snippet", videoId=extra.remote_id)
        tracks = [part(item, "snippet") for item in objects(listing, "items")]
        ours = (track for track in tracks if text(track, "name") == extra.marker and text(track, "language") == extra.language)
        track = next(ours, None)
        return None if track is None else _said(text(track, "status"), text(track, "failureReason"), extra)

    async def _thumbnail(self, extra: ExtraJob) -> str:
        assert extra.picture is not None, "a thumbnail has a picture"
        content = await asyncio.to_thread(extra.picture.read_bytes)
        if len(content) > MOST_PICTURE_BYTES:
            raise Permanent(
                f"the picture has {len(content)} bytes, and YouTube takes {MOST_PICTURE_BYTES}", provider=PROVIDER, code="size"
            )
        response = await self._calls.send(
            extra.account,
            "POST",
            self._calls.url("upload/youtube/v3/thumbnails/set"),
            params={"uploadType": "media", "videoId": extra.remote_id},
            headers={"Content-Type": "image/jpeg"},
            content=content,
        )
        try:
            accepted(response, self._clock.now())
        except Permanent as error:
            if error.code not in _ADVICE:
                raise
            raise type(error)(_ADVICE[error.code], provider=PROVIDER, code=error.code, evidence=error.evidence) from error
        return f"{len(content)} bytes"


def _said(status: str | None, reason: str | None, extra: ExtraJob) -> str:
    """What YouTube says about the track. Raises Permanent if it cannot use the track, Transient while it does not know that yet."""
    if status == "syncing":
        raise Transient("YouTube has the caption track and still prepares it", provider=PROVIDER, code="syncing")
    if status == "failed":
        raise Permanent(f"YouTube cannot use the caption track: {reason}", provider=PROVIDER, code=reason)
    return f"track {extra.marker} in {extra.language}"
