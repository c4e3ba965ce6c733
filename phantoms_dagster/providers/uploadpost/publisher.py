"""Posts through Upload-Post. One request carries the file and publishes it; before it nothing is sent that could take effect.

We choose the request's id, a UUID, before it is sent, and send it as `request_id` and as `Idempotency-Key`. So `find` can ask for
the request even if its answer was lost. The id is sent again only after two answers, a minute apart, that Upload-Post does not know
it; should the first request still arrive, Upload-Post takes both for one. A request that the platform refused is not sent again:
Upload-Post's own call runs it once more from the file that it keeps. Only other bytes or words, or a request that Upload-Post does
not keep any more, get another id. Its server may show the result of the run before for five minutes, so until then a failure proves
nothing about a later run.

Upload-Post's own Python client sends no such key, so this speaks HTTP itself.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

import httpx

from phantoms_dagster.domain.errors import Disconnected, NotYet, Permanent, ProviderError, Rejected, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity, PublishJob
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
from phantoms_dagster.domain.values import JsonObject, Value
from phantoms_dagster.providers.http import evidence, file_body, lenient_json, send, server_error
from phantoms_dagster.providers.polling import Polling
from phantoms_dagster.providers.tools import ServiceTools
from phantoms_dagster.providers.uploadpost.api import PROVIDER, ErrorOf, RequestStatus, UploadPostApi, error_of, refusal_of

NAMESPACE = uuid.UUID("6f1d3c1e-2f0b-5d0f-9a57-3f7f1a2b9c64")
MISSING_FOR = timedelta(seconds=60)  # between the two answers that prove that a request was not received
SENDS_PER_CALL, RETRIES_PER_CALL = 2, 1
FINAL_FOR = timedelta(seconds=300)  # how long the server shows a final status from its cache
STALE_POLL_SECONDS = 60.0
FIRST_POLL_SECONDS, LONGEST_POLL_SECONDS, RETRY_SECONDS = 5.0, 15.0, 30.0  # as the documentation asks
REFUSALS = frozenset({400, 401, 403, 404, 413, 415, 422, 429})
CONTENT_TYPES = MappingProxyType({".mp4": "video/mp4", ".mov": "video/quicktime", ".webm": "video/webm"})


@dataclass(frozen=True)
class GatewayRules:
    """What a platform knows about its posts through a gateway.

    `check` refuses a job. `fields` makes the platform's form fields from what the account may choose. `error` knows the platform's
    own error codes. `waiting` says when to ask again about a draft. `public_id` finds the platform's public id of a post in an id
    or a URL; None without one. `listed`: whether the platform lists a post with these fields, so that it can be looked for.
    """

    check: Callable[[PublishJob], None]
    fields: Callable[[PublishJob, JsonObject], Mapping[str, str]]
    error: ErrorOf
    waiting: Callable[[str, datetime, datetime], NotYet]
    public_id: Callable[[str], str | None]
    listed: Callable[[Mapping[str, str]], bool]


class GatewayPost(Value):
    """The ledger's handle. `content`: the hash of the bytes and the fields that the id is for; it must never carry others.

    `sent_at`: when the request was last sent; None if it was not. `missing_at`: when Upload-Post first did not know it.
    `retried_at`: it has failed, so the commit asks for another run. It is the time of the last such call. `warnings`: what the
    platform ignored.
    """

    request_id: str
    content: str
    fields: dict[str, str]
    opened_at: datetime
    sent_at: datetime | None = None
    missing_at: datetime | None = None
    retried_at: datetime | None = None
    handed_over_at: datetime | None = None
    completed_at: datetime | None = None
    warnings: tuple[str, ...] = ()

    def changed(self, **values: datetime | tuple[str, ...] | None) -> Handle:
        """The handle with other values, for the ledger."""
        return self.model_copy(update=values).model_dump(mode="json")


def subject_of(profile: str) -> str:
    """The owner of an account that Upload-Post publishes for."""
    return f"{PROVIDER}:{profile}"


class UploadPostPublisher:
    """Implements `ports.Publisher` and `ports.IdentityReader` for one platform. An account's name is its profile at Upload-Post."""

    provider = PROVIDER
    account_first = False  # nothing is sent before the post itself

    def __init__(
        self,
        platform: Platform,
        rules: GatewayRules,
        service: ServiceTools,
        *,
        max_wait: float,
        poll_seconds: float = FIRST_POLL_SECONDS,
    ) -> None:
        self.platform = platform
        self.sandbox = service.sandbox
        self.rules = rules
        self.service = service
        self.api = UploadPostApi(service)
        self.max_wait = max_wait
        self.poll_seconds = poll_seconds

    @asynccontextmanager
    async def verbs(self, job: PublishJob) -> AsyncIterator[UploadPostPost]:
        """See the port."""
        yield UploadPostPost(self, job)

    async def read(self, account: str) -> AccountIdentity:
        """See `ports.IdentityReader`. Upload-Post answers only for profiles of the key that have an account on the platform."""
        await self.api.settings(str(self.platform), account)
        return AccountIdentity(subject_of(account), f"{account} at Upload-Post")


class UploadPostPost:
    """The verbs for one post. See `domain.publication.PublishVerbs`."""

    def __init__(self, publisher: UploadPostPublisher, job: PublishJob) -> None:
        self._at = publisher
        self._job = job
        self._clock = publisher.service.clock
        self._polling = Polling(
            self._clock, publisher.max_wait, first=publisher.poll_seconds, longest=LONGEST_POLL_SECONDS, again=RETRY_SECONDS
        )
        self._accepted = False  # this call was told that the request is in
        self._sends = 0
        self._retries = 0

    def check(self) -> None:
        """See the port."""
        self._at.rules.check(self._job)

    async def open(self) -> Handle:
        """Ask what the account may choose, and choose the request's id. Nothing of the post is sent."""
        job = self._job
        await job.may_go()
        settings = await self._at.api.settings(str(job.platform), job.account)
        fields = dict(self._at.rules.fields(job, settings))
        now = self._clock.now()
        request_id = uuid.uuid5(NAMESPACE, f"{job.marker} {job.sha256} {now.isoformat()}")
        post = GatewayPost(request_id=str(request_id), content=_content(job), fields=fields, opened_at=now)
        return post.changed()

    async def upload(self, record: PostRecord) -> Progress | Finding:
        """The whole file goes with the commit, so only the time is written down."""
        self._at.rules.check(self._job)
        post = GatewayPost.model_validate(record.handle)
        if post.content != _content(self._job):
            never = "its request failed" if post.retried_at else "its request was never sent"
            return NotPublished(f"an older revision was prepared, and {never}", then="open")
        now = self._clock.now()
        again = now if post.retried_at else None
        return Progress(0, post.changed(sent_at=now, missing_at=None, retried_at=again), ready=True)

    # --- commit: the one request, or another run of it

    async def commit(self, record: PostRecord) -> NotPublished | Undecided:
        """Send the file, or ask for another run. Only the status tells the outcome, so `find` does the rest."""
        post = GatewayPost.model_validate(record.handle)
        unsent = post.changed(sent_at=None, missing_at=None)
        self._sends += 1
        try:
            response = await (self._send(post) if post.retried_at is None else self._run_again(post))
        except (NotYet, Transient) as error:  # it did not leave this machine
            return NotPublished("the request was never sent", then="commit", handle=unsent, error=error)
        if post.retried_at is not None and response.status_code == 404:
            return NotPublished("the request failed, and Upload-Post does not keep it any more", then="open")
        if post.retried_at is not None and response.status_code == 409:
            return Undecided()  # nothing failed: another run is on its way, or has ended
        if response.status_code in REFUSALS:
            refusal, said = refusal_of(response), "Upload-Post refused the request"
            if post.retried_at is not None and isinstance(refusal, Transient | Disconnected):
                return NotPublished(f"{said} for another run: {refusal}", then="upload", handle=unsent, error=refusal)
            return NotPublished(f"{said}: {refusal}", then="open", error=refusal)
        if response.status_code >= 500:
            raise server_error(response, provider=PROVIDER, commits=True)
        body = lenient_json(response)
        if response.status_code >= 300 or body.get("success") is not True:
            message = f"Upload-Post answered {response.status_code} and did not say that it has the post"
            raise Unknown(message, provider=PROVIDER, code=str(response.status_code), evidence=evidence(response))
        self._accepted = True
        known = body.get("request_id")
        if isinstance(known, str) and known and known != post.request_id:
            # It has this content already, under the id of an earlier request.
            return Undecided(handle=post.model_copy(update={"request_id": known}).model_dump(mode="json"))
        return Undecided()

    async def _send(self, post: GatewayPost) -> httpx.Response:
        job, api = self._job, self._at.api
        before, after = _form(post, job)
        size = len(before) + job.size + len(after)
        headers = {
            **api.headers(),
            "Idempotency-Key": post.request_id,
            "Content-Type": f"multipart/form-data; boundary={post.request_id}",
            "Content-Length": str(size),
        }
        async with file_body(job.file, 0, job.size) as content:
            return await send(
                self._at.service.client,
                "POST",
                f"{api.base_url}/upload",
                provider=PROVIDER,
                commits=True,
                before=job.may_go,
                headers=headers,
                content=_body(before, content, after),
                extensions={"phantoms": {"pool": f"publish_{job.platform}"}},
            )

    async def _run_again(self, post: GatewayPost) -> httpx.Response:
        """Ask for another run of what failed. It does not count for the platform's posts of the day again."""
        api = self._at.api
        return await send(
            self._at.service.client,
            "POST",
            f"{api.base_url}/uploadposts/posts/retry",
            provider=PROVIDER,
            commits=True,
            before=self._job.may_go,
            headers=api.headers(),
            json={"request_id": post.request_id},
        )

    # --- find

    async def find(self, record: PostRecord) -> Finding:
        """Ask for the request until its status proves something. Raises NotYet while Upload-Post works on it."""
        post = GatewayPost.model_validate(record.handle)
        if post.sent_at is None:
            return NotPublished("the request was never sent", then="upload")
        while True:
            seen = await self._at.api.status(post.request_id, str(self._job.platform))
            if seen is None and record.state is PostState.HANDED_OVER:
                return self._handed_over(post)
            if seen is None and not self._accepted:
                return self._missing(post)
            if seen is not None and (finding := self._finding(record, post, seen)) is not None:
                return finding
            await self._polling.poll("Upload-Post is still publishing the post")

    def _finding(self, record: PostRecord, post: GatewayPost, seen: RequestStatus) -> Finding | None:
        """What a status proves; None: ask again later."""
        match seen.state:
            case "published":
                return Found(self._published(post, seen))
            case "failed" | "retryable":
                return self._refused(record, post, seen)
            case "inbox":
                return self._handed_over(post)
            case _ if record.state is PostState.HANDED_OVER:
                return self._handed_over(post)
            case "unclear":
                message = f"Upload-Post does not say whether the post is out ({seen.said}): look at the account"
                return Undecided(error=Rejected(message, provider=PROVIDER, code="unclear"))
        return None

    def _refused(self, record: PostRecord, post: GatewayPost, seen: RequestStatus) -> NotPublished | None:
        """The platform took nothing, so another run may follow. None or NotYet while Upload-Post may still show the run before."""
        title, now = self._job.platform.title, self._clock.now()
        if post.retried_at is not None and (left := (post.retried_at + FINAL_FOR - now).total_seconds()) > 0:
            if self._accepted:
                return None
            message = "Upload-Post may still show the result of the last run, and is asked again"
            raise NotYet(message, retry_after=min(left, STALE_POLL_SECONDS))
        error: ProviderError = Transient(f"{title} did not take the post this time", provider=PROVIDER, code="retryable")
        if seen.state == "failed":
            error = error_of(seen.code, seen.said, self._at.rules.error)
        proof = f"Upload-Post says that {title} took nothing: {error}"
        if record.state is PostState.HANDED_OVER or post.content != _content(self._job):
            return NotPublished(proof, then="open", error=error)
        if seen.state == "retryable" and self._retries < RETRIES_PER_CALL:
            self._retries += 1
            return NotPublished(proof, then="commit", handle=post.changed(sent_at=now, retried_at=now))
        return NotPublished(proof, then="upload", handle=post.changed(sent_at=None, retried_at=now), error=error)

    def _missing(self, post: GatewayPost) -> NotPublished | Undecided:
        """Upload-Post does not know the request. Its first answer may only be early, so a second one a minute later counts."""
        if post.retried_at is not None:  # it knew the request before
            message = "Upload-Post does not know the post any more, and may have published it: look at the account"
            return Undecided(error=Rejected(message, provider=PROVIDER, code="unclear"))
        now = self._clock.now()
        if post.missing_at is None:
            wait = NotYet("Upload-Post does not know the post yet and is asked again", retry_after=MISSING_FOR.total_seconds())
            return Undecided(handle=post.changed(missing_at=now), error=wait)
        left = (post.missing_at + MISSING_FOR - now).total_seconds()
        if left > 0:
            return Undecided(error=NotYet("Upload-Post does not know the post yet and is asked again", retry_after=left))
        proof = f"Upload-Post answered 404 for request {post.request_id} at {post.missing_at:%H:%M:%S} and at {now:%H:%M:%S}"
        if post.content != _content(self._job):
            return NotPublished(proof, then="open")
        unsent = post.changed(sent_at=None, missing_at=None)
        try:
            self._at.rules.check(self._job)
        except Permanent as error:
            return NotPublished(proof, then="upload", handle=unsent, error=error)
        if self._sends == SENDS_PER_CALL:
            lost = Transient("Upload-Post does not get what it is sent", provider=PROVIDER, code="not_received")
            return NotPublished(proof, then="upload", handle=unsent, error=lost)
        return NotPublished(proof, then="commit", handle=post.changed(sent_at=now, missing_at=None))

    def _handed_over(self, post: GatewayPost) -> HandedOver:
        now = self._clock.now()
        at = post.handed_over_at or now
        return HandedOver(
            None if post.handed_over_at else post.changed(handed_over_at=at), self._at.rules.waiting(self._job.account, at, now)
        )

    def _published(self, post: GatewayPost, seen: RequestStatus) -> RemoteId:
        """The published post. Its id is the platform's public id if Upload-Post knows it by now, else the request's id.

        A post that the platform does not list keeps the request's id, or it would soon count as gone.
        """
        at, rules = post.completed_at or self._clock.now(), self._at.rules
        found = (rules.public_id(seen.url) or rules.public_id(seen.id)) if rules.listed(post.fields) else None
        number = found or post.request_id
        return RemoteId(number, seen.url, post.changed(completed_at=at, warnings=seen.warnings), published_at=at)

    # --- confirm

    async def confirm(self, record: PostRecord) -> PublishedPost:
        """Return the post from the ledger: the status `completed` was the confirmation."""
        assert record.remote_id is not None
        completed_at = GatewayPost.model_validate(record.handle).completed_at if record.handle else None
        return PublishedPost(record.remote_id, record.url or "", completed_at or record.attempted_at or self._clock.now())


def _content(job: PublishJob) -> str:
    terms = job.terms.model_dump_json() if job.terms is not None else ""
    said = "\n".join((job.sha256, job.caption, job.privacy, terms))
    return hashlib.sha256(said.encode("utf-8", "surrogatepass")).hexdigest()


def _form(post: GatewayPost, job: PublishJob) -> tuple[bytes, bytes]:
    """The multipart form around the file. The boundary is the request's id, which no video has."""
    fields = {
        "user": job.account,
        "platform[]": str(job.platform),
        "request_id": post.request_id,
        "async_upload": "true",
        **post.fields,
    }
    parts = [
        f'--{post.request_id}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()
    ]
    suffix = job.file.suffix.lower()
    parts.append(
        f'--{post.request_id}\r\nContent-Disposition: form-data; name="video"; filename="video{suffix}"\r\n'
        f"Content-Type: {CONTENT_TYPES.get(suffix, 'video/mp4')}\r\n\r\n"
    )
    return "".join(parts).encode("utf-8", "surrogatepass"), f"\r\n--{post.request_id}--\r\n".encode()


async def _body(before: bytes, content: bytes | AsyncIterator[bytes], after: bytes) -> AsyncIterator[bytes]:
    yield before
    if isinstance(content, bytes):
        yield content
    else:
        async for block in content:
            yield block
    yield after
