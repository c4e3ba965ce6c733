"""The TikTok stand-in's state and decisions: creators, upload slots, drafts, posts, limits, metrics. `routes` has the HTTP part.

A refusal is raised as `TikTokRefusal`, which becomes the API's own error.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.growth import risen
from phantoms_dagster.sandbox.pace import wait_seconds
from phantoms_dagster.sandbox.tiktok.events import send_event
from phantoms_dagster.sandbox.uploaded_videos import Intake, VideoFacts, intake

MEGABYTE = 1_000_000  # decimal, as in the official example
MIN_CHUNK_BYTES = 5 * MEGABYTE
MAX_CHUNK_BYTES = 64 * MEGABYTE
MAX_LAST_CHUNK_BYTES = 128 * MEGABYTE
MAX_CHUNKS = 1_000
MAX_VIDEO_BYTES = 4 << 30
MAX_TITLE_UNITS = 2_200
UPLOAD_URL_SECONDS = 3_600
DAY_SECONDS = 86_400
# Calls per user token in a sliding minute.
CALLS_PER_MINUTE = {"user_info": 600, "creator_info": 20, "init": 6, "inbox_init": 6, "status": 30, "query": 600, "list": 600}
DAILY_POSTS = 15  # per creator, by all apps together
UNAUDITED_USERS = 5  # who may post with an app in a day until TikTok has audited it
# How long status/fetch knows a publish_id after its end is not documented.
PUBLISH_ID_SECONDS = DAY_SECONDS
PENDING_SHARES = 5  # drafts of a creator
CONTAINERS = frozenset({"mp4", "mov", "webm"})
VIDEO_CODECS = frozenset({"h264", "hevc", "vp8", "vp9"})
MIN_FPS, MAX_FPS = 23.0, 60.0
MIN_SIDE, MAX_SIDE = 360, 4096
MAX_SECONDS = 600.0  # the API's maximum; a creator may have less
PUBLIC_OPTIONS = ["PUBLIC_TO_EVERYONE", "MUTUAL_FOLLOW_FRIENDS", "SELF_ONLY"]
PRIVATE_OPTIONS = ["FOLLOWER_OF_CREATOR", "MUTUAL_FOLLOW_FRIENDS", "SELF_ONLY"]


# A call needs any one of these scopes.
SCOPES = {
    "user_info": ("user.info.basic",),
    "creator_info": ("video.publish",),
    "init": ("video.publish",),
    "inbox_init": ("video.upload",),
    "status": ("video.publish", "video.upload"),
    "query": ("video.list",),
    "list": ("video.list",),
}
ALL_SCOPES = frozenset(scope for scopes in SCOPES.values() for scope in scopes)


class TikTokRefusal(Exception):
    """A refusal of the API: HTTP status (which may be 200), error code, message."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass
class TikTokUpload:
    """One publish_id: its parameters, the bytes received so far, its outcome. Times are in seconds since the epoch.

    `inbox`: it becomes a draft, whose `post_info` is what the creator chose in the app. `draft`: `waiting`, `posted` or `deleted`,
    empty before it is delivered. `digest` is the hash of the bytes so far. `kept` holds them until the last one has arrived and the
    video was checked.
    """

    publish_id: str
    token: str
    account: str
    post_info: dict[str, Any]
    size: int
    chunk_size: int
    chunks: int
    opened_at: float
    uploaded: int = 0
    digest: Any = field(default_factory=hashlib.sha256, metadata={"saved": False})
    kept: Intake | None = field(default=None, metadata={"saved": False})
    accepted_at: float | None = None
    fail_reason: str | None = None
    post_id: int | None = None
    inbox: bool = False
    draft: str = ""
    seconds: float = 0.0
    sha256: str = ""

    def expected(self) -> tuple[int, int]:
        """The first and last byte (inclusive) of the next chunk. The last chunk takes the remainder."""
        last_start = (self.chunks - 1) * self.chunk_size
        end = self.size if self.uploaded >= last_start else self.uploaded + self.chunk_size
        return self.uploaded, end - 1


@dataclass(frozen=True)
class SandboxPost:
    """A video on TikTok. `public_at`: when everyone can see it; None: never (not public to everyone).

    `seconds`: its length, 0 if unknown.
    """

    id: int
    account: str
    caption: str
    size: int
    sha256: str
    is_aigc: bool
    seconds: float
    created_at: float
    public_at: float | None


class TikTokState:
    """All creators of one sandbox. Each account, identified by its token, has its own posts and limits."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.uploads: dict[str, TikTokUpload] = {}
        self.by_token: dict[str, TikTokUpload] = {}
        self.posts: dict[int, SandboxPost] = {}
        self._by_name: dict[str, SandboxPost] = {}  # by id, as in answers
        self._by_account: dict[str, list[SandboxPost]] = {}  # oldest first
        self._calls: dict[tuple[str, str], deque[float]] = {}
        self._restore()

    # --- what outlives the process

    def _restore(self) -> None:
        for upload in self.sandbox.kept("tiktok.upload", TikTokUpload):
            self._know(upload)
            if upload.accepted_at is None and upload.uploaded:
                upload.kept = self.intake(upload)
                try:
                    upload.digest = upload.kept.digest(upload.uploaded)
                except ValueError:  # the file was removed: the upload starts again
                    upload.uploaded = 0
        for post in self.sandbox.kept("tiktok.post", SandboxPost):
            self._show(post)
        if self.sandbox.store is not None:
            open_ones = [u for u in self.uploads.values() if u.accepted_at is None]
            self.sandbox.store.keep_uploads("tiktok", (_file_name(u) for u in open_ones))

    def _know(self, upload: TikTokUpload) -> None:
        self.uploads[upload.publish_id] = self.by_token[upload.token] = upload

    def _show(self, post: SandboxPost) -> None:
        self.posts[post.id] = self._by_name[str(post.id)] = post
        self._by_account.setdefault(post.account, []).append(post)

    def intake(self, upload: TikTokUpload) -> Intake:
        """The receiver for its bytes. Only an upload in several chunks must outlive the process: a chunk counts once complete."""
        return intake(self.sandbox, _file_name(upload)) if upload.chunks > 1 else Intake()

    # --- limits

    def admit(self, account: str, endpoint: str) -> None:
        """Count a call against the sliding minute. Raises TikTokRefusal (429); a refused call is not counted."""
        if not self.sandbox.setting("tiktok.rate_limits", True):
            return
        now = self.sandbox.now()
        calls = self._calls.setdefault((account, endpoint), deque())
        while calls and calls[0] <= now - 60:
            calls.popleft()
        if len(calls) >= CALLS_PER_MINUTE[endpoint]:
            raise TikTokRefusal(429, "rate_limit_exceeded", "The API rate limit was exceeded. Please try again later.")
        calls.append(now)

    def check_may_post(self, account: str, status: int) -> None:
        """Raise TikTokRefusal with the given HTTP status if the account may not post: creator_info uses 200, init 403."""
        if account in self.sandbox.setting("tiktok.banned_accounts", []):
            raise TikTokRefusal(status, "spam_risk_user_banned_from_posting", "The user is banned from making new posts.")
        users = self.sandbox.setting("tiktok.daily_users", None if self._audited else UNAUDITED_USERS)
        if users is not None and len(self._users_of_the_day() - {account}) >= users:
            raise TikTokRefusal(status, "reached_active_user_cap", "The daily quota for active publishing users is reached.")
        cap = self.sandbox.setting("tiktok.daily_posts", DAILY_POSTS)
        since = self.sandbox.now() - DAY_SECONDS
        if cap is not None and sum(p.created_at > since for p in self._by_account.get(account, [])) >= cap:
            raise TikTokRefusal(
                status, "spam_risk_too_many_posts", "The daily post cap from the API is reached for the current user."
            )

    @property
    def _audited(self) -> bool:
        return bool(self.sandbox.setting("tiktok.audited", True))

    def _users_of_the_day(self) -> set[str]:
        """The accounts that posted with the app within a day. The cap counts users, not posts."""
        since = self.sandbox.now() - DAY_SECONDS
        return {account for account, posts in self._by_account.items() if any(p.created_at > since for p in reversed(posts))}

    # --- creators

    def _private(self, account: str) -> bool:
        return account in self.sandbox.setting("tiktok.private_accounts", [])

    def creator(self, account: str) -> dict[str, Any]:
        """The data of creator_info. The setting `tiktok.creator` (an object) overrides its fields."""
        return {
            "creator_avatar_url": f"https://p16-sandbox.example/avatar/{account}.webp",
            "creator_username": account,
            "creator_nickname": account.replace("_", " ").title(),
            "privacy_level_options": list(PRIVATE_OPTIONS if self._private(account) else PUBLIC_OPTIONS),
            "comment_disabled": False,
            "duet_disabled": False,
            "stitch_disabled": False,
            "max_video_post_duration_sec": 600,
            **self.sandbox.setting("tiktok.creator", {}),
        }

    # --- uploads

    def open(self, account: str, post_info: dict[str, Any], source: dict[str, Any]) -> TikTokUpload:
        """Open a slot for a FILE_UPLOAD. Raises TikTokRefusal for everything that init refuses."""
        self._check_post_info(account, post_info)
        size, chunk_size, chunks = check_source(source)
        self.check_may_post(account, 403)
        return self._opened(account, post_info, size, chunk_size, chunks)

    def _opened(
        self, account: str, post_info: dict[str, Any], size: int, chunk_size: int, chunks: int, *, inbox: bool = False
    ) -> TikTokUpload:
        number = self.sandbox.number("tiktok.upload")
        secret = hashlib.sha256(f"{self.sandbox.seed}:tiktok:{number}".encode()).hexdigest()
        publish_id = f"v_{'inbox' if inbox else 'pub'}_file~v2-1.{self.sandbox.seed % 10**6:06d}{number:013d}"
        upload = TikTokUpload(publish_id, secret, account, post_info, size, chunk_size, chunks, self.sandbox.now(), inbox=inbox)
        self._know(upload)
        self.sandbox.keep("tiktok.upload", publish_id, upload)
        return upload

    def open_draft(self, account: str, source: dict[str, Any]) -> TikTokUpload:
        """Open a slot for a draft. Raises TikTokRefusal for everything that the inbox's init refuses."""
        size, chunk_size, chunks = check_source(source)
        if account in self.sandbox.setting("tiktok.banned_accounts", []):
            raise TikTokRefusal(403, "spam_risk_user_banned_from_posting", "The user is banned from making new posts.")
        cap = self.sandbox.setting("tiktok.pending_shares", PENDING_SHARES)
        if cap is not None and self._pending_shares(account) >= cap:
            raise TikTokRefusal(403, "spam_risk_too_many_pending_share", "The user has too many pending shares within 24 hours.")
        return self._opened(account, {}, size, chunk_size, chunks, inbox=True)

    def _pending_shares(self, account: str) -> int:
        """How many shares count as pending. It is not documented, so all of the day count, and all drafts that still wait."""
        since = self.sandbox.now() - DAY_SECONDS
        mine = [upload for upload in self.uploads.values() if upload.inbox and upload.account == account]
        return sum(upload.opened_at > since or upload.draft == "waiting" for upload in mine)

    def _check_post_info(self, account: str, info: dict[str, Any]) -> None:
        privacy = info.get("privacy_level")
        if not isinstance(privacy, str):
            raise invalid("post_info.privacy_level is required")
        if privacy not in self.creator(account)["privacy_level_options"]:
            raise TikTokRefusal(
                403, "privacy_level_option_mismatch", "privacy_level is not among the creator's privacy_level_options"
            )
        if not self._audited and not (privacy == "SELF_ONLY" and self._private(account)):
            code = "unaudited_client_can_only_post_to_private_accounts"
            raise TikTokRefusal(403, code, "Unaudited clients can only post to a private account.")
        title = info.get("title", "")
        if not isinstance(title, str) or len(title.encode("utf-16-le", "surrogatepass")) // 2 > MAX_TITLE_UNITS:
            raise invalid(f"post_info.title must be text of at most {MAX_TITLE_UNITS} UTF-16 code units")
        for name in ("brand_content_toggle", "brand_organic_toggle"):
            if not isinstance(info.get(name), bool):
                raise invalid(f"post_info.{name} is required and must be a boolean")
        # The guidelines exclude it. What the API does is not documented.
        if info["brand_content_toggle"] and privacy == "SELF_ONLY":
            raise invalid("post_info.brand_content_toggle must be false for SELF_ONLY")
        for name in ("disable_duet", "disable_stitch", "disable_comment", "is_aigc"):
            if not isinstance(info.get(name, False), bool):
                raise invalid(f"post_info.{name} must be a boolean")
        cover = info.get("video_cover_timestamp_ms", 0)
        if not _is_count(cover):
            raise invalid("post_info.video_cover_timestamp_ms must be a number of milliseconds")

    def accept(self, upload: TikTokUpload, size: int, digest: Any) -> bool:
        """Accept a complete chunk. `digest` is the hash up to its end. True if posting starts with it."""
        upload.uploaded += size
        upload.digest = digest
        self.sandbox.keep("tiktok.upload", upload.publish_id, upload)
        if upload.uploaded < upload.size:
            return False
        upload.accepted_at = self.sandbox.now()
        assert upload.kept is not None
        video = upload.kept.video(self.sandbox, digest.hexdigest())
        upload.kept.discard()
        upload.kept = None
        upload.fail_reason = self.sandbox.setting("tiktok.fail_reason", None)
        if upload.fail_reason is None and self.sandbox.setting("tiktok.check_media", True):
            upload.fail_reason = fault(video, float(self.creator(upload.account)["max_video_post_duration_sec"]))
        upload.seconds, upload.sha256 = video.seconds if video else 0.0, digest.hexdigest()
        ends_at = upload.accepted_at + self._processing(upload)
        if upload.fail_reason is not None:
            send_event(self.sandbox, upload, "failed", {"reason": upload.fail_reason}, at=ends_at)
        elif upload.inbox:
            self._deliver(upload)
            send_event(self.sandbox, upload, "inbox_delivered", {}, at=ends_at)
        else:
            self._post(upload, upload.accepted_at)
        return True

    # --- drafts

    def _deliver(self, upload: TikTokUpload) -> None:
        upload.draft = "waiting"
        self.sandbox.keep("tiktok.upload", upload.publish_id, upload)
        facts = {"account": upload.account, "size": upload.size, "sha256": upload.sha256}
        self.sandbox.record("draft", platform="tiktok", publish_id=upload.publish_id, **facts)

    def drafts(self) -> list[TikTokUpload]:
        """All drafts that were delivered, oldest first."""
        return [upload for upload in self.uploads.values() if upload.draft]

    def finish_draft(self, publish_id: str, info: dict[str, Any]) -> None:
        """The creator posts a draft. `info`: what the creator chose, as in post_info. Raises LookupError when none waits."""
        upload = self._waiting_draft(publish_id)
        upload.post_info = {"privacy_level": "PUBLIC_TO_EVERYONE", **info}
        upload.draft = "posted"
        self._post(upload, self.sandbox.now())
        self.sandbox.keep("tiktok.upload", publish_id, upload)

    def delete_draft(self, publish_id: str) -> None:
        """The creator deletes a draft. Its status stays, because the documentation promises no other. Raises LookupError."""
        upload = self._waiting_draft(publish_id)
        upload.draft = "deleted"
        self.sandbox.keep("tiktok.upload", publish_id, upload)

    def _waiting_draft(self, publish_id: str) -> TikTokUpload:
        upload = self.uploads.get(publish_id)
        if upload is None or upload.draft != "waiting":
            raise LookupError(f"no draft {publish_id} waits")
        return upload

    def _post(self, upload: TikTokUpload, now: float) -> None:
        info = upload.post_info
        number = self.sandbox.number("tiktok.post")
        post_id = 7_400_000_000_000_000_000 + (self.sandbox.seed % 10**5) * 10**12 + number
        public = info["privacy_level"] == "PUBLIC_TO_EVERYONE"
        delay = 0.0 if upload.inbox else self._processing(upload)
        hidden = delay + wait_seconds(self.sandbox, "tiktok.moderation_seconds", upload.publish_id)
        post = SandboxPost(
            id=post_id,
            account=upload.account,
            caption=info.get("title", ""),
            size=upload.size,
            sha256=upload.sha256,
            is_aigc=info.get("is_aigc", False),
            seconds=upload.seconds,
            created_at=now,
            public_at=now + hidden if public else None,
        )
        upload.post_id = post_id
        self._show(post)
        self.sandbox.keep("tiktok.post", str(post_id), post)
        self.sandbox.record(
            "post",
            platform="tiktok",
            remote_id=str(post_id),
            publish_id=upload.publish_id,
            account=upload.account,
            title=post.caption,
            caption=post.caption,
            privacy=info["privacy_level"],
            is_aigc=post.is_aigc,
            size=post.size,
            sha256=post.sha256,
        )
        send_event(self.sandbox, upload, "complete", {}, at=now + delay)
        if post.public_at is not None:
            send_event(self.sandbox, upload, "publicly_available", {"post_id": str(post_id)}, at=post.public_at)

    def _processing(self, upload: TikTokUpload) -> float:
        return wait_seconds(self.sandbox, "tiktok.processing_seconds", upload.publish_id)

    def known(self, publish_id: str) -> TikTokUpload | None:
        """The upload; None if status/fetch does not know it (any more). It knows one that has not ended, such as a draft."""
        upload = self.uploads.get(publish_id)
        if upload is None or upload.accepted_at is None or upload.draft in ("waiting", "deleted"):
            return upload
        post = self.posts.get(upload.post_id or 0)
        ended_at = max(upload.accepted_at + self._processing(upload), post.created_at if post is not None else 0.0)
        seconds = self.sandbox.setting("tiktok.publish_id_seconds", PUBLISH_ID_SECONDS)
        return None if seconds is not None and self.sandbox.now() >= ended_at + float(seconds) else upload

    def status(self, upload: TikTokUpload) -> dict[str, Any]:
        """The data of status/fetch."""
        now = self.sandbox.now()
        data: dict[str, Any] = {"status": "PROCESSING_UPLOAD", "uploaded_bytes": upload.uploaded}
        if upload.accepted_at is None:
            return data
        if now < upload.accepted_at + float(self.sandbox.setting("tiktok.count_lag_seconds", 0.0)):
            return data | {"uploaded_bytes": (upload.chunks - 1) * upload.chunk_size}
        if now < upload.accepted_at + self._processing(upload):
            return data
        if upload.fail_reason is not None:
            return data | {"status": "FAILED", "fail_reason": upload.fail_reason}
        if upload.draft in ("waiting", "deleted") or (upload.draft and not self.sandbox.setting("tiktok.drafts_tell", True)):
            return data | {"status": "SEND_TO_USER_INBOX"}
        post = self.posts.get(upload.post_id or 0)
        public = post is not None and post.public_at is not None and post.public_at <= now
        return data | {"status": "PUBLISH_COMPLETE", "publicaly_available_post_id": [upload.post_id] if public else []}

    # --- display

    def hide(self, post_id: str) -> None:
        """A public post is deleted, made private or taken down. Raises LookupError when there is none with that id."""
        post = self._by_name.get(post_id)
        if post is None or not self._shown([post]):
            raise LookupError(f"no public post {post_id}")
        self.sandbox.configure({"tiktok.hidden_posts": [*self.sandbox.setting("tiktok.hidden_posts", ()), post_id]})
        upload = next(upload for upload in self.uploads.values() if upload.post_id == post.id)
        send_event(self.sandbox, upload, "no_longer_publicaly_available", {"post_id": post_id}, at=self.sandbox.now())

    def public_posts(self, account: str) -> list[SandboxPost]:
        """The account's public posts, newest first."""
        return self._shown(self._by_account.get(account, []))

    def public_posts_by_id(self, account: str, ids: Iterable[str]) -> list[SandboxPost]:
        """The account's public posts with these ids, newest first."""
        found = [self._by_name[i] for i in set(ids) if i in self._by_name]
        return self._shown(p for p in found if p.account == account)

    def _shown(self, posts: Iterable[SandboxPost]) -> list[SandboxPost]:
        now = self.sandbox.now()
        hidden = self.sandbox.setting("tiktok.hidden_posts", ())
        public = [p for p in posts if p.public_at is not None and p.public_at <= now and str(p.id) not in hidden]
        return sorted(public, key=lambda p: (p.created_at, p.id), reverse=True)

    def counts(self, post: SandboxPost) -> dict[str, int]:
        """The post's metrics: an S-shaped curve from zero to the post's plateau, the same for the same seed."""
        chance = random.Random(f"{self.sandbox.seed}:tiktok:{post.id}")
        plateau, half_hours = chance.lognormvariate(8.0, 1.3), chance.uniform(6, 30)
        rates = [chance.uniform(0.03, 0.12), chance.uniform(0.002, 0.01), chance.uniform(0.001, 0.008)]
        views = plateau * risen(self.sandbox.now() - post.created_at, half_hours * 3_600)
        likes, comments, shares = (int(views * rate) for rate in rates)
        return {"view_count": int(views), "like_count": likes, "comment_count": comments, "share_count": shares}


def _file_name(upload: TikTokUpload) -> str:
    return f"tiktok.{upload.publish_id}"


def invalid(message: str, *, code: str = "invalid_param") -> TikTokRefusal:
    """A refusal with status 400. Posting calls use invalid_param, display calls invalid_params."""
    return TikTokRefusal(400, code, message)


def fault(video: VideoFacts | None, longest: float) -> str | None:
    """The fail_reason for a video that violates the media limits, else None. `longest`: the creator's maximum, in seconds."""
    if video is None or video.container not in CONTAINERS or video.video_codec not in VIDEO_CODECS:
        return "file_format_check_failed"
    if not 0 < video.seconds <= min(longest, MAX_SECONDS):
        return "duration_check_failed"
    if not MIN_FPS <= video.fps <= MAX_FPS + 0.01:
        return "frame_rate_check_failed"
    if not MIN_SIDE <= min(video.width, video.height) <= max(video.width, video.height) <= MAX_SIDE:
        return "picture_size_check_failed"
    return None


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def check_source(source: dict[str, Any]) -> tuple[int, int, int]:
    """video_size, chunk_size and total_chunk_count. Raises TikTokRefusal if they violate the media transfer guide.

    Where the guide is ambiguous ("over 64 MB must be several chunks" and floor), both readings must be met.
    """
    kind = source.get("source")
    if kind == "PULL_FROM_URL":
        raise TikTokRefusal(403, "url_ownership_unverified", "The ownership of the video_url's domain is not verified.")
    if kind != "FILE_UPLOAD":
        raise invalid("source_info.source must be FILE_UPLOAD or PULL_FROM_URL")
    values = [source.get(name) for name in ("video_size", "chunk_size", "total_chunk_count")]
    if not all(_is_count(v) and v for v in values):
        raise invalid("source_info needs video_size, chunk_size and total_chunk_count as positive numbers")
    size, chunk_size, chunks = (int(v) for v in values if v is not None)
    if size > MAX_VIDEO_BYTES:
        raise invalid("source_info.video_size is over 4 GB")
    if chunks != size // chunk_size or not 1 <= chunks <= MAX_CHUNKS:
        raise invalid("The total chunk count is invalid: it must be floor(video_size / chunk_size), 1 to 1000")
    if size < MIN_CHUNK_BYTES and chunk_size != size:
        raise invalid("The chunk size is invalid: a video below 5 MB goes as one chunk")
    if size >= MIN_CHUNK_BYTES and not MIN_CHUNK_BYTES <= chunk_size <= MAX_CHUNK_BYTES:
        raise invalid("The chunk size is invalid: 5 MB to 64 MB")
    if size > MAX_CHUNK_BYTES and chunks == 1:
        raise invalid("The total chunk count is invalid: a video over 64 MB goes in several chunks")
    if size - (chunks - 1) * chunk_size > MAX_LAST_CHUNK_BYTES:
        raise invalid("The last chunk is over 128 MB")
    return size, chunk_size, chunks
