"""Posts on Bluesky: uploads the video to the video service, then creates the post with `createRecord` under the key from `open`.

The key is saved before anything is sent. Two records cannot have the same key, so repeating `createRecord` cannot create a second
post. After a lost answer, `getRecord` tells whether the post exists. A server refuses a repeat with status 500 or another one, so
every refusal is read back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError, Transient, Unknown
from phantoms_dagster.domain.ports import Clock, PublishJob
from phantoms_dagster.domain.publication import (
    MAY_BE_OUT,
    Finding,
    Found,
    Handle,
    NotPublished,
    PostRecord,
    Progress,
    PublishedPost,
    RemoteId,
)
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.bluesky.api import PLATFORM, PROVIDER, RECORD_GONE, Calls, blob_is_gone
from phantoms_dagster.platforms.bluesky.record import COLLECTION, key_of, record_of, record_time
from phantoms_dagster.platforms.bluesky.video import BAD_FILE, COMPLETED, FAILED, Job, VideoService
from phantoms_dagster.providers.polling import FIRST_PAUSE_SECONDS, Polling

LONGEST_POLL = 15.0
LONGEST_PROCESSING = timedelta(hours=2)  # then the video is uploaded again, which costs an attempt
SITE = "https://bsky.app"


class BlueskyPublisher:
    """Implements `ports.Publisher`. `site`: where people read posts. `max_wait`: the longest wait within a call, in seconds."""

    provider = PROVIDER
    platform = PLATFORM
    account_first = False

    def __init__(
        self, calls: Calls, *, video_url: str, clock: Clock, sandbox: bool = False, site: str = SITE, max_wait: float = 60.0
    ) -> None:
        self.calls = calls
        self.videos = VideoService(calls, video_url)
        self.clock = clock
        self.sandbox = sandbox
        self.site = site.rstrip("/")
        self.max_wait = max_wait

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[BlueskyPost]:
        """See the port."""
        yield BlueskyPost(self, job)


class BlueskyPost:
    """The verbs for one post. See `domain.publication.PublishVerbs`.

    The handle has `rkey` and `did` after `open`, `job` and `sent_at` once the video is uploaded, `blob` and `created_at` once it is
    processed.
    """

    def __init__(self, publisher: BlueskyPublisher, job: PublishJob) -> None:
        self._at = publisher
        self._calls = publisher.calls
        self._job = job
        self._polling = Polling(publisher.clock, publisher.max_wait, first=FIRST_PAUSE_SECONDS, longest=LONGEST_POLL)

    def check(self) -> None:
        """See the port."""
        if self._job.file.stat().st_size != self._job.size:
            message = f"{self._job.file.name} is not the file that was approved: its size differs"
            raise Permanent(message, provider=PROVIDER, code="file_changed")

    async def open(self) -> Handle:
        """Choose the key."""
        await self._job.may_go()
        session = await self._calls.session(self._job.account)
        return {"rkey": key_of(self._job.marker, self._at.clock.now()), "did": session.did}

    async def upload(self, record: PostRecord) -> Progress | Finding:
        """Send the video, then wait until it is processed."""
        handle = record.handle
        if "job" not in handle:
            self.check()
            await self._at.videos.check_room(self._job.account, self._job.size)
            sent = await self._at.videos.upload(await self._calls.session(self._job.account), self._job)
            return Progress(self._job.size, {**handle, "job": sent.id, "sent_at": self._at.clock.now().isoformat()})
        while True:
            job = await self._at.videos.look(str(handle["job"]), self._job.account)
            if job is None or job.state == FAILED:
                return _start_again(_failed(job))
            if job.state == COMPLETED and job.blob is not None:
                at = record_time(self._at.clock.now())
                return Progress(record.offset, {**handle, "blob": job.blob, "created_at": at}, ready=True)
            sent_at = handle.get("sent_at")  # older versions did not save it
            if sent_at and self._at.clock.now() - datetime.fromisoformat(str(sent_at)) > LONGEST_PROCESSING:
                why = f"Bluesky has not processed the video in two hours ({job.state})"
                return _start_again(Transient(why, provider=PROVIDER, code="processing_stuck"))
            await self._polling.poll(f"Bluesky is processing the video ({job.state})")

    async def commit(self, record: PostRecord) -> RemoteId | NotPublished:
        """Create the record."""
        handle = record.handle
        blob = handle["blob"]
        assert isinstance(blob, dict)
        body: JsonObject = {
            "repo": handle["did"],
            "collection": COLLECTION,
            "rkey": handle["rkey"],
            "validate": True,
            "record": record_of(self._job, blob, str(handle["created_at"])),
        }
        try:
            answer = await self._calls.post(self._job.account, "com.atproto.repo.createRecord", body, before=self._job.may_go)
        except Unknown:
            raise
        except (ProviderError, NotYet) as error:
            if isinstance(error, ProviderError) and blob_is_gone(error):
                why = "the record was refused: its video no longer exists"
                return _start_again(Transient(why, provider=PROVIDER, code="blob_gone", evidence=error.evidence))
            # An earlier request may have arrived late. It is not documented how a server refuses a key that exists.
            if type(error) is Permanent and await self._read(handle) is not None:
                return self._remote(handle)
            return NotPublished(f"createRecord was refused or never sent: {error}", then="commit", error=error)
        if not isinstance(answer.get("uri"), str):
            raise Unknown("Bluesky created a record but returned no address", provider=PROVIDER, code="malformed")
        return self._remote(handle)

    async def find(self, record: PostRecord) -> Finding:
        """Read the record with our key."""
        handle = record.handle
        if not handle:
            return NotPublished("no key was chosen", then="open")
        if "blob" not in handle or record.state not in MAY_BE_OUT:
            return NotPublished("createRecord was refused or never sent", then="upload")
        if await self._read(handle) is not None:
            return Found(self._remote(handle))
        evidence = f"there is no record {handle['rkey']}, and a repeat cannot make a second one"
        return NotPublished(evidence, then="commit", handle={**handle, "created_at": record_time(self._at.clock.now())})

    async def confirm(self, record: PostRecord) -> PublishedPost:
        """Read the post back."""
        # A person may have named the post. Its key is then not the one that was chosen here.
        session = await self._calls.session(self._job.account)
        handle: Handle = {"did": session.did, **record.handle, "rkey": str(record.remote_id).rsplit("/", 1)[-1]}
        value = await self._read(handle)
        if value is None:
            raise Transient("Bluesky does not show the post yet", provider=PROVIDER, code=RECORD_GONE)
        remote = self._remote(handle)
        created_at = value.get("createdAt") or record.handle.get("created_at")
        return PublishedPost(remote.id, remote.url or "", datetime.fromisoformat(str(created_at)))

    async def _read(self, handle: Handle) -> JsonObject | None:
        """The record's value; None when there is no record."""
        try:
            answer = await self._calls.get(
                self._job.account, "com.atproto.repo.getRecord", repo=handle["did"], collection=COLLECTION, rkey=handle["rkey"]
            )
        except Permanent as error:
            if error.code != RECORD_GONE:
                raise
            return None
        value = answer.get("value")
        return value if isinstance(value, dict) else {}

    def _remote(self, handle: Handle) -> RemoteId:
        did, key = handle["did"], handle["rkey"]
        return RemoteId(f"at://{did}/{COLLECTION}/{key}", url=f"{self._at.site}/profile/{did}/post/{key}")


def _failed(job: Job | None) -> ProviderError:
    """The error for a video that is not processed: Permanent if its file is not accepted. None: the service does not know it."""
    if job is None:
        return Transient("the video service no longer knows the video", provider=PROVIDER, code="video_failed")
    why = f"the video failed: {job.error}{f' ({job.failure})' if job.failure else ''}"
    kind = Permanent if job.failure in BAD_FILE else Transient
    return kind(why, provider=PROVIDER, code=job.failure or "video_failed")


def _start_again(error: ProviderError) -> NotPublished:
    """The proof that no post exists. The next call chooses a new key and uploads the video again."""
    return NotPublished(str(error), then="open", error=error)
