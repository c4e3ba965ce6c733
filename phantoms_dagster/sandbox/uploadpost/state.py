"""The Upload-Post stand-in's state and decisions: requests by their id, limits, runs, retries. `reads` has what is shown of it."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.pace import wait_seconds

DAY_SECONDS = 86_400.0
DAILY_POSTS = {"tiktok": 15, "youtube": 10, "instagram": 50}
ANALYTICS_CALLS, ANALYTICS_SECONDS = 100, 300.0
BAD_KEYS, BLOCK_SECONDS = 10, 300.0
KEY_SECONDS = 86_400.0  # how long an idempotency key is known
SILENT_SECONDS = 3_600.0  # without activity for this long, a request counts as failed
PRIVACY = ["PUBLIC_TO_EVERYONE", "MUTUAL_FOLLOW_FRIENDS", "SELF_ONLY"]
TIKTOK_SWITCHES = ("disable_comment", "disable_duet", "disable_stitch", "brand_content_toggle", "brand_organic_toggle", "is_aigc")
DONE = ("posted", "draft")


class Refusal(Exception):
    """A refusal of the API: its HTTP status, message, more headers, and an error code if it has one."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None, *, code: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}
        self.code = code


@dataclass
class SandboxRequest:
    """One accepted upload. `outcome`: `posted`, `draft`, `scheduled`, `stuck`, `retryable`, or the code of the platform's refusal.

    `run_at`: when its present run began, or will begin if it is scheduled. `runs`: how often it was run. `row`: its key in the
    saved state. `ignored`: the fields that the platform ignores.
    """

    id: str
    key: str
    user: str
    platform: str
    fields: dict[str, str]
    size: int
    sha256: str
    accepted_at: float
    outcome: str
    post_id: str = ""
    run_at: float = 0.0
    runs: int = 1
    row: str = ""
    job_id: str = ""
    ignored: list[str] = field(default_factory=list)


@dataclass
class UploadPostState:
    """All requests of one sandbox, newest last."""

    sandbox: Sandbox
    requests: list[SandboxRequest] = field(default_factory=list)
    bad_keys: list[float] = field(default_factory=list)
    analytics_calls: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Continue from what outlived the process."""
        self.requests += self.sandbox.kept("uploadpost.request", SandboxRequest)

    # --- the key, the profile, the limits

    def check_key(self, header: str) -> None:
        """Raise Refusal for a key that is not accepted. Ten of them within five minutes block the caller for as long."""
        now = self.sandbox.now()
        self.bad_keys = [at for at in self.bad_keys if at > now - BLOCK_SECONDS]
        if len(self.bad_keys) >= BAD_KEYS:
            raise Refusal(429, "Too many requests with a wrong key", {"Retry-After": str(int(BLOCK_SECONDS))})
        scheme, _, key = header.partition(" ")
        if scheme != "Apikey" or not key or key in self.sandbox.setting("uploadpost.revoked_keys", []):
            self.bad_keys.append(now)
            raise Refusal(401, "Invalid or expired API key")

    def check_profile(self, user: str) -> None:
        """Raise Refusal if there is no such profile."""
        if not user or user in self.sandbox.setting("uploadpost.unknown_profiles", []):
            raise Refusal(404, "User not found")

    def settings(self, user: str) -> dict[str, Any]:
        """What the account may choose on TikTok. The setting `uploadpost.tiktok` (an object) overrides its fields."""
        return {
            "success": True,
            "creator_username": user,
            "privacy_level_options": list(PRIVACY),
            "comment_disabled": False,
            "duet_disabled": False,
            "stitch_disabled": False,
            "max_video_post_duration_sec": 600,
            **self.sandbox.setting("uploadpost.tiktok", {}),
        }

    def check_limit(self, user: str, platform: str) -> None:
        """Raise Refusal when the account has had its posts within 24 hours, or the plan its uploads of the month."""
        now = self.sandbox.now()
        most = self.sandbox.setting("uploadpost.daily_posts", DAILY_POSTS.get(platform))
        mine = [r.accepted_at for r in self.requests if (r.user, r.platform) == (user, platform)]
        mine = [at for at in mine if at > now - DAY_SECONDS]
        if most is not None and len(mine) >= most:
            reset = min(mine, default=now) + DAY_SECONDS
            raise Refusal(429, f"Daily limit reached for {platform}", _used_up(most, reset))
        plan = self.sandbox.setting("uploadpost.monthly_uploads", None)
        month = datetime.fromtimestamp(now, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
        if plan is not None and sum(r.accepted_at >= month.timestamp() for r in self.requests) >= plan:
            following = month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
            raise Refusal(429, "Monthly upload limit of the plan reached", _used_up(plan, following.timestamp()))

    def count_analytics(self) -> None:
        """Count a call of live analytics. Raise Refusal for the hundred and first within five minutes."""
        now = self.sandbox.now()
        self.analytics_calls = [at for at in self.analytics_calls if at > now - ANALYTICS_SECONDS]
        if len(self.analytics_calls) >= ANALYTICS_CALLS:
            reset = self.analytics_calls[0] + ANALYTICS_SECONDS
            raise Refusal(429, "Too many analytics requests", _used_up(ANALYTICS_CALLS, reset))
        self.analytics_calls.append(now)

    # --- requests

    def known(self, request_id: str, key: str) -> SandboxRequest | None:
        """The request that has this id or key already. Both are forgotten after a time, because keys expire."""
        since = self.sandbox.now() - self.sandbox.setting("uploadpost.key_seconds", KEY_SECONDS)
        for request in reversed(self.requests):
            if request.accepted_at > since and (request.id == request_id or (key and request.key == key)):
                return request
        return None

    def same_content(self, user: str, platform: str, sha256: str) -> SandboxRequest | None:
        """The request with the same content "within a short window". Its length is not documented, so by default it is 0."""
        since = self.sandbox.now() - self.sandbox.setting("uploadpost.dedupe_seconds", 0.0)
        for request in reversed(self.requests):
            if (request.user, request.platform, request.sha256) == (user, platform, sha256) and request.accepted_at > since:
                return request
        return None

    def find(self, *, request_id: str = "", job_id: str = "") -> SandboxRequest | None:
        """The newest request with this id, or of this job."""
        for request in reversed(self.requests):
            if (request_id and request.id == request_id) or (job_id and request.job_id == job_id):
                return request
        return None

    def accept(
        self, request_id: str, key: str, fields: dict[str, str], size: int, sha256: str, *, at: float | None = None
    ) -> SandboxRequest:
        """Accept an upload, which is what publishes it. `at`: it is scheduled for that time."""
        user, platform, now = fields["user"], fields["platform[]"], self.sandbox.now()
        kept = {name: value for name, value in fields.items() if name != "video"}
        ignored = [name for name in self.sandbox.setting("uploadpost.ignored_fields", []) if name in kept]
        row = str(self.sandbox.number("uploadpost.request"))
        request = SandboxRequest(
            request_id, key, user, platform, kept, size, sha256, now, "scheduled", run_at=now, row=row, ignored=ignored
        )
        self.requests.append(request)
        if at is None:
            self._run(request)
        else:
            request.run_at, request.job_id = at, str(uuid.uuid5(uuid.NAMESPACE_OID, f"{self.sandbox.seed}:job:{row}"))
            self._keep(request)
        return request

    def run_due(self) -> None:
        """Run the scheduled requests whose time has come."""
        for request in self.requests:
            if request.outcome == "scheduled" and request.run_at <= self.sandbox.now():
                self._run(request)

    def cancel(self, request: SandboxRequest) -> None:
        """Cancel a scheduled request."""
        self.requests.remove(request)
        self.sandbox.forget("uploadpost.request", request.row)

    def reschedule(self, request: SandboxRequest, at: float) -> None:
        """Give a scheduled request another time."""
        request.run_at = at
        self._keep(request)

    def finished(self, request: SandboxRequest) -> bool:
        """Whether its present run has ended."""
        if request.outcome in ("stuck", "scheduled"):
            return False
        processing = wait_seconds(self.sandbox, "uploadpost.processing_seconds", request.id)
        return self.sandbox.now() >= request.run_at + self.lag + processing

    @property
    def lag(self) -> float:
        """How long a request is not in the status after it was accepted."""
        return float(self.sandbox.setting("uploadpost.status_lag_seconds", 1.0))

    def retry(self, request: SandboxRequest) -> None:
        """Run a failed request again, from the stored media. Raise Refusal when nothing failed."""
        if not self.finished(request) or request.outcome in DONE:
            raise Refusal(409, "No failed platforms to retry")
        request.runs += 1
        request.run_at = self.sandbox.now()
        self._run(request)

    def _run(self, request: SandboxRequest) -> None:
        outcome = "draft" if self.sandbox.setting("uploadpost.fallback_to_inbox", False) else "posted"
        if request.runs <= self.sandbox.setting("uploadpost.retryable_runs", 0):
            outcome = "retryable"
        request.outcome = self.sandbox.setting("uploadpost.error_code", None) or outcome
        if request.outcome in DONE:
            self._record(request)
        self._keep(request)
        self._announce(request)

    def _announce(self, request: SandboxRequest) -> None:
        """Send the event of a run's end. It has no id of the request and no signature."""
        url = self.sandbox.setting("uploadpost.webhook_url", None)
        if url is None or request.outcome == "stuck":
            return
        at = request.run_at + self.lag + wait_seconds(self.sandbox, "uploadpost.processing_seconds", request.id)
        error = None if request.outcome in DONE else request.outcome
        told = {
            "event": "upload_completed",
            "profile_username": request.user,
            "platform": request.platform,
            "media_type": "video",
            "title": request.fields.get("title", ""),
            "caption": request.fields.get("title", ""),
            "result": {"success": error is None, "url": None, "publish_id": None, "error": error},
            "created_at": datetime.fromtimestamp(at, UTC).isoformat(),
            **({"job_id": request.job_id} if request.job_id else {}),
        }
        self.sandbox.webhooks.send(url, json.dumps(told).encode(), dict, at=at)

    def _keep(self, request: SandboxRequest) -> None:
        self.sandbox.keep("uploadpost.request", request.row, request)

    def _record(self, request: SandboxRequest) -> None:
        facts = {
            "account": request.user,
            "size": request.size,
            "sha256": request.sha256,
            "via": "uploadpost",
            "request_id": request.id,
        }
        if request.outcome == "draft":
            self.sandbox.record("draft", platform=request.platform, **facts)
            return
        number = self.sandbox.number("uploadpost.post")
        request.post_id = str(7_500_000_000_000_000_000 + (self.sandbox.seed % 10**5) * 10**12 + number)
        words = {"title": request.fields.get("title", ""), "caption": request.fields.get("title", "")}
        chosen = {"privacy": request.fields.get("privacy_level", ""), "is_aigc": request.fields.get("is_aigc") == "true"}
        self.sandbox.record("post", platform=request.platform, remote_id=request.post_id, **facts, **words, **chosen)


def _used_up(limit: int, reset: float) -> dict[str, str]:
    return {"X-RateLimit-Limit": str(limit), "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(reset))}
