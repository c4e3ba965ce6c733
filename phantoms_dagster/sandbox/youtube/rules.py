"""The YouTube stand-in's checks: error bodies, bearer tokens, daily quotas and the rules for the fields of a video."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar
from zoneinfo import ZoneInfo

from aiohttp import web

from phantoms_dagster.sandbox.core import SANDBOX_KEY, Sandbox
from phantoms_dagster.sandbox.tokens import token_of

PACIFIC = ZoneInfo("America/Los_Angeles")  # where YouTube's quota day begins
MAX_TITLE_CHARACTERS = 100
MAX_DESCRIPTION_BYTES = 5_000
MAX_TAG_CHARACTERS = 500
MAX_FILE_BYTES = 274_877_906_944
CATEGORIES = frozenset(["1", "2", "10", "15", "17", "19", "20", "22", "23", "24", "25", "26", "27", "28", "29"])
PRIVACIES = ("private", "unlisted", "public")
# Parts that videos.insert and videos.update write, with the fields that a client may set in them.
WRITABLE: dict[str, dict[str, type]] = {
    "snippet": {
        "title": str,
        "description": str,
        "tags": list,
        "categoryId": str,
        "defaultLanguage": str,
        "defaultAudioLanguage": str,
    },
    "status": {
        "privacyStatus": str,
        "publishAt": str,
        "selfDeclaredMadeForKids": bool,
        "containsSyntheticMedia": bool,
        "license": str,
        "embeddable": bool,
        "publicStatsViewable": bool,
    },
    "paidProductPlacementDetails": {"hasPaidProductPlacement": bool},
}
# Read-only fields that a client may send back, because it may change a listed resource and send it whole. They are ignored.
READ_ONLY: dict[str, frozenset[str]] = {
    "snippet": frozenset({"publishedAt", "channelId", "channelTitle", "thumbnails", "liveBroadcastContent", "localized"}),
    "status": frozenset({"uploadStatus", "failureReason", "rejectionReason", "madeForKids"}),
    "paidProductPlacementDetails": frozenset(),
}
READ_ONLY_PARTS = frozenset({"contentDetails", "statistics", "processingDetails", "fileDetails", "id", "player"})
# Scopes, without their https://www.googleapis.com/auth/; any one of a set suffices.
UPLOADS = frozenset({"youtube.upload", "youtube", "youtube.force-ssl"})
READS = frozenset({"youtube.readonly", "youtube", "youtube.force-ssl"})
WRITES = frozenset({"youtube", "youtube.force-ssl"})
FORCE_SSL = frozenset({"youtube.force-ssl"})
ANALYTICS = frozenset({"yt-analytics.readonly", "youtube", "youtube.readonly"})
SCOPES = UPLOADS | READS | ANALYTICS
OWNER_PARTS = frozenset({"processingDetails", "fileDetails"})


class YouTubeApiError(Exception):
    """An error answer of the API. Clients distinguish errors by `reason`."""

    def __init__(self, status: int, reason: str, message: str, *, domain: str = "youtube.video") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        self.message = message
        self.domain = domain

    def response(self) -> web.Response:
        """The error in Google's format."""
        cause = {"message": self.message, "domain": self.domain, "reason": self.reason}
        body = {"error": {"code": self.status, "message": self.message, "errors": [cause]}}
        headers = {"WWW-Authenticate": 'Bearer realm="https://accounts.google.com/"'} if self.status == 401 else {}
        return web.json_response(body, status=self.status, headers=headers)


Self = TypeVar("Self")
Handler = Callable[[Self, web.Request], Awaitable[web.Response]]


def answers(handler: Handler[Self]) -> Handler[Self]:
    """A decorator that turns a YouTubeApiError into its answer."""

    @functools.wraps(handler)
    async def answer(self: Self, request: web.Request) -> web.Response:
        try:
            return await handler(self, request)
        except YouTubeApiError as error:
            await request.release()
            return error.response()

    return answer


def account_of(request: web.Request, *, required: bool = True, needs: frozenset[str] = SCOPES) -> str | None:
    """The account of the bearer token. None without a token if none is required.

    Raises YouTubeApiError 401 for an invalid or expired token, 403 for one without any of the scopes in `needs`.
    """
    header = request.headers.get("Authorization")
    if header is None:
        if not required:
            return None
        raise YouTubeApiError(401, "required", "Login Required.", domain="global")
    scheme, _, text = header.partition(" ")
    token = token_of(request.app[SANDBOX_KEY], "youtube", text, SCOPES) if scheme == "Bearer" else None
    if token is None or not token.alive:
        raise YouTubeApiError(401, "authError", "Request had invalid authentication credentials.", domain="global")
    if not token.scopes & needs:
        raise YouTubeApiError(403, "insufficientPermissions", "Request had insufficient authentication scopes.", domain="global")
    return token.account


def known(account: str | None) -> str:
    """Assert that there is an account, and return it."""
    if account is None:
        raise YouTubeApiError(401, "required", "Login Required.", domain="global")
    return account


@dataclass
class Quota:
    """A project's use since midnight in California: upload calls, batchGetStats calls, and units for everything else."""

    day: str = ""
    used: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, sandbox: Sandbox) -> Quota:
        """The quota with the saved use of earlier processes."""
        for _, (day, used) in sandbox.kept_rows("youtube.quota"):
            return cls(day, Counter(used))
        return cls()

    def charge(self, sandbox: Sandbox, *, inserts: int = 0, units: int = 0, stats: int = 0) -> None:
        """Take from the day's quota. Raises YouTubeApiError quotaExceeded, and takes nothing, if not enough is left."""
        late = float(sandbox.setting("youtube.quota_late_seconds", 0.0))
        today = datetime.fromtimestamp(sandbox.now() - late, PACIFIC).date().isoformat()
        if today != self.day:
            self.day, self.used = today, Counter()
        limits = {
            "inserts": (inserts, sandbox.setting("youtube.inserts_per_day", 100)),
            "units": (units, sandbox.setting("youtube.units_per_day", 10_000)),
            "stats": (stats, sandbox.setting("youtube.stats_per_day", 10_000)),
        }
        if any(cost and self.used[bucket] + cost > limit for bucket, (cost, limit) in limits.items()):
            raise YouTubeApiError(403, "quotaExceeded", "The request cannot be completed: quota exceeded.", domain="youtube.quota")
        for bucket, (cost, _) in limits.items():
            self.used[bucket] += cost
        sandbox.keep("youtube.quota", "used", (self.day, self.used), lazily=True)


def parts_of(request: web.Request, *, allowed: frozenset[str]) -> tuple[str, ...]:
    """The names in `part`, which may be given once with commas or several times. Raises YouTubeApiError 400."""
    names = tuple(n for value in request.query.getall("part", []) for n in value.split(",") if n)
    if not names:
        raise YouTubeApiError(400, "missingRequiredParameter", "No value for parameter 'part'.", domain="global")
    for name in names:
        if name not in allowed:
            raise YouTubeApiError(400, "unknownPart", f"'{name}' is no part of this resource.", domain="youtube.part")
    return names


def json_body(raw: bytes) -> dict[str, Any]:
    """A request's JSON. Raises YouTubeApiError 400."""
    try:
        body = json.loads(raw or b"{}")
    except ValueError as error:
        raise YouTubeApiError(400, "parseError", "Parse Error", domain="global") from error
    if not isinstance(body, dict):
        raise YouTubeApiError(400, "parseError", "Parse Error", domain="global")
    return body


def video_body(body: dict[str, Any], parts: tuple[str, ...], *, update: bool) -> dict[str, Any]:
    """The checked writable fields of the video resource in a request's body. Raises YouTubeApiError 400."""
    found: dict[str, Any] = {name: body[name] for name in ("id",) if name in body}
    for part, content in body.items():
        if part in ("id", "kind", "etag"):
            continue
        if part not in parts:
            raise YouTubeApiError(
                400, "unexpectedPart", f"The body holds '{part}', the part parameter does not.", domain="youtube.part"
            )
        if part not in READ_ONLY_PARTS:
            found[part] = _writable(part, content)
    if "snippet" in parts:
        _check_snippet(found.get("snippet", {}), update=update)
    if "status" in parts:
        _check_status(found.get("status", {}))
    return found


def _writable(part: str, content: object) -> dict[str, Any]:
    """The writable fields of a part. Read-only fields are dropped, unknown ones refused."""
    fields, kept = WRITABLE.get(part, {}), {}
    for name, value in content.items() if isinstance(content, dict) else [("", None)]:
        if name in READ_ONLY.get(part, ()):
            continue
        if name not in fields:
            message = f"Invalid JSON payload received. Unknown name \"{name}\" at 'video.{part}': Cannot find field."
            raise YouTubeApiError(400, "invalid", message, domain="global")
        if not isinstance(value, fields[name]):
            raise YouTubeApiError(400, "invalid", f"Invalid value at 'video.{part}.{name}'", domain="global")
        kept[name] = value
    return kept


def _check_snippet(snippet: dict[str, Any], *, update: bool) -> None:
    title, description = snippet.get("title", ""), snippet.get("description", "")
    if not title.strip() or len(title) > MAX_TITLE_CHARACTERS or "<" in title or ">" in title:
        raise YouTubeApiError(400, "invalidTitle", "The request metadata specifies an invalid or empty video title.")
    if len(description.encode()) > MAX_DESCRIPTION_BYTES or "<" in description or ">" in description:
        raise YouTubeApiError(400, "invalidDescription", "The request metadata specifies an invalid video description.")
    tags = snippet.get("tags", [])
    # YouTube counts the commas between tags and the quotes around a tag with a space.
    if sum(len(str(t)) + 2 * (" " in str(t)) for t in tags) + max(0, len(tags) - 1) > MAX_TAG_CHARACTERS:
        raise YouTubeApiError(400, "invalidTags", "The request metadata specifies invalid video keywords.")
    if snippet.get("categoryId", "" if update else "22") not in CATEGORIES:
        raise YouTubeApiError(400, "invalidCategoryId", "The snippet.categoryId property specifies an invalid category ID.")


def _check_status(status: dict[str, Any]) -> None:
    privacy = status.get("privacyStatus", "public")
    if privacy not in PRIVACIES or status.get("license", "youtube") not in ("youtube", "creativeCommon"):
        raise YouTubeApiError(400, "invalidVideoMetadata", "The request metadata is invalid.")
    if (at := status.get("publishAt")) is None:
        return
    try:
        when = datetime.fromisoformat(at)
    except ValueError:
        when = None
    if when is None or when.tzinfo is None or privacy != "private":  # a time in the past publishes at once
        raise YouTubeApiError(400, "invalidPublishAt", "The request metadata specifies an invalid scheduled publishing time.")
