"""Reading the metrics of posts: how often a post is read, and the results of a read.

It has only values and the schedule. `production.performance` reads; `store.results.readings` has the tables.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Metrics

# (the post's age up to which a row applies, the pause between two reads). The numbers of a short video change most on its first
# day. After a month a weekly read shows the same trend for a hundredth of the calls.
CADENCE: tuple[tuple[timedelta, timedelta], ...] = (
    (timedelta(days=1), timedelta(hours=1)),
    (timedelta(days=7), timedelta(hours=6)),
    (timedelta(days=30), timedelta(days=1)),
    (timedelta(days=90), timedelta(days=7)),
    (timedelta(days=365), timedelta(days=28)),
)
# Older posts are no longer read.
READ_FOR = CADENCE[-1][0]
# Posts are due a little early. The job starts at the same minute of each hour and a read takes time, so without this margin an
# hourly read would happen only every second hour.
EARLY = timedelta(minutes=5)
# A post that the platform does not know is read again, because platforms sometimes forget a post for a while. A post that stays
# missing is read rarely.
GONE_ONCE, GONE_AGAIN = timedelta(hours=1), timedelta(days=7)
# The pause after a failed read of one post. Each further failure doubles it, up to 32 hours.
FAILED = timedelta(hours=1)
MOST_DOUBLINGS = 5


def pause_after(age: timedelta) -> timedelta:
    """The pause until a post of that age is read again."""
    return next((pause for until, pause in CADENCE if age < until), CADENCE[-1][1]) - EARLY


@dataclass(frozen=True)
class PublishedRow:
    """A published post to read. `age`: the time since it was published. `gone`: the platform did not know it at the last read.

    `gone_for`: the time since the first read that did not show it; None while it is shown. `by_gateway`: a gateway published it,
    so the gateway is asked about it.
    """

    post_id: int
    video_key: str
    platform: Platform
    account: str
    remote_id: str
    age: timedelta = timedelta(0)
    gone: bool = False
    gone_for: timedelta | None = None
    by_gateway: bool = False


@dataclass(frozen=True)
class PostReading:
    """The result of reading one post: metrics, `gone` (the platform does not know it), or a `problem`.

    The post is due again after `again`. The store doubles that for each problem in a row.
    """

    post_id: int
    again: timedelta
    metrics: Metrics | None = None
    gone: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class AccountRead:
    """The result of reading one account. Counts are of posts, except `views`.

    `problem`: why the account could not be read; None when it was. `waits`: why some of its posts wait for the next read.
    `unsupported`: the metrics that this account does not have.
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
        """The account's name with its platform, such as `instagram:main`."""
        return f"{self.platform}:{self.account}"

    def joined(self, other: AccountRead) -> AccountRead:
        """The result of reading this account in two ways: at its platform, and at the gateway that publishes for it."""
        return AccountRead(
            self.platform,
            self.account,
            asked=self.asked + other.asked,
            read=self.read + other.read,
            views=self.views + other.views,
            gone=self.gone + other.gone,
            failed={**self.failed, **other.failed},
            problem="; ".join(filter(None, (self.problem, other.problem))) or None,
            waits="; ".join(filter(None, (self.waits, other.waits))) or None,
            unsupported=self.unsupported | other.unsupported,
        )


@dataclass(frozen=True)
class UnreadAccount:
    """An account whose metrics could not be read since `since`, and why."""

    platform: Platform
    account: str
    since: datetime
    problem: str
