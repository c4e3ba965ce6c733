"""Posts reels with the Instagram Platform: container, resumable upload, processing, `media_publish`, permalink.

The one public step is `media_publish`. When its answer is lost, the container is read: only one that is still FINISHED after
a while, and whose caption does not stand among the account's media, is published again, with the same creation_id.
The Graph API's requests and the one table of its errors stand here too (facts: Instagram Platform error codes, June 2026,
Graph API v26.0); reading numbers back belongs in `instagram_metrics`.
"""

from __future__ import annotations

import asyncio
import json
import re
import unicodedata
from collections.abc import AsyncIterator, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, PhantomsError, ProviderError, Rejected, Throttled, Transient, Unknown
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PostJournal, PostRecord, PublishedPost, PublishJob, Tokens
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.domain.values import JsonObject, Value
from phantoms_dagster.providers import http

PROVIDER = "instagram"
MAX_BYTES = 300 * 1024 * 1024
MIN_SECONDS, MAX_SECONDS = 3.0, 900.0
MAX_CAPTION, MAX_HASHTAGS, MAX_MENTIONS = 2_200, 30, 20
CHUNK = 1 << 20
LIFE = timedelta(hours=23)  # of a container, with an hour to spare
LONGEST_POLL = 60.0
PAGE, PAGES = 50, 20
MISSING = "MISSING"  # our word for a container that the API no longer shows

# (code, error_subcode) -> what is to be done. A code with None stands for all of its subcodes that have no row of their own.
ERRORS: Mapping[tuple[int, int | None], type[ProviderError]] = MappingProxyType(
    {
        (-2, 2_207_003): Transient,  # download too slow
        (-2, 2_207_020): Transient,  # media expired
        (-1, 2_207_001): Transient,  # server error
        (-1, 2_207_032): Transient,  # create failed
        (-1, 2_207_053): Transient,  # unknown upload error
        (1, 2_207_057): Permanent,  # thumb_offset out of range
        (4, 2_207_051): Rejected,  # taken for spam
        (9, 2_207_042): Throttled,  # daily limit
        (24, 2_207_006): Transient,  # container not found
        (24, 2_207_008): Transient,  # container not there yet, or expired
        (25, 2_207_050): Rejected,  # account restricted
        (100, None): Permanent,  # bad parameters: 2207023, 2207028, 2207035-37, 2207040
        (352, 2_207_026): Permanent,  # video format
        (9004, 2_207_052): Permanent,  # URL cannot be fetched
        (9007, 2_207_027): Transient,  # not ready
        (36_000, 2_207_004): Permanent,  # image size
        (36_001, 2_207_005): Permanent,  # image format
        (36_003, 2_207_009): Permanent,  # ratio
        (36_004, 2_207_010): Permanent,  # caption too long
        (190, None): Permanent,  # token dead
        (10, None): Permanent,  # permission
        **{(code, None): Permanent for code in range(200, 300)},  # permission
        **{(code, None): Throttled for code in (4, 17, 32, 613, 80_002, 80_004)},
        (1, None): Transient,
        (2, None): Transient,
    }
)
# A code (or a status) and subcode that say the object is not there, or not there for this token.
GONE = frozenset({"24/2207006", "24/2207008", "100/33"})
NOT_READY = "9007/2207027"
THROTTLE_SECONDS = 60.0
_HINTS = {
    190: "reconnect the account",
    10: "give the permission again",
    **dict.fromkeys(range(200, 300), "give the permission again"),
}


def error_class(code: int, subcode: int | None, *, is_transient: bool = False) -> type[ProviderError] | None:
    """The row of the table, else Transient when the API calls it so, else None."""
    return ERRORS.get((code, subcode)) or ERRORS.get((code, None)) or (Transient if is_transient else None)


def subcode_class(subcode: int) -> type[ProviderError] | None:
    """The class of a subcode that stands alone, as in the status text of a container."""
    return next((kind for (_, known), kind in ERRORS.items() if known == subcode), None)


def judge(response: httpx.Response, account: str, *, commits: bool = False) -> ProviderError:
    """The domain error for an answer that is not a success.

    At the commit point only an explicit refusal counts as one: all else is Unknown.
    """
    envelope = _envelope(response)
    if envelope is None:
        return _judge_status(response, commits=commits)
    code, subcode = _number(envelope.get("code")) or 0, _number(envelope.get("error_subcode"))
    kind = error_class(code, subcode, is_transient=bool(envelope.get("is_transient")))
    name = f"{code}" if subcode is None else f"{code}/{subcode}"
    hint = _HINTS.get(code)
    message = http.redact(
        f"Instagram, account {account}: {envelope.get('message', 'no message')} ({name}){'; ' + hint if hint else ''}"
    )
    said: dict[str, Any] = {"provider": PROVIDER, "code": name, "evidence": http.evidence(response)}
    if kind is None and response.status_code < 500 and not commits:
        return Permanent(message, **said)
    if commits and (kind in (None, Transient) or name in GONE) and name != NOT_READY:
        return Unknown(message, **said, retry_after=http.retry_after(response))
    if kind is Throttled:
        return Throttled(message, **said, retry_after=_throttled_for(response))
    if kind is None or kind is Transient:
        return Transient(message, **said, retry_after=http.retry_after(response))
    return kind(message, **said)


def _judge_status(response: httpx.Response, *, commits: bool) -> ProviderError:
    said: dict[str, Any] = {"provider": PROVIDER, "code": str(response.status_code), "evidence": http.evidence(response)}
    if response.status_code == 429:
        return Throttled("Instagram answered 429", **said, retry_after=_throttled_for(response))
    if response.status_code >= 500:
        return http.server_error(response, provider=PROVIDER, commits=commits)
    if commits:
        return Unknown(f"Instagram answered {response.status_code} without an error of its own", **said)
    return http.unexpected(response, provider=PROVIDER)


def _envelope(response: httpx.Response) -> dict[str, Any] | None:
    try:
        body = response.json()
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) and "code" in error else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _throttled_for(response: httpx.Response) -> float:
    """Seconds: Retry-After, else the longest wait in the business use case header (which is in minutes), else a minute."""
    named = http.retry_after(response)
    if named is not None:
        return named
    try:
        usage = json.loads(response.headers.get("x-business-use-case-usage", "{}"))
        minutes = [float(row["estimated_time_to_regain_access"]) for rows in usage.values() for row in rows]
    except (ValueError, TypeError, KeyError, AttributeError):
        return THROTTLE_SECONDS
    return max([60 * m for m in minutes if m > 0], default=THROTTLE_SECONDS)


class Graph:
    """Requests to one version of the Graph API, in the name of an account."""

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, version: str, tokens: Tokens) -> None:
        self._client = client
        self._base = f"{base_url.rstrip('/')}/{version}"
        self._tokens = tokens

    async def get(self, account: str, path: str, **params: str) -> JsonObject:
        """A read. `path` comes from `path(...)`."""
        return http.json_object(await self._call("GET", account, path, params=params), provider=PROVIDER)

    async def post(self, account: str, path: str, *, commits: bool = False, **form: str) -> tuple[JsonObject, datetime | None]:
        """A write: its answer, and when that was by the platform's clock. `commits`: a lost answer is Unknown."""
        response = await self._call("POST", account, path, commits=commits, data=form)
        return http.json_object(response, provider=PROVIDER, commits=commits), _dated(response)

    async def token(self, account: str) -> str:
        """The account's token."""
        return await self._tokens.token(Platform.INSTAGRAM, account)

    async def _call(self, method: str, account: str, path: str, *, commits: bool = False, **request: Any) -> httpx.Response:
        headers = http.bearer(await self.token(account))
        response = await http.send(
            self._client, method, f"{self._base}/{path}", provider=PROVIDER, commits=commits, headers=headers, **request
        )
        if response.is_success:
            return response
        raise judge(response, account, commits=commits)


def _dated(response: httpx.Response) -> datetime | None:
    try:
        return parsedate_to_datetime(response.headers.get("date", ""))
    except ValueError:
        return None


def path(*parts: str) -> str:
    """A path of the Graph API; an account may be named with any characters."""
    return "/".join(quote(part, safe="") for part in parts)


class Container(Value):
    """The handle of a post. `since` is when it was opened, by the platform's own clock; the rest by ours.

    `sent_at`: the upload began. `published_at`: `media_publish` was sent at least once. `doubt`, `doubt_at`: the status that
    was read first after its answer was lost.
    """

    id: str
    upload_url: str
    since: datetime
    sent_at: datetime | None = None
    published_at: datetime | None = None
    doubt: str | None = None
    doubt_at: datetime | None = None

    def but(self, **changes: Any) -> Container:
        """The same container with these fields changed."""
        return self.model_copy(update=changes)


class _Patience:
    """Waits inside a call as long as patience lasts, then NotYet."""

    def __init__(self, clock: Clock, seconds: float, poll_seconds: float) -> None:
        self._clock, self._left, self._next = clock, seconds, poll_seconds

    async def wait(self, seconds: float, why: str) -> None:
        if seconds > self._left:
            raise NotYet(why, retry_after=seconds)
        self._left -= seconds
        await self._clock.sleep(seconds)

    async def poll(self, why: str) -> None:
        """Wait until the next look; each wait is twice the last: the platform asks for about one look a minute."""
        pause, self._next = self._next, min(self._next * 2, LONGEST_POLL)
        await self.wait(pause, why)


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
        patience: float = 60.0,
        settle_seconds: float = 60.0,
        stall_seconds: float = 60.0,
        poll_seconds: float = 2.0,
    ) -> None:
        self.sandbox = sandbox
        self._client = client
        self._graph = Graph(client=client, base_url=base_url, version=version, tokens=tokens)
        self._uploads = f"{upload_url.rstrip('/')}/"
        self._upload_path = f"ig-api-upload/{version}"
        self._clock = clock
        self._patience, self._poll = patience, poll_seconds
        self._settle, self._stall = timedelta(seconds=settle_seconds), timedelta(seconds=stall_seconds)

    async def publish(self, job: PublishJob, journal: PostJournal) -> PublishedPost:
        """Make the post, or finish making it, from whatever state its journal is in."""
        patience = _Patience(self._clock, self._patience, self._poll)
        while True:
            state = journal.record.state
            if state in (PostState.PUBLISHED, PostState.CONFIRMED):
                return await self._confirm(job, journal)
            sent = state is not PostState.UPLOADING or _container(journal.record).sent_at is not None
            if state in (PostState.INTENT, PostState.FAILED, PostState.OPENED) or not sent:
                check(job)
            if state in (PostState.INTENT, PostState.FAILED):
                await self._begin(journal)
            elif state is PostState.OPENED or not sent:
                await self._upload(job, journal)
            elif state is PostState.UPLOADING:
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
            await self._check_quota(job)
            answer, date = await self._graph.post(
                job.account,
                path(job.account, "media"),
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
        elif self._clock.now() - container.since > LIFE:
            await self._give_up(journal)
            return
        token = await self._graph.token(job.account)
        await self._save(journal, PostState.UPLOADING, container.but(sent_at=self._clock.now()), offset=0)
        headers = {"Authorization": f"OAuth {token}", "offset": "0", "file_size": str(job.size), "Content-Length": str(job.size)}
        try:
            # `commits` only to tell a lost answer from a request that never left: an upload makes nothing public.
            response = await http.send(
                self._client,
                "POST",
                container.upload_url,
                provider=PROVIDER,
                commits=True,
                headers=headers,
                content=_chunks(job.file),
            )
        except Unknown as error:
            raise Transient(str(error), provider=PROVIDER, code=error.code, evidence=error.evidence) from error
        except (ProviderError, NotYet):
            await self._save(journal, PostState.UPLOADING, container)
            raise
        refused = _upload_error(response, job.account)
        if refused is not None:
            # Nothing can come of this container; the next attempt makes another.
            await self._give_up(journal)
            raise refused
        await journal.save(PostState.UPLOADING, offset=job.size)

    # --- uploading -> committing -> published

    async def _process(self, job: PublishJob, journal: PostJournal, patience: _Patience) -> None:
        """Wait until the container is FINISHED, then publish it."""
        container, uploaded = _container(journal.record), journal.record.offset == job.size
        while True:
            status, text = await self._status(job, container)
            if status == "FINISHED":
                return await self._commit(job, journal, container)
            if status == "PUBLISHED" or (container.published_at is not None and status != "IN_PROGRESS"):
                # An earlier media_publish took effect, or may have: the resolving read decides.
                await journal.save(PostState.UNKNOWN)
                return None
            stalled = container.sent_at is None or self._clock.now() - container.sent_at >= self._stall
            if status in ("ERROR", "EXPIRED") or (stalled and (status == MISSING or not uploaded)):
                await self._give_up(journal)
                raise _failed(status, text, job.account)
            await patience.poll(f"Instagram is processing the video ({status})")

    async def _commit(self, job: PublishJob, journal: PostJournal, container: Container) -> None:
        """The commit point."""
        await self._check_quota(job)
        sent = container.but(published_at=self._clock.now(), doubt=None, doubt_at=None)
        await self._save(journal, PostState.COMMITTING, sent)
        try:
            target = path(job.account, "media_publish")
            answer, _ = await self._graph.post(job.account, target, commits=True, creation_id=container.id)
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
        url, published_at = media.get("permalink"), _moment(media.get("timestamp"))
        if published_at is None:
            raise Transient("Instagram showed the post without a timestamp", provider=PROVIDER, code="malformed")
        record = await journal.save(PostState.CONFIRMED, url=url if isinstance(url, str) else "")
        return PublishedPost(remote_id=number, url=record.url or "", published_at=published_at)

    # --- doubt

    async def _resolve(self, job: PublishJob, journal: PostJournal, patience: _Patience) -> None:
        """Find out whether `media_publish` took effect. Leaves the journal published, committing again, or at intent."""
        container = _container(journal.record)
        while True:
            status, text = await self._status(job, container)
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
            raise _failed(status, text, job.account)

    async def _found(self, job: PublishJob, journal: PostJournal, container: Container) -> bool:
        """Whether the post stands among the account's media; if so the journal says published. The container names no media id."""
        wanted = normalised(job.caption)
        matches: list[str] = []
        cursor: dict[str, str] = {}
        for _ in range(PAGES):
            answer = await self._graph.get(
                job.account,
                path(job.account, "media"),
                fields="id,caption,timestamp,media_product_type",
                since=str(int(container.since.timestamp())),
                limit=str(PAGE),
                **cursor,
            )
            page: list[Any] = answer["data"] if isinstance(answer.get("data"), list) else []  # type: ignore[assignment]
            matches += [m["id"] for m in page if _is_post(m, wanted, container.since)]
            paging: Any = answer.get("paging")
            after = paging.get("cursors", {}).get("after") if isinstance(paging, dict) and "next" in paging else None
            if not page or after is None:
                break
            cursor = {"after": after}
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

    async def _status(self, job: PublishJob, container: Container) -> tuple[str, str]:
        """The container's status_code, or MISSING, and the text that goes with it."""
        try:
            answer = await self._graph.get(job.account, path(container.id), fields="status_code,status")
        except ProviderError as error:
            if error.code in GONE:
                return MISSING, str(error)
            raise
        return str(answer.get("status_code", "IN_PROGRESS")), str(answer.get("status", ""))

    async def _check_quota(self, job: PublishJob) -> None:
        """Raise Throttled when the account's publishing quota is used up. The total is obeyed as told: pages disagree about it."""
        answer = await self._graph.get(job.account, path(job.account, "content_publishing_limit"), fields="quota_usage,config")
        rows: Any = answer.get("data")
        row = rows[0] if isinstance(rows, list) and rows else {}
        used, total = row.get("quota_usage"), row.get("config", {}).get("quota_total")
        if not isinstance(used, int) or not isinstance(total, int) or used < total:
            return
        # The window slides, so a place comes free every so often; when exactly, the API does not say.
        wait = row["config"].get("quota_duration", 86_400) / max(total, 1)
        raise Throttled(
            f"account {job.account} has used {used} of {total} posts in 24 hours", provider=PROVIDER, code="quota", retry_after=wait
        )

    async def _save(self, journal: PostJournal, state: PostState, container: Container, *, offset: int | None = None) -> None:
        await journal.save(state, handle=container.model_dump(mode="json"), offset=offset)

    async def _give_up(self, journal: PostJournal) -> None:
        """Forget a container of which nothing can come any more."""
        await journal.save(PostState.INTENT, handle={}, offset=0)


def check(job: PublishJob) -> None:
    """Refuse what Instagram would refuse, before anything is sent. Raises Permanent."""
    wrong = None
    if len(job.caption) > MAX_CAPTION:
        wrong = f"the caption has {len(job.caption)} characters, at most {MAX_CAPTION} are allowed"
    elif len(re.findall(r"#\w+", job.caption)) > MAX_HASHTAGS or len(re.findall(r"@\w+", job.caption)) > MAX_MENTIONS:
        wrong = f"the caption has more than {MAX_HASHTAGS} hashtags or {MAX_MENTIONS} mentions"
    elif job.size > MAX_BYTES:
        wrong = f"the file has {job.size} bytes, at most {MAX_BYTES} are allowed"
    elif not MIN_SECONDS <= job.probe.seconds <= MAX_SECONDS:
        wrong = f"the video lasts {job.probe.seconds:g} s, {MIN_SECONDS:g} to {MAX_SECONDS:g} s are allowed"
    elif not job.file.is_file() or job.file.stat().st_size != job.size:
        wrong = f"the file {job.file.name} is not there or does not have {job.size} bytes"
    if wrong:
        raise Permanent(f"Instagram: {wrong}", provider=PROVIDER, code="invalid")


def normalised(caption: str) -> str:
    """A caption as it can be compared after Instagram read it back: without '@', which it may strip, and with single spaces."""
    return " ".join(unicodedata.normalize("NFC", caption).replace("@", "").split())


def _is_post(media: Any, wanted: str, since: datetime) -> bool:
    if not isinstance(media, dict) or not isinstance(media.get("id"), str):
        return False
    at = _moment(media.get("timestamp"))
    return (
        media.get("media_product_type") == "REELS"
        and at is not None
        and at >= since
        and normalised(str(media.get("caption", ""))) == wanted
    )


def _container(record: PostRecord) -> Container:
    if not record.handle:
        raise Permanent("the ledger names no container for this post: look at the account", provider=PROVIDER, code="no_handle")
    return Container.model_validate(record.handle)


def _failed(status: str, text: str, account: str) -> ProviderError:
    """The error for a container of which nothing can come."""
    subcode = re.search(r"\b22070\d\d\b", text)
    kind = subcode_class(int(subcode.group())) if subcode else None
    message = http.redact(f"Instagram, account {account}: the container is {status}. {text}")
    code = subcode.group() if subcode else status.lower()
    if kind is Permanent or kind is Rejected:
        return kind(message, provider=PROVIDER, code=code)
    return Transient(message, provider=PROVIDER, code=code)


def _upload_error(response: httpx.Response, account: str) -> ProviderError | None:
    """What is wrong with the answer of the upload host, whose errors have a shape of their own; None when it took the bytes."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and isinstance(body, dict) and body.get("success") is True:
        return None
    info = body.get("debug_info") if isinstance(body, dict) else None
    if isinstance(info, dict):
        kind = Transient if info.get("retriable") else Permanent
        message = http.redact(f"Instagram, account {account}: the upload failed: {info.get('type')}: {info.get('message')}")
        return kind(message, provider=PROVIDER, code=str(info.get("type")), evidence=http.evidence(response))
    if response.is_success:
        return Transient("Instagram did not say that it took the upload", provider=PROVIDER, evidence=http.evidence(response))
    return judge(response, account)


async def _chunks(file: Path) -> AsyncIterator[bytes]:
    with file.open("rb") as opened:
        while chunk := await asyncio.to_thread(opened.read, CHUNK):
            yield chunk


def _moment(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _whole(moment: datetime) -> datetime:
    """Without the fraction: timestamps of media have whole seconds."""
    return moment.replace(microsecond=0)
