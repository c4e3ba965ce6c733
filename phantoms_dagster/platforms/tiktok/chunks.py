"""How a TikTok upload is cut into chunks, what the journal keeps of it, and what each answer of status/fetch asks for. All pure.

Carrying a step out belongs in `tiktok`, asking TikTok in `tiktok_api`; making a file fit TikTok belongs in `media`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from phantoms_dagster.domain.errors import Permanent, ProviderError
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.publication import MAY_BE_OUT, PostRecord
from phantoms_dagster.domain.values import Value
from phantoms_dagster.platforms.tiktok.api import PROVIDER, Seen, error_for

ONE_CHUNK_BYTES = 64_000_000
CHUNK_BYTES = 32_000_000
DECIDED = MAY_BE_OUT  # the last chunk may have been sent

# --- the plan of an upload ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkPlan:
    """How a file is cut. Every chunk has `chunk_size` bytes but the last, which takes the remainder."""

    size: int
    chunk_size: int
    count: int

    @property
    def last_start(self) -> int:
        """Where the last chunk begins: the request that carries this offset publishes."""
        return (self.count - 1) * self.chunk_size

    def end(self, offset: int) -> int:
        """Where the chunk that holds `offset` ends (not included)."""
        return self.size if offset >= self.last_start else (offset // self.chunk_size + 1) * self.chunk_size


def plan_chunks(size: int) -> ChunkPlan:
    """A plan that is legal however the guide is read (MB or MiB; 64 MB by floor or by "must be several chunks")."""
    if size <= ONE_CHUNK_BYTES:
        return ChunkPlan(size, size, 1)
    return ChunkPlan(size, CHUNK_BYTES, size // CHUNK_BYTES)


def content_of(job: PublishJob) -> str:
    """The hash of what a slot is opened for."""
    return hashlib.sha256(f"{job.sha256}\n{job.caption}".encode("utf-8", "surrogatepass")).hexdigest()


# --- what the journal keeps and what comes next ---------------------------------------------------------------------


class UploadSlot(Value):
    """The journal's handle. `upload_url` is as good as a password.

    `committed_at`: when the last chunk was last sent; `completed_at`: when PUBLISH_COMPLETE was first seen. `content` is the hash
    of the bytes and the caption that the slot was opened for: it must never carry others. `caption` and `seconds` are for
    finding the video in the account's list.
    """

    publish_id: str
    upload_url: str
    username: str
    privacy: str
    content: str
    size: int
    chunk_size: int
    count: int
    opened_at: datetime
    committed_at: datetime | None = None
    completed_at: datetime | None = None
    caption: str = ""
    seconds: float = 0.0


def post_url(slot: UploadSlot, remote_id: str, *, base_url: str | None = None) -> str:
    """Where the post can be seen: the creator's profile until its public id is known. `base_url` is that of the sandbox."""
    if base_url is not None:
        return f"{base_url}/watch/{remote_id}"
    profile = f"https://www.tiktok.com/@{slot.username}"
    return f"{profile}/video/{remote_id}" if is_public_id(remote_id) else profile


def is_public_id(remote_id: str) -> bool:
    """Whether it is the number of a public video, and not the publish_id of an upload."""
    return remote_id.isascii() and remote_id.isdigit()


@dataclass(frozen=True)
class ChunkStep:
    """What to do next. `offset` goes with `upload`, `error` with `fail`, `post_id` with `complete`."""

    do: Literal["upload", "wait", "restart", "fail", "complete", "lost"]
    offset: int = 0
    error: ProviderError | None = None
    post_id: str | None = None


def next_step(
    seen: Seen | None, record: PostRecord, size: int, *, refusal: ProviderError | None = None, counted: bool = False
) -> ChunkStep:
    """What an answer of status/fetch (None: it does not know the publish_id) asks for.

    `refusal`: how the chunk just sent was turned down; `counted`: TikTok has said that the last chunk is there.
    Only a read that shows fewer bytes than the file has allows the last chunk, or a new slot, once it was sent.
    """
    sent = record.state in DECIDED
    if seen is None:
        return ChunkStep("lost" if sent else "restart")
    if seen.status == "PUBLISH_COMPLETE":
        return ChunkStep("complete", post_id=seen.post_id)
    if seen.status == "FAILED":
        unheard = Permanent(f"TikTok: failed, {seen.fail_reason}", provider=PROVIDER, code=seen.fail_reason)
        return ChunkStep("fail", error=error_for(seen.fail_reason) or unheard)
    uploaded = record.offset if seen.uploaded is None and not sent else seen.uploaded
    if seen.status != "PROCESSING_UPLOAD" or uploaded is None or uploaded >= size or counted:
        return ChunkStep("wait")
    if refusal is None:
        return ChunkStep("upload", offset=uploaded)
    if refusal.code in ("upload 403", "upload 404"):
        return ChunkStep("restart")
    if refusal.code == "upload 416":
        return ChunkStep("wait") if sent else ChunkStep("upload", offset=uploaded)
    return ChunkStep("fail", error=refusal)
