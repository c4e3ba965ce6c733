"""Posts reels with the Instagram Platform: container, resumable upload, processing, `media_publish`, permalink.

The one public step is `media_publish`. When its answer is lost, the container is read: only one that is still FINISHED after
a while, and whose caption does not stand among the account's media, is published again, with the same creation_id.
The order of the steps and the journal stand here. Requests and errors belong in `instagram_api`, a container's handle and state
in `instagram_container`, what a reel may be and how it is found again in `instagram_reel`.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import httpx

from phantoms_dagster.domain.errors import NotYet, PhantomsError, ProviderError, Rejected, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PostJournal, PublishedPost, PublishJob, Tokens
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.providers import http
from phantoms_dagster.providers.instagram_api import (
    GONE,
    NOT_READY,
    PROVIDER,
    AppSecret,
    Graph,
    moment,
    no_secret,
    path,
    upload_error,
)
from phantoms_dagster.providers.instagram_container import MISSING, Container, Quotas, container_of, failed, read_status
from phantoms_dagster.providers.instagram_reel import check, listed_like
from phantoms_dagster.providers.polling import FIRST_PAUSE_SECONDS, Patience

LIFE = timedelta(hours=23)  # of a container, with an hour to spare
LONGEST_POLL = 60.0  # the platform asks for about one look a minute


class InstagramPublisher:
    """A `Publisher` of reels.

    `patience`, `settle_seconds`, `stall_seconds` and `poll_seconds` are in seconds: the longest wait inside a call, the time
    between the two reads that prove that nothing was published, the time after which an upload whose answer was lost is given
    up, and the first pause between two looks at a container.
    """

    provider = PROVIDER
    platform = Platform.INSTAGRAM

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        base_url: str,
        upload_url: str,
        tokens: Tokens,
        clock: Clock,
        sandbox: bool = False,
        version: str = "v26.0",
        app_secret: AppSecret = no_secret,
        patience: float = 60.0,
        settle_seconds: float = 60.0,
        stall_seconds: float = 60.0,
        poll_seconds: float = 2.0,
    ) -> None:
        self.sandbox = sandbox
        self._client = client
        self._graph = Graph(client=client, base_url=base_url, version=version, tokens=tokens, app_secret=app_secret)
        self._quotas = Quotas(self._graph, clock)
        self._uploads = f"{upload_url.rstrip('/')}/"
        self._upload_path = f"ig-api-upload/{version}"
        self._clock = clock
        self._patience, self._poll = patience, poll_seconds
        self._settle, self._stall = timedelta(seconds=settle_seconds), timedelta(seconds=stall_seconds)

    async def publish(self, job: PublishJob, journal: PostJournal) -> PublishedPost:
        """Make the post, or finish making it, from whatever state its journal is in."""
        patience = Patience(self._clock, self._patience, first=min(FIRST_PAUSE_SECONDS, self._poll), longest=LONGEST_POLL)
        fresh = False  # the bytes went up in this very call: nothing is processed within a moment
        while True:
            state = journal.record.state
            if state in (PostState.PUBLISHED, PostState.CONFIRMED):
                return await self._confirm(job, journal)
            sent = state is not PostState.UPLOADING or container_of(journal.record).sent_at is not None
            if state in (PostState.INTENT, PostState.FAILED, PostState.OPENED) or not sent:
                check(job)
            if state in (PostState.INTENT, PostState.FAILED):
                await self._begin(journal)
            elif state is PostState.OPENED or not sent:
                await self._upload(job, journal)
                fresh = journal.record.state is PostState.UPLOADING
            elif state is PostState.UPLOADING:
                if fresh:
                    await patience.poll("Instagram is processing the video")
                await self._process(job, journal, patience)
            else:
                await self._resolve(job, journal, patience)

    # --- intent -> opened -> uploading

    async def _begin(self, journal: PostJournal) -> None:
        """Take the account, with the container of an earlier life if that may have been published, else with none yet."""
        record = journal.record
        if record.state is PostState.FAILED:
            record = await journal.save(PostState.INTENT)
        earlier = Container.model_validate(record.handle) if record.handle else None
        if earlier is not None and earlier.published_at is not None:
            # A replay of a post that was given up in doubt: the doubt is resolved before anything else.
            await journal.save(PostState.OPENED)
            return
        # Saved before the container is made: an account that is busy is no reason to use up its 400 containers a day.
        await journal.save(PostState.OPENED, handle={}, offset=0)

    async def _open(self, job: PublishJob, journal: PostJournal) -> Container:
        started = self._clock.now()
        try:
            await self._quotas.check(job.account)
            answer, date = await self._graph.post(
                job.account,
                path(await self._graph.user(job.account), "media"),
                before=job.may_go,
                media_type="REELS",
                upload_type="resumable",
                caption=job.caption,
                share_to_feed="true",
                is_ai_generated="true",
            )
        except PhantomsError:
            # The account is free for others meanwhile. A container whose id was lost stays private and dies within a day.
            await self._give_up(journal)
            raise
        number, uri = answer.get("id"), answer.get("uri")
        if not isinstance(number, str):
            raise Transient("Instagram made a container without an id", provider=PROVIDER, code="malformed")
        # The token goes to the host that was configured, whatever the answer says.
        known = isinstance(uri, str) and uri.startswith(self._uploads)
        url = str(uri) if known else f"{self._uploads}{self._upload_path}/{number}"
        container = Container(id=number, upload_url=url, since=_whole(date or started))
        await self._save(journal, PostState.OPENED, container)
        return container

    async def _upload(self, job: PublishJob, journal: PostJournal) -> None:
        container = Container.model_validate(journal.record.handle) if journal.record.handle else None
        if container is None:
            container = await self._open(job, journal)
        elif container.published_at is not None:
            await journal.save(PostState.COMMITTING)
            return
        elif self._clock.now() - container.since > LIFE or not container.upload_url.startswith(self._uploads):
            # Dead, or at a host that is not the upload's: the token goes nowhere else.
            await self._give_up(journal)
            return
        token = await self._graph.token(job.account)
        await self._save(journal, PostState.UPLOADING, container.but(sent_at=self._clock.now()), offset=0)
        headers = {"Authorization": f"OAuth {token}", "offset": "0", "file_size": str(job.size), "Content-Length": str(job.size)}
        try:
            async with http.file_body(job.file, 0, job.size) as content:
                # `commits` only to tell a lost answer from a request that never left: an upload makes nothing public.
                response = await http.send(
                    self._client,
                    "POST",
                    container.upload_url,
                    provider=PROVIDER,
                    commits=True,
                    headers=headers,
                    content=content,
                )
        except Unknown as error:
            raise Transient(str(error), provider=PROVIDER, code=error.code, evidence=error.evidence) from error
        except (ProviderError, NotYet):
            await self._save(journal, PostState.UPLOADING, container)
            raise
        refused = upload_error(response, job.account)
        if refused is not None:
            # Nothing can come of this container; the next attempt makes another.
            await self._give_up(journal)
            raise refused
        await journal.save(PostState.UPLOADING, offset=job.size)

    # --- uploading -> committing -> published

    async def _process(self, job: PublishJob, journal: PostJournal, patience: Patience) -> None:
        """Wait until the container is FINISHED, then publish it."""
        container, uploaded = container_of(journal.record), journal.record.offset == job.size
        while True:
            status, text = await read_status(self._graph, job.account, container.id)
            if status == "FINISHED":
                return await self._commit(job, journal, container)
            if status == "PUBLISHED" or (container.published_at is not None and status != "IN_PROGRESS"):
                # An earlier media_publish took effect, or may have: the resolving read decides.
                await journal.save(PostState.UNKNOWN)
                return None
            stalled = container.sent_at is None or self._clock.now() - container.sent_at >= self._stall
            if status in ("ERROR", "EXPIRED") or (stalled and (status == MISSING or not uploaded)):
                await self._give_up(journal)
                raise failed(status, text, job.account)
            await patience.poll(f"Instagram is processing the video ({status})")

    async def _commit(self, job: PublishJob, journal: PostJournal, container: Container) -> None:
        """The commit point."""
        await self._quotas.check(job.account)
        sent = container.but(published_at=self._clock.now(), doubt=None, doubt_at=None)
        await self._save(journal, PostState.COMMITTING, sent)
        self._quotas.sent(job.account)
        try:
            target = path(await self._graph.user(job.account), "media_publish")
            answer, _ = await self._graph.post(job.account, target, commits=True, before=job.may_go, creation_id=container.id)
            number = answer.get("id")
            if not isinstance(number, str):
                raise Unknown("Instagram published without naming the post", provider=PROVIDER, code="malformed")
        except Unknown as error:
            await journal.save(PostState.UNKNOWN)
            error.retry_after = error.retry_after if error.retry_after is not None else self._poll
            raise
        except Rejected:
            # Blocked as spam has been seen on posts that were out all the same: look before a person does.
            await journal.save(PostState.UNKNOWN)
            if await self._found(job, journal, sent):
                return
            raise
        except (ProviderError, NotYet) as error:
            # Never sent, or refused in so many words: it did not take effect. `published_at` stays, so it is still looked up.
            await journal.save(PostState.UPLOADING)
            if isinstance(error, ProviderError) and error.code == NOT_READY:
                raise NotYet("Instagram is not ready to publish the video", retry_after=self._poll) from error
            raise
        await journal.save(PostState.PUBLISHED, remote_id=number)

    async def _confirm(self, job: PublishJob, journal: PostJournal) -> PublishedPost:
        """Read the post back. The url is empty when Instagram withholds the permalink (copyright claims)."""
        number = journal.record.remote_id
        assert number is not None, "a published post has an id"
        try:
            media = await self._graph.get(job.account, path(number), fields="id,permalink,timestamp")
        except ProviderError as error:
            if error.code not in GONE:
                raise
            raise Transient(
                "Instagram does not show the post yet", provider=PROVIDER, code=error.code, evidence=error.evidence
            ) from error
        url, published_at = media.get("permalink"), moment(media.get("timestamp"))
        if published_at is None:
            raise Transient("Instagram showed the post without a timestamp", provider=PROVIDER, code="malformed")
        record = await journal.save(PostState.CONFIRMED, url=url if isinstance(url, str) else "")
        return PublishedPost(remote_id=number, url=record.url or "", published_at=published_at)

    # --- doubt

    async def _resolve(self, job: PublishJob, journal: PostJournal, patience: Patience) -> None:
        """Find out whether `media_publish` took effect. Leaves the journal published, committing again, or at intent."""
        container = container_of(journal.record)
        while True:
            status, text = await read_status(self._graph, job.account, container.id)
            if status == "PUBLISHED":
                if await self._found(job, journal, container):
                    return None
                raise Unknown(
                    "the container is published, but its post is not listed (yet)",
                    provider=PROVIDER,
                    code="unlisted",
                    retry_after=self._settle.total_seconds(),
                )
            if status == "IN_PROGRESS":
                await patience.poll("Instagram is publishing the video, or still processing it")
                continue
            now = self._clock.now()
            if container.doubt != status or container.doubt_at is None:
                container = container.but(doubt=status, doubt_at=now)
                await self._save(journal, PostState.UNKNOWN, container)
            assert container.doubt_at is not None
            left = (container.doubt_at + self._settle - now).total_seconds()
            if left > 0:
                await patience.wait(left, f"the answer to media_publish was lost and the container is {status}; reading it again")
                continue
            if await self._found(job, journal, container):
                return None
            if status == "FINISHED":
                return await self._commit(job, journal, container)
            await self._give_up(journal)
            raise failed(status, text, job.account)

    async def _found(self, job: PublishJob, journal: PostJournal, container: Container) -> bool:
        """Whether the post stands among the account's media; if so the journal says published. The container names no media id."""
        matches = await listed_like(self._graph, job.account, job.caption, container.since)
        if len(matches) > 1:
            raise Unknown(
                f"{len(matches)} reels of account {job.account} have this caption: a person must say which is ours",
                provider=PROVIDER,
                code="ambiguous",
                retry_after=LONGEST_POLL,
            )
        if not matches:
            return False
        await journal.save(PostState.PUBLISHED, remote_id=matches[0])
        return True

    # --- what the steps share

    async def _save(self, journal: PostJournal, state: PostState, container: Container, *, offset: int | None = None) -> None:
        await journal.save(state, handle=container.model_dump(mode="json"), offset=offset)

    async def _give_up(self, journal: PostJournal) -> None:
        """Forget a container of which nothing can come any more."""
        await journal.save(PostState.INTENT, handle={}, offset=0)


def _whole(moment: datetime) -> datetime:
    """Without the fraction: timestamps of media have whole seconds."""
    return moment.replace(microsecond=0)
