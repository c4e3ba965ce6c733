"""The stand-in for the YouTube Data API v3: resumable uploads, videos, channels, playlists and a watch page.

`rules` has checks and errors, `uploads` upload sessions, `videos` the format of a video.

Settings: `youtube.processing_seconds` (see `pace`), `youtube.inserts_per_day` (100), `youtube.units_per_day` (10,000),
`youtube.stats_per_day` (10,000: calls of batchGetStats), `youtube.quota_late_seconds` (0: how long after midnight in California
the quotas are reset), `youtube.uploads_per_channel_per_day` (none), `youtube.session_seconds` (a week), `youtube.locked_private`
(False: uploads stay private despite the request, like those of unaudited projects did until 2026-11-01),
`youtube.rejection_reason` and `youtube.failure_reason` (none: for videos uploaded from now on), `youtube.region_restrictions`
({}: a regionRestriction by the id of its video), `youtube.rejected_videos` ({}: a rejectionReason by the id of a video that is
rejected after its publication), `youtube.hidden_counters` (none: names such as likeCount), `youtube.custom_thumbnails` (true:
accounts may set thumbnails), `youtube.late_release_seconds` (0: how late a video with a `publishAt` becomes public),
`youtube.without_channel` ([]: accounts), `youtube.file_name` (unknown: the `fileDetails.fileName` of all videos, because it is
not documented that YouTube takes the name from the Slug header; `slug`: it does). The ledger gets `youtube.video` when an
upload's last byte is accepted and `post` when a video first is public or unlisted.
"""

from __future__ import annotations

import html
from datetime import datetime
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox, page
from phantoms_dagster.sandbox.pace import wait_seconds
from phantoms_dagster.sandbox.watch_page import player
from phantoms_dagster.sandbox.youtube import google_token
from phantoms_dagster.sandbox.youtube.analytics import Analytics
from phantoms_dagster.sandbox.youtube.extras import Extras
from phantoms_dagster.sandbox.youtube.rules import (
    MAX_FILE_BYTES,
    OWNER_PARTS,
    READ_ONLY_PARTS,
    READS,
    UPLOADS,
    WRITABLE,
    WRITES,
    Quota,
    YouTubeApiError,
    account_of,
    answers,
    json_body,
    known,
    parts_of,
    video_body,
)
from phantoms_dagster.sandbox.youtube.uploads import SandboxUploadSession, Sessions, receive
from phantoms_dagster.sandbox.youtube.videos import DAY, YouTubeVideo, channel_id, short_hash, timestamp, uploads_id

VIDEO_PARTS = frozenset(WRITABLE) | READ_ONLY_PARTS
PLAYLIST_PARTS = frozenset({"id", "snippet", "contentDetails", "status"})
CHANNEL_PARTS = frozenset({"id", "snippet", "contentDetails", "statistics", "status"})
STATS_PARTS = frozenset({"id", "snippet", "contentDetails", "statistics"})
MAX_IDS = 50


class YouTube:
    """All channels, videos and upload sessions of one sandbox."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.quota = Quota.of(sandbox)
        self.sessions = Sessions(sandbox)
        self.sessions.uses["video"] = lambda session: (201, self._accept(session).resource(session.parts, self.sandbox))
        self.videos: dict[str, YouTubeVideo] = {}  # oldest first
        self._playlists: dict[str, list[YouTubeVideo]] = {}  # each account's uploads, oldest first
        self.extras = Extras(sandbox, self.quota, self.videos, self.sessions)
        self.analytics = Analytics(sandbox, self.videos)
        for video in sandbox.kept("youtube.video", YouTubeVideo):
            self._know(video)

    def _know(self, video: YouTubeVideo) -> None:
        self.videos[video.id] = video
        self._playlists.setdefault(uploads_id(video.account), []).append(video)

    def _keep(self, video: YouTubeVideo) -> None:
        """Save the video with its state at the end of this request."""
        self.sandbox.keep("youtube.video", video.id, video)

    # --- uploads

    @answers
    async def open(self, request: web.Request) -> web.Response:
        """POST: start a resumable upload. The answer's Location is its session URI."""
        account = known(account_of(request, needs=UPLOADS))
        if request.query.get("uploadType") not in ("resumable", "multipart"):
            raise YouTubeApiError(400, "badRequest", "uploadType must be resumable or multipart.", domain="global")
        parts = parts_of(request, allowed=VIDEO_PARTS)
        if account in self.sandbox.setting("youtube.without_channel", []):
            raise YouTubeApiError(401, "youtubeSignupRequired", "Unauthorized")
        # It is not documented whether YouTube charges for a session that is never finished. The stand-in does.
        self.quota.charge(self.sandbox, inserts=1)
        self._refuse_beyond_upload_limit(account)

        def check(body: dict[str, Any]) -> dict[str, Any]:
            return video_body(body, parts, update=False)

        types = ("video/", "application/octet-stream")
        return await self.sessions.begin(request, account, parts, "video", check=check, most=MAX_FILE_BYTES, types=types)

    @answers
    async def upload(self, request: web.Request) -> web.Response:
        """PUT on a session URI: bytes, or a request for the progress. A finished session repeats its final answer."""
        account_of(request, required=False)  # the session URI alone suffices, but a wrong token is refused
        session = self.sessions.get(request.query.get("upload_id", ""))
        if session is None or self.sandbox.now() >= session.expires_at:
            raise YouTubeApiError(404, "notFound", "The upload session was not found.", domain="global")
        if session.final is None:
            self.sessions.progress(session)
            await receive(session, request)
            if not session.complete:
                return session.incomplete()
        if session.final is None:
            status, body = self.sessions.close(session)
        else:
            await request.release()
            status, body = session.final
        return web.json_response(body, status=status)

    def _accept(self, session: SandboxUploadSession) -> YouTubeVideo:
        """The last byte has arrived: create the video."""
        now = self.sandbox.now()
        video = YouTubeVideo(
            id=short_hash("video", self.sandbox.seed, session.id, length=11),
            account=session.account,
            snippet={"title": "unknown", **session.body.get("snippet", {})},
            status=dict(session.body.get("status", {})),
            file_name=session.file_name,
            size=session.received,
            sha256=session.sha256,
            head=bytes(session.head),
            uploaded_at=now,
            processed_at=now + wait_seconds(self.sandbox, "youtube.processing_seconds", str(len(self.videos) + 1)),
            rejection=self.sandbox.setting("youtube.rejection_reason", None),
            broken=self.sandbox.setting("youtube.failure_reason", None),
            paid=session.body.get("paidProductPlacementDetails"),
        )
        self._know(video)
        self._keep(video)
        self.sandbox.record("youtube.video", **video.facts())
        self._settle(video)
        return video

    def _refuse_beyond_upload_limit(self, account: str) -> None:
        limit = self.sandbox.setting("youtube.uploads_per_channel_per_day", None)
        since = self.sandbox.now() - DAY
        if limit is not None and sum(v.uploaded_at > since for v in self._uploads(uploads_id(account))) >= limit:
            raise YouTubeApiError(400, "uploadLimitExceeded", "The user has exceeded the number of videos they may upload.")

    def _uploads(self, playlist: str) -> list[YouTubeVideo]:
        """The existing videos of an uploads playlist, oldest first."""
        return [v for v in self._playlists.get(playlist, []) if v.id in self.videos]

    def _settle(self, video: YouTubeVideo) -> None:
        """Apply what the status requires: a due schedule, the lock of uploads, the ledger entry when it first becomes visible."""
        now = self.sandbox.now()
        at = video.status.get("publishAt")
        late = float(self.sandbox.setting("youtube.late_release_seconds", 0.0))
        if at is not None and datetime.fromisoformat(at).timestamp() + late <= now:
            video.status = {k: v for k, v in video.status.items() if k != "publishAt"} | {"privacyStatus": "public"}
            self._keep(video)
        if video.published_at is None and self.sandbox.setting("youtube.locked_private", False):
            video.status["privacyStatus"] = "private"
            self._keep(video)
        if video.privacy != "private" and video.published_at is None:
            video.published_at = now
            self._keep(video)
            self.sandbox.record("post", **video.facts())

    # --- videos

    @answers
    async def list_videos(self, request: web.Request) -> web.Response:
        """GET videos by id: the existing ones that this account may see, in the requested order."""
        account = known(account_of(request, needs=READS))
        self.quota.charge(self.sandbox, units=1)
        parts = parts_of(request, allowed=VIDEO_PARTS)
        seen = self._seen(request, account)
        if OWNER_PARTS & set(parts) and any(v.account != account for v in seen):
            raise YouTubeApiError(403, "forbidden", "The request cannot access private details of the video.")
        return _listing("youtube#videoListResponse", [v.resource(parts, self.sandbox) for v in seen])

    @answers
    async def batch_get_stats(self, request: web.Request) -> web.Response:
        """GET the metrics of videos by id, with its own quota. Videos that do not exist are left out."""
        account = known(account_of(request, needs=READS))
        self.quota.charge(self.sandbox, stats=1)
        parts = parts_of(request, allowed=STATS_PARTS)
        items = [v.stats(parts, self.sandbox) for v in self._seen(request, account)]
        kind = "youtube#batchGetStatsResponse"
        return web.json_response({"kind": kind, "etag": short_hash(kind, items, length=27), "items": items})

    def _seen(self, request: web.Request, account: str) -> list[YouTubeVideo]:
        """The requested videos that this account may see, without duplicates, in the requested order."""
        ids = [i for value in request.query.getall("id", []) for i in value.split(",") if i]
        if not ids:
            raise YouTubeApiError(
                400, "missingRequiredParameter", "No filter selected. Expected one of: id", domain="youtube.parameter"
            )
        if len(ids) > MAX_IDS:
            raise YouTubeApiError(400, "invalidFilters", f"At most {MAX_IDS} ids.", domain="youtube.parameter")
        found = [self.videos[i] for i in dict.fromkeys(ids) if i in self.videos]
        for video in found:
            self._settle(video)
        return [v for v in found if v.account == account or v.privacy != "private"]

    @answers
    async def update_video(self, request: web.Request) -> web.Response:
        """PUT: replaces every part that is sent. Fields that a part omits are deleted."""
        account = known(account_of(request, needs=WRITES))
        self.quota.charge(self.sandbox, units=50)
        parts = parts_of(request, allowed=VIDEO_PARTS)
        body = video_body(json_body(await request.read()), parts, update=True)
        video = self.videos.get(str(body.get("id", "")))
        if video is None:
            raise YouTubeApiError(404, "videoNotFound", "The video that you are trying to update cannot be found.")
        if video.account != account:
            raise YouTubeApiError(403, "forbidden", "The request is not authorized to change this video.")
        if "publishAt" in body.get("status", {}) and video.published_at is not None:
            message = "A video that has been public cannot be scheduled."
            raise YouTubeApiError(400, "invalidPublishAt", message)
        if "snippet" in parts:
            video.snippet = dict(body["snippet"])
        if "status" in parts:
            video.status = dict(body.get("status", {}))
        if "paidProductPlacementDetails" in parts:
            video.paid = body.get("paidProductPlacementDetails")
        self._keep(video)
        self._settle(video)
        return web.json_response(video.resource(parts, self.sandbox))

    @answers
    async def delete_video(self, request: web.Request) -> web.Response:
        """DELETE a video: 204."""
        account = known(account_of(request, needs=WRITES))
        self.quota.charge(self.sandbox, units=50)
        video = self.videos.get(request.query.get("id", ""))
        if video is None:
            raise YouTubeApiError(404, "videoNotFound", "The video that you are trying to delete cannot be found.")
        if video.account != account:
            raise YouTubeApiError(403, "forbidden", "The video that you are trying to delete cannot be deleted by this account.")
        del self.videos[video.id]
        self.sandbox.forget("youtube.video", video.id)
        self.extras.forget(video.id)
        self.sandbox.record("youtube.deleted", remote_id=video.id)
        return web.Response(status=204)

    @answers
    async def insert_without_media(self, request: web.Request) -> web.Response:
        """POST of a resource without media."""
        account_of(request, needs=UPLOADS)
        raise YouTubeApiError(400, "mediaBodyRequired", "The request does not include the video content.")

    # --- channels and playlists

    @answers
    async def channels(self, request: web.Request) -> web.Response:
        """GET the channel of the account."""
        account = known(account_of(request, needs=READS))
        self.quota.charge(self.sandbox, units=1)
        parts = parts_of(request, allowed=CHANNEL_PARTS)
        if request.query.get("mine") != "true":
            message = "No filter selected. Expected one of: mine"
            raise YouTubeApiError(400, "missingRequiredParameter", message, domain="youtube.parameter")
        shown: dict[str, dict[str, Any]] = {
            "snippet": {"title": account, "description": "", "publishedAt": timestamp(0)},
            "contentDetails": {"relatedPlaylists": {"likes": "", "uploads": uploads_id(account)}},
            "status": {"privacyStatus": "public", "isLinked": True, "longUploadsStatus": "eligible", "madeForKids": False},
        }
        if account in self.sandbox.setting("youtube.without_channel", []):
            kind = "youtube#channelListResponse"  # an answer without `items`
            empty = {"kind": kind, "etag": short_hash(kind, length=27), "pageInfo": {"totalResults": 0, "resultsPerPage": 5}}
            return web.json_response(empty)
        identity = {"kind": "youtube#channel", "etag": short_hash(account, length=27), "id": channel_id(account)}
        return _listing("youtube#channelListResponse", [{**identity, **{p: shown[p] for p in parts if p in shown}}])

    @answers
    async def playlist_items(self, request: web.Request) -> web.Response:
        """GET the uploads of an account, newest first. Only the owner sees private ones."""
        account = known(account_of(request, needs=READS))
        self.quota.charge(self.sandbox, units=1)
        parts = parts_of(request, allowed=PLAYLIST_PARTS)
        playlist, limit, start = (
            request.query.get("playlistId", ""),
            _integer(request, "maxResults", 5),
            _integer(request, "pageToken", 0),
        )
        if not playlist or limit > MAX_IDS:
            raise YouTubeApiError(
                400, "invalidValue", "playlistId or maxResults is missing or invalid.", domain="youtube.parameter"
            )
        mine = self._uploads(playlist)[::-1]
        if not mine:  # YouTube has no such playlist before the first upload
            raise YouTubeApiError(404, "playlistNotFound", "The playlist cannot be found.", domain="youtube.playlistItem")
        for video in mine:
            self._settle(video)
        seen = [v for v in mine if v.account == account or v.privacy == "public"]
        items = [v.playlist_item(i, parts) for i, v in enumerate(seen[start : start + limit], start)]
        following = {"nextPageToken": str(start + limit)} if start + limit < len(seen) else {}
        return _listing("youtube#playlistItemListResponse", items, total=len(seen), **following)

    # --- the site

    async def watch(self, request: web.Request) -> web.Response:
        """The page of a video, for people."""
        video = self.videos.get(request.match_info["id"])
        if video is not None:
            self._settle(video)
        if video is None or not video.is_out(self.sandbox.now()):
            return page("Video unavailable", "<p>This video is private or does not exist.</p>", status=404)
        title, description = (html.escape(str(video.snippet.get(k, ""))) for k in ("title", "description"))
        views = video.statistics(self.sandbox).get("viewCount", "?")
        facts = f"{html.escape(video.account)}, {video.privacy}, {views} views, {video.size} bytes, sha256 {video.sha256}"
        player_html = player(self.sandbox, video.sha256)
        return page(title, f'{player_html}<p style="white-space:pre-wrap">{description}</p><p><small>{facts}</small></p>')


def _integer(request: web.Request, name: str, default: int) -> int:
    value = request.query.get(name)
    if value is None:
        return default
    if not value.isascii() or not value.isdigit():
        raise YouTubeApiError(400, "invalidValue", f"Invalid value for {name}.", domain="youtube.parameter")
    return int(value)


def _listing(kind: str, items: list[dict[str, Any]], *, total: int | None = None, **more: str) -> web.Response:
    page = {"totalResults": len(items) if total is None else total, "resultsPerPage": len(items)}
    return web.json_response({"kind": kind, "etag": short_hash(kind, items, length=27), "items": items, "pageInfo": page, **more})


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The routes of the stand-in; its state is `sandbox.state["youtube"]`."""
    youtube = sandbox.state["youtube"] = YouTube(sandbox)
    extras = youtube.extras
    base = "/{prefix:(?:resumable/)?upload}/youtube/v3"  # the discovery document lists both spellings
    upload = f"{base}/videos"
    return [
        web.post(upload, youtube.open, name="youtube.open"),
        web.put(upload, youtube.upload, name="youtube.upload"),
        web.get("/youtube/v3/videos", youtube.list_videos, name="youtube.list"),
        web.get("/youtube/v3/videos:batchGetStats", youtube.batch_get_stats, name="youtube.stats"),
        web.put("/youtube/v3/videos", youtube.update_video, name="youtube.update"),
        web.post("/youtube/v3/videos", youtube.insert_without_media, name="youtube.insert"),
        web.delete("/youtube/v3/videos", youtube.delete_video, name="youtube.delete"),
        web.post(f"{base}/thumbnails/set", extras.set_thumbnail, name="youtube.thumbnail"),
        web.put(f"{base}/thumbnails/set", youtube.upload, name="youtube.thumbnail_bytes"),
        web.post(f"{base}/captions", extras.insert_caption, name="youtube.caption"),
        web.put(f"{base}/captions", youtube.upload, name="youtube.caption_bytes"),
        web.get("/youtube/v3/captions", extras.list_captions, name="youtube.captions"),
        web.get("/v2/reports", youtube.analytics.query, name="youtube.reports"),
        *google_token.routes(sandbox),
        web.get("/youtube/v3/channels", youtube.channels, name="youtube.channels"),
        web.get("/youtube/v3/playlistItems", youtube.playlist_items, name="youtube.playlist"),
        web.get("/watch/{id}", youtube.watch, name="youtube.watch"),
    ]
