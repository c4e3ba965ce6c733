"""The Upload-Post stand-in's state and decisions: requests by their id, limits, what became of each. `routes` has the HTTP part."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.pace import wait_seconds

DAY_SECONDS = 86_400.0
DAILY_POSTS = {"tiktok": 15, "youtube": 10, "instagram": 50}
BAD_KEYS, BLOCK_SECONDS = 10, 300.0
KEY_SECONDS = 86_400.0  # how long an idempotency key is known
PRIVACY = ["PUBLIC_TO_EVERYONE", "MUTUAL_FOLLOW_FRIENDS", "SELF_ONLY"]
TIKTOK_SWITCHES = ("disable_comment", "disable_duet", "disable_stitch", "brand_content_toggle", "brand_organic_toggle", "is_aigc")


class Refusal(Exception):
    """A refusal of the API: its HTTP status, message, and more headers."""

    def __init__(self, status: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers or {}


@dataclass
class SandboxRequest:
    """One accepted upload. `outcome`: `posted`, `draft`, or the error code with which the platform refused it."""

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


@dataclass
class UploadPostState:
    """All requests of one sandbox, newest last."""

    sandbox: Sandbox
    requests: list[SandboxRequest] = field(default_factory=list)
    bad_keys: list[float] = field(default_factory=list)

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
        """Raise Refusal when the account has had its posts within 24 hours, or the plan its uploads."""
        now = self.sandbox.now()
        most = self.sandbox.setting("uploadpost.daily_posts", DAILY_POSTS.get(platform))
        mine = [r for r in self.requests if (r.user, r.platform) == (user, platform) and r.accepted_at > now - DAY_SECONDS]
        if most is not None and len(mine) >= most:
            raise Refusal(
                429, f"Daily limit reached for {platform}", {"X-RateLimit-Limit": str(most), "X-RateLimit-Remaining": "0"}
            )
        plan = self.sandbox.setting("uploadpost.monthly_uploads", None)
        if plan is not None and len(self.requests) >= plan:
            raise Refusal(429, "Monthly upload limit of the plan reached")

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

    def accept(self, request_id: str, key: str, fields: dict[str, str], size: int, sha256: str) -> SandboxRequest:
        """Accept an upload, which is what publishes it."""
        user, platform = fields["user"], fields["platform[]"]
        outcome = "draft" if self.sandbox.setting("uploadpost.fallback_to_inbox", False) else "posted"
        outcome = self.sandbox.setting("uploadpost.error_code", None) or outcome
        kept = {name: value for name, value in fields.items() if name != "video"}
        request = SandboxRequest(request_id, key, user, platform, kept, size, sha256, self.sandbox.now(), outcome)
        if outcome in ("posted", "draft"):
            self._record(request)
        self.requests.append(request)
        self.sandbox.keep("uploadpost.request", str(self.sandbox.number("uploadpost.request")), request)
        return request

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

    def status(self, request_id: str, origin: str) -> dict[str, Any] | None:
        """The answer of status; None for a request that is not known, or not yet."""
        request = next((r for r in reversed(self.requests) if r.id == request_id), None)
        now, lag = self.sandbox.now(), self.sandbox.setting("uploadpost.status_lag_seconds", 1.0)
        if request is None or now < request.accepted_at + lag:
            return None
        answer: dict[str, Any] = {"request_id": request.id, "status": "processing"}
        if request.outcome == "stuck":  # it counts as failed after an hour without activity, which says nothing about the post
            return answer if now < request.accepted_at + 3_600 else answer | {"status": "failed", "results": []}
        processing = wait_seconds(self.sandbox, "uploadpost.processing_seconds", request.id)
        if now < request.accepted_at + lag + processing:
            return answer | {"results": [{"platform": request.platform, "status": "processing"}]}
        result: dict[str, Any] = {"platform": request.platform, "status": "completed", "success": True}
        if request.outcome == "posted":
            result |= {"platform_post_id": request.post_id, "url": f"{origin}/uploadpost/watch/{request.post_id}"}
        elif request.outcome == "draft":
            result |= {"fallback_to_inbox": True, "publish_id": f"v_inbox_file~{_short(request.id)}"}
        else:
            said = f"the platform refused it: {request.outcome}"
            result |= {"status": "failed", "success": False, "error_code": request.outcome, "error_message": said}
        whole = "completed" if result["success"] else "failed"
        return answer | {"status": whole, "results": [result]}


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
