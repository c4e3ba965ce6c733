"""Posting to TikTok (Content Posting API, direct post, FILE_UPLOAD): the protocol, and what may be asked of it.

init only opens a slot; the last chunk is the one request that publishes; status/fetch is the read that resolves doubt.
An upload that is not complete cannot publish, so everything before the last chunk may be done again. The calls that carry a
token and the error table are in `tiktok_api`, the chunk plan and the decisions in `tiktok_chunks`.
"""

from __future__ import annotations

from datetime import timedelta
from types import MappingProxyType

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, ProviderError, Rejected, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PostJournal, PostRecord, PublishedPost, PublishJob, Tokens
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.http import file_body, same_service, send, server_error, unexpected
from phantoms_dagster.providers.polling import FIRST_PAUSE_SECONDS, Patience
from phantoms_dagster.providers.tiktok_api import PROVIDER, TikTokCalls, error_for, listed_since, read_status, same_video
from phantoms_dagster.providers.tiktok_chunks import DECIDED, ChunkPlan, Slot, Step, content_of, next_step, plan_chunks, post_url

CREATOR_INFO_PATH = "/v2/post/publish/creator_info/query/"
INIT_PATH = "/v2/post/publish/video/init/"
MAX_TITLE_UNITS = 2_200
MAX_VIDEO_BYTES = 4 << 30
UPLOADS_PER_CALL = 3  # times one call sends chunks to the same slot before it gives up for now
SLOTS_PER_CALL = 2
RETRY_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 5.0  # with the doubling before it: under 30 status calls a minute
ID_WAIT = timedelta(minutes=10)  # after the last chunk: until then a video whose upload TikTok lost may still be listed
UPLOAD_URL_LIFE = timedelta(hours=1, minutes=2)  # an hour, and what our clocks may differ
CLOCK_SKEW = timedelta(minutes=2)
CONTENT_TYPES = MappingProxyType({".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm"})


class TikTokPublisher:
    """Posts videos. `patience`: longest wait for TikTok's processing, in seconds.

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
        patience: float = 60.0,
        poll_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._client = client
        self._base_url = base_url.rstrip("/")
        self._calls = TikTokCalls(client, base_url, tokens)
        self._clock = clock
        self.sandbox = sandbox
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
        creator = await self._calls.post(job.account, CREATOR_INFO_PATH, before=job.may_go)
        plan = plan_chunks(job.size)
        data = await self._calls.post(job.account, INIT_PATH, init_body(job, creator, plan), before=job.may_go)
        publish_id, upload_url = data.get("publish_id"), data.get("upload_url")
        if not (isinstance(publish_id, str) and publish_id and isinstance(upload_url, str) and upload_url):
            raise Transient("TikTok opened no upload", provider=PROVIDER, code="malformed")
        if not (self.sandbox or self._owns(upload_url)):
            host = httpx.URL(upload_url).host
            message = f"TikTok named an upload address at another host ({host}); check PHANTOMS_TIKTOK_BASE_URL"
            raise Permanent(message, provider=PROVIDER, code="foreign_host")
        slot = Slot(
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
        await journal.save(PostState.OPENED, handle=slot.model_dump(mode="json"), offset=0)

    async def _carry(self, job: PublishJob, journal: PostJournal, *, fresh: bool) -> PublishedPost | None:
        """Bring the journal's slot to its end; None when it is dead, published nothing and the journal says `intent`."""
        slot = Slot.model_validate(journal.record.handle)
        patience = Patience(
            self._clock, self._patience, first=self._poll_seconds, longest=LONGEST_PAUSE_SECONDS, again=RETRY_SECONDS
        )
        refusal: ProviderError | None = None
        counted, uploads = False, 0
        step = Step("upload") if fresh else None
        while True:
            if step is None:
                seen = await read_status(self._calls, job.account, slot.publish_id)
                step = next_step(seen, journal.record, slot.size, refusal=refusal, counted=counted)
            if step.do == "upload" and (slot.content != content_of(job) or not (self.sandbox or self._owns(slot.upload_url))):
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
                if refusal is None and counted:  # nothing is processed within the moment of its upload
                    await patience.poll("TikTok still processes the video")
            elif step.do == "wait":
                await patience.poll("TikTok still processes the video")
            else:
                post = await (self._complete(journal, step.post_id) if step.do == "complete" else self._search(job, journal))
                if post is not None:
                    return post
                await patience.poll("TikTok lost the upload, and its video is not listed (yet)")
            step = None

    def _owns(self, url: str) -> bool:
        """Whether an upload address is at this very service: the film goes nowhere else."""
        return same_service(url, self._base_url, ".tiktokapis.com")

    def _abandoned(self, record: PostRecord, slot: Slot) -> Step:
        """The video was made again since its slot was opened, and the slot holds less than the whole old one; or the slot's address
        is at another host.

        Once its last chunk was sent, a runner that was taken over may still wake up and send it: the slot must die first.
        """
        left = (slot.opened_at + UPLOAD_URL_LIFE - self._clock.now()).total_seconds()
        if record.state in DECIDED and left > 0:
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
        if journal.record.state in DECIDED and offset < plan.last_start:
            await journal.save(PostState.OPENED, offset=offset)
        while True:
            last, end = offset >= plan.last_start, plan.end(offset)
            if last:
                slot = slot.model_copy(update={"committed_at": self._clock.now()})
                await journal.save(PostState.COMMITTING, handle=slot.model_dump(mode="json"), offset=offset)
            try:
                response = await self._put(job, slot, offset, end, commits=last)
            except Unknown:
                await journal.save(PostState.UNKNOWN)
                raise
            except NotYet:
                if last:  # it never left
                    await journal.save(PostState.UPLOADING)
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
        async with file_body(job.file, offset, end) as content:
            url = slot.upload_url
            response = await send(
                self._client,
                "PUT",
                url,
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

    async def _complete(self, journal: PostJournal, post_id: str | None) -> PublishedPost:
        """Write the published post down.

        PUBLISH_COMPLETE is final, whether TikTok names a public id yet or not: the id comes after moderation, minutes or hours
        later, and never for a post that is not public to everyone. Without one the post goes by its publish_id, and
        `tiktok_late` asks for the public id later. The account is free for the next post meanwhile.
        """
        record = journal.record
        slot = Slot.model_validate(record.handle)
        slot = slot.model_copy(update={"completed_at": slot.completed_at or self._clock.now()})
        handle, remote_id = slot.model_dump(mode="json"), post_id or slot.publish_id
        if record.state in (PostState.OPENED, PostState.UPLOADING):
            await journal.save(PostState.COMMITTING, handle=handle)
        url = post_url(slot, remote_id, base_url=self._base_url if self.sandbox else None)
        return self._published(await journal.save(PostState.PUBLISHED, handle=handle, remote_id=remote_id, url=url))

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
        if not found and self._clock.now() - (slot.committed_at or record.attempted_at or slot.opened_at) <= ID_WAIT:
            return None
        await journal.save(PostState.UNKNOWN)
        raise Rejected(
            f"TikTok no longer knows the upload, and {len(found)} videos of @{slot.username} look like it: look at the account",
            provider=PROVIDER,
            code="invalid_publish_id",
        )

    def _published(self, record: PostRecord) -> PublishedPost:
        assert record.remote_id is not None
        assert record.url is not None
        completed_at = Slot.model_validate(record.handle).completed_at if record.handle else None
        return PublishedPost(record.remote_id, record.url, completed_at or record.attempted_at or self._clock.now())


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
    if job.tiktok is None:
        raise Permanent(
            "TikTok: nobody chose who may see this post. Set `tiktok: {privacy: ...}` of the channel in channels.yaml, then "
            "approve the video again",
            provider=PROVIDER,
            code="no_choice",
        )
    if job.size > MAX_VIDEO_BYTES:
        raise _refused(f"takes at most {MAX_VIDEO_BYTES} bytes, the file has {job.size}")
    if utf16_units(job.caption) > MAX_TITLE_UNITS:
        raise _refused(f"the caption has {utf16_units(job.caption)} UTF-16 units, at most {MAX_TITLE_UNITS} are taken")


def utf16_units(text: str) -> int:
    """The length as TikTok counts it: an emoji is two."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def init_body(job: PublishJob, creator: JsonObject, plan: ChunkPlan) -> JsonObject:
    """What init is asked for, within what creator_info allows. Raises Rejected or Permanent when it does not allow it."""
    terms, privacy = job.tiktok, job.privacy
    assert terms is not None, "checked before"
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
        "disable_comment": not terms.comments or bool(creator.get("comment_disabled")),
        "disable_duet": not terms.duets or bool(creator.get("duet_disabled")),
        "disable_stitch": not terms.stitches or bool(creator.get("stitch_disabled")),
        "brand_content_toggle": terms.branded_content,
        "brand_organic_toggle": terms.your_brand,
        "is_aigc": terms.ai_generated,
    }
    source: JsonObject = {
        "source": "FILE_UPLOAD",
        "video_size": plan.size,
        "chunk_size": plan.chunk_size,
        "total_chunk_count": plan.count,
    }
    return {"post_info": info, "source_info": source}
