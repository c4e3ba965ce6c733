"""What the Upload-Post stand-in's reads show of its requests: status, history, the account's posts, their metrics."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from phantoms_dagster.sandbox.growth import risen
from phantoms_dagster.sandbox.uploadpost.state import DONE, SILENT_SECONDS, SandboxRequest, UploadPostState

FINAL_SECONDS = 300.0  # how long the server keeps a final status in its cache
MEDIA_PAGE = 20
PUBLIC = "PUBLIC_TO_EVERYONE"


@dataclass
class UploadPostReads:
    """The reads of one sandbox. `final`: the final status of requests as it was last shown, and until when it is shown again."""

    state: UploadPostState
    final: dict[str, tuple[dict[str, Any], float]] = field(default_factory=dict)

    def status(self, request: SandboxRequest | None, origin: str) -> dict[str, Any] | None:
        """The answer of status; None for a request that is not known, or not yet. A final one is cached for five minutes."""
        now = self.state.sandbox.now()
        if request is None or now < request.accepted_at + self.state.lag:
            return None
        cached = self.final.get(request.row)
        if cached is not None and now < cached[1]:
            return cached[0]
        answer = self._status(request, origin)
        if answer["status"] in ("completed", "failed"):
            self.final[request.row] = (answer, now + self.state.sandbox.setting("uploadpost.final_seconds", FINAL_SECONDS))
        return answer

    def _status(self, request: SandboxRequest, origin: str) -> dict[str, Any]:
        answer: dict[str, Any] = {"request_id": request.id, "status": "processing"}
        if request.outcome == "scheduled":
            return answer | {"status": "pending", "job_id": request.job_id}
        if request.outcome == "stuck":  # it counts as failed after an hour without activity, which says nothing about the post
            silent = self.state.sandbox.now() >= request.run_at + SILENT_SECONDS
            return answer | {"status": "failed", "results": []} if silent else answer
        if not self.state.finished(request):
            return answer | {"results": [{"platform": request.platform, "status": "processing"}]}
        return answer | {"status": "completed" if request.outcome in DONE else "failed", "results": [self.result(request, origin)]}

    def result(self, request: SandboxRequest, origin: str) -> dict[str, Any]:
        """The result of a request whose run has ended."""
        result: dict[str, Any] = {"platform": request.platform, "status": "completed", "success": True}
        if request.ignored:
            result["warnings"] = [f"{name} is ignored by {request.platform}" for name in request.ignored]
        if request.outcome == "posted":
            # As TikTok's own API, it has no number for a post that is not public.
            unnamed = {"publish_id": f"v_pub_file~{_short(request.id)}"}
            return result | (self._names(request, origin) if self._named(request, "status") else unnamed)
        if request.outcome == "draft":
            return result | {"fallback_to_inbox": True, "publish_id": f"v_inbox_file~{_short(request.id)}"}
        said = f"the platform refused it: {request.outcome}"
        if request.outcome == "retryable":
            return result | {"status": "retryable", "success": False, "error_message": said}
        return result | {"status": "failed", "success": False, "error_code": request.outcome, "error_message": said}

    def _names(self, request: SandboxRequest, origin: str) -> dict[str, Any]:
        return {"platform_post_id": request.post_id, "post_url": f"{origin}/uploadpost/watch/{request.post_id}"}

    def _named(self, request: SandboxRequest, read: str) -> bool:
        """Whether that read has the platform's id of the post by now. Each may be without it. A hidden post has none."""
        if request.fields.get("privacy_level", PUBLIC) != PUBLIC:
            return False
        late = self.state.sandbox.setting("uploadpost.id_seconds", 0.0)
        ready = self.state.sandbox.now() >= request.run_at + late
        return ready and read not in self.state.sandbox.setting("uploadpost.no_ids_in", [])

    def history(self, origin: str, request_id: str) -> list[dict[str, Any]]:
        """Entries of finished requests, newest first. `request_id`: only its own."""
        return [
            self._entry(request, origin)
            for request in reversed(self.state.requests)
            if self.state.finished(request) and request_id in ("", request.id)
        ]

    def _entry(self, request: SandboxRequest, origin: str) -> dict[str, Any]:
        named = request.outcome == "posted" and self._named(request, "history")
        return {
            "request_id": request.id,
            "job_id": request.job_id or None,
            "profile_username": request.user,
            "platform": request.platform,
            "media_type": "video",
            "upload_timestamp": _iso(request.run_at),
            "success": request.outcome in DONE,
            "fallback_to_inbox": request.outcome == "draft",
            "post_title": request.fields.get("title", ""),
            **(self._names(request, origin) if named else {"platform_post_id": None, "post_url": None}),
        }

    # --- the posts as the platform shows them

    def posts(self, user: str, platform: str) -> list[SandboxRequest]:
        """The account's public posts, newest first. `uploadpost.removed`: the ids of posts that were deleted at the platform."""
        removed = self.state.sandbox.setting("uploadpost.removed", [])
        found = [
            r
            for r in self.state.requests
            if (r.user, r.platform, r.outcome) == (user, platform, "posted")
            and self.state.finished(r)
            and r.post_id not in removed
            and self._named(r, "media")
        ]
        return sorted(found, key=lambda r: (r.run_at, r.post_id), reverse=True)

    def media(self, user: str, platform: str, limit: int, after: int, origin: str) -> dict[str, Any]:
        """One page of the account's posts."""
        found = self.posts(user, platform)
        page = [
            {
                "id": r.post_id,
                "caption": r.fields.get("title", ""),
                "media_type": "VIDEO",
                "permalink": f"{origin}/uploadpost/watch/{r.post_id}",
                "timestamp": _iso(r.run_at),
            }
            for r in found[after : after + limit]
        ]
        more = str(after + limit) if after + limit < len(found) else None
        return {"success": True, "media": page, "next_cursor": more}

    def analytics(self, request: SandboxRequest, origin: str) -> dict[str, Any]:
        """The live metrics of a request's post."""
        entry: dict[str, Any] = {"success": True, **self._names(request, origin), "post_metrics": self.counts(request)}
        if request.outcome != "posted" or request not in self.posts(request.user, request.platform):
            entry = {"success": False, "post_metrics": None, "post_metrics_error": "The post was not found on the platform"}
        post = {"request_id": request.id, "profile_username": request.user, "upload_timestamp": _iso(request.run_at)}
        return {"success": True, "post": post, "platforms": {request.platform: entry}}

    def counts(self, request: SandboxRequest) -> dict[str, int]:
        """The post's metrics, the same for the same seed."""
        chance = random.Random(f"{self.state.sandbox.seed}:uploadpost:{request.post_id}")
        plateau, half_hours = chance.lognormvariate(8.0, 1.3), chance.uniform(6, 30)
        rates = {
            "likes": chance.uniform(0.03, 0.12),
            "comments": chance.uniform(0.002, 0.01),
            "shares": chance.uniform(0.001, 0.008),
        }
        views = plateau * risen(self.state.sandbox.now() - request.run_at, half_hours * 3_600)
        return {"views": int(views), **{name: int(views * rate) for name, rate in rates.items()}}


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat()


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
