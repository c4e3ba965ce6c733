"""What the Instagram stand-in remembers: containers and media of each account, and the life of a container.

HTTP belongs in `instagram`, numbers about media in `instagram_insights`, the look into uploaded files in `instagram_media`.
"""

from __future__ import annotations

import bisect
import operator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.pace import wait_seconds

DAY = 86_400
# Ids of the two kinds of objects begin differently, so that each kind has a route, and a fault, of its own.
CONTAINER_IDS = 17_880_000_000_000_000
MEDIA_IDS = 18_050_000_000_000_000


@dataclass
class SandboxContainer:
    """A post that is not public yet. `error` is an error subcode; times are seconds since the epoch."""

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
        """The time of publication as the Graph API writes it, in whole seconds."""
        return datetime.fromtimestamp(self.published_at, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")


@dataclass
class InstagramState:
    """All accounts' containers and media, by id, in the order they were made."""

    sandbox: Sandbox
    containers: dict[str, SandboxContainer] = field(default_factory=dict)
    media: dict[str, Media] = field(default_factory=dict)
    # Of each account, in the order of their times: what is asked for is found by bisection.
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
        """Let the container, as it is at the end of this request, outlive the process."""
        self.sandbox.keep("instagram.container", container.id, container)

    def open(self, account: str, caption: str, *, share_to_feed: bool, is_ai_generated: bool) -> SandboxContainer:
        """A new, empty container."""
        number = str(CONTAINER_IDS + self.sandbox.number("instagram.container"))
        made = SandboxContainer(number, account, caption, share_to_feed, is_ai_generated, self.sandbox.now())
        self._know(made)
        self.keep(made)
        return made

    def status(self, container: SandboxContainer) -> str:
        """`IN_PROGRESS`, `FINISHED`, `ERROR`, `EXPIRED` or `PUBLISHED`.

        The setting `instagram.status_lag_seconds` lets a container stay FINISHED for a while after it was published, as a
        platform of many machines may.
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
        """Make the container's reel public and write it into the ledger."""
        now = self.sandbox.now()
        media = Media(
            id=str(MEDIA_IDS + self.sandbox.number("instagram.media")),
            account=container.account,
            caption=container.caption,
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
        )
        return media

    def containers_since(self, account: str, start: float) -> int:
        """How many containers the account made since then."""
        times = self._opened.get(account, [])
        return len(times) - bisect.bisect_right(times, start)

    def posts_since(self, account: str, start: float) -> int:
        """How many reels the account published since then."""
        reels = self._published.get(account, [])
        return len(reels) - bisect.bisect_right(reels, start, key=_published_at)

    def posts_between(self, account: str, since: float, until: float) -> list[Media]:
        """The account's reels that were published then (both ends included), newest first."""
        reels = self._published.get(account, [])
        first, end = (
            bisect.bisect_left(reels, since, key=_published_at),
            bisect.bisect_right(reels, until, key=_published_at),
        )
        return reels[first:end][::-1]


_published_at = operator.attrgetter("published_at")
