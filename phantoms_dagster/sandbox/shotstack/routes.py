"""A stand-in for the render API Shotstack (Edit, Ingest and Serve), below `/shotstack`.

`studio` keeps the state and renders; `schema` checks Edits. Keys start with `sandbox`; each key is a separate owner. The paths
are those of api.shotstack.io: `/edit/{v1|stage}/render`, `/ingest/{v1|stage}/upload`, `/serve/{v1|stage}/assets/render/{id}`.

Settings: `shotstack.processing_seconds`, `shotstack.ingest_seconds` (both see `pace`), `shotstack.renders_in_flight` (1),
`shotstack.rate_limit` (requests to the Edit API per key and minute; None, the real one is 300), `shotstack.credits` (minutes
that may be rendered; None: no limit).
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from aiohttp import web

from phantoms_dagster.sandbox.core import SANDBOX_KEY, Sandbox
from phantoms_dagster.sandbox.shotstack.schema import merge_field, problem, seconds_of
from phantoms_dagster.sandbox.shotstack.studio import (
    UPLOAD_SECONDS,
    URL_SECONDS,
    Render,
    RenderTask,
    SandboxSource,
    ShotstackStudio,
)

WINDOW_SECONDS = 60
MAX_SECONDS = {"v1": 3 * 3600, "stage": 600}  # per render
MAX_SOURCE_BYTES = 5 << 30
MAX_INLINE_BYTES = 1 << 20  # below this size, using a thread costs more than the millisecond that it would keep the loop free
OWNER: web.RequestKey[str] = web.RequestKey("owner", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def routes(sandbox: Sandbox, render: Render | None = None, *, work_dir: Path | None = None) -> list[web.RouteDef]:
    """The routes. `render(edit, audio, destination, progress)` makes the MP4s; None: every render gives the same short video.

    Files go to `work_dir` or to a temporary directory. Pass the application to `setup`, which stops renders at shutdown.
    """
    api = _ShotstackApi(sandbox, ShotstackStudio(sandbox, render, work_dir))
    sandbox.state["shotstack"] = api.studio
    edit, ingest, serve = "/shotstack/edit/{stage}", "/shotstack/ingest/{stage}", "/shotstack/serve/{stage}"
    return [
        web.post(f"{edit}/render", api.edit(api.post_render), name="shotstack.render"),
        web.get(f"{edit}/render/{{id}}", api.edit(api.get_render), name="shotstack.status", allow_head=False),
        web.post(f"{ingest}/upload", api.rest(api.post_upload), name="shotstack.upload"),
        web.put("/shotstack/uploads/{owner}/{id}/source", api.put_source, name="shotstack.put"),
        web.get(f"{ingest}/sources/{{id}}", api.rest(api.get_source), name="shotstack.source", allow_head=False),
        web.get("/shotstack/sources/{owner}/{id}/{name}", api.source_file, name="shotstack.source_file"),
        web.get(f"{serve}/assets/render/{{id}}", api.rest(api.get_hosted), name="shotstack.hosted", allow_head=False),
        web.get("/shotstack/files/{name}", api.temporary_file, name="shotstack.file"),
        web.get("/shotstack/cdn/{owner}/{name}", api.hosted_file, name="shotstack.cdn"),
        web.get("/_sandbox/renders", api.under_way, name="sandbox.renders", allow_head=False),
    ]


def setup(app: web.Application) -> None:
    """At start, resume renders of an earlier process. At shutdown, stop renders and remove the temporary directory."""

    async def resume(starting: web.Application) -> None:
        starting[SANDBOX_KEY].state["shotstack"].resume()

    async def close(closing: web.Application) -> None:
        await closing[SANDBOX_KEY].state["shotstack"].close()

    app.on_startup.append(resume)
    app.on_cleanup.append(close)


class _ShotstackApi:
    """The handlers. The wrapper that checks the key passes the owner and the stage to them."""

    ADVICE: ClassVar = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 429: "Too Many Requests"}

    def __init__(self, sandbox: Sandbox, studio: ShotstackStudio) -> None:
        self.sandbox = sandbox
        self.studio = studio

    # --- keys and rate limits

    def edit(self, handler: Handler) -> Handler:
        """Wraps a handler of the Edit API: checks key, stage and rate; errors as `{success, message, response}`."""
        return self._guarded(handler, _edit_error, limited=True)

    def rest(self, handler: Handler) -> Handler:
        """Wraps a handler of Ingest or Serve: checks key and stage; errors as JSON:API."""
        return self._guarded(handler, _rest_error, limited=False)

    def _guarded(self, handler: Handler, refuse: Callable[[int, str], web.Response], *, limited: bool) -> Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            key = request.headers.get("x-api-key")
            if not key:
                return refuse(401, "No API key was given")
            if not key.startswith("sandbox"):
                return refuse(403, "The API key is not valid for this environment")
            if request.match_info["stage"] not in MAX_SECONDS:
                return refuse(404, f"There is no stage {request.match_info['stage']}")
            if limited and (wait := self._over_limit(key)):
                response = refuse(429, "The rate limit was exceeded: wait for the next window")
                response.headers["Retry-After"] = str(wait)
                return response
            request[OWNER] = hashlib.sha256(key.encode()).hexdigest()[:10]
            return await handler(request)

        return guarded

    def _over_limit(self, key: str) -> int:
        """Seconds until the key's next window if this one is used up, else 0."""
        limit = self.sandbox.setting("shotstack.rate_limit", None)
        now = self.sandbox.now()
        window = int(now // WINDOW_SECONDS)
        used = self.studio.windows.get((key, window), 0)
        if limit is not None and used >= int(limit):
            return max(1, round((window + 1) * WINDOW_SECONDS - now))
        self.studio.windows = {k: n for k, n in self.studio.windows.items() if k[1] == window}
        self.studio.windows[key, window] = used + 1
        return 0

    # --- Edit

    async def post_render(self, request: web.Request) -> web.Response:
        """Queue a render and bill it."""
        stage = request.match_info["stage"]
        try:
            edit = await request.json()
        except ValueError as error:
            return _edit_error(400, f"The body is no JSON: {error}")
        if (wrong := problem(edit)) is not None:
            return _edit_error(400, wrong)
        seconds = seconds_of(edit)
        if seconds > MAX_SECONDS[stage]:
            return _edit_error(400, f"A render of {seconds:g} s is longer than the limit of {MAX_SECONDS[stage]} s")
        credits_left = self.sandbox.setting("shotstack.credits", None)
        if credits_left is not None and self.studio.minutes_spent + seconds / 60 > float(credits_left):
            return _edit_error(403, "Insufficient credits to render this video")
        job = self.studio.accept(request[OWNER], stage, edit)
        marker, video_key = merge_field(edit, "ATTEMPT_ID"), merge_field(edit, "VIDEO_KEY")
        self.sandbox.record(
            "render", provider="shotstack", id=job.id, marker=marker, video_key=video_key, seconds=job.seconds, stage=stage
        )
        queued = {"message": "Render Successfully Queued", "id": job.id}
        return web.json_response({"success": True, "message": "Created", "response": queued}, status=201)

    async def get_render(self, request: web.Request) -> web.Response:
        """The status of a render; with the Edit if `?data=true` (the default, as in the API)."""
        wanted = request.query.get("data", "true")
        if wanted not in ("true", "false") or not _is_uuid(request.match_info["id"]):
            return _edit_error(400, '"data" must be a boolean and "id" a UUID')
        job = self._job(request)
        if job is None:
            return _edit_error(404, "There is no render of this id")
        now = self.sandbox.now()
        status = job.status(now)
        answer: dict[str, Any] = {"id": job.id, "owner": job.owner, "plan": "sandbox", "status": status, "error": job.error or ""}
        if status == "done":
            took = ((job.finished or now) - job.created) * 1000
            url = f"{request.url.origin()}/shotstack/files/{job.id}.mp4"
            answer |= {"duration": job.seconds, "renderTime": round(took, 2), "url": url, "poster": None, "thumbnail": None}
        if wanted == "true":
            answer["data"] = job.edit
        answer |= {"created": _iso(job.created), "updated": _iso(now)}
        return web.json_response({"success": True, "message": "OK", "response": answer})

    def _job(self, request: web.Request) -> RenderTask | None:
        job = self.studio.renders.get(request.match_info["id"])
        mine = job is not None and (job.owner, job.stage) == (request[OWNER], request.match_info["stage"])
        return job if mine else None

    # --- Ingest

    async def post_upload(self, request: web.Request) -> web.Response:
        """Return a signed URL to which a file can be PUT."""
        source = self.studio.new_source(request[OWNER], request.match_info["stage"])
        expires = int(self.sandbox.now() + UPLOAD_SECONDS)
        url = request.url.origin().with_path(f"/shotstack/uploads/{source.owner}/{source.id}/source")
        url = url.with_query({"Expires": str(expires), "Signature": self.studio.signature(source, expires)})
        attributes = {"id": source.id, "url": str(url), "expires": _iso(expires)}
        return web.json_response({"data": {"type": "upload", "id": source.id, "attributes": attributes}})

    async def put_source(self, request: web.Request) -> web.Response:
        """Object storage: requires a valid signature, a known length, and no unsigned header."""
        source = self.studio.sources.get(request.match_info["id"])
        expires, signature = request.query.get("Expires", ""), request.query.get("Signature", "")
        if source is None or not expires.isdigit() or signature != self.studio.signature(source, int(expires)):
            return _storage_error(403, "SignatureDoesNotMatch", "The request signature does not match the signature you provided.")
        if self.sandbox.now() > int(expires):
            return _storage_error(403, "AccessDenied", "Request has expired")
        if request.headers.get("Content-Type"):
            return _storage_error(403, "SignatureDoesNotMatch", "Content-Type is part of the signature and was signed empty.")
        if request.content_length is None:
            return _storage_error(411, "MissingContentLength", "You must provide the Content-Length HTTP header.")
        if request.content_length > MAX_SOURCE_BYTES:
            return _storage_error(400, "EntityTooLarge", "Your proposed upload exceeds the maximum allowed size")
        body = await request.read()  # not streamed, because a fault with `match` has already read the body
        if len(body) > MAX_INLINE_BYTES:
            await asyncio.to_thread(self.studio.received, source, body)
        else:
            self.studio.received(source, body)
        return web.Response(headers={"ETag": f'"{source.sha256[:32]}"'})

    async def get_source(self, request: web.Request) -> web.Response:
        """The status of an uploaded file."""
        source = self.studio.sources.get(request.match_info["id"])
        if source is None or (source.owner, source.stage) != (request[OWNER], request.match_info["stage"]):
            return _rest_error(404, "There is no source of this id")
        attributes = self._described(source, f"{request.url.origin()}/shotstack/sources/{source.owner}/{source.id}")
        return web.json_response({"data": {"type": "source", "id": source.id, "attributes": attributes}})

    def _described(self, source: SandboxSource, url: str) -> dict[str, Any]:
        now = self.sandbox.now()
        status = source.status(now)
        attributes: dict[str, Any] = {"id": source.id, "owner": source.owner, "status": status}
        if status == "ready":
            attributes |= {"source": f"{url}/source{source.suffix}", "duration": source.seconds}
        if status == "failed":
            attributes["error"] = source.error
        return attributes | {"created": _iso(source.created), "updated": _iso(now)}

    async def source_file(self, request: web.Request) -> web.StreamResponse:
        """An uploaded file, publicly readable like the real ones."""
        source = self.studio.sources.get(request.match_info["id"])
        return await _file(None if source is None else source.path)

    # --- for watching the sandbox; no fault affects it

    async def under_way(self, _: web.Request) -> web.Response:
        """The renders in progress, with the rendered share of each. The real API does not report a share."""
        now, studio = self.sandbox.now(), self.studio
        renders = [
            {
                "id": job.id,
                "video_key": merge_field(job.edit, "VIDEO_KEY"),
                "status": job.status(now),
                "progress": 1.0 if job.file is not None else round(studio.shares.get(job.id, 0.0), 4),
            }
            for job in studio.renders.values()
            if job.status(now) not in ("done", "failed")
        ]
        return web.json_response({"renders": renders})

    # --- finished files

    async def get_hosted(self, request: web.Request) -> web.Response:
        """Serve: the hosted copies of a render."""
        job = self._job(request)
        if job is None:
            return _rest_error(404, "There is no render of this id")
        name = f"{job.id}.mp4"
        copy = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, job.id)),
            "owner": job.owner,
            "renderId": job.id,
            "filename": name,
            "url": f"{request.url.origin()}/shotstack/cdn/{job.owner}/{name}",
            "status": "ready",
        }
        done = job.status(self.sandbox.now()) == "done"
        return web.json_response({"data": [{"type": "asset", "attributes": copy}] if done else []})

    async def temporary_file(self, request: web.Request) -> web.StreamResponse:
        """The finished file for a day."""
        job = self._finished(request.match_info["name"])
        if job is not None and self.sandbox.now() > job.created + URL_SECONDS:
            job = None
        return await _file(None if job is None else job.file)

    async def hosted_file(self, request: web.Request) -> web.StreamResponse:
        """The finished file on the CDN."""
        job = self._finished(request.match_info["name"])
        return await _file(None if job is None else job.file)

    def _finished(self, name: str) -> RenderTask | None:
        job = self.studio.renders.get(name.removesuffix(".mp4"))
        return job if job is not None and job.status(self.sandbox.now()) == "done" else None


async def _file(path: Path | None) -> web.Response:
    """A response with a file's bytes in memory: a fault can cut or slow such a body, but not a `FileResponse`."""
    if path is None or not path.exists():
        return _storage_error(404, "NoSuchKey", "The specified key does not exist.")
    inline = path.stat().st_size <= MAX_INLINE_BYTES
    body = path.read_bytes() if inline else await asyncio.to_thread(path.read_bytes)
    return web.Response(body=body, content_type="video/mp4" if path.suffix == ".mp4" else "application/octet-stream")


def _edit_error(status: int, message: str) -> web.Response:
    said = {400: "Bad Request"} | _ShotstackApi.ADVICE
    response = {"error": message} | ({"type": "rate_limit_error"} if status == 429 else {})
    return web.json_response({"success": False, "message": said[status], "response": response}, status=status)


def _rest_error(status: int, message: str) -> web.Response:
    error = {"status": str(status), "title": _ShotstackApi.ADVICE.get(status, "Error"), "detail": message}
    return web.json_response({"errors": [error]}, status=status)


def _storage_error(status: int, code: str, message: str) -> web.Response:
    text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
    return web.Response(status=status, text=text, content_type="application/xml")


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
