"""Posting to TikTok (Content Posting API, direct post, FILE_UPLOAD): the chunk plan and the protocol.

init only opens a slot; the last chunk is the one request that publishes; status/fetch is the read that resolves doubt.
An upload that is not complete cannot publish, so everything before the last chunk may be done again. The error table
and the calls that carry a token are in `tiktok_metrics.py`; making a file fit TikTok belongs in `media`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import BinaryIO, Literal

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError, Rejected, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PostJournal, PostRecord, PublishedPost, PublishJob, Tokens
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject, Value
from phantoms_dagster.providers.http import send, server_error, unexpected
from phantoms_dagster.providers.tiktok_metrics import PROVIDER, Seen, TikTokCalls, error_for, listed_since, read_status, same_video

CREATOR_INFO_PATH = "/v2/post/publish/creator_info/query/"
INIT_PATH = "/v2/post/publish/video/init/"
MAX_TITLE_UNITS = 2_200
MAX_VIDEO_BYTES = 4 << 30
ONE_CHUNK_BYTES = 64_000_000
CHUNK_BYTES = 32_000_000
READ_BYTES = 1 << 20
UPLOADS_PER_CALL = 3  # times one call sends chunks to the same slot before it gives up for now
SLOTS_PER_CALL = 2
RETRY_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 5.0  # with the doubling before it: under 30 status calls a minute
ID_WAIT = timedelta(minutes=10)
UPLOAD_URL_LIFE = timedelta(hours=1, minutes=2)  # an hour, and what our clocks may differ
CLOCK_SKEW = timedelta(minutes=2)
CONTENT_TYPES = MappingProxyType({".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm"})


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


def utf16_units(text: str) -> int:
    """The length as TikTok counts it: an emoji is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def content_of(job: PublishJob) -> str:
    """The hash of what a slot is opened for."""
    return hashlib.sha256(f"{job.sha256}\n{job.caption}".encode("utf-8", "surrogatepass")).hexdigest()


# --- what the journal keeps and what comes next ---------------------------------------------------------------------


class Slot(Value):
    """The journal's handle. `upload_url` is as good as a password; `completed_at`: when PUBLISH_COMPLETE was first seen.

    `content` is the hash of the bytes and the caption that the slot was opened for: it must never carry others.
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
    completed_at: datetime | None = None


@dataclass(frozen=True)
class Step:
    """What to do next. `offset` goes with `upload`, `error` with `fail`, `post_id` with `complete`."""

    do: Literal["upload", "wait", "restart", "fail", "complete", "lost"]
    offset: int = 0
    error: ProviderError | None = None
    post_id: str | None = None


_DECIDED = (PostState.COMMITTING, PostState.UNKNOWN)


def next_step(
    seen: Seen | None, record: PostRecord, size: int, *, refusal: ProviderError | None = None, counted: bool = False
) -> Step:
    """What an answer of status/fetch (None: it does not know the publish_id) asks for.

    `refusal`: how the chunk just sent was turned down; `counted`: TikTok has said that the last chunk is there.
    Only a read that shows fewer bytes than the file has allows the last chunk, or a new slot, once it was sent.
    """
    sent = record.state in _DECIDED
    if seen is None:
        return Step("lost" if sent else "restart")
    if seen.status == "PUBLISH_COMPLETE":
        return Step("complete", post_id=seen.post_id)
    if seen.status == "FAILED":
        unheard = Permanent(f"TikTok: failed, {seen.fail_reason}", provider=PROVIDER, code=seen.fail_reason)
        return Step("fail", error=error_for(seen.fail_reason) or unheard)
    uploaded = record.offset if seen.uploaded is None and not sent else seen.uploaded
    if seen.status != "PROCESSING_UPLOAD" or uploaded is None or uploaded >= size or counted:
        return Step("wait")
    if refusal is None:
        return Step("upload", offset=uploaded)
    if refusal.code in ("upload 403", "upload 404"):
        return Step("restart")
    if refusal.code == "upload 416":
        return Step("wait") if sent else Step("upload", offset=uploaded)
    return Step("fail", error=refusal)


# --- the protocol ---------------------------------------------------------------------------------------------------


class TikTokPublisher:
    """Posts videos. `privacy` is the wanted privacy level; `patience`: longest wait for TikTok's processing, in seconds.

    `sandbox` says that `base_url` is a stand-in, whose pages are then the posts' URLs.
    """

    provider = PROVIDER
    platform = Platform.TIKTOK

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        base_url: str,
        tokens: Tokens,
        clock: Clock,
        sandbox: bool = False,
        privacy: str = "PUBLIC_TO_EVERYONE",
        patience: float = 60.0,
        poll_seconds: float = 1.0,
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._calls = TikTokCalls(client, base_url, tokens)
        self._clock = clock
        self.sandbox = sandbox
        self._privacy = privacy
        self._patience = patience
        self._poll_seconds = poll_seconds

    async def publish(self, job: PublishJob, journal: PostJournal) -> PublishedPost:
        """Make the post, or finish making it. Raises NotYet while TikTok processes, and the errors of the table."""
        if journal.record.state in (PostState.PUBLISHED, PostState.CONFIRMED):
            return self._published(journal.record)
        if journal.record.state is PostState.FAILED:
            await _start_over(journal)
        for _ in range(SLOTS_PER_CALL):
            fresh = journal.record.state is PostState.INTENT
            if fresh:
                await self._open(job, journal)
            post = await self._carry(job, journal, fresh=fresh)
            if post is not None:
                return post
        raise Transient("TikTok: the upload address died before the upload was done", provider=PROVIDER, code="upload 403")

    async def _open(self, job: PublishJob, journal: PostJournal) -> None:
        """Ask for a slot. Its answer lost leaves an empty slot, which publishes nothing and dies after an hour."""
        _check_job(job)
        creator = await self._calls.post(job.account, CREATOR_INFO_PATH)
        plan = plan_chunks(job.size)
        data = await self._calls.post(job.account, INIT_PATH, init_body(job, self._privacy, creator, plan))
        publish_id, upload_url = data.get("publish_id"), data.get("upload_url")
        if not (isinstance(publish_id, str) and publish_id and isinstance(upload_url, str) and upload_url):
            raise Transient("TikTok opened no upload", provider=PROVIDER, code="malformed")
        slot = Slot(
            publish_id=publish_id,
            upload_url=upload_url,
            username=str(creator.get("creator_username") or job.account),
            privacy=self._privacy,
            content=content_of(job),
            size=plan.size,
            chunk_size=plan.chunk_size,
            count=plan.count,
            opened_at=self._clock.now(),
        )
        await journal.save(PostState.OPENED, handle=slot.model_dump(mode="json"), offset=0)

    async def _carry(self, job: PublishJob, journal: PostJournal, *, fresh: bool) -> PublishedPost | None:
        """Bring the journal's slot to its end; None when it is dead, published nothing and the journal says `intent`."""
        slot = Slot.model_validate(journal.record.handle)
        pauses = _Pauses(self._clock, self._patience, self._poll_seconds)
        refusal: ProviderError | None = None
        counted, uploads = False, 0
        step = Step("upload") if fresh else None
        while True:
            if step is None:
                seen = await read_status(self._calls, job.account, slot.publish_id)
                step = next_step(seen, journal.record, slot.size, refusal=refusal, counted=counted)
            if step.do == "upload" and slot.content != content_of(job):
                step = self._abandoned(journal.record, slot)
            if step.do == "restart":
                await _start_over(journal)
                return None
            if step.do == "fail":
                raise await _given_up(journal, step.error)
            if step.do == "upload":
                if uploads == UPLOADS_PER_CALL:
                    raise refusal or Transient("TikTok keeps asking for bytes it was sent", provider=PROVIDER, code="upload 206")
                uploads += 1
                refusal, counted = await self._upload(job, journal, slot, step.offset)
            elif step.do == "wait":
                await pauses.pause("TikTok still processes the video")
            else:
                post = await (self._complete(journal, step.post_id) if step.do == "complete" else self._search(job, journal))
                if post is not None:
                    return post
                await pauses.pause("TikTok has not shown the video's id yet")
            step = None

    def _abandoned(self, record: PostRecord, slot: Slot) -> Step:
        """The video was made anew since its slot was opened, and the slot holds less than the whole old one.

        Once its last chunk was sent, a runner that was taken over may still wake up and send it: the slot must die first.
        """
        left = (slot.opened_at + UPLOAD_URL_LIFE - self._clock.now()).total_seconds()
        if record.state in _DECIDED and left > 0:
            raise NotYet("an upload of an older revision of this video has to expire first", retry_after=left)
        return Step("restart")

    async def _upload(self, job: PublishJob, journal: PostJournal, slot: Slot, offset: int) -> tuple[ProviderError | None, bool]:
        """Send the chunks from `offset` on. How TikTok turned one down, if it did; whether it has counted the last."""
        try:
            _check_file(job)
        except Permanent:
            await journal.save(PostState.FAILED)
            raise
        plan = ChunkPlan(slot.size, slot.chunk_size, slot.count)
        if journal.record.state in _DECIDED and offset < plan.last_start:
            await journal.save(PostState.OPENED, offset=offset)
        while True:
            last, end = offset >= plan.last_start, plan.end(offset)
            if last:
                await journal.save(PostState.COMMITTING, offset=offset)
            try:
                response = await self._put(job, slot, offset, end, commits=last)
            except Unknown:
                await journal.save(PostState.UNKNOWN)
                raise
            if response.status_code == 201:
                if not last:
                    await journal.save(PostState.COMMITTING)
                return None, True
            if response.status_code != 206:
                code = f"upload {response.status_code}"
                return error_for(code, response=response) or unexpected(response, provider=PROVIDER), last and code == "upload 416"
            if last:
                return None, False
            offset = end
            await journal.save(PostState.UPLOADING, offset=offset)

    async def _put(self, job: PublishJob, slot: Slot, offset: int, end: int, *, commits: bool) -> httpx.Response:
        """One chunk, read from disk as it is sent. A 5xx is raised: Unknown for the chunk that publishes."""
        headers = {
            "Content-Type": CONTENT_TYPES[job.file.suffix.lower()],
            "Content-Length": str(end - offset),
            "Content-Range": f"bytes {offset}-{end - 1}/{job.size}",
        }
        with await asyncio.to_thread(job.file.open, "rb") as file:
            content = _blocks(file, offset, end)
            url = slot.upload_url
            response = await send(self._client, "PUT", url, provider=PROVIDER, commits=commits, headers=headers, content=content)
        if response.status_code >= 500:
            raise server_error(response, provider=PROVIDER, commits=commits)
        if response.status_code == 429:
            throttled = error_for("rate_limit_exceeded", response=response)
            assert throttled is not None
            raise throttled
        return response

    async def _complete(self, journal: PostJournal, post_id: str | None) -> PublishedPost | None:
        """Write the published post down; None while its public id may still come."""
        record = journal.record
        slot = Slot.model_validate(record.handle)
        now = self._clock.now()
        completed_at = slot.completed_at or now
        slot = slot.model_copy(update={"completed_at": completed_at})
        # Only public posts get an id, after moderation, which may take hours; the account cannot be kept waiting that long.
        if post_id is None and (slot.privacy == "SELF_ONLY" or now - (record.attempted_at or completed_at) > ID_WAIT):
            post_id = slot.publish_id
        handle = slot.model_dump(mode="json")
        unsaid = post_id is None and record.handle != handle
        if unsaid or record.state in (PostState.OPENED, PostState.UPLOADING):
            # TikTok does not say for how long it knows a publish_id: its last word is kept at once.
            await journal.save(PostState.COMMITTING, handle=handle)
        if post_id is None:
            return None
        url = self._url(slot, post_id)
        return self._published(await journal.save(PostState.PUBLISHED, handle=handle, remote_id=post_id, url=url))

    async def _search(self, job: PublishJob, journal: PostJournal) -> PublishedPost | None:
        """The last chunk was sent and TikTok forgot the publish_id: look among the account's public videos.

        None when the video may still turn up. Raises Rejected when a person has to look.
        """
        record = journal.record
        slot = Slot.model_validate(record.handle)
        if slot.completed_at is not None:
            return await self._complete(journal, slot.publish_id)
        since = slot.opened_at - CLOCK_SKEW
        listed = await listed_since(self._calls, job.account, since)
        found = [v for v in listed if same_video(v, job.caption, job.probe.seconds, since)]
        if len(found) == 1:
            return await self._complete(journal, str(found[0]["id"]))
        if not found and self._clock.now() - (record.attempted_at or slot.opened_at) <= ID_WAIT:
            return None
        await journal.save(PostState.UNKNOWN)
        raise Rejected(
            f"TikTok no longer knows the upload, and {len(found)} videos of @{slot.username} look like it: look at the account",
            provider=PROVIDER,
            code="invalid_publish_id",
        )

    def _url(self, slot: Slot, post_id: str) -> str:
        if self.sandbox:
            return f"{self._base_url}/watch/{post_id}"
        profile = f"https://www.tiktok.com/@{slot.username}"
        return profile if post_id == slot.publish_id else f"{profile}/video/{post_id}"

    def _published(self, record: PostRecord) -> PublishedPost:
        assert record.remote_id is not None
        assert record.url is not None
        completed_at = Slot.model_validate(record.handle).completed_at if record.handle else None
        return PublishedPost(record.remote_id, record.url, completed_at or record.attempted_at or self._clock.now())


class _Pauses:
    """Waits that double up to a bound, until the patience is used up: then NotYet."""

    def __init__(self, clock: Clock, patience: float, first: float) -> None:
        self._clock = clock
        self._left = patience
        self._next = first

    async def pause(self, why: str) -> None:
        if self._next > self._left:
            raise NotYet(why, retry_after=RETRY_SECONDS)
        self._left -= self._next
        await self._clock.sleep(self._next)
        self._next = min(2 * self._next, LONGEST_PAUSE_SECONDS)


async def _start_over(journal: PostJournal) -> None:
    await journal.save(PostState.INTENT, handle={}, offset=0)


async def _given_up(journal: PostJournal, error: ProviderError | None) -> ProviderError:
    """Nothing was posted, as TikTok says: a new slot may be opened later, or the post has failed."""
    assert error is not None
    if isinstance(error, Transient):
        await _start_over(journal)
    else:
        await journal.save(PostState.FAILED)
    return error


async def _blocks(file: BinaryIO, offset: int, end: int) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, offset)
    while offset < end:
        block = await asyncio.to_thread(file.read, min(READ_BYTES, end - offset))
        if not block:
            return
        offset += len(block)
        yield block


def _refused(message: str) -> Permanent:
    return Permanent(f"TikTok: {message}", provider=PROVIDER, code="invalid_param")


def _check_file(job: PublishJob) -> None:
    if job.file.suffix.lower() not in CONTENT_TYPES:
        raise _refused(f"takes {', '.join(CONTENT_TYPES)}, not {job.file.suffix}")
    try:
        size = job.file.stat().st_size
    except OSError as error:
        raise _refused(f"the file {job.file.name} cannot be read: {error.strerror}") from error
    if size != job.size:
        raise _refused(f"the file {job.file.name} has {size} bytes, not {job.size}")


def _check_job(job: PublishJob) -> None:
    _check_file(job)
    if job.size > MAX_VIDEO_BYTES:
        raise _refused(f"takes at most {MAX_VIDEO_BYTES} bytes, the file has {job.size}")
    if utf16_units(job.caption) > MAX_TITLE_UNITS:
        raise _refused(f"the caption has {utf16_units(job.caption)} UTF-16 units, at most {MAX_TITLE_UNITS} are taken")


def init_body(job: PublishJob, privacy: str, creator: JsonObject, plan: ChunkPlan) -> JsonObject:
    """What init is asked for, within what creator_info allows. Raises Rejected or Permanent when it does not allow it."""
    options = creator.get("privacy_level_options")
    offered = [str(option) for option in options] if isinstance(options, list) else []
    if privacy not in offered:
        message = f"TikTok: @{job.account} does not offer the privacy level {privacy}; it offers {', '.join(offered) or 'none'}"
        raise Rejected(message, provider=PROVIDER, code="privacy_level_option_mismatch")
    longest = creator.get("max_video_post_duration_sec")
    if isinstance(longest, int | float) and job.probe.seconds > longest:
        raise _refused(f"@{job.account} may post {longest} seconds, the video has {job.probe.seconds:.1f}")
    info: JsonObject = {
        "title": job.caption,
        "privacy_level": privacy,
        "disable_comment": bool(creator.get("comment_disabled")),
        "disable_duet": bool(creator.get("duet_disabled")),
        "disable_stitch": bool(creator.get("stitch_disabled")),
        "brand_content_toggle": False,
        "brand_organic_toggle": False,
        "is_aigc": True,
    }
    source: JsonObject = {
        "source": "FILE_UPLOAD",
        "video_size": plan.size,
        "chunk_size": plan.chunk_size,
        "total_chunk_count": plan.count,
    }
    return {"post_info": info, "source_info": source}
