"""Posts to YouTube (Data API v3): a resumable upload as private, then the change to the wanted privacy.

The protocol alone stands here: what is sent when, what the journal keeps, how long is waited. What answers mean belongs in
`youtube_api`, a post's words in `youtube_words`, the search for a lost video in `youtube_search`, numbers in `youtube_metrics`.

Two requests can leave a post in doubt. The one with the file's last byte makes the (private) video: the session repeats its
final answer to whoever asks; of a session that is gone the channel's uploads are searched for our file name, which only the
owner sees. The change of privacy is idempotent, and is read before it is sent again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, Rejected, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PostJournal, PostRecord, PublishedPost, PublishJob, Tokens
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.http import evidence, file_body, objects
from phantoms_dagster.providers.polling import pause_at, pauses
from phantoms_dagster.providers.youtube_api import (
    PROVIDER,
    Finished,
    Gone,
    Kept,
    Refused,
    Session,
    SessionAnswer,
    YouTubeCalls,
    accepted,
    moment,
    part,
    session_answer,
    text,
)
from phantoms_dagster.providers.youtube_search import find_upload
from phantoms_dagster.providers.youtube_words import file_name, fit_description, fit_title, status_part

GRANULE = 262_144  # YouTube wants every chunk but the last to be a multiple of this
PRIVACIES = ("private", "unlisted", "public")
CLOCK_MARGIN = timedelta(hours=1)  # between YouTube's clock and ours
LOOK_AGAIN_SECONDS = 60.0
RETURN_SECONDS = 30.0  # a deferred look is a claim and a run: not for the half second that a first look would wait


class YouTubePublisher:
    """Makes posts on YouTube. See `domain.ports.Publisher`; the journal is carried to `published`."""

    provider = PROVIDER
    platform = Platform.YOUTUBE

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        base_url: str,
        tokens: Tokens,
        clock: Clock,
        sandbox: bool = False,
        patience: float = 60.0,
        poll_seconds: float = 60.0,
        chunk_bytes: int = 32 * GRANULE,
        absence_seconds: float = 600.0,
        category_id: str = "22",
    ) -> None:
        """Waits are in seconds: `patience` for YouTube's processing, `absence_seconds` until a lost video counts as never made.

        `poll_seconds` is the longest pause between two looks, each of which costs a unit of the day's quota.

        `chunk_bytes` is a multiple of 262,144; after each chunk the journal is committed. Raises ValueError.
        """
        if chunk_bytes <= 0 or chunk_bytes % GRANULE:
            raise ValueError(f"chunk_bytes must be a multiple of {GRANULE}")
        self.sandbox = sandbox
        self._calls = YouTubeCalls(client, base_url, tokens, clock)
        self._clock = clock
        self._patience = patience
        self._poll = poll_seconds
        self._chunk = chunk_bytes
        self._absence = timedelta(seconds=absence_seconds)
        self._category = category_id

    async def publish(self, job: PublishJob, journal: PostJournal) -> PublishedPost:
        """Make the post, or finish making it from wherever the journal stands."""
        if job.privacy not in PRIVACIES:
            raise Permanent(f"YouTube knows no privacy {job.privacy!r}; use one of {', '.join(PRIVACIES)}", provider=PROVIDER)
        video_id = (await _taken_up(journal)).remote_id
        fresh = video_id is None
        if video_id is None:
            video_id = await self._upload(job, journal)
            made: JsonObject = {"uploaded_at": self._clock.now().isoformat()}
            await journal.save(PostState.COMMITTING, handle=made, offset=job.size, remote_id=video_id)
        if journal.record.state not in (PostState.PUBLISHED, PostState.CONFIRMED):
            video = await self._release(job, journal, video_id, fresh=fresh)
            await journal.save(PostState.PUBLISHED, remote_id=video_id, url=self._url(video_id))
        else:
            video = await self._read(job, video_id) or {}
        published_at = moment(part(video, "snippet"), "publishedAt", self._clock.now())
        return PublishedPost(remote_id=video_id, url=self._url(video_id), published_at=published_at)

    def _url(self, video_id: str) -> str:
        return self._calls.url(f"watch/{video_id}") if self.sandbox else f"https://www.youtube.com/shorts/{video_id}"

    # --- upload

    async def _upload(self, job: PublishJob, journal: PostJournal) -> str:
        """The id of the private video, made now or found to have been made."""
        session = Session.of(journal.record.handle)
        if session is None:
            return await self._send_bytes(job, journal, await self._open(job, journal), 0)
        # A session at another host is none of this service's: whoever is there must not see the token.
        answer = await self._ask(job, session) if self.sandbox or self._calls.owns(session.uri) else Gone()
        if isinstance(answer, Finished):
            return answer.video_id
        if isinstance(answer, Kept):
            # From `unknown` the way back leads over `opened`: the read proved that the upload has not ended.
            step = PostState.OPENED if journal.record.state is PostState.UNKNOWN else PostState.UPLOADING
            await journal.save(step, offset=answer.count)
            return await self._send_bytes(job, journal, session, answer.count)
        if isinstance(answer, Refused) and not answer.over:
            raise answer.error
        # The last byte never left: no video can exist, and another session is safe. Otherwise only a search can tell.
        if session.last_byte_sent and (found := await self._find_lost(job, journal, session)):
            return found
        await journal.save(PostState.INTENT, handle={}, offset=0)
        if isinstance(answer, Refused) and not session.last_byte_sent:
            raise answer.error
        return await self._send_bytes(job, journal, await self._open(job, journal), 0)

    async def _open(self, job: PublishJob, journal: PostJournal) -> Session:
        _check_file(job)
        title = fit_title(job.title)
        if not title:
            raise Permanent("YouTube takes no post without a title", provider=PROVIDER, code="invalidTitle")
        snippet: JsonObject = {"title": title, "description": fit_description(job.caption), "categoryId": self._category}
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
            params={"uploadType": "resumable", "part": "snippet,status"},
            before=job.may_go,
            json={"snippet": snippet, "status": status_part(job, "private")},
        )
        if response.status_code >= 300:
            accepted(response, self._clock.now())
        location = response.headers.get("location")
        if location is None:
            raise Transient("YouTube gave no upload session", provider=PROVIDER, code="malformed", evidence=evidence(response))
        if not (self.sandbox or self._calls.owns(location)):
            host = httpx.URL(location).host
            message = f"YouTube named an upload address at another host ({host}); check PHANTOMS_YOUTUBE_BASE_URL"
            raise Permanent(message, provider=PROVIDER, code="foreign_host")
        session = Session(uri=location, opened_at=self._clock.now())
        await journal.save(PostState.OPENED, handle=session.handle(), offset=0)
        return session

    async def _ask(self, job: PublishJob, session: Session) -> SessionAnswer:
        """How far the session is; one that has ended repeats its final answer."""
        headers = {"Content-Range": f"bytes */{job.size}", "Content-Length": "0"}
        response = await self._calls.send(job.account, "PUT", session.uri, headers=headers)
        return session_answer(response, self._clock.now(), commits=False)

    async def _send_bytes(self, job: PublishJob, journal: PostJournal, session: Session, kept: int) -> str:
        _check_file(job)
        while True:
            end = min(kept + self._chunk, job.size)
            if end == job.size:
                session = replace(session, last_byte_sent=True)
                await journal.save(PostState.COMMITTING, handle=session.handle(), offset=kept)
            async with _in_doubt(journal):
                answer = await self._put(job, session, kept, end)
                if isinstance(answer, Gone) and session.last_byte_sent:
                    raise Unknown(
                        "YouTube lost the upload session at its end", provider=PROVIDER, code="sessionGone", retry_after=1
                    )
            if isinstance(answer, Finished):
                return answer.video_id
            if isinstance(answer, Kept):
                if not kept < answer.count < job.size:
                    raise Transient("YouTube kept nothing of a chunk", provider=PROVIDER, code="noProgress")
                kept = answer.count
                await journal.save(PostState.UPLOADING, offset=kept)
                continue
            if isinstance(answer, Gone) or answer.over:
                await journal.save(PostState.INTENT, handle={}, offset=0)
            if isinstance(answer, Refused):
                raise answer.error
            raise Transient("the upload session expired; another one will be opened", provider=PROVIDER, code="sessionGone")

    async def _put(self, job: PublishJob, session: Session, start: int, end: int) -> SessionAnswer:
        commits = end == job.size
        headers = {
            "Content-Type": "video/mp4",
            "Content-Length": str(end - start),
            "Content-Range": f"bytes {start}-{end - 1}/{job.size}",
        }
        async with file_body(job.file, start, end) as content:
            response = await self._calls.send(job.account, "PUT", session.uri, commits=commits, headers=headers, content=content)
        return session_answer(response, self._clock.now(), commits=commits)

    # --- a session that is gone

    async def _find_lost(self, job: PublishJob, journal: PostJournal, session: Session) -> str | None:
        """The video of a session that YouTube forgot, or None once it was looked for long enough. Raises Unknown until then."""
        now = self._clock.now()
        if session.lost_at is None:
            session = replace(session, lost_at=now)
        await _save_unknown(journal, session.handle())
        found, undecided = await find_upload(self._calls, job, session.opened_at - CLOCK_MARGIN)
        if found is not None:
            return found
        left = (self._absence - (now - (session.lost_at or now))).total_seconds()
        if left <= 0 and not undecided:
            return None
        message = "the upload session is gone; the channel's uploads are searched for the video"
        pause = min(LOOK_AGAIN_SECONDS, left) if left > 0 else LOOK_AGAIN_SECONDS
        raise Unknown(message, provider=PROVIDER, code="sessionGone", retry_after=pause)

    # --- from private to out

    async def _release(self, job: PublishJob, journal: PostJournal, video_id: str, *, fresh: bool) -> JsonObject:
        """Wait for the processing, set the wanted privacy, read it back. The video as last read."""
        video = await self._processed(job, journal, video_id, fresh=fresh)
        if _privacy(video) == job.privacy:
            return video
        await journal.save(PostState.COMMITTING)
        async with _in_doubt(journal):
            change: JsonObject = {"id": video_id, "status": status_part(job, job.privacy)}
            url = self._calls.url("youtube/v3/videos")
            response = await self._calls.send(
                job.account, "PUT", url, commits=True, before=job.may_go, params={"part": "status"}, json=change
            )
            answer = accepted(response, self._clock.now(), commits=True)
        if _privacy(answer) != job.privacy:
            raise _locked(video_id, job, _privacy(answer))
        deadline = self._clock.now() + timedelta(seconds=self._patience)
        for pause in pauses(self._poll):
            shown = await self._read(job, video_id)
            if shown is not None and _privacy(shown) == job.privacy:
                return shown
            if self._clock.now() + timedelta(seconds=pause) > deadline:
                raise _locked(video_id, job, _privacy(shown or {}))
            await self._clock.sleep(pause)
        raise AssertionError("pauses never end")

    async def _processed(self, job: PublishJob, journal: PostJournal, video_id: str, *, fresh: bool) -> JsonObject:
        """The video once YouTube has processed it. Raises NotYet, Permanent (unreadable file) or Rejected (policy).

        `fresh`: its last byte was taken a moment ago, so there is nothing to see before the first pause.
        """
        now = self._clock.now()
        deadline, uploaded = now + timedelta(seconds=self._patience), moment(journal.record.handle, "uploaded_at", now)

        def pause() -> float:
            return pause_at((self._clock.now() - uploaded).total_seconds(), self._poll)

        if fresh:
            await self._clock.sleep(min(pause(), self._patience))
        while True:
            video = await self._read(job, video_id)
            if video is not None:
                status = part(video, "status")
                if text(status, "uploadStatus") == "processed":
                    return video
                _raise_for_end(status, video_id)
            elif self._clock.now() - uploaded > self._absence:
                raise Rejected(f"video {video_id} is gone from YouTube", provider=PROVIDER, code="videoGone")
            if self._clock.now() + timedelta(seconds=pause()) > deadline:
                raise NotYet(f"YouTube is still processing video {video_id}", retry_after=max(RETURN_SECONDS, pause()))
            await self._clock.sleep(pause())

    async def _read(self, job: PublishJob, video_id: str) -> JsonObject | None:
        listing = await self._calls.get(job.account, "videos", part="snippet,status,processingDetails", id=video_id)
        return next(iter(objects(listing, "items")), None)


def _privacy(video: JsonObject) -> str | None:
    return text(part(video, "status"), "privacyStatus")


def _locked(video_id: str, job: PublishJob, shown: str | None) -> Rejected:
    message = (
        f"YouTube keeps video {video_id} {shown or 'hidden'} although {job.privacy} was asked for. Look at it in YouTube Studio: "
        "the account or a policy may restrict it, and so may the lock of uploads made before 2026-11-02. Set it to "
        f"{job.privacy} there, or lift the restriction, then replay; nothing is uploaded again"
    )
    return Rejected(message, provider=PROVIDER, code="lockedPrivate")


def _raise_for_end(status: JsonObject, video_id: str) -> None:
    """Raise for a video that YouTube will never show: Permanent for an unreadable file, Rejected for policy and deletion."""
    state = text(status, "uploadStatus")
    if state == "failed":
        reason = text(status, "failureReason") or "failed"
        raise Permanent(f"YouTube cannot process the file of video {video_id}: {reason}", provider=PROVIDER, code=reason)
    if state in ("rejected", "deleted"):
        reason = text(status, "rejectionReason") or state
        raise Rejected(f"YouTube {state} video {video_id}: {reason}", provider=PROVIDER, code=reason)


def _check_file(job: PublishJob) -> None:
    size = job.file.stat().st_size if job.file.is_file() else 0
    if size != job.size:
        raise Permanent(f"the file to post has {size} bytes, {job.size} were promised", provider=PROVIDER, code="file")


@asynccontextmanager
async def _in_doubt(journal: PostJournal) -> AsyncIterator[None]:
    """Around a request that commits: when its outcome is not known the journal says so."""
    try:
        yield
    except Unknown:
        await _save_unknown(journal)
        raise


async def _save_unknown(journal: PostJournal, handle: JsonObject | None = None) -> None:
    if journal.record.state is PostState.OPENED:  # an upload taken up again after a doubt, and in doubt once more
        await journal.save(PostState.COMMITTING)
    await journal.save(PostState.UNKNOWN, handle=handle)


async def _taken_up(journal: PostJournal) -> PostRecord:
    """The record, brought from a replayed failure to where its protocol stood: what it left behind is asked before all else."""
    record = journal.record
    if record.state is PostState.FAILED:
        record = await journal.save(PostState.INTENT)
    if record.state is PostState.INTENT and (record.handle or record.remote_id):
        record = await journal.save(PostState.OPENED)
    if record.state is PostState.OPENED and record.remote_id:
        record = await journal.save(PostState.COMMITTING)
    return record
