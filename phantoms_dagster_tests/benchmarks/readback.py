"""*readback*: sixty posts on one Instagram account for ninety days, an hour at a time; and 300,000 snapshots made into tables.

Each turn advances the sandbox's clock by an hour, and moves the due times in the database back by as much. Pools are real. Redis
only knows the real time, so every hour has new pools, as empty as after an hour without calls. After each turn a publisher asks for
everything that a post needs, without waiting. In a last turn, reading uses up its share of the hour, and publishing asks again.
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from aiohttp.test_utils import TestServer
from sqlalchemy import Engine, text

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Tokens
from phantoms_dagster.domain.readback import EARLY, PostReading, pause_after
from phantoms_dagster.embedded.servers import EmbeddedServers
from phantoms_dagster.platforms.instagram.metrics import InstagramMetricsReader
from phantoms_dagster.production.performance import ReadbackResult, read_back
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope, PoolFull, RedisLimits, calling_for, redis_limits
from phantoms_dagster.resilience.scopes import scope_of
from phantoms_dagster.resilience.transport import Deadlines, build_client
from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.sandbox.instagram import routes as instagram
from phantoms_dagster.sandbox.instagram.insights import reel, value
from phantoms_dagster.sandbox.instagram.state import Media
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.migrate import upgrade
from phantoms_dagster.store.performance.tables import PerformanceTables
from phantoms_dagster.store.results.readings import Results
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster_tests.benchmarks.report import Report

ACCOUNT = "17841400008460056"
HOUR = 3_600
FIRST = 18_050_000_000_000_001  # the id of the first reel
# A container, two looks at it, the publishing itself, and a look at the post.
PUBLISHING = ("instagram_container", "instagram_api", "instagram_api", "publish_instagram", "instagram_api")
MOST_MEGABYTES, MOST_SECONDS = 50, 10

_VIDEOS = text(
    """
    INSERT INTO phantoms.videos (key, channel, title, brief, platforms, source, fingerprint)
    SELECT 'v' || n, 'facts', 'Title ' || n, '{}'::jsonb, ARRAY['youtube', 'tiktok', 'instagram'], 'benchmark', 'f' || n
    FROM generate_series(1, :videos) n
    """
)
_POSTS = text(
    """
    INSERT INTO phantoms.posts (video_id, platform, account, state, marker, remote_id, video_sha256, caption_sha256, published_at)
    SELECT v.id, p, :account, 'published', 'm' || v.id || p, (18050000000000000 + v.id)::text, 'x', 'x',
        clock_timestamp() + make_interval(secs => :apart * (v.id - (SELECT min(id) FROM phantoms.videos)))
    FROM phantoms.videos v, unnest(CAST(:platforms AS text[])) p
    """
)
_SNAPSHOTS = text(
    """
    INSERT INTO phantoms.metric_snapshots (post_id, at, views, likes, comments, shares)
    SELECT p.id, clock_timestamp() - (100 - n) * interval '18 hours', n * 10, n, n, CASE WHEN p.platform <> 'youtube' THEN n END
    FROM phantoms.posts p, generate_series(1, 100) n
    """
)


class _Tokens(Tokens):
    async def token(self, platform: Platform, account: str) -> str:
        return f"sandbox-{account}"

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        return None


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--posts", type=int, default=60, help="posts of the account (60)")
    parser.add_argument("--days", type=int, default=90, help="simulated days (90)")
    parser.add_argument("--apart", type=float, default=12, help="hours between two posts (12); 0: all at once")
    parser.add_argument("--snapshots", type=int, default=300_000, help="snapshots that become tables (300,000)")


def run(options: argparse.Namespace) -> Report:
    """Both parts, on servers of their own."""
    report = Report("readback", {name: getattr(options, name) for name in ("posts", "days", "apart", "snapshots")})
    with tempfile.TemporaryDirectory() as folder, EmbeddedServers(Path(folder), durable=False) as urls:
        upgrade(urls.database_url)
        database = engine(urls.database_url)
        try:
            asyncio.run(_Days(report, database, urls.redis_url, options).run())
            _tables(report, database, options.snapshots)
        finally:
            database.dispose()
    return report


def _fill(database: Engine, videos: int, platforms: Sequence[str], apart: float) -> None:
    with database.begin() as connection:
        connection.execute(text("TRUNCATE phantoms.channels, phantoms.videos RESTART IDENTITY CASCADE"))
        connection.execute(text("INSERT INTO phantoms.channels (name, config) VALUES ('facts', '{}')"))
        connection.execute(_VIDEOS, {"videos": videos})
        connection.execute(_POSTS, {"account": ACCOUNT, "platforms": list(platforms), "apart": apart})


class _Days:
    def __init__(self, report: Report, database: Engine, redis_url: str, options: argparse.Namespace) -> None:
        self.report, self.database, self.redis_url = report, database, redis_url
        self.posts, self.hours, self.apart = options.posts, options.days * 24, options.apart * HOUR
        self.sandbox = Sandbox(seed=1)
        self.results = Results(database)
        self.reads: Counter[int] = Counter()
        self.last: dict[int, tuple[int, float]] = {}  # views as read, and when that was, of each post
        self.problems: Counter[str] = Counter()
        self.waited = self.refused = self.calls = self.most_calls = 0

    async def run(self) -> None:
        _fill(self.database, self.posts, ["instagram"], self.apart)
        async with TestServer(application(self.sandbox, [instagram.routes(self.sandbox)])) as server:
            origin = str(server.make_url("/instagram")).rstrip("/")
            began = self.sandbox.now()
            for n in range(self.posts):
                number, at = str(FIRST + n), began + n * self.apart
                self.sandbox.state["instagram"].media[number] = Media(number, ACCOUNT, "", True, False, at)
            for hour in range(self.hours):
                await self._hour(hour, origin)
                self._an_hour_later()
            await self._reading_used_up(origin)
        self._tell()

    async def _hour(self, hour: int, origin: str) -> None:
        due = self.results.due()
        if not due:
            return
        before = self.sandbox.calls.get("instagram.insights", 0)
        async with redis_limits(self.redis_url, clock=SystemClock(), namespace=f"hour-{hour}") as limits:
            read = await self._turn(limits, origin)
            await self._publish(limits)
        self.results.record_accounts(read.accounts, {})
        self.problems.update(read.problems.values())
        self.waited += len(read.waits)
        calls = self.sandbox.calls.get("instagram.insights", 0) - before
        self.calls, self.most_calls = self.calls + calls, max(self.most_calls, calls)

    async def _turn(self, limits: RedisLimits, origin: str) -> ReadbackResult:
        async def keep(readings: Sequence[PostReading]) -> None:
            self.results.record(readings)
            for reading in readings:
                if reading.metrics is not None and reading.metrics.views is not None:
                    self.reads[reading.post_id] += 1
                    self.last[reading.post_id] = (reading.metrics.views, self.sandbox.now())

        client = build_client(limits=limits, scope=scope_of("instagram"), deadlines=Deadlines(max_wait=0.5))
        async with client:
            reader = InstagramMetricsReader(client=client, base_url=origin, tokens=_Tokens(), clock=SystemClock())
            with calling_for(ACCOUNT):
                return await read_back(self.results.due(), {Platform("instagram"): reader}, keep, {})

    async def _publish(self, limits: RedisLimits) -> None:
        """Ask for admission to every pool that one post needs, without waiting."""
        for pool in PUBLISHING:
            try:
                permit = await limits.admit(CallScope("instagram", ACCOUNT, pool), max_wait=0, hold_seconds=5)
            except PoolFull:
                self.refused += 1
            else:
                await limits.settle(permit, CallOutcome.ANSWERED)

    def _an_hour_later(self) -> None:
        self.sandbox.advance(HOUR)
        with self.database.begin() as connection:
            connection.execute(text("UPDATE phantoms.posts SET published_at = published_at - interval '1 hour'"))
            connection.execute(text("UPDATE phantoms.post_reads SET due_at = due_at - interval '1 hour'"))

    async def _reading_used_up(self, origin: str) -> None:
        """Make every post due at once, twice as many as the hour's calls suffice for. Then publishing asks."""
        self.before_rush = self.refused
        with self.database.begin() as connection:
            connection.execute(text("UPDATE phantoms.post_reads SET due_at = clock_timestamp() - interval '1 minute'"))
        async with redis_limits(self.redis_url, clock=SystemClock(), namespace="rush") as limits:
            for _ in range(60):
                permit = await limits.admit(
                    CallScope("instagram_metrics", ACCOUNT, "metrics_instagram"), max_wait=1, hold_seconds=5
                )
                await limits.settle(permit, CallOutcome.ANSWERED)
            read = await self._turn(limits, origin)
            self.rush_read = sum(account.read for account in read.accounts)
            await self._publish(limits)

    def _expected(self, post: int) -> int:
        """Return how often a post at that position is read, hour by hour, without obstacles."""
        began, reads, due = round(post * self.apart / HOUR), 0, timedelta(0)
        for hour in range(self.hours - began):
            age = timedelta(hours=hour)
            if age >= due:
                reads, due = reads + 1, age + pause_after(age) + EARLY
        return reads

    def _tell(self) -> None:
        out = [n for n in range(self.posts) if n * self.apart / HOUR < self.hours]
        wanted, made = sum(self._expected(n) for n in out), sum(self.reads.values())
        with self.database.connect() as connection:
            stored = connection.execute(text("SELECT count(*) FROM phantoms.metric_snapshots WHERE views IS NOT NULL")).scalar_one()
        wrong = sum(
            views != int(value(reel(1, str(FIRST - 1 + post), 24.0), "views", at - self._published(post)))
            for post, (views, at) in self.last.items()
        )
        r = self.report
        r.tell("reads that the cadence asks for", wanted)
        r.check("posts of which numbers were stored", len(self.reads), f"all {len(out)}", ok=len(self.reads) == len(out))
        # A minute's difference of clocks may move a read into the next hour.
        r.check("reads whose numbers were stored", stored, "at least 98 % of the cadence's", ok=made == stored >= 0.98 * wanted)
        r.check("posts whose last number is not the platform's", wrong, "0", ok=wrong == 0)
        r.check("turns that ended with a problem", sum(self.problems.values()), "0", ok=not self.problems)
        r.tell("turns of which a part waited for the next", self.waited)
        r.tell("calls to read it all", self.calls)
        r.tell("most calls in one hour", self.most_calls)
        r.check("calls of publishing that had to wait after a turn", self.before_rush, "0", ok=self.before_rush == 0)
        r.check("posts read with the hour's calls used up", self.rush_read, "0", ok=self.rush_read == 0)
        rush = self.refused - self.before_rush
        r.check("calls of publishing that had to wait then", rush, "0", ok=rush == 0)
        r.problems += [f"{count} x {why}" for why, count in self.problems.items()]

    def _published(self, post: int) -> float:
        media: Media = self.sandbox.state["instagram"].media[str(FIRST - 1 + post)]
        return media.published_at


def _tables(report: Report, database: Engine, snapshots: int) -> None:
    """Make the three tables from a hundred snapshots of each post, then thin the snapshots."""
    _fill(database, snapshots // 300, ["youtube", "tiktok", "instagram"], -HOUR)
    with database.begin() as connection:
        connection.execute(_SNAPSHOTS)
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("ANALYZE phantoms.metric_snapshots"))
        count = connection.execute(text("SELECT count(*) FROM phantoms.metric_snapshots")).scalar_one()
    tables, before, began = PerformanceTables(database), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    for name in tables.TABLES:
        tables.renew(name)
    seconds, grown = time.monotonic() - began, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    report.tell("snapshots", count)
    report.check("seconds for the three tables", round(seconds, 2), f"under {MOST_SECONDS}", ok=seconds < MOST_SECONDS)
    report.check("megabytes that the process grew by", round(grown, 1), f"under {MOST_MEGABYTES}", ok=grown < MOST_MEGABYTES)
    was, began = tables.table("video_performance")["views"].sum(), time.monotonic()
    deleted = Results(database).thin()
    report.tell("snapshots that a night thins", deleted)
    report.tell("seconds that it takes", round(time.monotonic() - began, 2))
    tables.renew("video_performance")
    now = tables.table("video_performance")["views"].sum()
    report.check("views after it", int(now), f"as before: {was}", ok=bool(now == was))
