"""The protocols through which `production` uses the outside world. Adapters live in `platforms`, `providers`, `media` and `store`.

When a service misbehaves, a method raises a `ProviderError` of `domain.errors` and nothing else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Literal, Protocol

from phantoms_dagster.domain.models import (
    Brief,
    Channel,
    MediaFile,
    Palette,
    Platform,
    Probe,
    Script,
    Sentence,
    VoiceoverOutput,
)
from phantoms_dagster.domain.paid_job import PaidService
from phantoms_dagster.domain.post_extras import ExtraName
from phantoms_dagster.domain.preflight import PreflightCheck
from phantoms_dagster.domain.publication import PublishVerbs
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.registry.channel_keys import PostTerms


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """The current time, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait that many seconds."""
        ...


class Attempt(Protocol):
    """One attempt at one stage of one video. Its row is committed before any request is sent."""

    @property
    def id(self) -> str:
        """Unique among all attempts, `[a-z0-9-]`, at most 64 characters. Providers get it as a marker."""
        ...

    @property
    def stored_response(self) -> JsonObject | None:
        """A billed answer that an earlier attempt of this stage received before it died. Use it instead of paying again."""
        ...

    @property
    def in_doubt(self) -> Sequence[str]:
        """The ids of the directly preceding attempts whose outcome is unknown. Find out what they did before repeating it.

        Attempts that ended `LOOK_UP_FAILED` are not among them: they sent nothing.
        """
        ...

    @property
    def reads(self) -> int:
        """How many directly preceding attempts tried to find the outcome out."""
        ...

    async def received(self, response: JsonObject, *, provider_ref: str | None = None, cost: Decimal | None = None) -> None:
        """Commit a provider's raw answer before parsing it, so that a crash or a validation error cannot lose a paid answer."""
        ...


# --- script ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WrittenScript:
    """A script and its costs. `cost`: what this attempt added, in US dollars. `sandbox`: no real model wrote it.

    `removed`: markup that was taken out of the model's answer.
    """

    script: Script
    model: str
    provider_ref: str | None
    input_tokens: int
    output_tokens: int
    cost: Decimal
    sandbox: bool
    removed: tuple[str, ...] = ()


class ScriptWriter(Protocol):
    """Writes scripts with a language model."""

    provider: str

    async def write(self, brief: Brief, channel: Channel, attempt: Attempt) -> WrittenScript:
        """Write a script with as few calls to the model as possible, and none when `attempt.stored_response` holds its answer."""
        ...


# --- voiceover ------------------------------------------------------------------------------------------------------


class Voice(Protocol):
    """Speaks scripts."""

    provider: str

    async def speak(self, script: Script, channel: Channel) -> VoiceoverOutput:
        """Speak the script. The audio file of the result is already in the media store."""
        ...


# --- render ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RenderJob:
    """Everything a renderer needs to make the master of one video. `audio` is the local path of a WAV file.

    `channel_title` is shown at the top of the picture. When it is empty, the video shows no name.
    """

    video_key: str
    attempt_id: str
    title: str
    hook: str
    scene_titles: tuple[str, ...]
    sentences: tuple[Sentence, ...]
    seconds: float
    audio: Path
    palette: Palette
    channel_title: str
    language: str = ""


class Renderer(PaidService[RenderJob], Protocol):
    """Makes MP4 files. It is a paid service, called by `production.publication` in the right order."""

    sandbox: bool

    def price(self, seconds: float) -> Decimal:
        """The expected cost of a render of that length, in US dollars."""
        ...


@dataclass(frozen=True)
class FitResult:
    """How a file was made to fit a platform, and the probe of the fitting file.

    `how`: `kept` (it fitted already), `remuxed` (its streams were copied) or `transcoded`.
    """

    how: str
    probe: Probe


class Studio(Protocol):
    """Local media tools: probe a file, make a thumbnail, make a file fit a platform."""

    async def probe(self, path: Path, *, loudness: bool = False) -> Probe:
        """Read the properties of the file. Raises Permanent (`unreadable media`) when it cannot be read."""
        ...

    async def missing_glyphs(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The characters in `texts`, as whole graphemes, that none of our fonts has."""
        ...

    async def thumbnail(self, path: Path, destination: Path) -> None:
        """Write a JPEG of a representative frame, 270x480 pixels."""
        ...

    async def fit(
        self, path: Path, platform: Platform, destination: Callable[[], Path], *, known: Probe | None = None
    ) -> FitResult:
        """Make a file that fits the platform, unless the one at `path` already does.

        `destination` returns the path to write to. It is called, from any thread, only when a file is written, because most files
        are kept. `known`: the result of `probe` for the same bytes, which saves probing again. Raises Permanent when the file
        cannot be made to fit (too long, no video stream).
        """
        ...


class MediaStore(Protocol):
    """Files addressed by the hash of their bytes."""

    async def add(self, path: Path) -> MediaFile:
        """Move or copy the file at `path` into the store. The suffix is kept."""
        ...

    async def local(self, file: MediaFile) -> Path:
        """A local path to read the file from. Raises NotFound."""
        ...

    async def remove(self, file: MediaFile, *, unused_seconds: float = 0) -> bool:
        """Delete the file's bytes. Returns False, and deletes nothing, when they were added within the last `unused_seconds`.

        Deleting a missing file is no error. A concurrent `add` wins: the file that it returned exists afterwards.
        """
        ...

    async def public_url(self, file: MediaFile, lasts: timedelta) -> str | None:
        """An address from which anybody can fetch the file for that long. It is a secret. None: the store has no such addresses."""
        ...

    def scratch(self) -> Path:
        """A new temporary directory on the same file system. The caller removes it."""
        ...

    def scratch_file(self, suffix: str) -> Path:
        """An unused path for one temporary file on the same file system. The caller removes the file."""
        ...


# --- publish --------------------------------------------------------------------------------------------------------


async def _at_any_time() -> None:
    """The `may_go` of a channel without posting hours."""


async def _by_us() -> None:
    """The `release_at` of a post that we publish."""


async def _no_address() -> None:
    """The `address` of a file that nobody else can fetch."""


@dataclass(frozen=True)
class PublishJob:
    """One post to publish. `marker` is unique among posts and the same in every attempt of this post.

    `may_go` is awaited right before the first request of a post, and right before each request that can make it public. It raises
    NotYet when posting is not allowed now, for example outside the posting hours. `address` makes an address from which anybody can
    fetch the file for some hours, None if there is no such address. `release_at` says when the platform itself must publish the
    post; None: we publish it, now. It is asked right before the request that says so, because a post may be moved until then.
    `route`: see `PostRecord`.
    """

    video_key: str
    platform: Platform
    account: str
    marker: str
    file: Path
    size: int
    sha256: str
    probe: Probe
    title: str
    caption: str
    made_for_kids: bool = False
    privacy: str = "public"
    may_go: Callable[[], Awaitable[None]] = _at_any_time
    address: Callable[[], Awaitable[str | None]] = _no_address
    release_at: Callable[[], Awaitable[datetime | None]] = _by_us
    terms: PostTerms | None = None
    route: str = ""


class Publisher(Protocol):
    """Publishes on one platform with five verbs, which `production.publication` calls in the right order.

    `account_first`: the ledger reserves the account before `open`, because the platform limits how often `open` may be called.
    """

    provider: str
    platform: Platform
    sandbox: bool
    account_first: bool

    def verbs(self, job: PublishJob) -> AbstractAsyncContextManager[PublishVerbs]:
        """The verbs for one post, valid for one call of the engine."""
        ...


# --- metrics --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metrics:
    """The metrics of one post at one time. None: the platform did not report the number. `watch_seconds` is a total."""

    remote_id: str
    views: int | None = None
    likes: int | None = None
    comments: int | None = None
    shares: int | None = None
    watch_seconds: float | None = None


@dataclass(frozen=True)
class MetricsPage:
    """The result of one call to a platform.

    `gone`: ids that the platform no longer knows. `failed`: reasons by id. An id in none of the three was not asked about.
    `unsupported`: metrics that the account turned out not to have.
    """

    metrics: tuple[Metrics, ...] = ()
    gone: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    unsupported: frozenset[str] = frozenset()


class MetricsReader(Protocol):
    """Reads the metrics of posts."""

    provider: str
    platform: Platform

    def pages(self, account: str, remote_ids: Sequence[str], *, without: Collection[str] = ()) -> AsyncIterator[MetricsPage]:
        """Yield the metrics of those posts page by page, as the platform returns them.

        `without`: metrics that this account is known not to have. They are not requested. An error that concerns the whole account
        is raised after the pages that were already read.
        """
        ...


@dataclass(frozen=True)
class FoundPost:
    """The public id and URL of a post."""

    remote_id: str
    url: str


class LateIds(Protocol):
    """Looks up the public ids of posts that the platform published before it assigned one."""

    provider: str
    platform: Platform
    sandbox: bool

    async def public_id(self, account: str, handle: JsonObject, *, last: bool) -> FoundPost | None:
        """The post with that handle (see `PostRecord`), or None while it has no public id. `last`: this is the last look-up."""
        ...


@dataclass(frozen=True)
class ExtraJob:
    """Something to add to a published post: `captions` (the text is in `subtitles`, as SRT) or a `thumbnail` (a JPEG, `picture`).

    `again`: a request for it may have been sent before, so it may be there already.
    """

    name: ExtraName
    account: str
    remote_id: str
    marker: str
    language: str
    subtitles: str = ""
    picture: Path | None = None
    again: bool = False


class ExtraAdder(Protocol):
    """Adds to posts what their platform takes only after the publication. A repeat must be harmless."""

    provider: str
    platform: Platform
    sandbox: bool

    async def add(self, extra: ExtraJob) -> str:
        """Add it, and return what was added in a few words. Raises the platform's errors."""
        ...


@dataclass(frozen=True)
class PostStanding:
    """What a platform says about one post now. `evidence`: its words, in one line.

    `state`: `public`; `private` (only the owner, or nobody but those with the link, sees it); `blocked` (the platform shows it to
    nobody, or not everywhere); `gone` (the platform answers, and shows no such post). A single `gone` is no proof of a deletion.
    `owner`: the subject of the account that the post belongs to (see `AccountIdentity`); None when the reader sees only posts of
    the account itself.
    """

    remote_id: str
    state: Literal["public", "private", "blocked", "gone"]
    evidence: str
    url: str = ""
    published_at: datetime | None = None
    owner: str | None = None


class PostReader(Protocol):
    """Reads the state of posts at a platform.

    `tells_more_than_metrics`: it tells states that reading metrics does not show, such as `private`.
    """

    platform: Platform
    tells_more_than_metrics: bool

    async def look(self, account: str, references: Sequence[str]) -> Sequence[PostStanding]:
        """How these posts stand, in the same order.

        A reference is a `remote_id`, or the group `id` of one of the platform's `post_forms`.
        """
        ...


class PostRemover(Protocol):
    """Deletes posts at a platform."""

    platform: Platform

    async def remove(self, account: str, remote_id: str) -> str:
        """Delete the post, and return the platform's answer in words. A missing post is no error.

        A repeat is harmless, so a lost answer raises Transient.
        """
        ...


@dataclass(frozen=True)
class AccountIdentity:
    """The owner of a token, as the platform reports it. `subject` never changes (a channel id, an open_id).

    `label` is for people.
    """

    subject: str
    label: str


class IdentityReader(Protocol):
    """Asks a platform who owns a token."""

    platform: Platform

    async def read(self, account: str) -> AccountIdentity:
        """The owner of the account's token."""
        ...


class PreflightReader(Protocol):
    """Asks a platform ahead of a post what would make it fail. It only reads, and costs next to no quota."""

    platform: Platform

    async def checks(self, account: str, job: PublishJob | None) -> Sequence[PreflightCheck]:
        """What the platform says about the account, and about the post `job` on it (None: only about the account)."""
        ...


class Tokens(Protocol):
    """Access tokens of accounts. They never appear in logs or errors."""

    async def token(self, platform: Platform, account: str) -> str:
        """A token that is valid now. Raises Permanent when the account is not connected."""
        ...

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        """Another token than the one that the platform has just refused; None if there is none. Raises as `token` does."""
        ...
