"""Posts to TikTok, and drafts for the creator's inbox (Content Posting API, direct post and upload, FILE_UPLOAD).

`open` calls creator_info and init, which only open a slot. A draft needs no creator_info, and its init takes no settings of a post.
`commit` sends the last chunk, the one request that publishes, or puts the draft into the inbox. `find` calls status/fetch. An
incomplete upload cannot publish, so everything before the last chunk may be repeated. `api` has the calls with a token and the
table of errors, `chunks` the chunk plan and the decisions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError, Rejected, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PublishJob, Tokens
from phantoms_dagster.domain.publication import (
    Finding,
    Found,
    HandedOver,
    Handle,
    NotPublished,
    PostRecord,
    Progress,
    PublishedPost,
    RemoteId,
    Undecided,
)
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.tiktok.api import (
    PROVIDER,
    PublishStatus,
    TikTokCalls,
    error_for,
    listed_since,
    read_status,
    same_video,
)
from phantoms_dagster.platforms.tiktok.chunks import (
    DECIDED,
    ChunkPlan,
    ChunkStep,
    UploadSlot,
    content_of,
    next_step,
    plan_chunks,
    post_url,
)
from phantoms_dagster.platforms.tiktok.handover import waiting_for_creator
from phantoms_dagster.platforms.tiktok.listing import CLOCK_SKEW, posted_draft
from phantoms_dagster.platforms.tiktok.requests import CONTENT_TYPES, check_file, check_job, init_body, source_info
from phantoms_dagster.platforms.tiktok.routes import INBOX
from phantoms_dagster.providers.http import file_body, same_service, send, server_error, unexpected
from phantoms_dagster.providers.polling import FIRST_PAUSE_SECONDS, Polling

CREATOR_INFO_PATH = "/v2/post/publish/creator_info/query/"
INIT_PATH = "/v2/post/publish/video/init/"
INBOX_INIT_PATH = "/v2/post/publish/inbox/video/init/"
UPLOADS_PER_CALL = 3  # how often one call starts sending to the same slot before it defers
SLOTS_PER_CALL = 2
RETRY_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 5.0  # with the doubling up to it, this makes fewer than 30 status calls a minute
ID_WAIT = timedelta(minutes=10)  # how long after the last chunk a video whose upload TikTok lost may still appear in the list
UPLOAD_URL_LIFE = timedelta(hours=1, minutes=2)  # an hour plus the possible difference between the clocks
# TikTok documents no limit for its processing, which usually takes less than a minute. After this long a person must hear of it.
PROCESSING_TIME = timedelta(hours=1)
# How long the byte count of status/fetch may lag behind a chunk that TikTok has taken. That is not documented.
COUNT_SETTLES_SECONDS = 15.0


class TikTokPublisher:
    """Implements `ports.Publisher`. `max_wait`: the longest wait for TikTok's processing within a call, in seconds.

    `sandbox`: `base_url` is the sandbox, and the posts' URLs are its pages.
    """

    provider = PROVIDER
    platform = Platform("tiktok")
    account_first = False  # an unused slot costs nothing

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        base_url: str,
        tokens: Tokens,
        clock: Clock,
        sandbox: bool = False,
        max_wait: float = 60.0,
        poll_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self.client = client
        self.base_url = base_url.rstrip("/")
        self.calls = TikTokCalls(client, base_url, tokens)
        self.clock = clock
        self.sandbox = sandbox
        self.max_wait = max_wait
        self.poll_seconds = poll_seconds

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[TikTokPost]:
        """See the port."""
        yield TikTokPost(self, job)

    def owns(self, url: str) -> bool:
        """Whether an upload URL is on TikTok's own hosts. The video must not be sent elsewhere."""
        return self.sandbox or same_service(url, self.base_url, ".tiktokapis.com")


class TikTokPost:
    """The verbs for one post. See `domain.publication.PublishVerbs`."""

    def __init__(self, publisher: TikTokPublisher, job: PublishJob) -> None:
        self._at = publisher
        self._calls = publisher.calls
        self._clock = publisher.clock
        self._job = job
        self._polling = Polling(
            publisher.clock, publisher.max_wait, first=publisher.poll_seconds, longest=LONGEST_PAUSE_SECONDS, again=RETRY_SECONDS
        )
        self._slots = 1  # slots that this call has used
        self._uploads = 0  # how often this call has started sending to the present slot
        self._refusal: ProviderError | None = None  # the error with which the last chunk that was sent was refused
        self._counted = False  # TikTok confirmed that it has the last chunk
        self._settled = False  # the byte count was read again after that refusal

    # --- check and open

    def check(self) -> None:
        """See the port."""
        check_job(self._job)

    async def open(self) -> Handle:
        """Open a slot. If the answer is lost, an empty slot remains, which publishes nothing and expires after an hour."""
        job = self._job
        plan = plan_chunks(job.size)
        creator: JsonObject = {}
        if job.route == INBOX:
            data = await self._calls.post(job.account, INBOX_INIT_PATH, {"source_info": source_info(plan)}, before=job.may_go)
        else:
            creator = await self._calls.post(job.account, CREATOR_INFO_PATH, before=job.may_go)
            data = await self._calls.post(job.account, INIT_PATH, init_body(job, creator, plan), before=job.may_go)
        publish_id, upload_url = data.get("publish_id"), data.get("upload_url")
        if not (isinstance(publish_id, str) and publish_id and isinstance(upload_url, str) and upload_url):
            raise Transient("TikTok opened no upload", provider=PROVIDER, code="malformed")
        if not self._at.owns(upload_url):
            host = httpx.URL(upload_url).host
            message = f"TikTok gave an upload URL on another host ({host}); check PHANTOMS_TIKTOK_BASE_URL"
            raise Permanent(message, provider=PROVIDER, code="foreign_host")
        self._uploads, self._refusal, self._counted, self._settled = 1, None, False, False
        slot = UploadSlot(
            publish_id=publish_id,
            upload_url=upload_url,
            username=str(creator.get("creator_username") or job.account),
            privacy=job.privacy,
            content=content_of(job),
            size=plan.size,
            chunk_size=plan.chunk_size,
            count=plan.count,
            opened_at=self._clock.now(),
            caption=job.caption,
            seconds=job.probe.seconds,
        )
        return slot.model_dump(mode="json")

    # --- the chunks before the last

    async def upload(self, record: PostRecord) -> Progress | Finding:
        """Send one chunk, but not the last: that one publishes, so `commit` sends it."""
        check_file(self._job)
        slot, offset = UploadSlot.model_validate(record.handle), record.offset
        plan = _plan(slot)
        if offset >= plan.last_start:
            return Progress(offset, self._sending_last(slot), ready=True)
        end = plan.end(offset)
        response = await self._put(slot, offset, end, commits=False)
        if response.status_code == 206:
            return Progress(end)
        if response.status_code == 201:  # TikTok says that it has all bytes
            self._counted = True
            return Undecided()
        self._refusal = _refusal_of(response)
        return await self.find(record)

    def _sending_last(self, slot: UploadSlot) -> Handle:
        return slot.model_copy(update={"committed_at": self._clock.now()}).model_dump(mode="json")

    async def _put(self, slot: UploadSlot, offset: int, end: int, *, commits: bool) -> httpx.Response:
        """Send one chunk, read from disk while it is sent. Raises an error for 5xx: Unknown for the chunk that publishes."""
        job = self._job
        headers = {
            "Content-Type": CONTENT_TYPES[job.file.suffix.lower()],
            "Content-Length": str(end - offset),
            "Content-Range": f"bytes {offset}-{end - 1}/{job.size}",
        }
        async with file_body(job.file, offset, end) as content:
            response = await send(
                self._at.client,
                "PUT",
                slot.upload_url,
                provider=PROVIDER,
                commits=commits,
                before=job.may_go if commits else None,
                headers=headers,
                content=content,
            )
        if response.status_code >= 500:
            raise server_error(response, provider=PROVIDER, commits=commits)
        if response.status_code == 429:
            throttled = error_for("rate_limit_exceeded", response=response)
            assert throttled is not None
            raise throttled
        return response

    # --- commit: the last chunk

    async def commit(self, record: PostRecord) -> NotPublished | Undecided:
        """Send the last chunk. Only status/fetch tells the outcome, so `find` does the rest."""
        slot = UploadSlot.model_validate(record.handle)
        try:
            response = await self._put(slot, record.offset, _plan(slot).end(record.offset), commits=True)
        except NotYet as error:
            never_sent = slot.model_copy(update={"committed_at": None}).model_dump(mode="json")
            return NotPublished("the last chunk was never sent", then="commit", handle=never_sent, error=error)
        self._counted = response.status_code == 201
        if response.status_code not in (201, 206):
            self._refusal = _refusal_of(response)
            self._counted = self._refusal.code == "upload 416"
        if self._counted and self._refusal is None:  # a video is never processed right after its upload
            await self._polling.poll("TikTok is still processing the video")
        return Undecided()

    # --- find

    async def find(self, record: PostRecord) -> Finding:
        """Poll the slot's status until it proves something. Raises NotYet while TikTok is processing."""
        slot = UploadSlot.model_validate(record.handle)
        while True:
            seen = await read_status(self._calls, self._job.account, slot.publish_id)
            step = next_step(seen, record, slot.size, refusal=self._refusal, counted=self._counted)
            if self._count_may_lag(seen, record, step):
                self._settled = True
                pause = min(COUNT_SETTLES_SECONDS, self._at.max_wait)
                await self._polling.wait(pause, "TikTok refused the last chunk; its byte count is read again")
                continue
            if step.do == "upload":
                return self._continue(record, slot, step)
            if step.do == "restart":
                return self._start_over(
                    "TikTok no longer knows the slot, or its URL has expired; TikTok does not have its last chunk"
                )
            if step.do == "fail":
                assert step.error is not None
                return NotPublished(f"TikTok says that it posted nothing: {step.error}", then="open", error=step.error)
            if step.do == "inbox":
                posted = await self._posted_draft(slot) if record.state is PostState.HANDED_OVER else None
                return self._handed_over(slot) if posted is None else Found(self._published(slot, posted))
            if step.do == "complete":
                return Found(self._published(slot, step.post_id))
            if step.do == "lost":
                finding = await self._find_in_list(record, slot)
                if finding is not None:
                    return finding
                await self._polling.poll("TikTok lost the upload, and its video is not listed yet")
            elif (taken := self._processing_for(record, slot)) > PROCESSING_TIME:
                return Undecided(error=_too_slow(taken))
            else:
                await self._polling.poll("TikTok is still processing the video")

    def _count_may_lag(self, seen: PublishStatus | None, record: PostRecord, step: ChunkStep) -> bool:
        """Whether TikTok refused the last chunk, and only a byte count that was read once says that it does not have it.

        An earlier call may have sent that chunk. Without another read, a count that lags would lead to a second post.
        """
        concludes = step.do in ("restart", "fail") and seen is not None and seen.status == "PROCESSING_UPLOAD"
        return concludes and record.state in DECIDED and self._refusal is not None and not self._settled

    def _processing_for(self, record: PostRecord, slot: UploadSlot) -> timedelta:
        """How long ago the last chunk was sent; no time if it was not."""
        if record.state not in DECIDED:
            return timedelta(0)
        return self._clock.now() - (slot.committed_at or record.attempted_at or slot.opened_at)

    def _continue(self, record: PostRecord, slot: UploadSlot, step: ChunkStep) -> NotPublished:
        """TikTok has only part of the bytes, so nothing is published, and the rest may be sent to the slot."""
        if slot.content != content_of(self._job) or not self._at.owns(slot.upload_url):
            self._require_expired(record, slot)
            return self._start_over("the slot has only part of an older revision, or its URL is on another host")
        handle = slot.model_copy(update={"committed_at": None}).model_dump(mode="json") if slot.committed_at else None
        evidence = f"TikTok holds {step.offset} of {slot.size} bytes"
        try:
            check_file(self._job)
        except Permanent as error:
            return NotPublished(evidence, then="upload", handle=handle, offset=step.offset, error=error)
        if self._uploads == UPLOADS_PER_CALL:
            raise self._refusal or Transient("TikTok keeps asking for bytes it was sent", provider=PROVIDER, code="upload 206")
        self._uploads += 1
        self._refusal, self._counted, self._settled = None, False, False
        if step.offset >= _plan(slot).last_start:
            return NotPublished(evidence, then="commit", handle=self._sending_last(slot), offset=step.offset)
        return NotPublished(evidence, then="upload", handle=handle, offset=step.offset)

    def _require_expired(self, record: PostRecord, slot: UploadSlot) -> None:
        """Raise NotYet until the slot has expired, if its last chunk may have been sent.

        A runner whose claim was taken over may still wake up and send that chunk.
        """
        left = (slot.opened_at + UPLOAD_URL_LIFE - self._clock.now()).total_seconds()
        if record.state in DECIDED and left > 0:
            raise NotYet("an upload of an older revision of this video must expire first", retry_after=left)

    def _start_over(self, evidence: str) -> NotPublished:
        self._slots += 1
        if self._slots <= SLOTS_PER_CALL:
            return NotPublished(evidence, then="open")
        dead = Transient("TikTok: the upload URL expired before the upload was complete", provider=PROVIDER, code="upload 403")
        return NotPublished(evidence, then="open", error=dead)

    def _handed_over(self, slot: UploadSlot) -> HandedOver:
        now = self._clock.now()
        at = slot.handed_over_at or now
        handle = None if slot.handed_over_at else slot.model_copy(update={"handed_over_at": at}).model_dump(mode="json")
        return HandedOver(handle, waiting_for_creator(self._job.account, at, now))

    async def _posted_draft(self, slot: UploadSlot) -> str | None:
        """The video that the draft became. TikTok does not promise that the publish_id tells, nor how long it is known."""
        since = slot.handed_over_at or slot.committed_at or slot.opened_at
        return await posted_draft(self._calls, self._job.account, slot, since)

    def _published(self, slot: UploadSlot, post_id: str | None) -> RemoteId:
        """The published post.

        PUBLISH_COMPLETE is final, with or without a public id. The id comes minutes or hours later, after moderation, and never
        for a post that is not public to everyone. Until then the publish_id is the post's id, and `late` asks for the public id.
        The account is free for its next post meanwhile.
        """
        at = slot.completed_at or self._clock.now()
        slot = slot.model_copy(update={"completed_at": at})
        remote_id = post_id or slot.publish_id
        url = post_url(slot, remote_id, base_url=self._at.base_url if self._at.sandbox else None)
        return RemoteId(remote_id, url, slot.model_dump(mode="json"), published_at=at)

    async def _find_in_list(self, record: PostRecord, slot: UploadSlot) -> Found | Undecided | None:
        """Search the account's public videos, because the last chunk was sent and TikTok no longer knows the publish_id.

        None: the video may still appear. Undecided: a person must check.
        """
        if slot.completed_at is not None:
            return Found(self._published(slot, None))
        if self._job.route == INBOX:  # the list has no drafts, and the creator may have changed the caption
            message = "TikTok no longer knows the draft that it took: look at the inbox of the account in the TikTok app"
            return Undecided(error=Rejected(message, provider=PROVIDER, code="invalid_publish_id"))
        since = slot.opened_at - CLOCK_SKEW
        listed = await listed_since(self._calls, self._job.account, since)
        found = [v for v in listed if same_video(v, self._job.caption, self._job.probe.seconds, since)]
        if len(found) == 1:
            return Found(self._published(slot, str(found[0]["id"])))
        # Older versions did not store when the last chunk was sent.
        if not found and self._clock.now() - (slot.committed_at or record.attempted_at or slot.opened_at) <= ID_WAIT:
            return None
        message = (
            f"TikTok no longer knows the upload, and {len(found)} videos of @{slot.username} look like it: look at the account"
        )
        return Undecided(error=Rejected(message, provider=PROVIDER, code="invalid_publish_id"))

    # --- confirm

    async def confirm(self, record: PostRecord) -> PublishedPost:
        """Return the post from the ledger: PUBLISH_COMPLETE was the confirmation."""
        assert record.remote_id is not None
        assert record.url is not None
        completed_at = UploadSlot.model_validate(record.handle).completed_at if record.handle else None
        return PublishedPost(record.remote_id, record.url, completed_at or record.attempted_at or self._clock.now())


def _too_slow(taken: timedelta) -> Unknown:
    minutes = int(taken.total_seconds() // 60)
    message = f"TikTok took the whole video {minutes} minutes ago and still says that it is processing it"
    return Unknown(message, provider=PROVIDER, code="processing")


def _plan(slot: UploadSlot) -> ChunkPlan:
    return ChunkPlan(slot.size, slot.chunk_size, slot.count)


def _refusal_of(response: httpx.Response) -> ProviderError:
    return error_for(f"upload {response.status_code}", response=response) or unexpected(response, provider=PROVIDER)
