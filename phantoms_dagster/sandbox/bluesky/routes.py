"""A stand-in for Bluesky: an account's own server (XRPC) and the video service, as far as posting and metrics need them.

It is as awkward as the real service can be. Creating a record under a key that exists gives 500, as a server's storage does. The
server's name differs from that of the log-in host. The answer to an upload has no `jobStatus`, contrary to the lexicon. A repeated
upload gives 409.

Settings: `bluesky.session_seconds` (7200), `bluesky.sessions_per_day` (300), `bluesky.points_per_hour` (5000),
`bluesky.videos_per_day` (25), `bluesky.processing_seconds`, `bluesky.may_upload` (true), `bluesky.barred` ([]: accounts),
`bluesky.failure` (none: the failureCode of jobs that are created from now on), `bluesky.revoked` ([]: accounts whose app password
was deleted; a session then lives until its access token ends).
"""

from __future__ import annotations

import hashlib
import html
import json
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any
from urllib.parse import quote

import regex
from aiohttp import web

from phantoms_dagster.sandbox.bluesky.state import (
    COLLECTION,
    DAY,
    SERVER,
    TID,
    UNUSED_SECONDS,
    BlueskyState,
    BlueskyVideo,
    Record,
    SandboxSession,
    address,
    blob,
    cid,
    did,
    job_status,
    jwt,
    tid,
)
from phantoms_dagster.sandbox.core import Sandbox, account_behind, body_blocks, page
from phantoms_dagster.sandbox.growth import risen
from phantoms_dagster.sandbox.uploaded_videos import Intake

MAX_VIDEO = 100_000_000
MAX_GRAPHEMES, MAX_BYTES = 300, 3_000
POINTS = 3  # of a new record
BLOCK = 1 << 18
SERVICE_AUTH_SECONDS = 1_800
REFRESH_SECONDS = 60 * 86_400
MOST_LISTED = 100


class XrpcError(Exception):
    """An error answer of XRPC."""

    def __init__(self, name: str, message: str, status: int = 400, **headers: str) -> None:
        super().__init__(message)
        self.name, self.status, self.headers = name, status, headers


class _Bluesky:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.state = BlueskyState.of(sandbox)

    def _setting(self, name: str, default: Any) -> Any:
        return self.sandbox.setting(f"bluesky.{name}", default)

    # --- sessions

    async def create_session(self, request: web.Request) -> web.Response:
        body = await _body(request)
        identifier, password = str(body.get("identifier", "")), str(body.get("password", ""))
        if not identifier or account_behind(password) != identifier or identifier in self._setting("revoked", []):
            raise XrpcError("AuthenticationRequired", "Invalid identifier or password", 401)
        since = self.sandbox.now() - DAY
        recent = [s for s in self.state.sessions.values() if s.account == identifier and s.made_at > since]
        if len(recent) >= int(self._setting("sessions_per_day", 300)):
            raise XrpcError("RateLimitExceeded", "Rate Limit Exceeded", 429, **self._reset(recent[0].made_at + DAY))
        return self._session(identifier)

    async def refresh_session(self, request: web.Request) -> web.Response:
        token = _bearer(request)
        old = next((s for s in self.state.sessions.values() if s.refresh == token), None)
        if old is None:
            raise XrpcError("InvalidToken", "Token could not be verified")
        over = self.sandbox.now() - old.made_at >= REFRESH_SECONDS
        if old.replaced or over or old.account in self._setting("revoked", []):
            raise XrpcError("ExpiredToken", "Token has been revoked")
        old.replaced = True
        self.sandbox.keep("bluesky_session", old.access, old)
        return self._session(old.account)

    def _session(self, account: str) -> web.Response:
        number = self.sandbox.number("bluesky_session")
        now, lives = self.sandbox.now(), float(self._setting("session_seconds", 7_200))
        claims = {"sub": did(account), "iat": int(now), "jti": str(number), "aud": f"did:web:{SERVER}"}
        access = jwt(scope="com.atproto.access", exp=int(now + lives), **claims)
        refresh = jwt(scope="com.atproto.refresh", exp=int(now + REFRESH_SECONDS), **claims)
        session = SandboxSession(access, refresh, account, now)
        self.state.sessions[session.access] = session
        self.sandbox.keep("bluesky_session", session.access, session)
        service = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": f"https://{SERVER}"}
        return web.json_response(
            {
                "did": did(account),
                "handle": account,
                "accessJwt": session.access,
                "refreshJwt": session.refresh,
                "didDoc": {"id": did(account), "alsoKnownAs": [f"at://{account}"], "service": [service]},
                "active": True,
            }
        )

    async def get_session(self, request: web.Request) -> web.Response:
        account = self._account(request)
        return web.json_response({"did": did(account), "handle": account, "active": True})

    def _account(self, request: web.Request) -> str:
        token = _bearer(request)
        session = self.state.sessions.get(token)
        if session is None:
            raise XrpcError("InvalidToken", "Token could not be verified")
        if self.sandbox.now() - session.made_at >= float(self._setting("session_seconds", 7_200)):
            raise XrpcError("ExpiredToken", "Token has expired")
        if session.account in self._setting("barred", []):
            raise XrpcError("AccountTakedown", "Account has been taken down", 401)
        return session.account

    async def service_auth(self, request: web.Request) -> web.Response:
        account, asked = self._account(request), request.query
        until = float(asked.get("exp", self.sandbox.now() + 60))
        if not asked.get("aud", "").startswith("did:") or until > self.sandbox.now() + SERVICE_AUTH_SECONDS:
            raise XrpcError("BadExpiration", "the expiration is too far away, or aud is no DID")
        claims = {"account": account, "aud": asked["aud"], "lxm": asked.get("lxm"), "exp": until}
        return web.json_response({"token": json.dumps(claims).encode().hex()})

    def _serviced(self, request: web.Request, audience: str, method: str) -> str:
        """The account of a service token, if the token is for this audience and method. Raises XrpcError otherwise."""
        try:
            claims = json.loads(bytes.fromhex(_bearer(request)))
        except ValueError:
            raise XrpcError("InvalidToken", "bad token", 401) from None
        if claims["aud"] != audience or claims["lxm"] != method or claims["exp"] < self.sandbox.now():
            raise XrpcError("InvalidToken", f"token is for {claims['aud']} and {claims['lxm']}", 401)
        return str(claims["account"])

    # --- videos

    async def limits(self, request: web.Request) -> web.Response:
        account = self._serviced(request, f"did:web:{quote(request.host, safe='')}", "app.bsky.video.getUploadLimits")
        left = max(0, int(self._setting("videos_per_day", 25)) - len(self._today(account)))
        may = bool(self._setting("may_upload", True))
        told: dict[str, Any] = {
            "canUpload": may and left > 0,
            "remainingDailyVideos": left,
            "remainingDailyBytes": left * MAX_VIDEO,
        }
        if not may:
            told |= {"error": "UnverifiedEmail", "message": "User is not allowed to upload videos"}
        return web.json_response(told)

    def _today(self, account: str) -> list[BlueskyVideo]:
        since = self.sandbox.now() - DAY
        return [video for video in self.state.videos.values() if video.account == account and video.sent_at > since]

    async def upload(self, request: web.Request) -> web.Response:
        account = self._serviced(request, f"did:web:{SERVER}", "com.atproto.repo.uploadBlob")
        if request.query.get("did") != did(account) or not request.query.get("name", "").endswith(".mp4"):
            raise XrpcError("InvalidRequest", "did or name is not right")
        if request.content_type != "video/mp4" or request.content_length is None:
            raise XrpcError("InvalidRequest", "expected video/mp4 with its length")
        if request.content_length > MAX_VIDEO:
            raise XrpcError("InvalidRequest", "Video is too large", 413)
        intake, digest, size = Intake(), hashlib.sha256(), 0
        async for block in body_blocks(request, BLOCK):
            intake.write(size, block)
            size += len(block)
            digest.update(block)
        sha256 = digest.hexdigest()
        ours = (v for v in self.state.videos.values() if (v.account, v.sha256) == (account, sha256) and v.failure is None)
        known = next((v for v in ours if self._there(v)), None)
        if known is not None:
            already = {"error": "already_exists", "message": "Video already processed", "jobId": known.job, "did": did(account)}
            return web.json_response({**already, "state": job_status(self.sandbox, known)["state"]}, status=409)
        facts = intake.video(self.sandbox, sha256)
        if facts is None or facts.container != "mp4" or facts.video_codec != "h264" or facts.seconds > 180:
            raise XrpcError("InvalidRequest", "this is no mp4 video of at most three minutes")
        if len(self._today(account)) >= int(self._setting("videos_per_day", 25)):
            raise XrpcError("RateLimitExceeded", "daily upload limit reached", 429)
        job = f"job-{self.sandbox.number('bluesky_job'):08d}"
        failure = self._setting("failure", None)
        video = self.state.videos[job] = BlueskyVideo(job, account, sha256, size, self.sandbox.now(), failure=failure)
        self.sandbox.keep("bluesky_video", job, video)
        return web.json_response(job_status(self.sandbox, video))  # not inside `jobStatus`, contrary to the lexicon

    def _there(self, video: BlueskyVideo) -> bool:
        return video.used or self.sandbox.now() - video.sent_at < UNUSED_SECONDS

    async def job(self, request: web.Request) -> web.Response:
        video = self.state.videos.get(request.query.get("jobId", ""))
        if video is None or not self._there(video):
            raise XrpcError("InvalidRequest", "Job not found")
        return web.json_response({"jobStatus": job_status(self.sandbox, video)})

    # --- records

    async def create_record(self, request: web.Request) -> web.Response:
        account, body = self._account(request), await _body(request)
        key, value = str(body.get("rkey") or tid(self.sandbox.now(), len(self.state.records))), body.get("record")
        if body.get("repo") not in (did(account), account):
            raise XrpcError("InvalidRequest", "Could not find repo", 400)
        if body.get("collection") != COLLECTION or not TID.fullmatch(key) or not isinstance(value, dict):
            raise XrpcError("InvalidRequest", "Input/rkey must be a TID of a post")
        video = self._video(account, value)
        since = self.sandbox.now() - 3_600
        recent = [r.made_at for r in self.state.records.values() if r.account == account and r.made_at > since]
        if (len(recent) + 1) * POINTS > int(self._setting("points_per_hour", 5_000)):
            raise XrpcError("RateLimitExceeded", "Rate Limit Exceeded", 429, **self._reset(recent[0] + 3_600))
        where = address(account, key)
        if where in self.state.records:
            # The storage fails on an existing key, and the server has no specific error for that.
            raise XrpcError("InternalServerError", "Internal Server Error", 500)
        record = Record(account, key, value, cid(json.dumps(value, sort_keys=True)), video.sha256, self.sandbox.now())
        self.state.records[where] = record
        video.used = True
        self.sandbox.keep("bluesky_record", where, record)
        self.sandbox.keep("bluesky_video", video.job, video)
        self.sandbox.record(
            "post",
            platform="bluesky",
            account=account,
            remote_id=where,
            caption=value["text"],
            title="",
            sha256=video.sha256,
            public=True,
        )
        commit = {"cid": cid(where), "rev": key}
        return web.json_response({"uri": where, "cid": record.cid, "commit": commit, "validationStatus": "valid"})

    def _video(self, account: str, value: dict[str, Any]) -> BlueskyVideo:
        """Check a record against the lexicon and return its video."""
        text = value.get("text")
        if value.get("$type") != COLLECTION or not isinstance(text, str):
            raise XrpcError("InvalidRequest", "Invalid app.bsky.feed.post record: Record must have the property text")
        if len(regex.findall(r"\X", text)) > MAX_GRAPHEMES or len(text.encode()) > MAX_BYTES:
            raise XrpcError("InvalidRequest", "Invalid record: Record/text must not be longer than 300 graphemes")
        try:
            datetime.fromisoformat(str(value.get("createdAt")))
        except ValueError:
            raise XrpcError("InvalidRequest", "Invalid record: Record/createdAt must be an valid atproto datetime") from None
        for facet in value.get("facets", ()):
            place = facet["index"]
            try:
                marked = text.encode()[place["byteStart"] : place["byteEnd"]].decode()
            except UnicodeDecodeError:
                marked = ""
            if not marked:
                raise XrpcError("InvalidRequest", "Invalid record: Record/facets marks no text")
        embed = value.get("embed") or {}
        if embed.get("$type") != "app.bsky.embed.video" or not isinstance(embed.get("video"), dict):
            raise XrpcError("InvalidRequest", "Invalid record: no video")
        for video in self.state.videos.values():
            if video.account == account and self._there(video) and blob(video) == embed["video"]:
                return video
        raise XrpcError("BlobNotFound", f"Could not find blob: {embed['video'].get('ref')}")

    async def get_record(self, request: web.Request) -> web.Response:
        self._account(request)
        asked = request.query
        where = f"at://{asked.get('repo')}/{asked.get('collection')}/{asked.get('rkey')}"
        record = self.state.records.get(where)
        if record is None:
            raise XrpcError("RecordNotFound", f"Could not locate record: {where}")
        return web.json_response({"uri": where, "cid": record.cid, "value": record.value})

    async def delete_record(self, request: web.Request) -> web.Response:
        """Delete a record. A record that does not exist is no error."""
        account, body = self._account(request), await _body(request)
        if body.get("repo") not in (did(account), account):
            raise XrpcError("InvalidRequest", "Could not find repo", 400)
        where = address(account, str(body.get("rkey")))
        if body.get("collection") == COLLECTION and self.state.records.pop(where, None) is not None:
            self.sandbox.forget("bluesky_record", where)
            self.sandbox.record("bluesky.deleted", remote_id=where)
        return web.json_response({"commit": {"cid": cid(where), "rev": tid(self.sandbox.now(), 0)}})

    async def list_records(self, request: web.Request) -> web.Response:
        self._account(request)
        asked = request.query
        limit = asked.get("limit", "50")
        most = int(limit) if limit.isdecimal() else 0
        if not 1 <= most <= MOST_LISTED:
            raise XrpcError("InvalidRequest", "Error: limit must be from 1 to 100")
        start, older = f"at://{asked.get('repo')}/{asked.get('collection')}/", asked.get("cursor", "~")
        found = sorted(
            (r.key for where, r in self.state.records.items() if where.startswith(start) and r.key < older), reverse=True
        )
        shown = [(f"{start}{key}", self.state.records[f"{start}{key}"]) for key in found[:most]]
        more = {"cursor": found[most - 1]} if len(found) > most else {}
        return web.json_response({"records": [{"uri": at, "cid": r.cid, "value": r.value} for at, r in shown], **more})

    async def posts(self, request: web.Request) -> web.Response:
        self._account(request)
        wanted = request.query.getall("uris", [])
        if not 1 <= len(wanted) <= 25:
            raise XrpcError("InvalidRequest", "Error: uris must have 1 to 25 elements")
        shown = [_counted(self.sandbox, where, self.state.records[where]) for where in wanted if where in self.state.records]
        return web.json_response({"posts": shown})

    async def show(self, request: web.Request) -> web.Response:
        where = f"at://{request.match_info['did']}/{COLLECTION}/{request.match_info['key']}"
        record = self.state.records.get(where)
        if record is None:
            return page("Not found", "", status=404)
        return page(html.escape(record.account), f"<p>{html.escape(str(record.value['text']))}</p>")

    def _reset(self, at: float) -> dict[str, str]:
        return {"Retry-After": str(max(1, int(at - self.sandbox.now()) + 1))}


def _counted(sandbox: Sandbox, where: str, record: Record) -> dict[str, object]:
    top = int(hashlib.sha256(f"{sandbox.seed}{where}".encode()).hexdigest()[:4], 16)
    likes = int(top * risen(sandbox.now() - record.made_at, 2 * DAY))
    counts = {"likeCount": likes, "replyCount": likes // 9, "repostCount": likes // 6, "quoteCount": likes // 40}
    return {"uri": where, "cid": record.cid, "author": {"did": did(record.account), "handle": record.account}, **counts}


def _bearer(request: web.Request) -> str:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    if kind != "Bearer" or not token:
        raise XrpcError("AuthMissing", "Authentication Required", 401)
    return token


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise XrpcError("InvalidRequest", "A request body is expected but none was provided")
    return body


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The stand-in's routes; faults are set by their names, `bluesky.session` to `bluesky.watch`."""
    api = _Bluesky(sandbox)

    def answering(handler: Callable[[web.Request], Awaitable[web.Response]]) -> Any:
        async def answer(request: web.Request) -> web.StreamResponse:
            try:
                return await handler(request)
            except XrpcError as error:
                body = {"error": error.name, "message": str(error)}
                return web.json_response(body, status=error.status, headers=error.headers)

        return answer

    server, video = "/bluesky/xrpc", "/bluesky/video/xrpc"
    return [
        web.post(f"{server}/com.atproto.server.createSession", answering(api.create_session), name="bluesky.session"),
        web.post(f"{server}/com.atproto.server.refreshSession", answering(api.refresh_session), name="bluesky.refresh"),
        web.get(f"{server}/com.atproto.server.getSession", answering(api.get_session), name="bluesky.whose"),
        web.get(f"{server}/com.atproto.server.getServiceAuth", answering(api.service_auth), name="bluesky.auth"),
        web.post(f"{server}/com.atproto.repo.createRecord", answering(api.create_record), name="bluesky.create"),
        web.post(f"{server}/com.atproto.repo.deleteRecord", answering(api.delete_record), name="bluesky.delete"),
        web.get(f"{server}/com.atproto.repo.getRecord", answering(api.get_record), name="bluesky.read"),
        web.get(f"{server}/com.atproto.repo.listRecords", answering(api.list_records), name="bluesky.list"),
        web.get(f"{server}/app.bsky.feed.getPosts", answering(api.posts), name="bluesky.posts"),
        web.get(f"{video}/app.bsky.video.getUploadLimits", answering(api.limits), name="bluesky.limits"),
        web.post(f"{video}/app.bsky.video.uploadVideo", answering(api.upload), name="bluesky.upload"),
        web.get(f"{video}/app.bsky.video.getJobStatus", answering(api.job), name="bluesky.job"),
        web.get("/bluesky/profile/{did}/post/{key}", api.show, name="bluesky.watch"),
    ]
