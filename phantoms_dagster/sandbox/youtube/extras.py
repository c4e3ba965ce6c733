"""A video's caption tracks and thumbnail in the YouTube stand-in. `uploads` receives the files.

Setting: `youtube.caption_seconds` (30: how long a new track is `syncing`).
The ledger gets `youtube.caption` and `youtube.thumbnail` when their last byte is accepted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.youtube.rules import FORCE_SSL, UPLOADS, Quota, YouTubeApiError, account_of, answers, known, parts_of
from phantoms_dagster.sandbox.youtube.uploads import SandboxUploadSession, Sessions
from phantoms_dagster.sandbox.youtube.videos import YouTubeVideo, short_hash, timestamp

CAPTION_PARTS = frozenset({"id", "snippet"})
CAPTION_BYTES, THUMBNAIL_BYTES = 104_857_600, 52_428_800
PICTURES = {"image/jpeg": b"\xff\xd8\xff", "image/png": b"\x89PNG"}


@dataclass(frozen=True)
class Caption:
    """One caption track."""

    id: str
    video_id: str
    language: str
    name: str
    draft: bool
    readable: bool
    at: float

    def resource(self, parts: tuple[str, ...], *, ready: bool) -> dict[str, Any]:
        """The track in the API's format. `ready`: it was prepared."""
        said = {"status": "serving"} if self.readable else {"status": "failed", "failureReason": "unknownFormat"}
        snippet = {
            "videoId": self.video_id,
            "lastUpdated": timestamp(self.at),
            "trackKind": "standard",
            "language": self.language,
            "name": self.name,
            "audioTrackType": "unknown",
            "isCC": False,
            "isLarge": False,
            "isEasyReader": False,
            "isDraft": self.draft,
            "isAutoSynced": False,
            **(said if ready else {"status": "syncing"}),
        }
        identity = {"kind": "youtube#caption", "etag": short_hash(self.id, length=27), "id": self.id}
        return {**identity, **({"snippet": snippet} if "snippet" in parts else {})}


class Extras:
    """The caption tracks and thumbnails of one sandbox."""

    def __init__(self, sandbox: Sandbox, quota: Quota, videos: Mapping[str, YouTubeVideo], sessions: Sessions) -> None:
        self.sandbox = sandbox
        self.captions: dict[str, Caption] = {}
        self._quota, self._videos, self._sessions = quota, videos, sessions
        for caption in sandbox.kept("youtube.caption", Caption):
            self.captions[caption.id] = caption
        sessions.uses["caption"] = lambda s: (200, self._shown(self._caption(s.account, s.body, bytes(s.head)), s.parts))
        sessions.uses["thumbnail"] = self._thumbnail

    @answers
    async def insert_caption(self, request: web.Request) -> web.Response:
        """POST a track, in one request or as a resumable upload. 409 for the same video, language and name again."""
        account = known(account_of(request, needs=FORCE_SSL))
        self._quota.charge(self.sandbox, units=400)
        parts = parts_of(request, allowed=CAPTION_PARTS)

        def check(body: dict[str, Any]) -> dict[str, Any]:
            self._fresh(account, body)
            return body

        return await self._sessions.begin(request, account, parts, "caption", check=check, most=CAPTION_BYTES)

    def _caption(self, account: str, body: dict[str, Any], head: bytes) -> Caption:
        snippet = self._fresh(account, body)
        number = short_hash("caption", snippet["videoId"], snippet["language"], snippet["name"], length=40)
        caption = Caption(
            id=number,
            video_id=snippet["videoId"],
            language=snippet["language"],
            name=snippet["name"],
            draft=bool(snippet.get("isDraft", False)),
            readable=b"-->" in head or head.lstrip().startswith((b"<", b"WEBVTT")),
            at=self.sandbox.now(),
        )
        self.captions[number] = caption
        self.sandbox.keep("youtube.caption", number, caption)
        self.sandbox.record("youtube.caption", video=caption.video_id, language=caption.language, name=caption.name)
        return caption

    def _shown(self, caption: Caption, parts: tuple[str, ...]) -> dict[str, Any]:
        seconds = float(self.sandbox.setting("youtube.caption_seconds", 30.0))
        return caption.resource(parts, ready=self.sandbox.now() - caption.at >= seconds)

    def _fresh(self, account: str, body: dict[str, Any]) -> dict[str, Any]:
        """The snippet of a new track. Raises YouTubeApiError if it may not be created."""
        snippet = body.get("snippet")
        if not isinstance(snippet, dict) or not all(isinstance(snippet.get(n), str) for n in ("videoId", "language", "name")):
            raise YouTubeApiError(400, "invalidMetadata", "The request contains invalid metadata values.", domain="youtube.caption")
        self._mine(account, snippet["videoId"], "youtube.caption")
        wanted = (snippet["videoId"], snippet["language"], snippet["name"])
        if any((c.video_id, c.language, c.name) == wanted for c in self.captions.values()):
            message = "The specified video already has a caption track with the given language and name."
            raise YouTubeApiError(409, "captionExists", message, domain="youtube.caption")
        return snippet

    @answers
    async def list_captions(self, request: web.Request) -> web.Response:
        """GET the tracks of a video."""
        account = known(account_of(request, needs=FORCE_SSL))
        self._quota.charge(self.sandbox, units=50)
        parts = parts_of(request, allowed=CAPTION_PARTS)
        video = self._mine(account, request.query.get("videoId", ""), "youtube.caption")
        items = [self._shown(c, parts) for c in self.captions.values() if c.video_id == video.id]
        kind = "youtube#captionListResponse"
        return web.json_response({"kind": kind, "etag": short_hash(kind, items, length=27), "items": items})

    @answers
    async def set_thumbnail(self, request: web.Request) -> web.Response:
        """POST a picture. It replaces the previous one, so a repeat is harmless."""
        account = known(account_of(request, needs=UPLOADS))
        self._quota.charge(self.sandbox, units=50)
        video = self._mine(account, request.query.get("videoId", ""), "youtube.thumbnail")
        # A Short takes a thumbnail once it is processed. What an earlier one gets is not documented.
        if self.sandbox.now() < video.processed_at or not self.sandbox.setting("youtube.custom_thumbnails", True):
            message = "The authenticated user doesn't have permissions to upload and set custom video thumbnails."
            raise YouTubeApiError(403, "forbidden", message, domain="youtube.thumbnail")

        def which(_: dict[str, Any]) -> dict[str, Any]:
            return {"videoId": video.id}

        return await self._sessions.begin(request, account, (), "thumbnail", check=which, most=THUMBNAIL_BYTES, alone=True)

    def _thumbnail(self, session: SandboxUploadSession) -> tuple[int, dict[str, Any]]:
        video = self._mine(session.account, session.body["videoId"], "youtube.thumbnail")
        if not any(bytes(session.head).startswith(magic) for magic in PICTURES.values()):
            raise YouTubeApiError(400, "invalidImage", "The provided image content is invalid.", domain="youtube.thumbnail")
        video.thumbnail = session.sha256
        self.sandbox.keep("youtube.video", video.id, video)
        self.sandbox.record("youtube.thumbnail", video=video.id, sha256=session.sha256)
        kind, items = "youtube#thumbnailSetResponse", [video.thumbnails(self.sandbox)]
        return 200, {"kind": kind, "etag": short_hash(kind, session.sha256, length=27), "items": items}

    def _mine(self, account: str, video_id: str, domain: str) -> YouTubeVideo:
        video = self._videos.get(video_id)
        if video is None:
            raise YouTubeApiError(404, "videoNotFound", "The video cannot be found.", domain=domain)
        if video.account != account:
            raise YouTubeApiError(403, "forbidden", "The request is not authorized for this video.", domain=domain)
        return video

    def forget(self, video_id: str) -> None:
        """Delete the tracks and the thumbnail of a deleted video."""
        for number in [i for i, c in self.captions.items() if c.video_id == video_id]:
            self.sandbox.forget("youtube.caption", number)
        self.captions = {i: c for i, c in self.captions.items() if c.video_id != video_id}
