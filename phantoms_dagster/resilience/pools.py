"""The limits of other people's services: what a pool is, and the numbers that their own pages give.

Only values belong here. How limits are kept is `admission`; a pool named `publish_youtube:*` is one pool per account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple
from zoneinfo import ZoneInfo

# The account of calls that name none.
NOBODY = "-"
# What pools and breakers of calls to the sandbox begin with. Their limits are those of the real service; what is used is not.
SANDBOX = "sandbox/"
PACIFIC = "America/Los_Angeles"
MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0


class Rate(NamedTuple):
    """Never more than `calls` in any `seconds`, and no more than `burst` of them at once: the rest is spread evenly."""

    calls: int
    seconds: float
    burst: int


@dataclass(frozen=True, slots=True)
class DailyQuota:
    """`units` a calendar day of the provider's own time zone, whose days last 23 or 25 hours twice a year."""

    units: int
    zone: str = "UTC"

    def midnights(self, now: datetime) -> list[int]:
        """The starts of the days around `now` (aware), in seconds since the epoch: two days before to three after."""
        zone = ZoneInfo(self.zone)
        today = now.astimezone(zone).date()
        days = (today + timedelta(days=n) for n in range(-2, 4))
        # Midnight by the wall, not 24 hours later: only the zone knows how long a day is.
        return [int(datetime(day.year, day.month, day.day, tzinfo=zone).astimezone(UTC).timestamp()) for day in days]


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """All limits of one pool. `slots`: calls in flight (None: any number); `rates`: `(calls, seconds, burst)` each.

    A dead holder's slot comes back after `lease_seconds`. `shares`: another pool whose daily quota these calls use, too; they
    stop while less than `leaves` of it would be left, which is then there for that pool's own calls.
    """

    slots: int | None = None
    rates: tuple[Rate | tuple[int, float, int], ...] = ()
    daily: DailyQuota | None = None
    lease_seconds: float = 30.0
    shares: str | None = None
    leaves: int = 0

    def __post_init__(self) -> None:
        """Refuse limits that would let nothing through for ever, or everything."""
        if self.slots is not None and self.slots < 1:
            raise ValueError("a pool has at least one slot")
        for calls, seconds, burst in self.rates:
            if calls < 1 or seconds <= 0 or not 1 <= burst <= calls:
                raise ValueError(f"no rate: {calls} calls in {seconds} s, {burst} at once")
        if self.daily is not None and self.daily.units < 0:
            raise ValueError("a quota cannot be negative")
        if self.leaves < 0:
            raise ValueError("what is left to others cannot be negative")
        if self.lease_seconds <= 0:
            raise ValueError("a lease lasts some time")


# The numbers are the providers' own, read in November 2026; where none is published the comment says so. A number that is
# too high is learnt downwards from 429; one that is too low is what settings are for.
DEFAULT_POOLS: Mapping[str, PoolLimits] = MappingProxyType(
    {
        # OpenAI publishes limits per account tier and in x-ratelimit-* headers only; 500 a minute is the lowest paid tier.
        "script": PoolLimits(slots=64, rates=(Rate(500, MINUTE, 50),)),
        "voiceover": PoolLimits(slots=32, rates=(Rate(500, MINUTE, 50),)),
        # Shotstack: 300 Edit calls in a fixed 60 s window per key, submits and polls alike (150 on the trial stage; Serve 600).
        # shotstack.io/docs/guide/architecting-an-application/limitations
        "render": PoolLimits(slots=32, rates=(Rate(300, MINUTE, 30),)),
        "render_serve": PoolLimits(slots=16, rates=(Rate(600, MINUTE, 60),)),
        "render_ingest": PoolLimits(slots=16, rates=(Rate(300, MINUTE, 30),)),
        # Files go to and come from object storage, which is bound by our bandwidth only.
        "transfer": PoolLimits(slots=16, lease_seconds=60),
        # YouTube: 100 videos.insert a project and day since 2026-06-01, days of Pacific time. Whether an upload session that
        # is never finished counts is not documented: it is counted.
        # developers.google.com/youtube/v3/determine_quota_cost
        "publish_youtube": PoolLimits(slots=16, daily=DailyQuota(100, PACIFIC)),
        "publish_youtube:*": PoolLimits(slots=2),
        # The bytes of an upload cost no quota.
        "upload_youtube": PoolLimits(slots=8, lease_seconds=60),
        # All other calls share 10,000 units a project and day: lists cost 1, videos.update and delete 50.
        "youtube_api": PoolLimits(slots=16, daily=DailyQuota(10_000, PACIFIC)),
        # search.list has a bucket of 100 calls for itself.
        "youtube_search": PoolLimits(slots=2, daily=DailyQuota(100, PACIFIC)),
        # Numbers are read from a bucket of their own, 10,000 calls of 50 videos.
        "metrics_youtube": PoolLimits(slots=4, daily=DailyQuota(10_000, PACIFIC)),
        # Where that is refused, numbers come out of the units: never more than a tenth of them, and never the last 2,000, which
        # carry some thirty videos from upload to public.
        "youtube_reading": PoolLimits(slots=4, daily=DailyQuota(1_000, PACIFIC), shares="youtube_api", leaves=2_000),
        # The Analytics API has a bucket of its own whose size is not published.
        "youtube_analytics": PoolLimits(slots=4, rates=(Rate(60, MINUTE, 6),)),
        # TikTok: limits per user token in a sliding minute; init 6, status 30, creator_info 20, each metrics endpoint 600;
        # about 15 posts per creator in 24 h, all clients together. developers.tiktok.com/doc/tiktok-api-v2-rate-limit
        "publish_tiktok": PoolLimits(slots=16),
        "publish_tiktok:*": PoolLimits(slots=2, rates=(Rate(6, MINUTE, 2), Rate(15, DAY, 15))),
        "tiktok_creator:*": PoolLimits(slots=2, rates=(Rate(20, MINUTE, 4),)),
        "tiktok_status:*": PoolLimits(slots=4, rates=(Rate(30, MINUTE, 6),)),
        "upload_tiktok": PoolLimits(slots=8, lease_seconds=60),
        "tiktok_api": PoolLimits(slots=8),
        "tiktok_api:*": PoolLimits(slots=4, rates=(Rate(600, MINUTE, 60),)),
        "metrics_tiktok": PoolLimits(slots=8),
        "metrics_tiktok:*": PoolLimits(slots=4, rates=(Rate(600, MINUTE, 60),)),
        # Instagram: pages name 25, 50 and 100 posts per account in a rolling 24 h. The adapter obeys what content_publishing_limit
        # returns, before it uploads; a number of ours would hold a post back after its upload. At most 400 containers a day; 200
        # calls per user and hour otherwise, of which 140 are publishing's and 60 are for reading numbers.
        # developers.facebook.com/docs/graph-api/overview/rate-limiting
        "publish_instagram": PoolLimits(slots=16),
        "publish_instagram:*": PoolLimits(slots=2),
        "instagram_container:*": PoolLimits(slots=2, rates=(Rate(400, DAY, 50),)),
        "instagram_api": PoolLimits(slots=16),
        "instagram_api:*": PoolLimits(slots=4, rates=(Rate(140, HOUR, 40),)),
        "metrics_instagram": PoolLimits(slots=8),
        # Numbers are read in one go each hour: the hour's share may be used at once.
        "metrics_instagram:*": PoolLimits(slots=4, rates=(Rate(60, HOUR, 60),)),
        "upload_instagram": PoolLimits(slots=8, lease_seconds=60),
    }
)


class Pools:
    """The pools that calls are admitted by: the defaults, with `overrides` on top (same names)."""

    def __init__(
        self, overrides: Mapping[str, PoolLimits] | None = None, *, defaults: Mapping[str, PoolLimits] = DEFAULT_POOLS
    ) -> None:
        self._limits = {**defaults, **(overrides or {})}

    def limits(self, pool: str) -> PoolLimits:
        """The limits of `render` or `publish_youtube:main`. Raises KeyError for a pool that nobody defined."""
        found = self._find(pool)
        if found is None:
            raise KeyError(f"no pool {pool!r}; there are: {', '.join(sorted(self._limits))}")
        return found

    def has(self, pool: str) -> bool:
        """Whether `limits` knows it."""
        return self._find(pool) is not None

    def _find(self, pool: str) -> PoolLimits | None:
        pool = pool.removeprefix(SANDBOX)
        found = self._limits.get(pool)
        if found is None and ":" in pool:
            found = self._limits.get(pool.split(":", 1)[0] + ":*")
        return found

    def of(self, pool: str, account: str | None, *, sandbox: bool = False) -> list[str]:
        """The pools that one call goes through: the app's own first, then the account's; whichever of them exist.

        Calls that name no account share one, so that forgetting it can make them slower but never too fast. `sandbox`: the pools
        of the sandbox, which count for themselves.
        """
        names = [pool] if pool in self._limits else []
        if names and (shared := self._limits[pool].shares) is not None:
            names.append(shared)
        if f"{pool}:*" in self._limits:
            names.append(f"{pool}:{account or NOBODY}")
        if not names:
            self.limits(pool)  # says what there is
        return [SANDBOX + name for name in names] if sandbox else names

    def names(self) -> list[str]:
        """All defined names, `*` standing for any account."""
        return sorted(self._limits)
