"""The chunk plan of an upload, its form in the journal, and the next step after an answer of status/fetch. All functions are pure.

`publisher` carries the steps out; `api` makes the calls.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from phantoms_dagster.domain.errors import Permanent, ProviderError
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.publication import MAY_BE_OUT, PostRecord
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import Value
from phantoms_dagster.platforms.tiktok.api import PROVIDER, PublishStatus, error_for

ONE_CHUNK_BYTES = 64_000_000
CHUNK_BYTES = 32_000_000
DECIDED = MAY_BE_OUT  # the last chunk may have been sent

# --- the plan of an upload ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ChunkPlan:
    """How a file is divided. Every chunk has `chunk_size` bytes, except the last, which takes the remainder."""

    size: int
    chunk_size: int
    count: int

    @property
    def last_start(self) -> int:
        """The offset of the last chunk. The request with this offset publishes."""
        return (self.count - 1) * self.chunk_size

    def end(self, offset: int) -> int:
        """The end (exclusive) of the chunk that contains `offset`."""
        return self.size if offset >= self.last_start else (offset // self.chunk_size + 1) * self.chunk_size


def plan_chunks(size: int) -> ChunkPlan:
    """A chunk plan that is valid under every reading of the guide (MB or MiB; one chunk or several at 64 MB)."""
    if size <= ONE_CHUNK_BYTES:
        return ChunkPlan(size, size, 1)
    return ChunkPlan(size, CHUNK_BYTES, size // CHUNK_BYTES)


def content_of(job: PublishJob) -> str:
    """The hash of the bytes and the caption for which a slot is opened."""
    return hashlib.sha256(f"{job.sha256}\n{job.caption}".encode("utf-8", "surrogatepass")).hexdigest()


# --- what the journal keeps and what comes next ---------------------------------------------------------------------


class UploadSlot(Value):
    """The journal's handle. `upload_url` is a secret.

    `committed_at`: when the last chunk was last sent. `handed_over_at`: when the draft was first seen in the creator's inbox.
    `completed_at`: when PUBLISH_COMPLETE was first seen. `content`: the hash of the bytes and the caption for which the slot was
    opened; the slot must never carry others. `caption` and `seconds` help to find the video in the account's list.
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
    handed_over_at: datetime | None = None
    completed_at: datetime | None = None
    caption: str = ""
    seconds: float = 0.0


def post_url(slot: UploadSlot, remote_id: str, *, base_url: str | None = None) -> str:
    """The post's URL; the creator's profile until the public id is known. `base_url`: the sandbox's, if it is a sandbox post."""
    if base_url is not None:
        return f"{base_url}/watch/{remote_id}"
    profile = f"https://www.tiktok.com/@{slot.username}"
    return f"{profile}/video/{remote_id}" if is_public_id(remote_id) else profile


def is_public_id(remote_id: str) -> bool:
    """Whether the id is that of a public video, and not the publish_id of an upload."""
    return remote_id.isascii() and remote_id.isdigit()


@dataclass(frozen=True)
class ChunkStep:
    """The next step. `upload` has an `offset`, `fail` an `error`, and `complete` a `post_id`.

    `inbox`: the creator has the draft.
    """

    do: Literal["upload", "wait", "restart", "fail", "inbox", "complete", "lost"]
    offset: int = 0
    error: ProviderError | None = None
    post_id: str | None = None


def next_step(
    seen: PublishStatus | None, record: PostRecord, size: int, *, refusal: ProviderError | None = None, counted: bool = False
) -> ChunkStep:
    """The next step after an answer of status/fetch. None: TikTok does not know the publish_id.

    `refusal`: the error with which the last request's chunk was refused. `counted`: TikTok confirmed that it has the last chunk.
    After the last chunk was sent, it may be sent again only if a read shows that TikTok has fewer bytes than the file.
    """
    sent = record.state in DECIDED
    if seen is None and record.state is PostState.HANDED_OVER:
        return ChunkStep("inbox")  # TikTok does not say how long it knows the publish_id of a draft
    if seen is None:
        return ChunkStep("lost" if sent else "restart")
    if seen.status == "PUBLISH_COMPLETE":
        return ChunkStep("complete", post_id=seen.post_id)
    if seen.status == "FAILED":
        unheard = Permanent(f"TikTok: failed, {seen.fail_reason}", provider=PROVIDER, code=seen.fail_reason)
        return ChunkStep("fail", error=error_for(seen.fail_reason) or unheard)
    if seen.status == "SEND_TO_USER_INBOX" or record.state is PostState.HANDED_OVER:
        return ChunkStep("inbox")
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
