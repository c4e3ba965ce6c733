"""*weather*: one fault after another over 200 videos on four channels with eight accounts, without any help.

The model server answers after 150 s, PostgreSQL is away for 100 s, Redis refuses writes for 60 s, the disk is full for 60 s, the
token of one account is revoked, and TikTok is dead for 15 minutes meanwhile. All posts come out once, except those of the
revoked account, which wait; no dead letter is written, and each fault makes one alert. `--scale` below 1 shortens
the troubles and the waits of the product, for a quick look.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from phantoms_dagster.domain.models import Brief, Channel, Platform
from phantoms_dagster.platforms.tiktok.choices import TikTokChoices
from phantoms_dagster_tests.benchmarks import completion, reconciliation
from phantoms_dagster_tests.benchmarks.alert_recorder import AlertRecorder
from phantoms_dagster_tests.benchmarks.report import Report
from phantoms_dagster_tests.benchmarks.troubles import Media, Postgres, Valkey, media_disk
from phantoms_dagster_tests.benchmarks.workers import Fleet
from phantoms_dagster_tests.benchmarks.world import Bench, Reviewer, open_bench, sleep_until, wide_pools

VIDEOS = 200
YOUTUBE, TIKTOK, INSTAGRAM = Platform("youtube"), Platform("tiktok"), Platform("instagram")
CHANNELS = ((YOUTUBE, TIKTOK), (YOUTUBE, INSTAGRAM), (TIKTOK, INSTAGRAM), (YOUTUBE, TIKTOK))
REVOKED = "account-3-youtube"
DEAD = "tiktok.*"
MODEL = "openai.chat"
MODEL_SECONDS = 150.0
FEED_SECONDS = 720.0
# When each trouble begins and how long it lasts, in seconds from the first video.
PLAN = {
    "model": (0.0, 120.0),
    "TikTok": (150.0, 900.0),
    "PostgreSQL": (180.0, 100.0),
    "Redis": (340.0, 60.0),
    "disk": (460.0, 60.0),
    "token": (560.0, 0.0),
}
# A stage of these names that ends shows that the trouble is over.
SIGNS = {
    "model": "script",
    "TikTok": "tiktok/post",
    "PostgreSQL": "%",
    "Redis": "script",
    "disk": "rendered_video",
}
SETTINGS = {
    "PHANTOMS_POOLS": wide_pools(),
    # Half an hour as delivered: the render API has no read that finds a submission whose answer was lost.
    "PHANTOMS_LOST_RENDER_SECONDS": "120",
}
QUICKLY = {"PHANTOMS_ALERT_MINUTES": "0.1", "PHANTOMS_LOST_RENDER_SECONDS": "5", "PHANTOMS_OPENAI_SECONDS": "60"}

_OPEN = """
    SELECT s.stage, s.state, count(*) AS n FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE v.registered_at IS NOT NULL AND (s.state IN ('ready', 'running') OR s.state = 'deferred')
        AND NOT (s.stage = 'youtube/post' AND s.state = 'deferred' AND v.channel = :channel AND s.reason LIKE :waits)
    GROUP BY 1, 2
"""
_FIRST = """
    SELECT extract(epoch FROM min(finished_at))::float8 AS at FROM phantoms.stages
    WHERE state = 'done' AND stage LIKE :stage AND finished_at >= to_timestamp(:since)
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--scale", type=float, default=1.0, help="how much of the videos and of the troubles' lengths (1)")
    parser.add_argument("--workers", type=int, default=3, help="worker processes (3)")
    parser.add_argument("--limit", type=float, default=480, help="seconds after the last trouble in which all must end (480)")
    parser.add_argument("--seed", type=int, default=1, help="fixes the sandbox's random choices (1)")


def run(options: argparse.Namespace) -> Report:
    """Make the videos during all faults, and count the results."""
    report = Report("weather", {name: getattr(options, name) for name in ("scale", "workers", "seed")})
    report.notes += [
        "voice and studio are the stand-ins of the storm; runs are carried as a worker carries them, without Dagster",
        "alerts are those of the product's own reading and wording, asked for every few seconds as its sensor asks",
        f"pools without rates and daily quotas; a lost render is made again after {SETTINGS['PHANTOMS_LOST_RENDER_SECONDS']} s",
    ]
    videos = max(len(CHANNELS), round(VIDEOS * options.scale))
    quick = options.scale < 1
    tokens = {_variable(account): f"sandbox-{account}" for account, _, _ in _accounts()}
    with (
        tempfile.TemporaryDirectory(prefix="phantoms-media-", ignore_cleanup_errors=True) as folder,
        media_disk(Path(folder) / "media") as media,
    ):
        settings = {**SETTINGS, **(QUICKLY if quick else {}), **tokens, "PHANTOMS_MEDIA": str(media.root)}
        if not media.small:
            report.notes.append("no file system can be mounted here: the disk is not full but read-only")
        with open_bench(seed=options.seed, settings=settings, quick=quick, connected=True) as bench:
            _weather(report, bench, media, videos, options)
    return report


def _weather(report: Report, bench: Bench, media: Media, videos: int, options: argparse.Namespace) -> None:
    keys = _add_videos(bench, videos)
    fleet = bench.fleet("carry", options.workers, seed=options.seed)
    sky = _Sky(bench, media, options.scale)
    with AlertRecorder(bench.services) as recorder, Reviewer(bench):
        with _fed(bench, keys, sky.began, FEED_SECONDS * options.scale):
            sky.pass_over()
        ended = _wait(bench, seconds=max(60.0, options.limit * options.scale))
        finished = time.time()
        recorder.last_round()
    fleet.stop()
    if not ended:
        report.problems += [f"still {row['state']}: {row['n']} of {row['stage']}" for row in _open(bench)]
    report.tell("videos", videos)
    _times(report, bench, sky, finished)
    _outcomes(report, bench, videos)
    _alerts(report, recorder, exactly=options.scale >= 1)
    _runs(report, fleet)


# --- what is carried


def _accounts() -> Iterator[tuple[str, Platform, int]]:
    for number, platforms in enumerate(CHANNELS):
        for platform in platforms:
            yield f"account-{number}-{platform}", platform, number


def _variable(account: str) -> str:
    return "WEATHER_TOKEN_" + account.upper().replace("-", "_")


def _add_videos(bench: Bench, count: int) -> list[str]:
    channels = []
    for number, platforms in enumerate(CHANNELS):
        accounts = {platform: account for account, platform, n in _accounts() if n == number}
        channels.append(
            Channel(
                name=f"channel-{number}",
                title=f"Channel {number}",
                brand_voice="calm and exact",
                target_seconds=15,
                accounts=accounts,
                tokens={platform: f"env:{_variable(account)}" for platform, account in accounts.items()},
            ).model_copy(update={"tiktok": TikTokChoices(privacy="PUBLIC_TO_EVERYONE") if TIKTOK in platforms else None})
        )
    catalogue = bench.services.catalogue()
    catalogue.put_channels(channels)
    briefs = [
        Brief(
            title=f"Weather facts number {n:04d}",
            angle="One surprising fact, told in fifteen seconds.",
            facts=(f"Fact {n:04d} is not like the others.",),
            channel=f"channel-{n % len(CHANNELS)}",
            platforms=CHANNELS[n % len(CHANNELS)],
        )
        for n in range(count)
    ]
    return [added.key for added in catalogue.add(briefs, source="benchmark")]


@contextlib.contextmanager
def _fed(bench: Bench, keys: Sequence[str], began: float, seconds: float) -> Iterator[None]:
    """Register the videos one after the other, whatever the faults. At the end of the block all are registered."""

    def feed() -> None:
        catalogue = bench.services.catalogue()
        for place, key in enumerate(keys):
            sleep_until(began + place * seconds / len(keys))
            while True:
                try:
                    catalogue.registered([key])
                except DBAPIError:
                    time.sleep(1)  # as a person who tries again
                else:
                    break

    feeder = threading.Thread(target=feed, name="feeder", daemon=True)
    feeder.start()
    yield
    feeder.join()


# --- the troubles


@dataclass
class _Sky:
    """Begins and ends each fault at its time. `times`: the actual times, in seconds since the epoch."""

    bench: Bench
    media: Media
    scale: float
    began: float = field(default_factory=time.monotonic)
    times: dict[str, tuple[float, float]] = field(default_factory=dict)

    def pass_over(self) -> None:
        """Run all faults. Ends after the last one."""
        postgres, valkey = Postgres(self.bench), Valkey(self.bench)
        sandbox, slow = self.bench.sandbox, MODEL_SECONDS * self.scale
        acts: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
            "model": (lambda: sandbox.fault(MODEL, "latency", seconds=slow), lambda: sandbox.heal(MODEL)),
            "TikTok": (lambda: sandbox.fault(DEAD, "drop_before"), lambda: sandbox.heal(DEAD)),
            "PostgreSQL": (postgres.stop, postgres.start),
            "Redis": (valkey.refuse, valkey.serve),
            "disk": (self.media.fill, self.media.empty),
            "token": (lambda: sandbox.configure(**{"youtube.revoked": [REVOKED]}), lambda: None),
        }
        moments = [(at, 0, name) for name, (at, _) in PLAN.items()] + [(at + long, 1, name) for name, (at, long) in PLAN.items()]
        starts: dict[str, float] = {}
        try:
            for at, which, name in sorted(moments):
                sleep_until(self.began + at * self.scale)
                if which == 1:  # it may have taken a moment to begin, and lasts as long all the same
                    time.sleep(max(0.0, starts[name] + PLAN[name][1] * self.scale - time.time()))
                acts[name][which]()
                if which == 0:
                    starts[name] = time.time()
                else:
                    self.times[name] = (starts[name], time.time())
        finally:
            postgres.start()


def _open(bench: Bench) -> list[dict[str, object]]:
    channel = REVOKED.split("-")[1]
    rows = bench.rows(_OPEN, channel=f"channel-{channel}", waits=f"%{_waits()}%")
    return [dict(row) for row in rows]


def _waits() -> str:
    return f"account {REVOKED} waits:"


def _wait(bench: Bench, *, seconds: float) -> bool:
    """Wait that long until everything except the posts of the revoked account has ended. Return whether it has."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(DBAPIError):
            if not _open(bench):
                return True
        time.sleep(completion.POLL_SECONDS)
    return False


# --- what came of it


def _times(report: Report, bench: Bench, sky: _Sky, finished: float) -> None:
    for name, (start, end) in sky.times.items():
        if name != "token":
            report.tell(f"{name}: in trouble, s", round(end - start, 1))
        if name in SIGNS:
            first = bench.rows(_FIRST, stage=SIGNS[name], since=end)[0]["at"]
            after = "none was left" if first is None else round(first - end, 1)
            report.tell(f"{name}: end to the first {SIGNS[name].replace('%', 'stage')} done, s", after)
    last = max(end for _, end in sky.times.values())
    report.tell("last trouble's end to the last outcome, s", round(finished - last, 1))
    report.tell("minutes in all", round((time.monotonic() - sky.began) / 60, 1))


def _outcomes(report: Report, bench: Bench, videos: int) -> None:
    found, seen, buried = completion.fates(bench), reconciliation.compare(bench), reconciliation.letters(bench)
    waiting = [line for line in found.stuck if _waits() in line]
    stuck = [line for line in found.stuck if _waits() not in line]
    wanted = sum(len(CHANNELS[n % len(CHANNELS)]) for n in range(videos))
    posted, there = found.counts["posted"], sum(seen.posts.values())
    report.tell("posts wanted", wanted)
    report.check("posts recorded and those that wait", posted + len(waiting), str(wanted), ok=posted + len(waiting) == wanted)
    # A token may be revoked between the upload and the look at what came of it: such a post is out, and waits to be recorded.
    report.check(
        "posts that the platforms have", there, f"{posted} recorded, or of those that wait", ok=seen.unrecorded <= len(waiting)
    )
    report.tell("posts by platform", dict(seen.posts))
    report.tell("posts that wait for the revoked account", len(waiting))
    report.check("posts left for another reason", len(stuck), "0", ok=not stuck)
    report.check("posts of unknown outcome", found.counts["unknown"], "0", ok=not found.counts["unknown"])
    report.check("dead letters", len(buried), "0", ok=not buried)
    for what, times in seen.doubled.items():
        report.check(f"doubled {what}", times, "0", ok=times == 0)
    report.tell("renders given up as lost and made again", seen.given_up)
    report.problems += stuck[:10] + seen.problems[:10]
    report.problems += [f"{x['key']} {x['stage']}: {x['error_class']} {x['code']}: {x['message']}" for x in buried]


def _alerts(report: Report, recorder: AlertRecorder, *, exactly: bool) -> None:
    """Each cause makes one alert. A short fault need not make any, because a breaker judges a number of calls."""
    told: Counter[str] = recorder.told()
    account = f"account:youtube:{REVOKED}"
    causes = {"tiktok": "TikTok", "redis": "Redis", "media_space": "the disk", account: "the revoked account"}
    for cause, name in causes.items():
        times = told.pop(cause, 0)
        # What is over before the next message may go is not told any more: Redis may be back by then.
        once = exactly and cause != "redis"
        report.check(f"alerts of {name}", times, "1" if once else "1 at most", ok=times == 1 if once else times <= 1)
    report.check("alerts of anything else", dict(told), "none", ok=not told)
    report.tell("messages sent", len(recorder.messages))
    report.tell("looks for news while PostgreSQL was away", recorder.away)
    report.notes += [f"{datetime.fromtimestamp(m.at, UTC):%H:%M:%S} {line}" for m in recorder.messages for line in m.news]


def _runs(report: Report, fleet: Fleet) -> None:
    broken = fleet.complaints()
    report.tell("runs that broke off", len(broken))
    report.tell("reasons", dict(Counter(line.split(" ERROR ", 1)[-1][:60] for line in broken).most_common(5)))
