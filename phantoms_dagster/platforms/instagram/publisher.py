"""Posts reels with the Instagram Platform: container, upload or fetch, processing, `media_publish`, permalink.

`commit` is `media_publish`, the one public step. If its answer is lost, `find` reads the container. It is published again, with the
same creation_id, only if it is still FINISHED after a while and the account's media have no reel with its caption.
This module has the verbs. `api` has requests and errors, `container` the handle and its status, `reel` the limits of a reel and the
search for it, `source` where Instagram gets the bytes from.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, PhantomsError, ProviderError, Rejected, Transient, Unknown
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
)
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.platforms.instagram.api import (
    GONE,
    NOT_READY,
    PROVIDER,
    AppSecret,
    Graph,
    moment,
    no_secret,
    path,
    token_refused,
    upload_error,
)
from phantoms_dagster.platforms.instagram.container import MISSING, Container, Quotas, container_of, failed, read_status
from phantoms_dagster.platforms.instagram.reel import check, container_fields, reels_with_caption
from phantoms_dagster.platforms.instagram.source import Way, address_of, explained
from phantoms_dagster.providers import http
from phantoms_dagster.providers.polling import FIRST_PAUSE_SECONDS, Polling

LIFE = timedelta(hours=23)  # a container lives for 24 hours; an hour is the margin
LONGEST_POLL = 60.0  # the platform recommends about one poll a minute
# Publishing takes seconds. If it takes this long, a person must hear of it.
PUBLISHING_TIME = timedelta(hours=1)


class InstagramPublisher:
    """Implements `ports.Publisher` for reels. All times are in seconds.

    `max_wait`: the longest wait within a call. `upload`: see the setting of that name. `settle_seconds`: the time between the two
    reads that prove that nothing was published. `stall_seconds`: when an upload whose answer was lost is given up. `poll_seconds`:
    the first pause between polls.
    """

    provider = PROVIDER
    platform = Platform("instagram")
    account_first = True  # waiting for a busy account must not use up its 400 containers a day

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
        max_wait: float = 60.0,
        settle_seconds: float = 60.0,
        stall_seconds: float = 60.0,
        poll_seconds: float = 2.0,
        upload: Way = "auto",
    ) -> None:
        self.sandbox = sandbox
        self.upload = upload
        self.client = client
        self.graph = Graph(client=client, base_url=base_url, version=version, tokens=tokens, app_secret=app_secret)
        self.quotas = Quotas(self.graph, clock)
        self.uploads = f"{upload_url.rstrip('/')}/"
        self.upload_path = f"ig-api-upload/{version}"
        self.clock = clock
        self.max_wait, self.poll_seconds = max_wait, poll_seconds
        self.settle, self.stall = timedelta(seconds=settle_seconds), timedelta(seconds=stall_seconds)

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[InstagramPost]:
        """See the port."""
        yield InstagramPost(self, job)


class InstagramPost:
    """The verbs for one post. See `domain.publication.PublishVerbs`."""

    def __init__(self, publisher: InstagramPublisher, job: PublishJob) -> None:
        self._at = publisher
        self._graph = publisher.graph
        self._clock = publisher.clock
        self._job = job
        first = min(FIRST_PAUSE_SECONDS, publisher.poll_seconds)
        self._polling = Polling(publisher.clock, publisher.max_wait, first=first, longest=LONGEST_POLL)
        self._opened = False  # the container was created in this call
        self._token = ""  # for the upload that the ledger records as about to be sent
        self._fresh = False  # the bytes were uploaded in this call, so they cannot be processed yet
        self._settling = False  # a status was read and saved in this call; it is read again after the settle time

    # --- check and open

    def check(self) -> None:
        """See the port."""
        check(self._job)

    async def open(self) -> Handle:
        """Create a container. One whose id was lost stays private and expires within a day."""
        job, started = self._job, self._clock.now()
        await self._at.quotas.check(job.account)
        address = await address_of(job, self._at.upload, self._graph, sandbox=self._at.sandbox)
        source = {"upload_type": "resumable"} if address is None else {"video_url": address}
        place = path(await self._graph.user(job.account), "media")
        try:
            answer, date = await self._graph.post(job.account, place, {**container_fields(job), **source}, before=job.may_go)
        except Permanent as error:
            raise explained(error, job, fetched=address is not None) from error
        number, uri = answer.get("id"), answer.get("uri")
        if not isinstance(number, str):
            raise Transient("Instagram created a container but returned no id", provider=PROVIDER, code="malformed")
        if address is not None:
            self._opened = True
            return _handle(Container(id=number, upload_url="", since=_whole(date or started), sent_at=started))
        # The token goes only to the configured host, whatever the answer says.
        known = isinstance(uri, str) and uri.startswith(self._at.uploads)
        url = str(uri) if known else f"{self._at.uploads}{self._at.upload_path}/{number}"
        self._opened = True
        return _handle(Container(id=number, upload_url=url, since=_whole(date or started)))

    # --- the bytes and their processing

    async def upload(self, record: PostRecord) -> Progress | Finding:
        """Send the bytes, then wait until the container is FINISHED. Returns what must be saved before the next request."""
        container = container_of(record)
        if container.fetched:
            return await self._fetched(record, container)
        if container.sent_at is None:
            return await self._about_to_send(container)
        if self._token:
            token, self._token = self._token, ""
            return await self._send(container, token)
        return await self._finished(record, container)

    async def _fetched(self, record: PostRecord, container: Container) -> Progress | NotPublished | Undecided:
        """Wait until Instagram has fetched and processed the file."""
        if not self._opened and self._clock.now() - container.since > LIFE and container.published_at is None:
            return NotPublished("the container has expired; nothing was published from it", then="open")
        self._fresh = self._opened
        self._opened = False
        return await self._finished(record, container)

    async def _about_to_send(self, container: Container) -> Progress | NotPublished:
        check(self._job)
        dead = not self._opened and self._clock.now() - container.since > LIFE
        if dead or not container.upload_url.startswith(self._at.uploads):
            # The token must not go to another host.
            return NotPublished("the container has expired or its URL is on another host; nothing was sent to it", then="open")
        self._token = await self._graph.token(self._job.account)
        return Progress(0, _handle(container.changed(sent_at=self._clock.now())))

    async def _send(self, container: Container, token: str) -> Progress | NotPublished:
        size = str(self._job.size)
        headers = {"Authorization": f"OAuth {token}", "offset": "0", "file_size": size, "Content-Length": size}
        try:
            async with http.file_body(self._job.file, 0, self._job.size) as content:
                # An upload publishes nothing. `commits` only distinguishes a lost answer from a request that was never sent.
                response = await http.send(
                    self._at.client,
                    "POST",
                    container.upload_url,
                    provider=PROVIDER,
                    commits=True,
                    headers=headers,
                    content=content,
                )
        except Unknown as error:
            raise Transient(str(error), provider=PROVIDER, code=error.code, evidence=error.evidence) from error
        except (ProviderError, NotYet) as error:
            return Progress(0, _handle(container.changed(sent_at=None)), error=error)
        refused = upload_error(response, self._job.account)
        if refused is not None:
            if token_refused(response) and await self._graph.renewed(self._job.account, token):
                message = f"the token of Instagram account {self._job.account} expired during the upload and was replaced"
                refused = Transient(message, provider=PROVIDER, code="token_replaced", evidence=refused.evidence, retry_after=0.0)
            # This container cannot be published any more. The next attempt creates another.
            return NotPublished(f"the upload was refused: {refused}", then="open", error=refused)
        self._fresh = True
        return Progress(self._job.size)

    async def _finished(self, record: PostRecord, container: Container) -> Progress | NotPublished | Undecided:
        if self._fresh:
            self._fresh = False
            await self._polling.poll("Instagram is processing the video")
        while True:
            status, text = await read_status(self._graph, self._job.account, container.id)
            if status == "FINISHED":
                return Progress(record.offset, await self._publishing(container), ready=True)
            if status == "PUBLISHED" or (container.published_at is not None and status != "IN_PROGRESS"):
                # An earlier media_publish took effect or may have: `find` decides.
                return Undecided()
            stalled = container.sent_at is None or self._clock.now() - container.sent_at >= self._at.stall
            unsent = not container.fetched and record.offset != self._job.size
            if status in ("ERROR", "EXPIRED") or (stalled and (status == MISSING or unsent)):
                return self._given_up(status, text)
            await self._polling.poll(f"Instagram is processing the video ({status})")

    async def _publishing(self, container: Container) -> Handle:
        """The handle to save before `media_publish`. Raises Throttled when the account's quota is used up."""
        await self._at.quotas.check(self._job.account)
        return _handle(container.changed(published_at=self._clock.now(), doubt=None, doubt_at=None))

    def _given_up(self, status: str, text: str) -> NotPublished:
        error = failed(status, text, self._job.account)
        return NotPublished(f"the container cannot be published: {error}", then="open", error=error)

    # --- commit

    async def commit(self, record: PostRecord) -> RemoteId | NotPublished | Undecided:
        """Send `media_publish`."""
        job, container = self._job, container_of(record)
        self._at.quotas.sent(job.account)
        try:
            target = path(await self._graph.user(job.account), "media_publish")
            form = {"creation_id": container.id}
            answer, _ = await self._graph.post(job.account, target, form, commits=True, before=job.may_go)
            number = answer.get("id")
            if not isinstance(number, str):
                raise Unknown("Instagram published the post but returned no id", provider=PROVIDER, code="malformed")
        except Unknown as error:
            error.retry_after = error.retry_after if error.retry_after is not None else self._at.poll_seconds
            raise
        except Rejected as error:
            # Posts that were refused as spam have turned out to be public, so check before a person must.
            return await self._find_in_list(container) or Undecided(error=error)
        except (ProviderError, NotYet) as error:
            # Never sent or refused explicitly: it did not take effect. `published_at` stays set, so `find` still checks.
            refused: PhantomsError = error
            if isinstance(error, ProviderError) and error.code == NOT_READY:
                refused = NotYet("Instagram is not ready to publish the video", retry_after=self._at.poll_seconds)
            return NotPublished(f"media_publish was refused or never sent: {error}", then="commit", error=refused)
        return RemoteId(number)

    # --- find

    async def find(self, record: PostRecord) -> Finding:
        """Find out whether `media_publish` took effect. Needs no request when it was never sent."""
        container = container_of(record)
        if record.state is PostState.UPLOADING or (container.published_at is None and record.state is PostState.OPENED):
            return NotPublished("media_publish was refused or never sent", then="upload")
        if container.published_at is None:
            return NotPublished("media_publish was never sent", then="open")
        if self._settling and container.doubt is not None:
            self._settling = False
            await self._settle(container, container.doubt)
        while True:
            status, text = await read_status(self._graph, self._job.account, container.id)
            if status == "IN_PROGRESS":
                if self._clock.now() - container.published_at > PUBLISHING_TIME:
                    return Undecided(error=_too_slow())
                await self._polling.poll("Instagram is publishing the video, or still processing it")
                continue
            if status != "PUBLISHED":
                if container.doubt != status or container.doubt_at is None:
                    self._settling = True
                    return Undecided(_handle(container.changed(doubt=status, doubt_at=self._clock.now())))
                if await self._settle(container, status):
                    continue
            listed = await self._find_in_list(container, is_there=status == "PUBLISHED")
            if listed is not None:
                return Found(listed)
            if status == "PUBLISHED":
                raise Unknown(
                    "the container is published, but its post is not listed yet",
                    provider=PROVIDER,
                    code="unlisted",
                    retry_after=self._at.settle.total_seconds(),
                )
            if status == "FINISHED":
                evidence = (
                    f"the container is still FINISHED after {self._at.settle.total_seconds():g} s, and its reel is not listed"
                )
                return NotPublished(evidence, then="commit", handle=await self._publishing(container))
            return self._given_up(status, text)

    async def _settle(self, container: Container, status: str) -> bool:
        """Wait until the status has been stable for the settle time. True: read it again.

        False: it was already stable that long.
        """
        assert container.doubt_at is not None
        left = (container.doubt_at + self._at.settle - self._clock.now()).total_seconds()
        if left > 0:
            why = f"the answer to media_publish was lost and the container is {status}; it is read again"
            await self._polling.wait(left, why)
        return left > 0

    async def _find_in_list(self, container: Container, *, is_there: bool = False) -> RemoteId | None:
        """Search the account's media for the post, because the container does not contain the media's id."""
        job = self._job
        matches = await reels_with_caption(self._graph, job.account, job.caption, container.since, is_there=is_there)
        if len(matches) > 1:
            raise Unknown(
                f"{len(matches)} reels of account {job.account} have this caption: a person must decide which one is this post",
                provider=PROVIDER,
                code="ambiguous",
                retry_after=LONGEST_POLL,
            )
        return RemoteId(matches[0]) if matches else None

    # --- confirm

    async def confirm(self, record: PostRecord) -> PublishedPost:
        """Read the post back. The URL is empty when Instagram withholds the permalink because of a copyright claim."""
        number = record.remote_id
        assert number is not None, "a published post has an id"
        try:
            media = await self._graph.get(self._job.account, path(number), fields="id,permalink,timestamp")
        except ProviderError as error:
            if error.code not in GONE:
                raise
            raise Transient(
                "Instagram does not show the post yet", provider=PROVIDER, code=error.code, evidence=error.evidence
            ) from error
        url, published_at = media.get("permalink"), moment(media.get("timestamp"))
        if published_at is None:
            raise Transient("Instagram returned the post without a timestamp", provider=PROVIDER, code="malformed")
        return PublishedPost(number, url if isinstance(url, str) else "", published_at)


def _too_slow() -> Unknown:
    hours = PUBLISHING_TIME.total_seconds() / 3_600
    message = f"the post was sent more than {hours:g} h ago, and Instagram still says that its container is in progress"
    return Unknown(message, provider=PROVIDER, code="in_progress", retry_after=LONGEST_POLL)


def _handle(container: Container) -> Handle:
    return container.model_dump(mode="json")


def _whole(moment: datetime) -> datetime:
    """Drop the fraction: timestamps of media have whole seconds."""
    return moment.replace(microsecond=0)
