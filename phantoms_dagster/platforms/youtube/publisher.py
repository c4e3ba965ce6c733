"""Posts to YouTube (Data API v3): a resumable upload as private, then a change to the wanted privacy.

`commit` has two requests, each saved before it is sent. The first, with the file's last byte, creates the private video. The
session repeats its final answer when asked. If the session is gone, `find` searches the channel's uploads for our file name,
which only the owner can see. The second request changes the privacy. It is idempotent, and `find` reads the privacy first. `api`
has requests and errors, `words` a post's words, `search` the search for a lost video.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError, Rejected, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PublishJob, Tokens
from phantoms_dagster.domain.publication import (
    Finding,
    Found,
    Handle,
    NotPublished,
    PostRecord,
    Progress,
    PublishedPost,
    RemoteId,
    Undecided,
    Withheld,
)
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.youtube.api import (
    PROVIDER,
    BytesKept,
    Finished,
    Gone,
    SessionAnswer,
    SessionRefused,
    UploadSession,
    YouTubeCalls,
    accepted,
    moment,
    part,
    session_answer,
    text,
)
from phantoms_dagster.platforms.youtube.release import RELEASE_LATE, STUCK, locked, not_released, scheduled_for, stuck, waits
from phantoms_dagster.platforms.youtube.search import find_upload
from phantoms_dagster.platforms.youtube.words import file_name, fit_description, fit_title, notifies, status_part
from phantoms_dagster.providers.http import evidence, file_body, objects
from phantoms_dagster.providers.polling import pause_at, pauses

GRANULE = 262_144  # every chunk except the last must be a multiple of this
PRIVACIES = ("private", "unlisted", "public")
CLOCK_MARGIN = timedelta(hours=1)  # between YouTube's clock and ours
LOOK_AGAIN_SECONDS = 60.0
RETURN_SECONDS = 30.0  # the shortest deferral: coming back costs a claim and a run, so half a second is not worth it


class YouTubePublisher:
    """Implements `ports.Publisher`."""

    provider = PROVIDER
    platform = Platform("youtube")
    account_first = False  # an unused session costs nothing

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        base_url: str,
        tokens: Tokens,
        clock: Clock,
        sandbox: bool = False,
        max_wait: float = 60.0,
        poll_seconds: float = 60.0,
        chunk_bytes: int = 32 * GRANULE,
        absence_seconds: float = 600.0,
        category_id: str = "22",
    ) -> None:
        """Times are in seconds. `max_wait`: the longest wait for YouTube's processing within a call.

        `absence_seconds`: when a lost video that was not found counts as never created. `poll_seconds`: the longest pause between
        polls, each of which costs a unit of the daily quota. `chunk_bytes`: a multiple of 262,144; the ledger is saved after each
        chunk. Raises ValueError for any other number.
        """
        if chunk_bytes <= 0 or chunk_bytes % GRANULE:
            raise ValueError(f"chunk_bytes must be a multiple of {GRANULE}")
        self.sandbox = sandbox
        self.calls = YouTubeCalls(client, base_url, tokens, clock)
        self.clock = clock
        self.max_wait = max_wait
        self.poll_seconds = poll_seconds
        self.chunk_bytes = chunk_bytes
        self.absence = timedelta(seconds=absence_seconds)
        self.category_id = category_id

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[YouTubePost]:
        """See the port."""
        yield YouTubePost(self, job)

    def url_of(self, video_id: str) -> str:
        """The post's URL for people."""
        return watch_url(self.calls, video_id, sandbox=self.sandbox)


def watch_url(calls: YouTubeCalls, video_id: str, *, sandbox: bool) -> str:
    """The video's URL for people."""
    return calls.url(f"watch/{video_id}") if sandbox else f"https://www.youtube.com/shorts/{video_id}"


class YouTubePost:
    """The verbs for one post. See `domain.publication.PublishVerbs`."""

    def __init__(self, publisher: YouTubePublisher, job: PublishJob) -> None:
        self._at = publisher
        self._calls = publisher.calls
        self._clock = publisher.clock
        self._job = job
        self._fresh = False  # the last byte was accepted in this call, so the video cannot be processed yet
        self._gone = False  # YouTube said in this call that it does not know the session

    # --- check and open

    def check(self) -> None:
        """See the port."""
        if self._job.privacy not in PRIVACIES:
            message = f"YouTube knows no privacy {self._job.privacy!r}; use one of {', '.join(PRIVACIES)}"
            raise Permanent(message, provider=PROVIDER)
        _check_file(self._job)
        if not fit_title(self._job.title):
            raise Permanent("YouTube requires a title", provider=PROVIDER, code="invalidTitle")

    async def open(self) -> Handle:
        """Open an upload session. If its URL is lost, the session is empty and expires."""
        job = self._job
        description = fit_description(job.caption)
        snippet: JsonObject = {"title": fit_title(job.title), "description": description, "categoryId": self._at.category_id}
        headers = {
            "X-Upload-Content-Length": str(job.size),
            "X-Upload-Content-Type": "video/mp4",
            "Slug": file_name(job),
        }
        response = await self._calls.send(
            job.account,
            "POST",
            self._calls.url("upload/youtube/v3/videos"),
            headers=headers,
            params={"uploadType": "resumable", "part": "snippet,status", "notifySubscribers": notifies(job)},
            before=job.may_go,
            json={"snippet": snippet, "status": status_part(job, "private")},
        )
        if response.status_code >= 300:
            accepted(response, self._clock.now())
        location = response.headers.get("location")
        if location is None:
            raise Transient("YouTube gave no upload session", provider=PROVIDER, code="malformed", evidence=evidence(response))
        if not (self._at.sandbox or self._calls.owns(location)):
            host = httpx.URL(location).host
            message = f"YouTube gave an upload URL on another host ({host}); check PHANTOMS_YOUTUBE_BASE_URL"
            raise Permanent(message, provider=PROVIDER, code="foreign_host")
        return UploadSession(uri=location, opened_at=self._clock.now()).handle()

    # --- the bytes, up to the last chunk

    async def upload(self, record: PostRecord) -> Progress | Finding:
        """Send one chunk, but not the last: that one creates the video, so `commit` sends it."""
        _check_file(self._job)
        session, kept = _session(record), record.offset
        end = self._end(kept)
        if end == self._job.size:
            return Progress(kept, replace(session, last_byte_sent=True).handle(), ready=True)
        answer = await self._put(session, kept, end)
        return self._after_chunk(answer, kept) if isinstance(answer, BytesKept) else self._after_end(answer)

    def _end(self, start: int) -> int:
        return min(start + self._at.chunk_bytes, self._job.size)

    def _after_chunk(self, answer: BytesKept, before: int) -> Progress:
        if not before < answer.count < self._job.size:
            raise Transient("YouTube kept no byte of a chunk", provider=PROVIDER, code="noProgress")
        return Progress(answer.count)

    def _after_end(self, answer: Finished | Gone | SessionRefused) -> NotPublished:
        """What follows when a session accepts no more bytes. Raises the error if the session is still open."""
        if isinstance(answer, Finished):
            return self._uploaded(answer.video_id)
        if isinstance(answer, Gone):
            lost = Transient("the upload session expired; another one is opened", provider=PROVIDER, code="sessionGone")
            return NotPublished("the session expired before its last byte", then="open", error=lost)
        if not answer.over:
            raise answer.error
        return NotPublished(f"YouTube refused the bytes: {answer.error}", then="open", error=answer.error)

    def _uploaded(self, video_id: str) -> NotPublished:
        made: Handle = {"uploaded_at": self._clock.now().isoformat()}
        evidence = f"video {video_id} was created as private"
        return NotPublished(evidence, then="find", handle=made, offset=self._job.size, remote_id=video_id)

    async def _put(self, session: UploadSession, start: int, end: int) -> SessionAnswer:
        job, commits = self._job, end == self._job.size
        headers = {
            "Content-Type": "video/mp4",
            "Content-Length": str(end - start),
            "Content-Range": f"bytes {start}-{end - 1}/{job.size}",
        }
        async with file_body(job.file, start, end) as content:
            response = await self._calls.send(job.account, "PUT", session.uri, commits=commits, headers=headers, content=content)
        return session_answer(response, self._clock.now(), commits=commits)

    # --- commit: the last byte, then the privacy

    async def commit(self, record: PostRecord) -> RemoteId | NotPublished | Undecided:
        """See the port."""
        return await (self._send_last_byte(record) if record.remote_id is None else self._set_privacy(record.remote_id))

    async def _send_last_byte(self, record: PostRecord) -> NotPublished:
        answer = await self._put(_session(record), record.offset, self._job.size)
        if isinstance(answer, Gone):
            raise Unknown(
                "YouTube no longer knew the upload session when its last byte was sent",
                provider=PROVIDER,
                code="sessionGone",
                retry_after=1,
            )
        if isinstance(answer, BytesKept):
            progress = self._after_chunk(answer, record.offset)
            return NotPublished(_holds(answer, self._job), then="upload", offset=progress.offset)
        self._fresh = isinstance(answer, Finished)
        return self._after_end(answer)

    async def _set_privacy(self, video_id: str) -> RemoteId | NotPublished:
        """Set the wanted privacy and read it back, or leave it to YouTube: either our clock makes the video public or YouTube's."""
        job = self._job
        at = await job.release_at()
        if at is not None and job.privacy != "public":
            # YouTube's clock can only make a video public, so this one waits for ours.
            early = NotYet(f"goes out at {at:%Y-%m-%d %H:%M} UTC", retry_after=(at - self._clock.now()).total_seconds(), until=at)
            return NotPublished(f"the time of video {video_id} has not come", then="commit", error=early)
        status = status_part(job, job.privacy) if at is None else status_part(job, "private", at)
        change: JsonObject = {"id": video_id, "status": status}
        url = self._calls.url("youtube/v3/videos")
        try:
            response = await self._calls.send(
                job.account, "PUT", url, commits=True, before=job.may_go, params={"part": "status"}, json=change
            )
        except NotYet as error:
            return NotPublished(f"the change of privacy of video {video_id} was never sent", then="commit", error=error)
        try:
            answer = accepted(response, self._clock.now(), commits=True)
        except Permanent as error:
            if at is None or error.code != "invalidPublishAt":
                raise
            # On YouTube's clock the time is over, so make the video public when it is over on ours, too.
            return NotPublished(f"YouTube refused the time: {error}", then="commit", error=waits(video_id, at, self._clock.now()))
        if (scheduled := scheduled_for(answer)) is not None:
            raise waits(video_id, scheduled, self._clock.now())
        if at is not None and _privacy(answer) == "private":
            # On YouTube's clock the time is over, and it is not documented how soon YouTube then shows the video as public.
            raise waits(video_id, at, self._clock.now())
        if _privacy(answer) != job.privacy:
            raise locked(video_id, job.privacy, _privacy(answer))
        deadline = self._clock.now() + timedelta(seconds=self._at.max_wait)
        for pause in pauses(self._at.poll_seconds):
            shown = await self._read(video_id)
            if shown is not None and _privacy(shown) == job.privacy:
                return self._published(video_id, shown)
            if self._clock.now() + timedelta(seconds=pause) > deadline:
                raise locked(video_id, job.privacy, _privacy(shown or {}))
            await self._clock.sleep(pause)
        raise AssertionError("pauses never end")

    # --- find

    async def find(self, record: PostRecord) -> Finding:
        """Read the privacy of a video that was created, else the state of its upload session."""
        if record.remote_id is not None:
            video = await self._processed(record, record.remote_id)
            if isinstance(video, Withheld):
                return video
            if _privacy(video) == self._job.privacy:
                return Found(self._published(record.remote_id, video))
            if (scheduled := scheduled_for(video)) is not None:
                if self._clock.now() - scheduled > RELEASE_LATE:
                    return Withheld(not_released(record.remote_id, scheduled))
                raise waits(record.remote_id, scheduled, self._clock.now())
            return NotPublished(f"video {record.remote_id} is {_privacy(video) or 'hidden'}", then="commit")
        session = UploadSession.of(record.handle)
        if session is None:
            return NotPublished("no upload session was opened", then="open")
        answer = await self._ask(session)
        if isinstance(answer, Finished):
            return self._uploaded(answer.video_id)
        if isinstance(answer, BytesKept):
            return NotPublished(_holds(answer, self._job), then="upload", offset=answer.count)
        if isinstance(answer, SessionRefused) and not answer.over:
            raise answer.error
        if session.last_byte_sent:
            return await self._find_lost(session)
        # The last byte was never sent, so no video can exist, and a new session is safe.
        error = answer.error if isinstance(answer, SessionRefused) else None
        return NotPublished("the session is gone, and its last byte was never sent", then="open", error=error)

    async def _ask(self, session: UploadSession) -> SessionAnswer:
        """Ask for the session's state. A finished session repeats its final answer."""
        # A session on another host is not YouTube's, and that host must not see the token.
        if self._gone or not (self._at.sandbox or self._calls.owns(session.uri)):
            return Gone()
        headers = {"Content-Range": f"bytes */{self._job.size}", "Content-Length": "0"}
        response = await self._calls.send(self._job.account, "PUT", session.uri, headers=headers)
        return session_answer(response, self._clock.now(), commits=False)

    async def _find_lost(self, session: UploadSession) -> Finding:
        """Search for the video of a session that YouTube no longer knows. If it stays absent long enough, it was never created."""
        now = self._clock.now()
        if session.lost_at is None:
            self._gone = True
            return Undecided(replace(session, lost_at=now).handle())
        found, undecided = await find_upload(self._calls, self._job, session.opened_at - CLOCK_MARGIN)
        if found is not None:
            return self._uploaded(found)
        left = (self._at.absence - (now - session.lost_at)).total_seconds()
        if left <= 0 and not undecided:
            return NotPublished("the session is gone, and its video is not among the channel's uploads", then="open")
        message = "the upload session is gone; searching the channel's uploads for the video"
        pause = min(LOOK_AGAIN_SECONDS, left) if left > 0 else LOOK_AGAIN_SECONDS
        return Undecided(error=Unknown(message, provider=PROVIDER, code="sessionGone", retry_after=pause))

    async def _processed(self, record: PostRecord, video_id: str) -> JsonObject | Withheld:
        """Wait until YouTube has processed the video. Withheld: it will never show it. Raises NotYet."""
        now = self._clock.now()
        deadline, uploaded = now + timedelta(seconds=self._at.max_wait), moment(record.handle, "uploaded_at", now)

        def pause() -> float:
            return pause_at((self._clock.now() - uploaded).total_seconds(), self._at.poll_seconds)

        if self._fresh:
            self._fresh = False
            await self._clock.sleep(min(pause(), self._at.max_wait))
        while True:
            video = await self._read(video_id)
            if video is not None:
                status = part(video, "status")
                if text(status, "uploadStatus") == "processed":
                    return video
                if (ended := _end(video, video_id)) is not None:
                    return Withheld(ended)
                if self._clock.now() - uploaded > STUCK:
                    return Withheld(stuck(video_id))
            elif self._clock.now() - uploaded > self._at.absence:
                return Withheld(Rejected(f"video {video_id} no longer exists on YouTube", provider=PROVIDER, code="videoGone"))
            if self._clock.now() + timedelta(seconds=pause()) > deadline:
                raise NotYet(f"YouTube is still processing video {video_id}", retry_after=max(RETURN_SECONDS, pause()))
            await self._clock.sleep(pause())

    # --- confirm

    async def confirm(self, record: PostRecord) -> PublishedPost:
        """See the port."""
        assert record.remote_id is not None, "a published post has an id"
        video = await self._read(record.remote_id) or {}
        return PublishedPost(record.remote_id, self._at.url_of(record.remote_id), self._published_at(video))

    def _published(self, video_id: str, video: JsonObject) -> RemoteId:
        return RemoteId(video_id, self._at.url_of(video_id), published_at=self._published_at(video))

    def _published_at(self, video: JsonObject) -> datetime:
        return moment(part(video, "snippet"), "publishedAt", self._clock.now())

    async def _read(self, video_id: str) -> JsonObject | None:
        listing = await self._calls.get(self._job.account, "videos", part="snippet,status,processingDetails", id=video_id)
        return next(iter(objects(listing, "items")), None)


def _session(record: PostRecord) -> UploadSession:
    session = UploadSession.of(record.handle)
    assert session is not None, "bytes are sent only to a session in the ledger"
    return session


def _holds(answer: BytesKept, job: PublishJob) -> str:
    return f"the session holds {answer.count} of {job.size} bytes"


def _privacy(video: JsonObject) -> str | None:
    return text(part(video, "status"), "privacyStatus")


def _end(video: JsonObject, video_id: str) -> ProviderError | None:
    """Why YouTube will never show the video: Permanent for an unreadable file, Rejected for policy or deletion. None if it may."""
    status, processing = part(video, "status"), part(video, "processingDetails")
    state = text(status, "uploadStatus")
    if state == "failed" or text(processing, "processingStatus") == "failed":
        reason = text(status, "failureReason") or text(processing, "processingFailureReason") or "failed"
        return Permanent(f"YouTube cannot process the file of video {video_id}: {reason}", provider=PROVIDER, code=reason)
    if state in ("rejected", "deleted"):
        reason = text(status, "rejectionReason") or state
        return Rejected(f"YouTube {state} video {video_id}: {reason}", provider=PROVIDER, code=reason)
    return None


def _check_file(job: PublishJob) -> None:
    size = job.file.stat().st_size if job.file.is_file() else 0
    if size != job.size:
        raise Permanent(f"the file to post has {size} bytes instead of {job.size}", provider=PROVIDER, code="file")
