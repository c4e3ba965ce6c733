"""*year*: three channels and five accounts post twice a day for 365 simulated days, and everything that ends in a year ends.

The clock jumps from one due time to the next (`simulated_time`), and the product does the rest: it books slots, renews tokens,
waits and reports. The slots are at the hours at which clocks change, in three zones, one of which changes by half an hour. Access
tokens live an hour, a day and sixty days as in life, and TikTok's refresh tokens rotate. Three times an owner revokes the access,
and connects the account again a day and a half later. YouTube is away for two days. For three days TikTok takes one post a day.

Every slot of the year is counted from the calendar of the zone, not from the product's tables: a post came out in it, or a missed
slot with a reason was recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from itertools import count, pairwise
from pathlib import Path
from unittest import mock
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import httpx
import yaml
from sqlalchemy import RowMapping, text

from phantoms_dagster.domain.claims import RunContext
from phantoms_dagster.domain.models import Brief, Platform
from phantoms_dagster.domain.planning import PlannedRun
from phantoms_dagster.domain.stages import CHAINS, STAGES, stage
from phantoms_dagster.embedded.servers import EmbeddedServers
from phantoms_dagster.production.planner import BatchPolicy, plan
from phantoms_dagster.sandbox.core import Fault, Sandbox
from phantoms_dagster.sandbox.grants import Grants
from phantoms_dagster.sandbox.instagram import oauth as instagram_oauth
from phantoms_dagster.sandbox.instagram import people
from phantoms_dagster.sandbox.tiktok import app as tiktok_app
from phantoms_dagster.sandbox.youtube import google_token
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.migrate import upgrade
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.connecting import Connecting
from phantoms_dagster.wiring.pipeline import Pipeline
from phantoms_dagster_tests.benchmarks.alert_recorder import AlertRecorder
from phantoms_dagster_tests.benchmarks.local_stand_ins import exchange_local_parts
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.simulated_time import SimulatedClock, prepare, simulated_clock
from phantoms_dagster_tests.benchmarks.world import UNLIMITED
from phantoms_dagster_tests.sandbox_thread import sandbox_thread

START = datetime(2027, 1, 11, 12, tzinfo=UTC)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
# A slot is kept when its post is out within this time.
KEPT_WITHIN = timedelta(minutes=30)
# Videos that wait for their slot, per channel and platform. It lasts for two days.
STOCK = 4
# No access token is replaced earlier than this. Instagram's lives sixty days, and is renewed each week, as Meta advises.
LEAST_LIFE = {"youtube": timedelta(minutes=30), "tiktok": 12 * HOUR, "instagram": 6 * DAY}
LOOPBACK = "http://127.0.0.1:8400/callback"


@dataclass(frozen=True)
class ChannelPlan:
    """A channel of the year. `accounts`: by platform."""

    name: str
    zone: str
    accounts: Mapping[str, str]
    times: tuple[str, str]
    missed: str


CHANNELS = (
    ChannelPlan("facts", "Europe/Berlin", {"youtube": "facts-yt", "tiktok": "facts-tt"}, ("02:30", "18:30"), "post"),
    ChannelPlan("night", "America/New_York", {"youtube": "night-yt", "instagram": "night-ig"}, ("01:30", "12:00"), "next"),
    ChannelPlan("coast", "Australia/Lord_Howe", {"tiktok": "coast-tt"}, ("02:15", "21:15"), "post"),
)


@dataclass(frozen=True)
class Trouble:
    """Something that happens on a day of the year and is over after `lasts`."""

    day: float
    lasts: timedelta
    what: str
    platform: str
    account: str | None = None

    @property
    def begins(self) -> datetime:
        """When it begins."""
        return START + self.day * DAY

    @property
    def ends(self) -> datetime:
        """When it is over."""
        return self.begins + self.lasts


TROUBLES = (
    Trouble(60.3, timedelta(hours=36), "revoked", "youtube", "night-yt"),
    Trouble(120.4, timedelta(hours=36), "revoked", "tiktok", "coast-tt"),
    Trouble(150.5, timedelta(days=2), "away", "youtube"),
    Trouble(200.1, timedelta(days=3), "one post a day", "tiktok"),
    Trouble(260.6, timedelta(hours=36), "revoked", "instagram", "night-ig"),
)

_POSTS = """
    SELECT p.platform, p.account, p.published_at, p.remote_id FROM phantoms.posts p
    WHERE p.state IN ('published', 'confirmed') ORDER BY p.published_at
"""
_MISSED = "SELECT platform, account, at, why FROM phantoms.missed_slots"
_STOCK = """
    SELECT v.channel, split_part(s.stage, '/', 1) AS platform, count(*) AS n
    FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE s.stage LIKE '%/post' AND s.state NOT IN ('done', 'failed', 'rejected', 'discarded') GROUP BY 1, 2
"""
_LETTERS = "SELECT stage, code, message FROM phantoms.dead_letters WHERE state = 'open'"


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--days", type=int, default=365, help="simulated days (365)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Live through the year, and count."""
    report = Report("year", {"days": options.days, "seed": options.seed})
    report.notes += [
        "one process: the product's planner and StageRunner without Dagster; voice and studio are the stand-ins of the storm",
        "the product's default settings: pools, waits, breakers and leases",
        "time is simulated for Python, PostgreSQL and Redis; a person approves at once, and reconnects after a day and a half",
        "every hour: bookings, missed slots and alerts, as their schedules do; every day: renewal of idle tokens",
    ]
    with _world(options.seed) as year:
        began, cpu = time.monotonic(), time.process_time()
        year.live(options.days)
        report.tell("real seconds", round(time.monotonic() - began))
        report.tell("CPU-seconds of this process", round(time.process_time() - cpu))
        _weigh(report, year, options.days)
    return report


# --- the world


@dataclass
class _Year:
    """The product, the platforms and the clock of the year."""

    services: Services
    clock: SimulatedClock
    sandbox: Sandbox
    url: str
    recorder: AlertRecorder
    numbers: Iterator[int] = field(default_factory=count)
    connected: list[tuple[str, datetime]] = field(default_factory=list)
    said_disconnected: list[tuple[str, datetime]] = field(default_factory=list)
    _disconnected: frozenset[str] = frozenset()

    # --- living

    def live(self, days: int) -> None:
        """Let the days pass."""
        pipeline = self.services.loop.run(self.services.pipeline())
        end, events = START + days * DAY, self._events()
        next_hour, next_day = START, START
        while (now := self.clock.now()) < end:
            while events and events[0][0] <= now:
                events.pop(0)[1]()
            if now >= next_day:
                next_day = now + DAY
                self.services.loop.run(pipeline.refresher.renew_idle())
                self._progress(now, days)
            if now >= next_hour:
                next_hour = now + HOUR
                self._fill()
                self._each_hour()
            self._work(pipeline)
            due = self.services.planning().next_due(list(STAGES))
            soon = [next_hour, *(at for at, _ in events[:1])]
            if due is not None:
                soon.append(self.clock.now() + timedelta(seconds=max(due, 0.05)))
            self.clock.advance_to(min(soon))

    def _progress(self, now: datetime, days: int) -> None:
        if sys.stderr.isatty():
            sys.stderr.write(f"\r  day {(now - START).days} of {days}")

    def _work(self, pipeline: Pipeline) -> None:
        """Do everything that is due."""
        while planned := self._planned():
            self.services.loop.run(self._carry(pipeline, planned))
            self._approve()

    def _planned(self) -> list[PlannedRun]:
        policy = BatchPolicy(batch_size=25, runs_per_stage=4)
        now = self.clock.now()
        found = (plan(self.services.planning(), chain=chain, open_runs=[], policy=policy, now=now) for chain in CHAINS.values())
        return [run for planned in found for run in planned]

    async def _carry(self, pipeline: Pipeline, planned: Sequence[PlannedRun]) -> None:
        runs = (
            pipeline.runner.run(stage(run.target), run.keys, RunContext(run_id=f"year-{next(self.numbers)}", by="sensor"))
            for run in planned
        )
        await asyncio.gather(*runs)

    def _approve(self) -> None:
        decisions = self.services.decisions()
        decisions.decide_all(decisions.undecided(), approved=True, reviewer="kim", via="cli")

    def _fill(self) -> None:
        """Add videos until each channel has its stock of posts to come on each platform."""
        waiting = {(row["channel"], row["platform"]): row["n"] for row in self.rows(_STOCK)}
        briefs = [
            Brief(
                title=f"Ocean facts number {next(self.numbers):06d}",
                angle="One surprising fact, told in fifteen seconds.",
                facts=(f"Fact {next(self.numbers)} is not like the others.",),
                channel=channel.name,
                platforms=tuple(map(Platform, channel.accounts)),
            )
            for channel in CHANNELS
            for _ in range(STOCK - min(waiting.get((channel.name, platform), 0) for platform in channel.accounts))
        ]
        if briefs:
            catalogue = self.services.catalogue()
            catalogue.registered([added.key for added in catalogue.add(briefs, source="benchmark")])

    def _each_hour(self) -> None:
        """What the product's schedules do each hour, and a look at the accounts."""
        self.recorder.look()
        now = frozenset(
            f"{row['platform']}:{row['name']}"
            for row in self.rows("SELECT platform, name FROM phantoms.accounts WHERE state = 'disconnected'")
        )
        self.said_disconnected += [(name, self.clock.now()) for name in sorted(now - self._disconnected)]
        self._disconnected = now

    def rows(self, statement: str) -> Sequence[RowMapping]:
        """The rows of a query."""
        with self.services.engine.connect() as connection:
            return connection.execute(text(statement)).mappings().all()

    # --- accounts

    def connect(self, platform: str, account: str) -> None:
        """Connect the account, as its owner does in a browser."""
        connecting = Connecting(self.services, Platform(platform), account)
        attempt = connecting.begin(f"{instagram_oauth.REDIRECT_URI}/" if platform == "instagram" else LOOPBACK)
        page = httpx.get(f"{attempt.consent.url}&auto=accept&account={account}", trust_env=False)
        answer = dict(parse_qsl(urlsplit(page.headers["location"]).query))
        connecting.finish(attempt, connecting.code_in(attempt, answer))
        self.connected.append((f"{platform}:{account}", self.clock.now()))

    # --- troubles

    def _events(self) -> list[tuple[datetime, Callable[[], None]]]:
        found: list[tuple[datetime, Callable[[], None]]] = []
        for trouble in TROUBLES:
            begin, end = self._acts(trouble)
            found += [(trouble.begins, begin), (trouble.ends, end)]
        return sorted(found, key=lambda event: event[0])

    def _acts(self, trouble: Trouble) -> tuple[Callable[[], None], Callable[[], None]]:
        account = trouble.account or ""
        match trouble.what:
            case "revoked":
                revoke = Grants.of(self.sandbox).revoke
                return (lambda: _ignore(revoke(trouble.platform, account))), (lambda: self.connect(trouble.platform, account))
            case "away":
                dead = Fault(f"{trouble.platform}.*", status=503)
                return (lambda: self.sandbox.faults.append(dead)), (lambda: self.sandbox.faults.remove(dead))
            case _:
                limit = "tiktok.daily_posts"
                return (lambda: self.sandbox.config.update({limit: 1})), (lambda: _ignore(self.sandbox.config.pop(limit)))


def _ignore(_: object) -> None:
    pass


def _channels_yaml() -> str:
    look = {"brand_voice": "calm and exact", "target_seconds": 15, "min_distance_minutes": 0}
    channels = {
        channel.name: {
            **look,
            "title": channel.name.title(),
            "accounts": dict(channel.accounts),
            "timezone": channel.zone,
            "slots": [{"time": at} for at in channel.times],
            "missed": channel.missed,
            **({"tiktok": {"privacy": "PUBLIC_TO_EVERYONE"}} if "tiktok" in channel.accounts else {}),
        }
        for channel in CHANNELS
    }
    return yaml.safe_dump({"channels": channels}, sort_keys=False)


@contextlib.contextmanager
def _world(seed: int) -> Iterator[_Year]:
    """The servers, the sandbox and the product, in a folder that is gone afterwards."""
    for name in [n for n in os.environ if n.startswith("PHANTOMS_")]:
        del os.environ[name]  # a benchmark must not touch real accounts or servers that are running
    exchange_local_parts()
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="phantoms-year-", ignore_cleanup_errors=True)))
        urls = stack.enter_context(EmbeddedServers(home, durable=False))
        prepare(urls.database_url)
        upgrade(urls.database_url)
        running = stack.enter_context(sandbox_thread(home, seed=seed))
        running.sandbox.config |= {**UNLIMITED, "instagram.login": "instagram", "tiktok.rate_limits": True}
        (home / "channels.yaml").write_text(_channels_yaml(), encoding="utf-8")
        environment = {
            **_connected_at(running.url),
            "PHANTOMS_HOME": str(home),
            "PHANTOMS_DATABASE_URL": urls.database_url,
            "PHANTOMS_REDIS_URL": urls.redis_url,
            "PHANTOMS_RENDERER": "shotstack",
        }
        stack.enter_context(mock.patch.dict(os.environ, environment))
        clock = stack.enter_context(simulated_clock(urls.database_url, urls.redis_url, START))
        services = Services(Settings())
        stack.callback(services.close)
        services.clock = clock
        services.take_channels()
        year = _Year(services, clock, running.sandbox, running.url, AlertRecorder(services))
        for channel in CHANNELS:
            for platform, account in channel.accounts.items():
                year.connect(platform, account)
        yield year


def _connected_at(url: str) -> dict[str, str]:
    """Settings with which the platforms of the sandbox count as the real ones, with an app at each."""
    return {
        "PHANTOMS_SANDBOX": "auto",
        "PHANTOMS_SANDBOX_URL": url,
        "PHANTOMS_YOUTUBE_BASE_URL": url,
        "PHANTOMS_YOUTUBE_AUTHORIZE_URL": f"{url}/o/oauth2/v2/auth",
        "PHANTOMS_YOUTUBE_TOKEN_URL": url,
        "PHANTOMS_YOUTUBE_CLIENT_ID": google_token.CLIENT_ID,
        "PHANTOMS_YOUTUBE_CLIENT_SECRET": google_token.CLIENT_SECRET,
        "PHANTOMS_TIKTOK_BASE_URL": f"{url}/tiktok",
        "PHANTOMS_TIKTOK_AUTHORIZE_URL": f"{url}/tiktok/v2/auth/authorize/",
        "PHANTOMS_TIKTOK_CLIENT_ID": tiktok_app.CLIENT_KEY,
        "PHANTOMS_TIKTOK_CLIENT_SECRET": tiktok_app.CLIENT_SECRET,
        "PHANTOMS_INSTAGRAM_BASE_URL": f"{url}/instagram",
        "PHANTOMS_INSTAGRAM_UPLOAD_URL": f"{url}/instagram/rupload",
        "PHANTOMS_INSTAGRAM_AUTHORIZE_URL": f"{url}/instagram/oauth/authorize",
        "PHANTOMS_INSTAGRAM_TOKEN_URL": f"{url}/instagram",
        "PHANTOMS_INSTAGRAM_CLIENT_ID": people.APP_ID,
        "PHANTOMS_INSTAGRAM_CLIENT_SECRET": people.APP_SECRET,
    }


# --- counting


def expected_slots(days: int) -> list[tuple[str, str, datetime]]:
    """Every slot of the year as (platform, account, time), by the zone's own calendar. The first day is left out."""
    found = []
    for channel in CHANNELS:
        zone = ZoneInfo(channel.zone)
        first = (START + DAY).astimezone(zone).date()
        for day in (first + timedelta(days=n) for n in range(days - 2)):
            for written in channel.times:
                at = local_instant(day, written, zone)
                found += [(platform, account, at) for platform, account in channel.accounts.items()]
    return found


def local_instant(day: date, written: str, zone: ZoneInfo) -> datetime:
    """The time as people in the zone read it: the first of two, and the end of the gap for one that the clocks skip."""
    wall = datetime.combine(day, datetime.strptime(written, "%H:%M").time())  # noqa: DTZ007 - it is local
    first = wall.replace(tzinfo=zone).astimezone(UTC)
    if first.astimezone(zone).replace(tzinfo=None) == wall:
        return first
    # It is skipped: walk to the first minute that exists.
    while True:
        wall += timedelta(minutes=1)
        found = wall.replace(tzinfo=zone).astimezone(UTC)
        if found.astimezone(zone).replace(tzinfo=None) == wall:
            return found


def _weigh(report: Report, year: _Year, days: int) -> None:
    posts = year.rows(_POSTS)
    shown = Counter(entry["platform"] for entry in year.sandbox.ledger if entry["kind"] == "post")
    recorded = Counter(row["platform"] for row in posts)
    report.tell("posts", dict(recorded))
    report.check("posts at the platforms", dict(shown), "as recorded, so none is doubled or lost", ok=shown == recorded)
    _weigh_slots(report, year, posts, days)
    _weigh_tokens(report, year)
    revoked = [trouble for trouble in TROUBLES if trouble.what == "revoked" and trouble.begins < START + days * DAY]
    said = [name for name, _ in year.said_disconnected]
    wanted = [f"{trouble.platform}:{trouble.account}" for trouble in revoked]
    report.check("reconnect was said of", said, str(wanted), ok=said == wanted)
    told = year.recorder.told()
    report.tell("alerts", dict(told))
    accounts = {name: times for name, times in told.items() if name.startswith("account:")}
    report.check(
        "alerts about accounts", accounts, "one a revocation", ok=accounts == dict.fromkeys((f"account:{n}" for n in wanted), 1)
    )
    letters = year.rows(_LETTERS)
    report.check("dead letters", len(letters), "0", ok=not letters)
    report.problems += [f"{row['stage']}: {row['code']}: {row['message']}" for row in letters[:10]]


def _weigh_slots(report: Report, year: _Year, posts: Sequence[RowMapping], days: int) -> None:
    out: dict[tuple[str, str], list[datetime]] = defaultdict(list)
    for row in posts:
        out[row["platform"], row["account"]].append(row["published_at"])
    missed = {(row["platform"], row["account"], row["at"]): row["why"] for row in year.rows(_MISSED)}
    counted, unexplained, late = Counter[str](), [], []
    for platform, account, at in expected_slots(days):
        near = [moment - at for moment in out[platform, account] if timedelta(0) <= moment - at < KEPT_WITHIN]
        if near:
            counted["kept"] += 1
            late.append(min(near).total_seconds())
        elif missed.get((platform, account, at)):
            counted["missed, with a reason"] += 1
        else:
            unexplained.append(f"{platform}:{account} {at:%Y-%m-%d %H:%M}")
    report.tell("slots", counted.total() + len(unexplained))
    report.tell("slots kept", counted["kept"])
    report.tell("slots missed, with a reason", counted["missed, with a reason"])
    report.tell("reasons", dict(Counter(why for why in missed.values()).most_common(8)))
    report.check("slots missed without a reason", len(unexplained), "0", ok=not unexplained)
    report.tell("seconds from a slot to its post, at most", round(max(late, default=0.0)))
    report.problems += unexplained[:10]


def _weigh_tokens(report: Report, year: _Year) -> None:
    """How often each account's access token was renewed, and whether one was renewed before its time."""
    renewed: dict[str, list[datetime]] = defaultdict(list)
    for entry in year.sandbox.ledger:
        if entry["kind"].startswith("oauth.") and entry.get("token") == "access":
            renewed[f"{entry['platform']}:{entry['account']}"].append(datetime.fromtimestamp(entry["at"], UTC))
    report.tell("access tokens", {name: len(times) for name, times in sorted(renewed.items())})
    soon = [
        f"{name} at {later:%Y-%m-%d %H:%M}, after {later - earlier}"
        for name, times in renewed.items()
        for earlier, later in pairwise(times)
        if later - earlier < LEAST_LIFE[name.split(":")[0]]
        and not any(who == name and abs(at - later) < HOUR for who, at in year.connected)
    ]
    report.check("tokens renewed too early", len(soon), "0", ok=not soon)
    report.problems += soon[:10]
