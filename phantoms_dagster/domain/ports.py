"""What production needs from the outside world, as protocols. Adapters live in `providers`, `media` and `store`.

Every method may raise the `ProviderError`s of `domain.errors` and nothing else for a service's misbehaviour.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from phantoms_dagster.domain.models import (
    Brief,
    Channel,
    MediaFile,
    Palette,
    Platform,
    Probe,
    Script,
    Sentence,
    TikTokTerms,
    VoiceoverOutput,
)
from phantoms_dagster.domain.paid_job import PaidService
from phantoms_dagster.domain.publication import PublishVerbs
from phantoms_dagster.domain.values import JsonObject


class Clock(Protocol):
    """The only source of time."""

    def now(self) -> datetime:
        """The time, aware, in UTC."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class Attempt(Protocol):
    """One try of one stage of one video. Its row is committed before any request is sent."""

    @property
    def id(self) -> str:
        """Unique among all attempts, `[a-z0-9-]`, at most 64 characters: goes to providers as a marker."""
        ...

    @property
    def stored_response(self) -> JsonObject | None:
        """A billed answer that an earlier, killed attempt of this stage had already received; use it instead of asking again."""
        ...

    @property
    def in_doubt(self) -> Sequence[str]:
        """The ids of the attempts right before this one whose outcome nobody knows: look what they did before doing it again."""
        ...

    async def received(self, response: JsonObject, *, provider_ref: str | None = None, cost: Decimal | None = None) -> None:
        """Commit a provider's raw answer before it is looked at: a crash or a validation error must not lose what was paid."""
        ...


# --- script ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WrittenScript:
    """A script and what it took. `cost` is in US dollars, what this attempt added; `sandbox` says that no real model wrote it.

    `removed` is what was taken out of the model's answer.
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
        """A script by as few calls of the model as it takes; by none when `attempt.stored_response` holds its answer."""
        ...


# --- voiceover ------------------------------------------------------------------------------------------------------


class Voice(Protocol):
    """Speaks scripts."""

    provider: str

    async def speak(self, script: Script, channel: Channel) -> VoiceoverOutput:
        """The spoken script, its sound file already in the media store."""
        ...


# --- render ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RenderJob:
    """Everything a renderer needs to make the master of one video. `audio` is a local path to a WAV file.

    `channel_title` stands at the top of the picture; empty: the film carries no name.
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
    """Makes MP4s: a paid service that `production.publication` calls in the right order."""

    sandbox: bool

    def price(self, seconds: float) -> Decimal:
        """What a render of that length costs, in US dollars, as far as can be told before it is made."""
        ...


@dataclass(frozen=True)
class Fitted:
    """How a file was made to fit (`kept`: it did; `remuxed`: streams copied; `transcoded`), and what fits."""

    how: str
    probe: Probe


class Studio(Protocol):
    """Local media work: probing, thumbnails, making a file fit a platform."""

    async def probe(self, path: Path, *, loudness: bool = False) -> Probe:
        """What the file really is. Raises Permanent (`unreadable media`) when it cannot be read."""
        ...

    async def unshowable(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The letters of `texts`, each as a reader sees it, that no font of ours has."""
        ...

    async def thumbnail(self, path: Path, destination: Path) -> None:
        """A JPEG, 270x480, of a telling frame."""
        ...

    async def fit(self, path: Path, platform: Platform, destination: Callable[[], Path], *, known: Probe | None = None) -> Fitted:
        """Make a file that fits the platform, unless the one at `path` does.

        `destination` names the path to write to. It is called, from any thread, only when something is written: most files are
        kept. `known`: what `probe` said of these very bytes; it is cheaper to be told than to look. Raises Permanent when
        nothing helps (too long, no picture).
        """
        ...


class MediaStore(Protocol):
    """Files addressed by the hash of their bytes."""

    async def add(self, path: Path) -> MediaFile:
        """Take the file at `path` (moved or copied) into the store. The suffix is kept."""
        ...

    async def local(self, file: MediaFile) -> Path:
        """A local path to read the file from. Raises NotFound."""
        ...

    async def remove(self, file: MediaFile, *, unused_seconds: float = 0) -> bool:
        """Delete the file's bytes, unless somebody added them within the last `unused_seconds`: then they stay, and this is False.

        Nothing happens when they are gone already. An `add` at the same time wins: the file that it returned is there afterwards.
        """
        ...

    def scratch(self) -> Path:
        """A fresh directory for work in progress, on the same file system; the caller removes it."""
        ...

    def scratch_file(self, suffix: str) -> Path:
        """A free path for one file in progress, on the same file system; the caller removes what is left there."""
        ...


# --- publish --------------------------------------------------------------------------------------------------------


async def _at_any_time() -> None:
    """The job's `may_go` of a channel without hours."""


@dataclass(frozen=True)
class PublishJob:
    """One post to be made. `marker` is the same in every attempt of this post and unique among posts.

    `may_go` is awaited right before the first request of a post, and right before each request that can make it public. It raises
    NotYet when that is not allowed now, such as after the posting hours.
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
    tiktok: TikTokTerms | None = None


class Publisher(Protocol):
    """Publishes on one platform: five verbs that `production.publication` calls in the right order.

    `account_first`: the ledger takes the account before `open`, since what that makes is limited.
    """

    provider: str
    platform: Platform
    sandbox: bool
    account_first: bool

    def taking_up(self, job: PublishJob) -> AbstractAsyncContextManager[PublishVerbs]:
        """The verbs for one call of the engine."""
        ...


# --- metrics --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Metrics:
    """Numbers of one post at one time. None means that the platform did not say, which is not 0. `watch_seconds` is total."""

    remote_id: str
    views: int | None = None
    likes: int | None = None
    comments: int | None = None
    shares: int | None = None
    watch_seconds: float | None = None


@dataclass(frozen=True)
class ReadPage:
    """What one call of a reader brought: numbers, ids that the platform does not know any more, and why others failed, by id.

    An id in none of them was not asked about. `unsupported`: metrics that the account turned out not to have.
    """

    metrics: tuple[Metrics, ...] = ()
    gone: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    unsupported: frozenset[str] = frozenset()


class MetricsReader(Protocol):
    """Reads results back."""

    provider: str
    platform: Platform

    def pages(self, account: str, remote_ids: Sequence[str], *, without: Collection[str] = ()) -> AsyncIterator[ReadPage]:
        """What the platform says of those posts, page by page as it says it.

        `without`: metrics that this account is known not to have, which are not asked for. An error that concerns the whole
        account is raised after the pages that were read before it.
        """
        ...


@dataclass(frozen=True)
class FoundPost:
    """The public id and address of a post."""

    remote_id: str
    url: str


class LateIds(Protocol):
    """Finds the public ids of posts that a platform published before it gave them one."""

    provider: str
    platform: Platform
    sandbox: bool

    async def public_id(self, account: str, handle: JsonObject, *, last: bool) -> FoundPost | None:
        """The post of that handle (see `PostRecord`), or None when it has no public id yet. `last`: nobody will ask again."""
        ...


@dataclass(frozen=True)
class AccountIdentity:
    """Who a token belongs to, as its platform says. `subject` never changes (a channel id, an open_id); `label` is for people."""

    subject: str
    label: str


class IdentityReader(Protocol):
    """Asks a platform whose a token is."""

    platform: Platform

    async def read(self, account: str) -> AccountIdentity:
        """The owner of the account's token."""
        ...


class Tokens(Protocol):
    """Access tokens of accounts; they never stand in logs or errors."""

    async def token(self, platform: Platform, account: str) -> str:
        """A token that is good now. Raises Permanent when the account is not connected."""
        ...
