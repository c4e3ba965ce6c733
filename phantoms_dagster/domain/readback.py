"""What reading results back is about: how often a post is asked about, what one turn brought, and what came of an account.

Only values and the cadence. Reading itself is `production.performance`, the tables are in `store.results.readings`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Metrics

# Age of the post up to which it is read, and the pause between two reads. The numbers of a short video move in its first day;
# after a month a weekly look tells the same story for a hundredth of the calls.
CADENCE: tuple[tuple[timedelta, timedelta], ...] = (
    (timedelta(days=1), timedelta(hours=1)),
    (timedelta(days=7), timedelta(hours=6)),
    (timedelta(days=30), timedelta(days=1)),
    (timedelta(days=90), timedelta(days=7)),
    (timedelta(days=365), timedelta(days=28)),
)
# Older posts are not read any more.
READ_FOR = CADENCE[-1][0]
# The job starts at the same minute of each hour, and a read takes a while: without this, hourly would mean every second hour.
EARLY = timedelta(minutes=5)
# A post that the platform does not know is asked about again, since a platform's memory lapses; one that stayed away, rarely.
GONE_ONCE, GONE_AGAIN = timedelta(hours=6), timedelta(days=7)
# After a failed read of one post; doubled with each further failure, up to 32 hours.
FAILED = timedelta(hours=1)
MOST_DOUBLINGS = 5


def pause_after(age: timedelta) -> timedelta:
    """How long a post of that age is left alone once it was read."""
    return next((pause for until, pause in CADENCE if age < until), CADENCE[-1][1]) - EARLY


@dataclass(frozen=True)
class PublishedRow:
    """A published post, for reading its results back. `age`: since it was published. `gone`: the platform did not know it last."""

    post_id: int
    video_key: str
    platform: Platform
    account: str
    remote_id: str
    age: timedelta = timedelta(0)
    gone: bool = False


@dataclass(frozen=True)
class PostReading:
    """What one turn of one post brought: numbers, `gone` (the platform does not know it), or a `problem`.

    The post is due after `again`; after problems in a row the store doubles that.
    """

    post_id: int
    again: timedelta
    metrics: Metrics | None = None
    gone: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class AccountRead:
    """What came of reading one account. Counts are of posts.

    `problem`: why it could not be read, None when it was. `waits`: why the rest of it waits for the next turn, although some of
    it was read. `unsupported`: the metrics that this account does not have.
    """

    platform: Platform
    account: str
    asked: int
    read: int = 0
    views: int = 0
    gone: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None
    waits: str | None = None
    unsupported: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """As in `instagram:main`."""
        return f"{self.platform}:{self.account}"


@dataclass(frozen=True)
class UnreadAccount:
    """An account whose results have not come back since `since`, and why."""

    platform: Platform
    account: str
    since: datetime
    problem: str
