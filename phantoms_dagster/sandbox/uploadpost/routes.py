"""The Upload-Post stand-in's HTTP routes, below `/uploadpost/api`.

Where the documentation is silent, it does what is hardest for a client: a request is not in the status for a while after it was
accepted, keys expire, a final status is shown from a cache for five minutes even after a retry, and no content is recognised again.
Settings, all with the prefix `uploadpost.`:

- `processing_seconds` (see `pace`), `status_lag_seconds` (1), `final_seconds` (300), `id_seconds` (0: how long after it was sent a
  post has no id of the platform), `no_ids_in` ([]: reads without that id, of `status`, `history` and `media`).
- `key_seconds` (a day), `dedupe_seconds` (0), `revoked_keys` ([]), `unknown_profiles` ([]).
- `daily_posts` (TikTok 15; null: any number), `monthly_uploads` (null: any number).
- `fallback_to_inbox` (False), `error_code` (None: how the platform refuses; `stuck`: never a result), `retryable_runs` (0: how many
  runs of a request end as `retryable`), `ignored_fields` ([]: those with a warning), `removed` ([]: posts that the platform has not
  any more), `tiktok` (overrides of what the account may choose), `webhook_url` (where events go).
"""

from __future__ import annotations

import hashlib
import html
import json
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from aiohttp import BodyPartReader, web

from phantoms_dagster.sandbox.core import Sandbox, page
from phantoms_dagster.sandbox.pace import wait_seconds
from phantoms_dagster.sandbox.uploadpost.reads import MEDIA_PAGE, UploadPostReads
from phantoms_dagster.sandbox.uploadpost.state import DAY_SECONDS, TIKTOK_SWITCHES, Refusal, SandboxRequest, UploadPostState

READ_BYTES = 1 << 20
PLATFORMS = ("tiktok", "instagram", "youtube")
SYNC_SECONDS = 59.0  # a synchronous upload that takes longer becomes asynchronous
UNPUBLISHES = ("facebook", "youtube", "x", "linkedin", "threads")
KEY_HEADERS = ("Idempotency-Key", "X-Idempotency-Key", "X-Request-Id")
Call = Callable[[web.Request], Awaitable[web.Response]]


class _Api:
    def __init__(self, state: UploadPostState) -> None:
        self.state = state
        self.reads = UploadPostReads(state)

    def handler(self, call: Call) -> Call:
        """Wraps a call with the check of the key and the form of refusals."""

        async def handle(request: web.Request) -> web.Response:
            try:
                self.state.check_key(request.headers.get("Authorization", ""))
                self.state.run_due()
                return await call(request)
            except Refusal as refused:
                await _drain(request)
                body = {"success": False, "message": str(refused), **({"error_code": refused.code} if refused.code else {})}
                return web.json_response(body, status=refused.status, headers=refused.headers)

        return handle

    async def upload(self, request: web.Request) -> web.Response:
        fields, size, sha256 = await _form(request)
        key = next((request.headers[n] for n in KEY_HEADERS if n in request.headers), "")
        request_id = fields.get("request_id") or key or str(uuid.uuid4())
        known = self.state.known(request_id, key)
        if known is None:
            self._check(fields, request_id, size)
            known = self.state.same_content(fields["user"], fields["platform[]"], sha256)
        if known is None:
            self.state.check_limit(fields["user"], fields["platform[]"])
            known = self.state.accept(request_id, key, fields, size, sha256, at=self._scheduled_at(fields))
        if known.job_id:
            body = {"success": True, "request_id": known.id, "job_id": known.job_id, "scheduled_date": _iso(known.run_at)}
            return web.json_response(body, status=202)
        takes = self.state.lag + wait_seconds(self.state.sandbox, "uploadpost.processing_seconds", known.id)
        if fields.get("async_upload") != "true" and takes <= SYNC_SECONDS and known.outcome != "stuck":
            result = self.reads.result(known, str(request.url.origin()))
            return web.json_response({"success": True, "request_id": known.id, "results": {known.platform: result}})
        return web.json_response({"success": True, "request_id": known.id, "message": "Upload initiated in the background"})

    def _scheduled_at(self, fields: dict[str, str]) -> float | None:
        if fields.get("add_to_queue") == "true":
            raise Refusal(400, "the profile has no queue")
        return self._time(fields["scheduled_date"], fields.get("timezone", "UTC")) if "scheduled_date" in fields else None

    def _time(self, text: object, zone: object) -> float:
        """The time of a schedule, at most a year ahead. Raises Refusal."""
        try:
            at = datetime.fromisoformat(str(text))
            at = at if at.tzinfo is not None else at.replace(tzinfo=ZoneInfo(str(zone)))
        except (ValueError, ZoneInfoNotFoundError):
            raise Refusal(400, "scheduled_date must be an ISO date") from None
        if not 0 < at.timestamp() - self.state.sandbox.now() <= 365 * DAY_SECONDS:
            raise Refusal(400, "scheduled_date must be within the next 365 days")
        return at.timestamp()

    def _check(self, fields: dict[str, str], request_id: str, size: int) -> None:
        self.state.check_profile(fields.get("user", ""))
        if fields.get("platform[]") not in PLATFORMS:
            raise Refusal(400, "platform[] is missing or not supported")
        if not size:
            raise Refusal(400, "video is missing")
        if not _is_uuid(request_id):
            raise Refusal(400, "request_id must be a UUID")
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
        wanted = self.state.find(request_id=request.query.get("request_id", ""), job_id=request.query.get("job_id", ""))
        found = self.reads.status(wanted, str(request.url.origin()))
        if found is None:
            return web.json_response({"status": "not_found", "message": "No such request"}, status=404)
        return web.json_response(found)

    async def retry(self, request: web.Request) -> web.Response:
        """Run what failed again."""
        wanted = await self._named_in(request)
        if wanted is None:
            raise Refusal(404, "No such request")
        self.state.retry(wanted)
        return web.json_response({"success": True, "request_id": wanted.id, "message": "Retry initiated"})

    async def _named_in(self, request: web.Request) -> SandboxRequest | None:
        told = await _object(request)
        return self.state.find(request_id=str(told.get("request_id") or ""), job_id=str(told.get("job_id") or ""))

    # --- schedules

    async def scheduled(self, _: web.Request) -> web.Response:
        """The scheduled posts."""
        waiting = [r for r in self.state.requests if r.outcome == "scheduled"]
        shown = [{"job_id": r.job_id, "profile_username": r.user, "scheduled_date": _iso(r.run_at)} for r in waiting]
        return web.json_response({"success": True, "scheduled_posts": shown})

    def _waiting(self, request: web.Request) -> SandboxRequest:
        found = self.state.find(job_id=request.match_info["job_id"])
        if found is None or found.outcome != "scheduled":
            raise Refusal(404, "No such scheduled post")
        return found

    async def cancel(self, request: web.Request) -> web.Response:
        """Cancel a scheduled post."""
        self.state.cancel(self._waiting(request))
        return web.json_response({"success": True})

    async def reschedule(self, request: web.Request) -> web.Response:
        """Move a scheduled post."""
        waiting, told = self._waiting(request), await _object(request)
        self.state.reschedule(waiting, self._time(told.get("scheduled_date"), told.get("timezone", "UTC")))
        return web.json_response({"success": True, "job_id": waiting.job_id, "scheduled_date": _iso(waiting.run_at)})

    async def unpublish(self, request: web.Request) -> web.Response:
        """Delete a post at its platform, where the platform lets Upload-Post do that."""
        told = await _object(request)
        if told.get("platform") not in UNPUBLISHES:
            raise Refusal(400, "This platform does not support deletion", code="platform_not_supported")
        wanted = (str(told.get("user")), str(told.get("platform")))
        found = next((post for post in self.reads.posts(*wanted) if post.post_id == told.get("post_id")), None)
        if found is None:
            raise Refusal(404, "No such post")
        removed = self.state.sandbox.setting("uploadpost.removed", [])
        self.state.sandbox.configure({"uploadpost.removed": [*removed, found.post_id]})
        return web.json_response({"success": True, "message": "Post deleted successfully"})

    # --- reads

    async def media(self, request: web.Request) -> web.Response:
        """The account's posts, as the platform lists them."""
        self.state.check_profile(request.query.get("user", ""))
        limit, cursor = request.query.get("limit", str(MEDIA_PAGE)), request.query.get("cursor", "0")
        if not (limit.isdigit() and cursor.isdigit() and int(limit) > 0):
            raise Refusal(400, "limit or cursor is invalid")
        user, platform = request.query["user"], request.query.get("platform", "")
        origin = str(request.url.origin())
        found = self.reads.media(user, platform, min(int(limit), MEDIA_PAGE), int(cursor), origin)
        return web.json_response(found)

    async def analytics(self, request: web.Request) -> web.Response:
        """The metrics of one post, by the request's id or by the platform's."""
        self.state.count_analytics()
        wanted, post_id = request.match_info.get("request_id"), request.query.get("platform_post_id")
        if wanted is None and not (post_id and request.query.get("platform") and request.query.get("user")):
            raise Refusal(400, "platform_post_id, platform and user are required")
        found = self.state.find(request_id=wanted or "") if wanted else self._by_post_id(request.query)
        if found is None:
            raise Refusal(404, "No such post")
        return web.json_response(self.reads.analytics(found, str(request.url.origin())))

    def _by_post_id(self, query: Any) -> SandboxRequest | None:
        named = (query["user"], query["platform"], query["platform_post_id"])
        return next((r for r in self.state.requests if (r.user, r.platform, r.post_id) == named), None)

    async def settings(self, request: web.Request) -> web.Response:
        self.state.check_profile(request.query.get("profile", ""))
        return web.json_response(self.state.settings(request.query["profile"]))

    async def history(self, request: web.Request) -> web.Response:
        limit, page_number = request.query.get("limit", "10"), request.query.get("page", "1")
        if limit not in ("10", "20", "50", "100"):
            raise Refusal(400, "limit must be 10, 20, 50 or 100")
        if not page_number.isdigit() or page_number == "0":
            raise Refusal(400, "Invalid page")
        found = self.reads.history(str(request.url.origin()), request.query.get("request_id", ""))
        first = (int(page_number) - 1) * int(limit)
        body = {"history": found[first : first + int(limit)], "total": len(found), "page": int(page_number), "limit": int(limit)}
        return web.json_response(body)

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


async def _object(request: web.Request) -> dict[str, Any]:
    """The JSON object of a body. Raises Refusal."""
    try:
        told = await request.json()
    except json.JSONDecodeError:
        told = None
    if not isinstance(told, dict):
        raise Refusal(400, "the body must be a JSON object")
    return told


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


async def _drain(request: web.Request) -> None:
    async for _ in request.content.iter_chunked(READ_BYTES):
        pass


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The routes, named `uploadpost.upload`, `.status`, `.retry`, `.media` and so on."""
    state = UploadPostState(sandbox)
    sandbox.state["uploadpost"] = state
    api = _Api(state)
    base = "/uploadpost/api"
    posts = f"{base}/uploadposts"
    return [
        web.post(f"{base}/upload", api.handler(api.upload), name="uploadpost.upload"),
        web.get(f"{posts}/status", api.handler(api.status), name="uploadpost.status"),
        web.post(f"{posts}/posts/retry", api.handler(api.retry), name="uploadpost.retry"),
        web.post(f"{posts}/posts/unpublish", api.handler(api.unpublish), name="uploadpost.unpublish"),
        web.get(f"{posts}/schedule", api.handler(api.scheduled), name="uploadpost.scheduled"),
        web.delete(f"{posts}/schedule/{{job_id}}", api.handler(api.cancel), name="uploadpost.cancel"),
        web.patch(f"{posts}/schedule/{{job_id}}", api.handler(api.reschedule), name="uploadpost.reschedule"),
        web.get(f"{posts}/tiktok/settings", api.handler(api.settings), name="uploadpost.settings"),
        web.get(f"{posts}/history", api.handler(api.history), name="uploadpost.history"),
        web.get(f"{posts}/media", api.handler(api.media), name="uploadpost.media"),
        web.get(f"{posts}/post-analytics", api.handler(api.analytics), name="uploadpost.analytics"),
        web.get(f"{posts}/post-analytics/{{request_id}}", api.handler(api.analytics), name="uploadpost.analytics_of_request"),
        web.get("/uploadpost/watch/{id}", api.watch, name="uploadpost.watch"),
    ]
