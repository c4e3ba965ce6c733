"""The YouTube stand-in's channels and videos: the format of each part of a video, and the growth of its counters."""

from __future__ import annotations

import base64
import functools
import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import Any

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.growth import risen
from phantoms_dagster.sandbox.mp4 import mp4_seconds

HOUR = 3_600.0
DAY = 24 * HOUR
ACCOUNTS_KEPT = 1_024
# Files that count as videos: MP4, QuickTime, Matroska and WebM.
_MAGIC = ((4, b"ftyp"), (0, b"\x1a\x45\xdf\xa3"))
_FAILED = ("failed", "rejected")
_OPTIONAL = ("tags", "defaultLanguage", "defaultAudioLanguage")


def short_hash(*parts: object, length: int) -> str:
    """A stable identifier made of letters, digits, - and _."""
    digest = hashlib.sha256("\0".join(str(p) for p in parts).encode()).digest()
    return base64.urlsafe_b64encode(digest).decode()[:length]


@functools.lru_cache(ACCOUNTS_KEPT)
def channel_id(account: str) -> str:
    """The id of an account's channel. The uploads playlist has the same id with the prefix UU."""
    return "UC" + short_hash("channel", account, length=22)


def uploads_id(account: str) -> str:
    """The id of the playlist of an account's uploads."""
    return "UU" + channel_id(account)[2:]


def timestamp(seconds: float) -> str:
    """Seconds since the epoch in the API's format."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class YouTubeVideo:
    """One video. `head`: the first part of its bytes. `seconds`: its length. `broken`: why it cannot be processed, whatever its
    file. Times are in seconds since the epoch.
    """

    id: str
    account: str
    snippet: dict[str, Any]
    status: dict[str, Any]
    file_name: str
    size: int
    sha256: str
    head: bytes
    uploaded_at: float
    processed_at: float
    rejection: str | None = None
    broken: str | None = None
    published_at: float | None = None
    thumbnail: str | None = None
    paid: dict[str, Any] | None = None
    seconds: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.seconds = mp4_seconds(self.head)

    @property
    def privacy(self) -> str:
        """private, unlisted or public. For YouTube a missing value means public."""
        return str(self.status.get("privacyStatus", "public"))

    def failure(self) -> str | None:
        """Why the file cannot be processed; None if it can."""
        if self.broken is not None or self.size == 0:
            return self.broken or "emptyFile"
        return None if any(self.head[at : at + len(magic)] == magic for at, magic in _MAGIC) else "invalidFile"

    def upload_status(self, now: float) -> str:
        """uploaded, processed, failed or rejected."""
        if now < self.processed_at:
            return "uploaded"
        if self.failure():
            return "failed"
        return "rejected" if self.rejection else "processed"

    def resource(self, parts: tuple[str, ...], sandbox: Sandbox) -> dict[str, Any]:
        """The video in the API's format, with these parts."""
        now = sandbox.now()
        body: dict[str, Any] = {"kind": "youtube#video", "etag": short_hash(self.id, self.status, length=27), "id": self.id}
        made: dict[str, Callable[[float], dict[str, Any] | None]] = {
            "snippet": lambda _: self._snippet(sandbox),
            "status": lambda now: {**self._status(now), **self._rejected(sandbox)},
            "contentDetails": lambda now: {**(self._content_details(now) or {}), **self._blocked(sandbox)},
            "processingDetails": self._processing_details,
            "fileDetails": lambda now: self._file_details(now, sandbox),
            "statistics": lambda _: self.statistics(sandbox),
            "paidProductPlacementDetails": lambda _: {"hasPaidProductPlacement": False, **(self.paid or {})},
        }
        for part in parts:
            content = made[part](now) if part in made else None
            if content is not None:
                body[part] = content
        return body

    def stats(self, parts: tuple[str, ...], sandbox: Sandbox) -> dict[str, Any]:
        """The video in the format of batchGetStats."""
        made: dict[str, Callable[[], dict[str, Any]]] = {
            "snippet": lambda: {"publishTime": timestamp(self.uploaded_at)},
            "contentDetails": lambda: {} if self.seconds is None else {"duration": f"{self.seconds:.3f}s"},
            "statistics": lambda: {k: v for k, v in self.statistics(sandbox).items() if k != "favoriteCount"},
        }
        identity = {"kind": "youtube#videoStats", "etag": short_hash(self.id, "stats", length=27), "id": self.id}
        return {**identity, **{part: made[part]() for part in parts if part in made}}

    def _snippet(self, sandbox: Sandbox) -> dict[str, Any]:
        published = self.published_at if self.published_at is not None else self.uploaded_at
        return {
            "publishedAt": timestamp(published),
            "channelId": channel_id(self.account),
            "channelTitle": self.account,
            "title": self.snippet["title"],
            "description": self.snippet.get("description", ""),
            "categoryId": self.snippet.get("categoryId", "22"),
            "liveBroadcastContent": "none",
            "localized": {"title": self.snippet["title"], "description": self.snippet.get("description", "")},
            "thumbnails": self.thumbnails(sandbox),
            **{name: self.snippet[name] for name in _OPTIONAL if self.snippet.get(name)},
        }

    def thumbnails(self, sandbox: Sandbox) -> dict[str, Any]:
        """The thumbnails by size. Their URLs show which picture it is."""
        shown = self.thumbnail or "default"
        sizes = {"default": (120, 90), "medium": (320, 180), "high": (480, 360)}
        address = f"{sandbox.base_url}/vi/{self.id}"
        return {n: {"url": f"{address}/{n}.jpg?{shown[:12]}", "width": w, "height": h} for n, (w, h) in sizes.items()}

    def _status(self, now: float) -> dict[str, Any]:
        state = self.upload_status(now)
        answer: dict[str, Any] = {
            "uploadStatus": state,
            "privacyStatus": self.privacy,
            "license": self.status.get("license", "youtube"),
            "embeddable": self.status.get("embeddable", True),
            "publicStatsViewable": self.status.get("publicStatsViewable", True),
            "madeForKids": self.status.get("selfDeclaredMadeForKids", False),
        }
        optional = ("selfDeclaredMadeForKids", "containsSyntheticMedia", "publishAt")
        answer |= {k: self.status[k] for k in optional if k in self.status}
        if state == "failed":
            answer["failureReason"] = self.failure()
        if state == "rejected":
            answer["rejectionReason"] = self.rejection
        return answer

    def _content_details(self, _: float) -> dict[str, Any]:
        whole = round(self.seconds or 0)
        duration = f"PT{whole // 60}M{whole % 60}S" if whole >= 60 else f"PT{whole}S"
        return {"duration": duration, "dimension": "2d", "definition": "hd", "caption": "false", "projection": "rectangular"}

    def _rejected(self, sandbox: Sandbox) -> dict[str, Any]:
        """What a rejection after the publication changes."""
        reason = sandbox.setting("youtube.rejected_videos", {}).get(self.id)
        return {} if reason is None else {"uploadStatus": "rejected", "rejectionReason": reason}

    def _blocked(self, sandbox: Sandbox) -> dict[str, Any]:
        """The countries where the video is blocked, as after a claim."""
        limits = sandbox.setting("youtube.region_restrictions", {}).get(self.id)
        return {} if limits is None else {"regionRestriction": limits}

    def _processing_details(self, now: float) -> dict[str, Any]:
        states = {"uploaded": "processing", "processed": "succeeded", "failed": "failed", "rejected": "terminated"}
        answer = {
            "processingStatus": states[self.upload_status(now)],
            "fileDetailsAvailability": "available" if now >= self.processed_at else "inProgress",
        }
        return answer | ({"processingFailureReason": "transcodeFailed"} if answer["processingStatus"] == "failed" else {})

    def _file_details(self, now: float, sandbox: Sandbox) -> dict[str, Any] | None:
        """The file's details; None until the file was processed, as on YouTube."""
        if now < self.processed_at:
            return None
        length = {} if self.seconds is None else {"durationMs": str(round(self.seconds * 1_000))}
        name = sandbox.setting("youtube.file_name", "unknown")
        return {"fileName": self.file_name if name == "slug" else name, "fileSize": str(self.size), "fileType": "video", **length}

    def statistics(self, sandbox: Sandbox) -> dict[str, str]:
        """The present counters as strings, without hidden ones."""
        hidden = sandbox.setting("youtube.hidden_counters", ())
        return {k: str(v) for k, v in self.counters(sandbox, sandbox.now()).items() if k not in hidden}

    def counters(self, sandbox: Sandbox, at: float) -> dict[str, int]:
        """The counters at that time: an S-shaped curve to this video's plateau, determined by the seed, never falling."""
        chance = random.Random(f"{sandbox.seed}:{self.id}")
        plateau = 10 ** chance.uniform(2.5, 4.8)
        half_hours = chance.uniform(10, 40)
        likes, comments = chance.uniform(0.02, 0.07), chance.uniform(0.001, 0.006)
        age = 0.0 if self.published_at is None else at - self.published_at
        views = int(plateau * risen(age, half_hours * HOUR))
        return {"viewCount": views, "likeCount": int(views * likes), "favoriteCount": 0, "commentCount": int(views * comments)}

    def is_out(self, now: float) -> bool:
        """Whether anyone other than the owner can see it."""
        return self.privacy != "private" and self.upload_status(now) not in _FAILED

    def facts(self) -> dict[str, Any]:
        """The facts for its ledger entry."""
        return {
            "platform": "youtube",
            "remote_id": self.id,
            "account": self.account,
            "title": self.snippet["title"],
            "caption": self.snippet.get("description", ""),
            "size": self.size,
            "sha256": self.sha256,
            "marker": PurePosixPath(self.file_name).stem,
            "privacy": self.privacy,
        }

    def playlist_item(self, position: int, parts: tuple[str, ...]) -> dict[str, Any]:
        """The video as an item of its account's uploads playlist."""
        shown = {} if self.published_at is None else {"videoPublishedAt": timestamp(self.published_at)}
        known: dict[str, dict[str, Any]] = {
            "snippet": {
                "publishedAt": timestamp(self.uploaded_at),
                "channelId": channel_id(self.account),
                "title": self.snippet["title"],
                "playlistId": uploads_id(self.account),
                "position": position,
                "resourceId": {"kind": "youtube#video", "videoId": self.id},
            },
            "contentDetails": {"videoId": self.id, **shown},
            "status": {"privacyStatus": self.privacy},
        }
        identity = {
            "kind": "youtube#playlistItem",
            "etag": short_hash(self.id, length=27),
            "id": short_hash("item", self.id, length=48),
        }
        return {**identity, **{p: known[p] for p in parts if p in known}}
