"""The TikTok stand-in's HTTP routes, below `/tiktok`: Content Posting API (direct post and inbox, FILE_UPLOAD) and Display API.

`state` keeps the state and makes the decisions. `GET /_sandbox/tiktok/drafts` lists the drafts in creators' inboxes.
`POST /_sandbox/tiktok/drafts` posts or deletes one: {"publish_id": text, "do": "post" or "delete", "post_info": {..}}.
`POST /_sandbox/tiktok/posts` with {"id": text, "do": "hide"} deletes a post, or makes it private, and TikTok sends its event.
Settings: `tiktok.processing_seconds`, `tiktok.moderation_seconds` (how much later the public id comes; both see `pace`),
`tiktok.rate_limits` (True: the documented calls a minute of each token), `tiktok.daily_posts` (15; null: any number),
`tiktok.pending_shares` (5 drafts; null: any number),
`tiktok.check_media` (True: a video that breaks the media limits fails), `tiktok.creator` (overrides of creator_info),
`tiktok.banned_accounts` ([]), `tiktok.private_accounts` ([]), `tiktok.audited` (True; False: only private accounts may post, and
only SELF_ONLY), `tiktok.daily_users` (any number; 5 if the app is not audited), `tiktok.fail_reason` (None: how processing fails),
`tiktok.publish_id_seconds` (a day: how long status/fetch knows a publish_id after its end; null: for ever),
`tiktok.count_lag_seconds` (0: how late `uploaded_bytes` counts the last chunk), `tiktok.drafts_tell` (True; False: the status of a
draft stays when its creator posts it), `tiktok.hidden_posts` ([]: ids of posts that were deleted, made private or taken down), and
those of `events` and `tokens`.
"""

from __future__ import annotations

import functools
import html
import json
import re
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox, body_blocks, page
from phantoms_dagster.sandbox.tiktok import oauth
from phantoms_dagster.sandbox.tiktok.app import open_id
from phantoms_dagster.sandbox.tiktok.state import (
    ALL_SCOPES,
    SCOPES,
    UPLOAD_URL_SECONDS,
    SandboxPost,
    TikTokRefusal,
    TikTokState,
    TikTokUpload,
    invalid,
)
from phantoms_dagster.sandbox.tokens import Token, token_of
from phantoms_dagster.sandbox.watch_page import player

VIDEO_TYPES = ("video/mp4", "video/quicktime", "video/webm")
READ_BYTES = 1 << 20
MAX_IDS = 20
MAX_DESCRIPTION = 150
_TOLD = {"id", "create_time", "cover_image_url", "share_url", "video_description", "title", "embed_html", "embed_link", "is_aigc"}
_MEASURED = {"duration", "height", "width", "like_count", "comment_count", "share_count", "view_count"}
FIELDS = frozenset(_TOLD | _MEASURED)
USER_FIELDS = frozenset({"open_id", "union_id", "avatar_url", "display_name"})
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")

Call = Callable[[web.Request, str], Awaitable[dict[str, Any]]]


def _envelope(data: dict[str, Any], status: int = 200, code: str = "ok", message: str = "") -> web.Response:
    error = {"code": code, "message": message, "log_id": uuid.uuid4().hex.upper()}
    return web.json_response({"data": data, "error": error}, status=status)


def _token(request: web.Request, sandbox: Sandbox) -> Token:
    scheme, _, text = request.headers.get("Authorization", "").partition(" ")
    token = token_of(sandbox, "tiktok", text, ALL_SCOPES) if scheme == "Bearer" else None
    if token is None or not token.alive:
        raise TikTokRefusal(401, "access_token_invalid", "The access token is invalid or not found in the request.")
    return token


async def _body(request: web.Request, code: str) -> dict[str, Any]:
    if request.content_type != "application/json":
        raise invalid("Content-Type must be application/json; charset=UTF-8", code=code)
    try:
        body = json.loads(await request.read())
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise invalid("The request body is not a JSON object", code=code)
    return body


def _object(body: dict[str, Any], name: str, code: str) -> dict[str, Any]:
    value = body.get(name)
    if not isinstance(value, dict):
        raise invalid(f"{name} is required", code=code)
    return value


def _fields(request: web.Request, known: frozenset[str] = FIELDS) -> list[str]:
    fields = [f.strip() for f in request.query.get("fields", "").split(",") if f.strip()]
    if not fields or not known.issuperset(fields):
        raise invalid("fields is required; unknown: " + ", ".join(sorted(set(fields) - known)), code="invalid_params")
    return fields


def _slot(request: web.Request, upload: TikTokUpload) -> dict[str, Any]:
    url = request.url.origin().with_path("/tiktok/upload/video/")
    query = {"upload_id": upload.publish_id[-19:], "upload_token": upload.token}
    return {"publish_id": upload.publish_id, "upload_url": str(url.with_query(query))}


class _TikTokApi:
    """The calls with a bearer token. Each returns the envelope's data or raises TikTokRefusal."""

    def __init__(self, state: TikTokState) -> None:
        self.state = state

    def handler(self, endpoint: str, call: Call) -> Callable[[web.Request], Awaitable[web.Response]]:
        """Wraps a call with authorisation, the check of its scope, the rate limit and the envelope."""

        async def handle(request: web.Request) -> web.Response:
            try:
                token = _token(request, self.state.sandbox)
                if not token.scopes.intersection(SCOPES[endpoint]):
                    said = "The user did not authorize the scope required for completing this request."
                    raise TikTokRefusal(401, "scope_not_authorized", said)
                self.state.admit(token.account, endpoint)
                return _envelope(await call(request, token.account))
            except TikTokRefusal as refused:
                return _envelope({}, refused.status, refused.code, str(refused))

        return handle

    async def user_info(self, request: web.Request, account: str) -> dict[str, Any]:
        fields = _fields(request, USER_FIELDS)
        known = {
            "open_id": open_id(account),
            "union_id": open_id(f"union {account}"),
            "avatar_url": f"https://p16-sandbox.example/avatar/{account}.webp",
            "display_name": account.replace("_", " ").title(),
        }
        return {"user": {name: known[name] for name in fields}}

    async def creator_info(self, _: web.Request, account: str) -> dict[str, Any]:
        self.state.check_may_post(account, 200)
        return self.state.creator(account)

    async def init(self, request: web.Request, account: str) -> dict[str, Any]:
        body = await _body(request, "invalid_param")
        info, source = _object(body, "post_info", "invalid_param"), _object(body, "source_info", "invalid_param")
        return _slot(request, self.state.open(account, info, source))

    async def inbox_init(self, request: web.Request, account: str) -> dict[str, Any]:
        body = await _body(request, "invalid_param")
        if set(body) - {"source_info"}:
            raise invalid("The inbox takes source_info only: the creator sets everything else in the app")
        return _slot(request, self.state.open_draft(account, _object(body, "source_info", "invalid_param")))

    async def status(self, request: web.Request, account: str) -> dict[str, Any]:
        upload = self.state.known(str((await _body(request, "invalid_param")).get("publish_id", "")))
        if upload is None:
            raise TikTokRefusal(400, "invalid_publish_id", "The publish_id is invalid.")
        if upload.account != account:
            code = "token_not_authorized_for_specified_publish_id"
            raise TikTokRefusal(400, code, "The access token is not authorized for the specified publish_id.")
        return self.state.status(upload)

    async def query(self, request: web.Request, account: str) -> dict[str, Any]:
        fields = _fields(request)
        body = await _body(request, "invalid_params")
        ids = _object(body, "filters", "invalid_params").get("video_ids")
        if not isinstance(ids, list) or not 1 <= len(ids) <= MAX_IDS:
            raise invalid(f"filters.video_ids must hold 1 to {MAX_IDS} ids", code="invalid_params")
        if not all(isinstance(i, str) and i.isascii() and i.isdigit() for i in ids):
            raise invalid("filters.video_ids must be numeric", code="invalid_params")
        posts = self.state.public_posts_by_id(account, ids)
        return {"videos": [self._video(request, p, fields) for p in posts]}

    async def list_videos(self, request: web.Request, account: str) -> dict[str, Any]:
        fields = _fields(request)
        body = await _body(request, "invalid_params")
        count = body.get("max_count", 10)
        if not isinstance(count, int) or not 1 <= count <= MAX_IDS:
            raise invalid(f"max_count must be 1 to {MAX_IDS}", code="invalid_params")
        cursor = body.get("cursor")
        posts = [p for p in self.state.public_posts(account) if cursor is None or p.created_at * 1_000 < cursor]
        page = posts[:count]
        return {
            "videos": [self._video(request, p, fields) for p in page],
            "cursor": int(page[-1].created_at * 1_000) if page else 0,
            "has_more": len(posts) > count,
        }

    def _video(self, request: web.Request, post: SandboxPost, fields: list[str]) -> dict[str, Any]:
        base = str(request.url.origin()) + "/tiktok"
        known: dict[str, Any] = {
            "id": str(post.id),
            "create_time": int(post.created_at),
            "cover_image_url": f"{base}/watch/{post.id}",
            "share_url": f"{base}/watch/{post.id}",
            "video_description": post.caption[:MAX_DESCRIPTION],
            "title": post.caption[:MAX_DESCRIPTION],
            "duration": int(post.seconds),
            "height": 1920,
            "width": 1080,
            "embed_html": f'<iframe src="{base}/watch/{post.id}"></iframe>',
            "embed_link": f"{base}/watch/{post.id}",
            "is_aigc": post.is_aigc,
            **self.state.counts(post),
        }
        return {name: known[name] for name in fields}


class _Uploads:
    """The upload host. It needs no bearer token, because the URL itself grants access."""

    def __init__(self, state: TikTokState) -> None:
        self.state = state

    async def put(self, request: web.Request) -> web.Response:
        try:
            upload, size = self._admitted(request)
            done = await self._keep(request, upload, size)
        except TikTokRefusal as refused:
            await _drain(request)
            return _envelope({}, refused.status, refused.code, str(refused))
        headers = {"Content-Range": f"bytes 0-{upload.uploaded}/{upload.size}"}
        return web.Response(status=201 if done else 206, headers=headers)

    def _admitted(self, request: web.Request) -> tuple[TikTokUpload, int]:
        """Check a chunk's headers. Returns its slot and its size. Raises TikTokRefusal."""
        upload = self.state.by_token.get(request.query.get("upload_token", ""))
        if upload is None:
            raise TikTokRefusal(404, "upload_task_not_found", "The upload task is not found")
        if self.state.sandbox.now() >= upload.opened_at + UPLOAD_URL_SECONDS:
            raise TikTokRefusal(403, "upload_url_expired", "The upload_url has expired")
        if request.content_type not in VIDEO_TYPES:
            raise TikTokRefusal(400, "invalid_content_type", "Content-Type must be one of " + ", ".join(VIDEO_TYPES))
        asked = _RANGE.fullmatch(request.headers.get("Content-Range", ""))
        if asked is None:
            raise TikTokRefusal(400, "invalid_content_range", "Content-Range must be bytes first-last/total")
        first, last, total = (int(part) for part in asked.groups())
        if total != upload.size or request.content_length != last - first + 1:
            raise TikTokRefusal(400, "invalid_length", "Content-Range, Content-Length and video_size do not agree")
        expected = upload.expected()
        if upload.uploaded >= upload.size or first != expected[0]:
            raise TikTokRefusal(416, "range_not_satisfiable", "The range does not match the upload's progress")
        if last != expected[1]:
            raise TikTokRefusal(400, "invalid_chunk_size", "The chunk does not have the announced chunk_size")
        return upload, last - first + 1

    async def _keep(self, request: web.Request, upload: TikTokUpload, size: int) -> bool:
        """Store the chunk. True if it was the last. A truncated chunk raises while it is read and changes nothing."""
        first, digest, kept = upload.uploaded, upload.digest.copy(), upload.kept or self.state.intake(upload)
        at = first
        async for block in body_blocks(request, READ_BYTES):
            if upload.uploaded != first:
                break
            digest.update(block)
            kept.write(at, block)
            at += len(block)
        if upload.uploaded != first:  # the same chunk arrived twice at once, and the other one was faster
            raise TikTokRefusal(416, "range_not_satisfiable", "The range does not match the upload's progress")
        upload.kept = kept
        return self.state.accept(upload, size, digest)


async def _drain(request: web.Request) -> None:
    async for _ in request.content.iter_chunked(READ_BYTES):
        pass


async def _watch(state: TikTokState, request: web.Request) -> web.Response:
    """The page of a post, by its id or its publish_id (a post that is not public has no public id)."""
    wanted = request.match_info["id"]
    upload = state.uploads.get(wanted)
    number = upload.post_id if upload is not None else int(wanted) if wanted.isascii() and wanted.isdigit() else None
    post = state.posts.get(number or 0)
    if post is None:
        return page("No such video", "", status=404)
    caption, account = html.escape(post.caption), html.escape(post.account)
    facts = f"{post.size:,} bytes, sha256 {post.sha256}"
    player_html = player(state.sandbox, post.sha256)
    return page(f"@{account} on TikTok (sandbox)", f"{player_html}<p>{caption}</p><p><small>video {post.id}: {facts}</small></p>")


class _Inbox:
    """What the creator does with drafts in the app."""

    def __init__(self, state: TikTokState) -> None:
        self.state = state

    async def show(self, _: web.Request) -> web.Response:
        drafts = [{"publish_id": d.publish_id, "account": d.account, "state": d.draft} for d in self.state.drafts()]
        return web.json_response({"drafts": drafts})

    async def act(self, request: web.Request) -> web.Response:
        asked = await request.json()
        publish_id, wish = str(asked.get("publish_id", "")), asked.get("do")
        try:
            if wish == "post":
                self.state.finish_draft(publish_id, dict(asked.get("post_info", {})))
            elif wish == "delete":
                self.state.delete_draft(publish_id)
            else:
                return web.json_response({"error": "`do` is `post` or `delete`"}, status=400)
        except LookupError as error:
            return web.json_response({"error": str(error)}, status=404)
        return await self.show(request)


async def _hide(state: TikTokState, request: web.Request) -> web.Response:
    asked = await request.json()
    if asked.get("do") != "hide":
        return web.json_response({"error": "`do` is `hide`"}, status=400)
    try:
        state.hide(str(asked.get("id", "")))
    except LookupError as error:
        return web.json_response({"error": str(error)}, status=404)
    return web.json_response({"hidden": asked["id"]})


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The routes `tiktok.user_info`, `.creator_info`, `.init`, `.inbox_init`, `.upload`, `.status`, `.query`, `.list`, `.watch`."""
    state = TikTokState(sandbox)
    sandbox.state["tiktok"] = state
    api, uploads, inbox = _TikTokApi(state), _Uploads(state), _Inbox(state)
    return [
        web.post(
            "/tiktok/v2/post/publish/creator_info/query/", api.handler("creator_info", api.creator_info), name="tiktok.creator_info"
        ),
        web.get("/tiktok/v2/user/info/", api.handler("user_info", api.user_info), name="tiktok.user_info"),
        web.post("/tiktok/v2/post/publish/video/init/", api.handler("init", api.init), name="tiktok.init"),
        web.post("/tiktok/v2/post/publish/inbox/video/init/", api.handler("inbox_init", api.inbox_init), name="tiktok.inbox_init"),
        web.post("/tiktok/v2/post/publish/status/fetch/", api.handler("status", api.status), name="tiktok.status"),
        web.put("/tiktok/upload/video/", uploads.put, name="tiktok.upload"),
        web.post("/tiktok/v2/video/query/", api.handler("query", api.query), name="tiktok.query"),
        web.post("/tiktok/v2/video/list/", api.handler("list", api.list_videos), name="tiktok.list"),
        web.get("/tiktok/watch/{id}", functools.partial(_watch, state), name="tiktok.watch"),
        web.get("/_sandbox/tiktok/drafts", inbox.show, name="sandbox.tiktok_drafts"),
        web.post("/_sandbox/tiktok/drafts", inbox.act),
        web.post("/_sandbox/tiktok/posts", functools.partial(_hide, state)),
        *oauth.routes(sandbox),
    ]
