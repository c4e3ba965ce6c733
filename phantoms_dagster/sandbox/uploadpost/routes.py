"""The Upload-Post stand-in's HTTP routes, below `/uploadpost/api`: upload, status, history, and what an account may choose.

Where the documentation is silent, it does what is hardest for a client: a request is not in the status for a while after it was
accepted, keys expire, and no content is recognised again. Settings: `uploadpost.processing_seconds` (see `pace`),
`uploadpost.status_lag_seconds` (1), `uploadpost.key_seconds` (a day), `uploadpost.dedupe_seconds` (0), `uploadpost.daily_posts`
(TikTok 15; null: any number), `uploadpost.monthly_uploads` (null), `uploadpost.fallback_to_inbox` (False), `uploadpost.error_code`
(None: how the platform refuses; `stuck`: never a result), `uploadpost.revoked_keys` ([]), `uploadpost.unknown_profiles` ([]),
`uploadpost.tiktok` (overrides of what the account may choose).
"""

from __future__ import annotations

import hashlib
import html
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import BodyPartReader, web

from phantoms_dagster.sandbox.core import Sandbox, page
from phantoms_dagster.sandbox.uploadpost.state import TIKTOK_SWITCHES, Refusal, UploadPostState

READ_BYTES = 1 << 20
PLATFORMS = ("tiktok", "instagram", "youtube")
KEY_HEADERS = ("Idempotency-Key", "X-Idempotency-Key", "X-Request-Id")
Call = Callable[[web.Request], Awaitable[web.Response]]


class _Api:
    def __init__(self, state: UploadPostState) -> None:
        self.state = state

    def handler(self, call: Call) -> Call:
        """Wraps a call with the check of the key and the form of refusals."""

        async def handle(request: web.Request) -> web.Response:
            try:
                self.state.check_key(request.headers.get("Authorization", ""))
                return await call(request)
            except Refusal as refused:
                await _drain(request)
                body = {"success": False, "message": str(refused)}
                return web.json_response(body, status=refused.status, headers=refused.headers)

        return handle

    async def upload(self, request: web.Request) -> web.Response:
        fields, size, sha256 = await _form(request)
        key = next(
            (request.headers[n] for n in ("Idempotency-Key", "X-Idempotency-Key", "X-Request-Id") if n in request.headers), ""
        )
        request_id = fields.get("request_id") or key or str(uuid.uuid4())
        known = self.state.known(request_id, key)
        if known is None:
            self._check(fields, request_id, size)
            known = self.state.same_content(fields["user"], fields["platform[]"], sha256)
        if known is None:
            self.state.check_limit(fields["user"], fields["platform[]"])
            known = self.state.accept(request_id, key, fields, size, sha256)
        return web.json_response({"success": True, "request_id": known.id, "message": "Upload initiated in the background"})

    def _check(self, fields: dict[str, str], request_id: str, size: int) -> None:
        self.state.check_profile(fields.get("user", ""))
        if fields.get("platform[]") not in PLATFORMS:
            raise Refusal(400, "platform[] is missing or not supported")
        if not size:
            raise Refusal(400, "video is missing")
        if not _is_uuid(request_id):
            raise Refusal(400, "request_id must be a UUID")
        if fields.get("async_upload") != "true":
            raise Refusal(400, "the sandbox takes asynchronous uploads only")
        if fields["platform[]"] == "tiktok":
            self._check_tiktok(fields)

    def _check_tiktok(self, fields: dict[str, str]) -> None:
        if fields.get("privacy_level") not in self.state.settings(fields["user"])["privacy_level_options"]:
            raise Refusal(400, "privacy_level is missing or not offered by the account")
        for name in TIKTOK_SWITCHES:
            if fields.get(name, "false") not in ("true", "false"):
                raise Refusal(400, f"{name} must be true or false")
        if fields.get("post_mode", "DIRECT_POST") not in ("DIRECT_POST", "MEDIA_UPLOAD"):
            raise Refusal(400, "post_mode must be DIRECT_POST or MEDIA_UPLOAD")

    async def status(self, request: web.Request) -> web.Response:
        found = self.state.status(request.query.get("request_id", ""), str(request.url.origin()))
        if found is None:
            return web.json_response({"status": "not_found", "message": "No such request"}, status=404)
        return web.json_response(found)

    async def settings(self, request: web.Request) -> web.Response:
        self.state.check_profile(request.query.get("profile", ""))
        return web.json_response(self.state.settings(request.query["profile"]))

    async def history(self, request: web.Request) -> web.Response:
        if request.query.get("limit", "10") not in ("10", "20", "50", "100"):
            raise Refusal(400, "limit must be 10, 20, 50 or 100")
        shown: list[dict[str, Any]] = [
            {"request_id": r.id, "platform": r.platform, "platform_post_id": r.post_id, "success": r.outcome == "posted"}
            for r in reversed(self.state.requests)
        ]
        return web.json_response({"success": True, "history": shown[: int(request.query.get("limit", "10"))]})

    async def watch(self, request: web.Request) -> web.Response:
        """The page of a post."""
        wanted = request.match_info["id"]
        post = next((r for r in self.state.requests if r.post_id == wanted), None)
        if post is None:
            return page("No such video", "", status=404)
        caption = html.escape(post.fields.get("title", ""))
        return page(
            f"@{html.escape(post.user)} on {post.platform} (sandbox, by Upload-Post)", f"<p>{caption}</p><p>{post.size:,} bytes</p>"
        )


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


async def _form(request: web.Request) -> tuple[dict[str, str], int, str]:
    """The fields, and the size and hash of the video. Raises Refusal. A form that breaks off raises while it is read."""
    if not request.content_type.startswith("multipart/"):
        raise Refusal(400, "the body must be multipart/form-data")
    fields: dict[str, str] = {}
    size, digest = 0, hashlib.sha256()
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader) or not part.name:
            raise Refusal(400, "each part needs a name")
        if part.name != "video":
            fields[part.name] = await part.text()
            continue
        while block := await part.read_chunk(READ_BYTES):
            size += len(block)
            digest.update(block)
    return fields, size, digest.hexdigest()


async def _drain(request: web.Request) -> None:
    async for _ in request.content.iter_chunked(READ_BYTES):
        pass


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The routes `uploadpost.upload`, `.status`, `.settings`, `.history` and `.watch`."""
    state = UploadPostState(sandbox)
    sandbox.state["uploadpost"] = state
    api = _Api(state)
    base = "/uploadpost/api"
    return [
        web.post(f"{base}/upload", api.handler(api.upload), name="uploadpost.upload"),
        web.get(f"{base}/uploadposts/status", api.handler(api.status), name="uploadpost.status"),
        web.get(f"{base}/uploadposts/tiktok/settings", api.handler(api.settings), name="uploadpost.settings"),
        web.get(f"{base}/uploadposts/history", api.handler(api.history), name="uploadpost.history"),
        web.get("/uploadpost/watch/{id}", api.watch, name="uploadpost.watch"),
    ]
