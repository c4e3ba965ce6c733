"""Posts to YouTube (Data API v3): a resumable upload as private, then the change to the wanted privacy.

What the API's errors mean stands in `ERRORS`, here alone. Reading numbers back belongs in `youtube_metrics`.

Two requests can leave a post in doubt. The one with the file's last byte makes the (private) video: the session repeats its
final answer to whoever asks; of a session that is gone the channel's uploads are searched for our file name, which only the
owner sees. The change of privacy is idempotent, and is read before it is sent again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, BinaryIO, Literal, TypeAlias
from zoneinfo import ZoneInfo

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError, Rejected, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PostJournal, PostRecord, PublishedPost, PublishJob, Tokens
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.http import bearer, evidence, json_object, retry_after, send, server_error, unexpected

PROVIDER = "youtube"
GRANULE = 262_144  # YouTube wants every chunk but the last to be a multiple of this
READ_BLOCK = 1 << 20
MAX_TITLE_CHARACTERS = 100
MAX_DESCRIPTION_BYTES = 5_000
MAX_IDS = 50  # of one videos.list, and items of one page
MAX_PAGES = 10
PRIVACIES = ("private", "unlisted", "public")
PACIFIC = ZoneInfo("America/Los_Angeles")  # where the quota day begins
CLOCK_MARGIN = timedelta(hours=1)  # between YouTube's clock and ours
LOOK_AGAIN_SECONDS = 60.0

# --- errors ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a refusal means. `wait`: as the answer says, until the quota day ends (00:00 Pacific), or a day."""

    error: type[Permanent] | type[Throttled]
    advice: str
    wait: Literal["answer", "midnight", "day"] = "answer"


_INPUT = Verdict(Permanent, "correct the post's words or settings and replay it")
_RECONNECT = Verdict(Permanent, "reconnect the account: its access token is no longer accepted")
_QUOTA = Verdict(Throttled, "the project's daily quota is used up until midnight in California", "midnight")
_PACE = Verdict(Throttled, "requests come too fast")
_FORBIDDEN = Verdict(Permanent, "the account may not do this: check its permissions and the granted scopes, then reconnect it")
_ACCOUNT = Verdict(Permanent, "the account is suspended, closed or not fit for this: a person must look at it on YouTube")

# Status and reason, as globs; the first row that fits counts. 5xx answers are judged by `providers.http.server_error`.
ERRORS: Mapping[tuple[int, str], Verdict] = MappingProxyType(
    {
        (400, "invalidTitle"): _INPUT,
        (400, "invalidDescription"): _INPUT,
        (400, "invalidTags"): _INPUT,
        (400, "invalidCategoryId"): _INPUT,
        (400, "invalidPublishAt"): _INPUT,
        (400, "invalidVideoMetadata"): _INPUT,
        (400, "invalidFilename"): _INPUT,
        (400, "invalidRecordingDetails"): _INPUT,
        (400, "defaultLanguageNotSet"): _INPUT,
        (400, "mediaBodyRequired"): _INPUT,
        (400, "uploadLimitExceeded"): Verdict(Throttled, "the channel may upload no more for about a day", "day"),
        (401, "youtubeSignupRequired"): Verdict(Permanent, "create a YouTube channel for the account, then reconnect it"),
        (401, "*"): _RECONNECT,  # authError, expired, required, authorizationRequired
        (403, "quotaExceeded"): _QUOTA,
        (403, "dailyLimitExceeded"): _QUOTA,
        (403, "rateLimitExceeded"): _PACE,
        (403, "userRateLimitExceeded"): _PACE,
        (403, "forbidden"): _FORBIDDEN,
        (403, "insufficientPermissions"): _FORBIDDEN,
        (403, "forbiddenPrivacySetting"): _FORBIDDEN,
        (403, "forbiddenLicenseSetting"): _FORBIDDEN,
        (403, "authenticatedUser*"): _ACCOUNT,
        (404, "videoNotFound"): Verdict(Permanent, "the video is gone from YouTube: a person must look"),
        (404, "playlistNotFound"): Verdict(Permanent, "the channel has no uploads yet"),
        (429, "*"): _PACE,  # rateLimitExceeded, userRateLimitExceeded, uploadRateLimitExceeded
    }
)


def refusal(response: httpx.Response, now: datetime) -> ProviderError:
    """The error for a 4xx answer, by the table above."""
    reason, said = _reason(response)
    verdicts = (v for (status, glob), v in ERRORS.items() if status == response.status_code and fnmatchcase(reason, glob))
    verdict = next(verdicts, None)
    if verdict is None:
        return unexpected(response, provider=PROVIDER, message=said or reason)
    code = reason or str(response.status_code)
    message = f"YouTube refused ({code}): {said + '; ' if said else ''}{verdict.advice}"
    if verdict.error is Permanent:
        return Permanent(message, provider=PROVIDER, code=code, evidence=evidence(response))
    waits = {"answer": retry_after(response), "midnight": seconds_to_midnight(now), "day": 86_400.0}
    return Throttled(message, provider=PROVIDER, code=code, evidence=evidence(response), retry_after=waits[verdict.wait])


def accepted(response: httpx.Response, now: datetime, *, commits: bool = False) -> JsonObject:
    """The JSON of a 2xx answer; any other answer is raised as its domain error."""
    if response.status_code >= 500:
        raise server_error(response, provider=PROVIDER, commits=commits)
    if response.status_code >= 300:
        raise refusal(response, now)
    return json_object(response, provider=PROVIDER, commits=commits)


def seconds_to_midnight(now: datetime) -> float:
    """Until the quota is fresh: the next 00:00 in California, which is 23 to 25 hours away at most."""
    tomorrow = (now.astimezone(PACIFIC) + timedelta(days=1)).date()
    return (datetime(tomorrow.year, tomorrow.month, tomorrow.day, tzinfo=PACIFIC) - now).total_seconds()


def _reason(response: httpx.Response) -> tuple[str, str]:
    try:
        error = response.json()["error"]
        causes = error.get("errors") or [{}]
        return str(causes[0].get("reason", "")), str(error.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        return "", ""


# --- what is sent ---------------------------------------------------------------------------------------------------


def fit_title(text: str) -> str:
    """The title as YouTube takes it: one line of at most 100 characters, angle brackets as their single-quote twins."""
    line = " ".join(_without_brackets(text).split())
    return line if len(line) <= MAX_TITLE_CHARACTERS else line[: MAX_TITLE_CHARACTERS - 1].rstrip() + "…"


def fit_description(text: str) -> str:
    """The description as YouTube takes it: at most 5,000 bytes of UTF-8, cut between words, no angle brackets."""
    text = _without_brackets(text).strip()
    if len(text.encode()) <= MAX_DESCRIPTION_BYTES:
        return text
    cut = text.encode()[:MAX_DESCRIPTION_BYTES].decode(errors="ignore")
    return (re.sub(r"\s\S*$", "", cut) or cut).rstrip()


def _without_brackets(text: str) -> str:
    return text.replace("<", "\u2039").replace(">", "\u203a")


def status_part(job: PublishJob, privacy: str) -> JsonObject:
    """The whole status of the video: an update deletes what it leaves out, and a missing privacy means public."""
    return {
        "privacyStatus": privacy,
        "selfDeclaredMadeForKids": job.made_for_kids,
        "containsSyntheticMedia": True,
        "license": "youtube",
        "embeddable": True,
        "publicStatsViewable": True,
    }


@dataclass(frozen=True)
class Session:
    """An upload session as the journal keeps it. The URI is as good as a password.

    `last_byte_sent`: the request with the last byte may have left, so the video may exist. `lost_at`: when YouTube first said
    that it does not know the session.
    """

    uri: str
    opened_at: datetime
    last_byte_sent: bool = False
    lost_at: datetime | None = None

    def handle(self) -> JsonObject:
        """As JSON."""
        lost = None if self.lost_at is None else self.lost_at.isoformat()
        return {
            "session": self.uri,
            "opened_at": self.opened_at.isoformat(),
            "last_byte_sent": self.last_byte_sent,
            "lost_at": lost,
        }

    @classmethod
    def of(cls, handle: JsonObject) -> Session | None:
        """From JSON; None when there is no session."""
        if "session" not in handle:
            return None
        lost = handle.get("lost_at")
        return cls(
            uri=str(handle["session"]),
            opened_at=datetime.fromisoformat(str(handle["opened_at"])),
            last_byte_sent=bool(handle.get("last_byte_sent")),
            lost_at=None if lost is None else datetime.fromisoformat(str(lost)),
        )


@dataclass(frozen=True)
class Kept:
    """The session lives and holds this many bytes."""

    count: int


@dataclass(frozen=True)
class Finished:
    """The session ended with this video."""

    video_id: str


@dataclass(frozen=True)
class Gone:
    """YouTube does not know the session (any more)."""


@dataclass(frozen=True)
class Refused:
    """The session's answer is an error. `over`: the session takes no more bytes."""

    error: ProviderError
    over: bool


SessionAnswer: TypeAlias = Kept | Finished | Gone | Refused


def session_answer(response: httpx.Response, now: datetime, *, commits: bool) -> SessionAnswer:
    """What a session URI answered. Raises Transient, or Unknown when the request `commits`, for 5xx and unreadable answers."""
    status = response.status_code
    if status == 308:
        kept = re.fullmatch(r"bytes=0-(\d+)", response.headers.get("range", ""))
        return Kept(int(kept.group(1)) + 1 if kept else 0)
    if status in (404, 410):
        return Gone()
    if 400 <= status < 500:
        error = refusal(response, now)
        # A bad token or too quick a pace says nothing of the session; any other refusal ends it.
        pace = isinstance(error, Throttled) and error.code not in ("quotaExceeded", "dailyLimitExceeded", "uploadLimitExceeded")
        return Refused(error, over=not (pace or status == 401))
    video_id = _text(accepted(response, now, commits=commits), "id")
    if video_id is None:
        kind = Unknown if commits else Transient
        raise kind("YouTube named no video", provider=PROVIDER, code="malformed", evidence=evidence(response))
    return Finished(video_id)


def file_name(job: PublishJob) -> str:
    """Goes up as the Slug header and comes back as fileDetails.fileName, which only the owner can read."""
    return f"{job.marker}.mp4"


def is_ours(video: JsonObject, job: PublishJob) -> bool | None:
    """Whether a video of the uploads list is this job's. None: YouTube does not know its file yet.

    That YouTube takes the file name from Slug is not documented: without a name, title and size decide together.
    """
    details = _object(video, "fileDetails")
    name, size = _text(details, "fileName"), _text(details, "fileSize")
    if name == file_name(job):
        return True
    title = _text(_object(video, "snippet"), "title") or ""
    if name not in (None, "unknown") or title.strip() != fit_title(job.title):
        return False
    return None if size is None else size == str(job.size)


def _privacy(video: JsonObject) -> str | None:
    return _text(_object(video, "status"), "privacyStatus")


def _locked(video_id: str, job: PublishJob, shown: str | None) -> Rejected:
    message = (
        f"YouTube keeps video {video_id} {shown or 'hidden'} although {job.privacy} was asked for: uploads of an API project "
        "that has not passed YouTube's audit are locked as private. Apply for the audit, then replay; nothing is uploaded again"
    )
    return Rejected(message, provider=PROVIDER, code="lockedPrivate")


def _raise_for_end(status: JsonObject, video_id: str) -> None:
    """Raise for a video that YouTube will never show: Permanent for an unreadable file, Rejected for policy and deletion."""
    state = _text(status, "uploadStatus")
    if state == "failed":
        reason = _text(status, "failureReason") or "failed"
        raise Permanent(f"YouTube cannot process the file of video {video_id}: {reason}", provider=PROVIDER, code=reason)
    if state in ("rejected", "deleted"):
        reason = _text(status, "rejectionReason") or state
        raise Rejected(f"YouTube {state} video {video_id}: {reason}", provider=PROVIDER, code=reason)


def _object(value: JsonObject, name: str) -> JsonObject:
    part = value.get(name)
    return part if isinstance(part, dict) else {}


def _objects(value: JsonObject, name: str) -> list[JsonObject]:
    items = value.get(name)
    return [i for i in items if isinstance(i, dict)] if isinstance(items, list) else []


def _text(value: JsonObject, name: str) -> str | None:
    text = value.get(name)
    return text if isinstance(text, str) and text else None


def _time(value: JsonObject, name: str, default: datetime) -> datetime:
    text = _text(value, name)
    return default if text is None else datetime.fromisoformat(text)


def _check_file(job: PublishJob) -> None:
    size = job.file.stat().st_size if job.file.is_file() else 0
    if size != job.size:
        raise Permanent(f"the file to post has {size} bytes, {job.size} were promised", provider=PROVIDER, code="file")


async def _blocks(file: BinaryIO, start: int, end: int) -> AsyncIterator[bytes]:
    await asyncio.to_thread(file.seek, start)
    while start < end:
        block = await asyncio.to_thread(file.read, min(READ_BLOCK, end - start))
        if not block:
            return  # shorter than promised: the transport reports it
        start += len(block)
        yield block


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


# --- the publisher --------------------------------------------------------------------------------------------------


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
        poll_seconds: float = 2.0,
        chunk_bytes: int = 32 * GRANULE,
        absence_seconds: float = 600.0,
        category_id: str = "22",
    ) -> None:
        """Waits are in seconds: `patience` for YouTube's processing, `absence_seconds` until a lost video counts as never made.

        `chunk_bytes` is a multiple of 262,144; after each chunk the journal is committed. Raises ValueError.
        """
        if chunk_bytes <= 0 or chunk_bytes % GRANULE:
            raise ValueError(f"chunk_bytes must be a multiple of {GRANULE}")
        self.sandbox = sandbox
        self._client = client
        self._base = base_url.rstrip("/")
        self._tokens = tokens
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
        if video_id is None:
            video_id = await self._upload(job, journal)
            made: JsonObject = {"uploaded_at": self._clock.now().isoformat()}
            await journal.save(PostState.COMMITTING, handle=made, offset=job.size, remote_id=video_id)
        if journal.record.state not in (PostState.PUBLISHED, PostState.CONFIRMED):
            video = await self._release(job, journal, video_id)
            await journal.save(PostState.PUBLISHED, remote_id=video_id, url=self._url(video_id))
        else:
            video = await self._read(job, video_id) or {}
        published_at = _time(_object(video, "snippet"), "publishedAt", self._clock.now())
        return PublishedPost(remote_id=video_id, url=self._url(video_id), published_at=published_at)

    def _url(self, video_id: str) -> str:
        return f"{self._base}/watch/{video_id}" if self.sandbox else f"https://www.youtube.com/shorts/{video_id}"

    # --- upload

    async def _upload(self, job: PublishJob, journal: PostJournal) -> str:
        """The id of the private video, made now or found to have been made."""
        session = Session.of(journal.record.handle)
        if session is None:
            return await self._send_bytes(job, journal, await self._open(job, journal), 0)
        answer = await self._ask(job, session)
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
        response = await self._send(
            job,
            "POST",
            f"{self._base}/upload/youtube/v3/videos",
            headers=headers,
            params={"uploadType": "resumable", "part": "snippet,status"},
            json={"snippet": snippet, "status": status_part(job, "private")},
        )
        if response.status_code >= 300:
            accepted(response, self._clock.now())
        location = response.headers.get("location")
        if location is None:
            raise Transient("YouTube gave no upload session", provider=PROVIDER, code="malformed", evidence=evidence(response))
        session = Session(uri=location, opened_at=self._clock.now())
        await journal.save(PostState.OPENED, handle=session.handle(), offset=0)
        return session

    async def _ask(self, job: PublishJob, session: Session) -> SessionAnswer:
        """How far the session is; one that has ended repeats its final answer."""
        headers = {"Content-Range": f"bytes */{job.size}", "Content-Length": "0"}
        response = await self._send(job, "PUT", session.uri, headers=headers)
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
        with await asyncio.to_thread(job.file.open, "rb") as file:
            blocks = _blocks(file, start, end)
            response = await self._send(job, "PUT", session.uri, commits=commits, headers=headers, content=blocks)
        return session_answer(response, self._clock.now(), commits=commits)

    # --- a session that is gone

    async def _find_lost(self, job: PublishJob, journal: PostJournal, session: Session) -> str | None:
        """The video of a session that YouTube forgot, or None once it was looked for long enough. Raises Unknown until then."""
        now = self._clock.now()
        if session.lost_at is None:
            session = replace(session, lost_at=now)
        await _save_unknown(journal, session.handle())
        found, undecided = await self._search(job, session)
        if found is not None:
            return found
        left = (self._absence - (now - (session.lost_at or now))).total_seconds()
        if left <= 0 and not undecided:
            return None
        message = "the upload session is gone; the channel's uploads are searched for the video"
        pause = min(LOOK_AGAIN_SECONDS, left) if left > 0 else LOOK_AGAIN_SECONDS
        raise Unknown(message, provider=PROVIDER, code="sessionGone", retry_after=pause)

    async def _search(self, job: PublishJob, session: Session) -> tuple[str | None, bool]:
        """Our video among the uploads since the session was opened, and whether one may yet turn out to be ours."""
        ids = await self._uploads_since(job, session.opened_at - CLOCK_MARGIN)
        undecided = False
        for i in range(0, len(ids), MAX_IDS):
            listing = await self._get(job, "videos", part="snippet,status,fileDetails", id=",".join(ids[i : i + MAX_IDS]))
            for video in _objects(listing, "items"):
                ours = is_ours(video, job)
                if ours:
                    return _text(video, "id"), False
                undecided = undecided or ours is None
        return None, undecided

    async def _uploads_since(self, job: PublishJob, since: datetime) -> list[str]:
        channels = _objects(await self._get(job, "channels", part="contentDetails", mine="true"), "items")
        if not channels:
            raise Permanent("the account has no YouTube channel", provider=PROVIDER, code="youtubeSignupRequired")
        playlist = _text(_object(_object(channels[0], "contentDetails"), "relatedPlaylists"), "uploads") or ""
        ids: list[str] = []
        page: str | None = None
        for _ in range(MAX_PAGES):
            query = {"part": "snippet,contentDetails", "playlistId": playlist, "maxResults": str(MAX_IDS)}
            try:
                listing = await self._get(job, "playlistItems", **query, **({"pageToken": page} if page else {}))
            except ProviderError as error:
                if error.code == "playlistNotFound":  # what a channel without any upload answers
                    return ids
                raise
            items = _objects(listing, "items")
            fresh = [i for i in items if _time(_object(i, "snippet"), "publishedAt", since) >= since]
            ids += [v for i in fresh if (v := _text(_object(i, "contentDetails"), "videoId"))]
            page = _text(listing, "nextPageToken")
            if page is None or len(fresh) < len(items):
                break
        return ids

    # --- from private to out

    async def _release(self, job: PublishJob, journal: PostJournal, video_id: str) -> JsonObject:
        """Wait for the processing, set the wanted privacy, read it back. The video as last read."""
        video = await self._processed(job, journal, video_id)
        if _privacy(video) == job.privacy:
            return video
        await journal.save(PostState.COMMITTING)
        async with _in_doubt(journal):
            change: JsonObject = {"id": video_id, "status": status_part(job, job.privacy)}
            url = f"{self._base}/youtube/v3/videos"
            response = await self._send(job, "PUT", url, commits=True, params={"part": "status"}, json=change)
            answer = accepted(response, self._clock.now(), commits=True)
        if _privacy(answer) != job.privacy:
            raise _locked(video_id, job, _privacy(answer))
        deadline = self._clock.now() + timedelta(seconds=self._patience)
        while True:
            shown = await self._read(job, video_id)
            if shown is not None and _privacy(shown) == job.privacy:
                return shown
            if self._clock.now() + timedelta(seconds=self._poll) > deadline:
                raise _locked(video_id, job, _privacy(shown or {}))
            await self._clock.sleep(self._poll)

    async def _processed(self, job: PublishJob, journal: PostJournal, video_id: str) -> JsonObject:
        """The video once YouTube has processed it. Raises NotYet, Permanent (unreadable file) or Rejected (policy)."""
        deadline = self._clock.now() + timedelta(seconds=self._patience)
        while True:
            video = await self._read(job, video_id)
            if video is not None:
                status = _object(video, "status")
                if _text(status, "uploadStatus") == "processed":
                    return video
                _raise_for_end(status, video_id)
            elif self._clock.now() - _time(journal.record.handle, "uploaded_at", self._clock.now()) > self._absence:
                raise Rejected(f"video {video_id} is gone from YouTube", provider=PROVIDER, code="videoGone")
            if self._clock.now() + timedelta(seconds=self._poll) > deadline:
                raise NotYet(f"YouTube is still processing video {video_id}", retry_after=max(30.0, self._poll))
            await self._clock.sleep(self._poll)

    # --- requests

    async def _read(self, job: PublishJob, video_id: str) -> JsonObject | None:
        listing = await self._get(job, "videos", part="snippet,status,processingDetails", id=video_id)
        return next(iter(_objects(listing, "items")), None)

    async def _get(self, job: PublishJob, resource: str, **query: str) -> JsonObject:
        response = await self._send(job, "GET", f"{self._base}/youtube/v3/{resource}", params=query)
        return accepted(response, self._clock.now())

    async def _send(
        self,
        job: PublishJob,
        method: str,
        url: str,
        *,
        commits: bool = False,
        headers: Mapping[str, str] | None = None,
        **request: Any,
    ) -> httpx.Response:
        # Asked for each request: an upload may outlive a token.
        token = await self._tokens.token(Platform.YOUTUBE, job.account)
        merged = {**bearer(token), **(headers or {})}
        return await send(self._client, method, url, provider=PROVIDER, commits=commits, headers=merged, **request)
