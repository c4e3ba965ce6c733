"""The Instagram stand-in's state: each account's containers and media, and the life of a container."""

from __future__ import annotations

import bisect
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.pace import wait_seconds

DAY = 86_400
COUNTED_HASHTAGS = 5  # with more, the caption is lost
NO_CHOICES: Mapping[str, str] = MappingProxyType({})
# The two kinds of objects have ids with different prefixes, so that each has its own route and faults.
CONTAINER_IDS = 17_880_000_000_000_000
MEDIA_IDS = 18_050_000_000_000_000


@dataclass
class SandboxContainer:
    """A post that is not public yet. `error` is an error subcode, `choices` how the reel is posted.

    Times are in seconds since the epoch.
    """

    id: str
    account: str
    caption: str
    share_to_feed: bool
    is_ai_generated: bool
    created_at: float
    uploaded_at: float | None = None
    size: int = 0
    sha256: str = ""
    error: int | None = None
    media_id: str | None = None
    published_at: float | None = None
    choices: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Media:
    """A public reel."""

    id: str
    account: str
    caption: str
    share_to_feed: bool
    is_ai_generated: bool
    published_at: float

    @property
    def timestamp(self) -> str:
        """The time of publication in the Graph API's format, in whole seconds."""
        return datetime.fromtimestamp(self.published_at, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")


@dataclass
class InstagramState:
    """All containers and media, by id, in order of creation."""

    sandbox: Sandbox
    containers: dict[str, SandboxContainer] = field(default_factory=dict)
    media: dict[str, Media] = field(default_factory=dict)
    # Per account and sorted by time, so that requests find theirs by bisection.
    _opened: dict[str, list[float]] = field(default_factory=dict)
    _published: dict[str, list[Media]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for container in self.sandbox.kept("instagram.container", SandboxContainer):
            self._know(container)
        for media in self.sandbox.kept("instagram.media", Media):
            self._show(media)

    def _know(self, container: SandboxContainer) -> None:
        self.containers[container.id] = container
        self._opened.setdefault(container.account, []).append(container.created_at)

    def _show(self, media: Media) -> None:
        self.media[media.id] = media
        self._published.setdefault(media.account, []).append(media)

    def keep(self, container: SandboxContainer) -> None:
        """Save the container with its state at the end of this request."""
        self.sandbox.keep("instagram.container", container.id, container)

    def open(
        self, account: str, caption: str, *, share_to_feed: bool, is_ai_generated: bool, choices: Mapping[str, str] = NO_CHOICES
    ) -> SandboxContainer:
        """A new, empty container. `choices`: the other parameters that say how the reel is posted."""
        number = str(CONTAINER_IDS + self.sandbox.number("instagram.container"))
        made = SandboxContainer(number, account, caption, share_to_feed, is_ai_generated, self.sandbox.now(), choices=dict(choices))
        self._know(made)
        self.keep(made)
        return made

    def status(self, container: SandboxContainer) -> str:
        """`IN_PROGRESS`, `FINISHED`, `ERROR`, `EXPIRED` or `PUBLISHED`.

        With the setting `instagram.status_lag_seconds` a container stays FINISHED for some time after it was published, as may
        happen on a distributed platform.
        """
        now = self.sandbox.now()
        lag = float(self.sandbox.setting("instagram.status_lag_seconds", 0.0))
        if container.published_at is not None and now - container.published_at >= lag:
            return "PUBLISHED"
        if now - container.created_at >= DAY:
            return "EXPIRED"
        if container.error is not None:
            return "ERROR"
        processing = wait_seconds(self.sandbox, "instagram.processing_seconds", container.id)
        if container.uploaded_at is None or now - container.uploaded_at < processing:
            return "IN_PROGRESS"
        return "FINISHED"

    def publish(self, container: SandboxContainer) -> Media:
        """Publish the container's reel and add it to the ledger."""
        now = self.sandbox.now()
        most = self.sandbox.setting("instagram.counted_hashtags", COUNTED_HASHTAGS)
        lost = most is not None and len(re.findall(r"#\w+", container.caption)) > most
        media = Media(
            id=str(MEDIA_IDS + self.sandbox.number("instagram.media")),
            account=container.account,
            caption="" if lost else container.caption,
            share_to_feed=container.share_to_feed,
            is_ai_generated=container.is_ai_generated,
            published_at=now,
        )
        self._show(media)
        container.media_id, container.published_at = media.id, now
        self.sandbox.keep("instagram.media", media.id, media)
        self.keep(container)
        self.sandbox.record(
            "post",
            platform="instagram",
            remote_id=media.id,
            account=media.account,
            title=None,
            caption=media.caption,
            size=container.size,
            sha256=container.sha256,
            marker=None,
            container=container.id,
            is_ai_generated=container.is_ai_generated,
            share_to_feed=container.share_to_feed,
            choices=container.choices,
        )
        return media

    def containers_since(self, account: str, start: float) -> int:
        """How many containers the account has created since then."""
        times = self._opened.get(account, [])
        return len(times) - bisect.bisect_right(times, start)

    def posts_since(self, account: str, start: float) -> int:
        """How many reels the account has published since then."""
        reels = self._published.get(account, [])
        return len(reels) - bisect.bisect_right(reels, start, key=_published_at)

    def posts_between(self, account: str, since: float, until: float) -> list[Media]:
        """The account's reels published from `since` to `until` (inclusive), newest first."""
        reels = self._published.get(account, [])
        first, end = (
            bisect.bisect_left(reels, since, key=_published_at),
            bisect.bisect_right(reels, until, key=_published_at),
        )
        return reels[first:end][::-1]


_published_at = operator.attrgetter("published_at")
