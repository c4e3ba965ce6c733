"""Which posts are due to be read, what is stored, how snapshots are thinned, and the tables that PostgreSQL computes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Metrics
from phantoms_dagster.domain.readback import AccountRead, PostReading
from phantoms_dagster.store.performance.tables import PerformanceTables
from phantoms_dagster.store.results.readings import Results
from phantoms_dagster_tests.integration.stage_world import World

HOUR = timedelta(hours=1)
EVENING = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)


class Archive:
    """Posts and snapshots, put where a test wants them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.results = Results(world.engine)
        self.tables = PerformanceTables(world.engine)

    def post(
        self,
        key: str,
        *,
        platform: str = "youtube",
        account: str = "main",
        at: datetime | None = None,
        hours: float = 1,
        state: str = "published",
    ) -> int:
        """A post of that video, published `at` or some hours ago; its id."""
        self.world.write(
            """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, remote_id, video_sha256, caption_sha256,
                    published_at)
                SELECT id, :platform, :account, :state, 'm-' || key || :platform, 'r-' || key, 'x', 'x',
                    COALESCE(CAST(:at AS timestamptz), clock_timestamp() - make_interval(secs => :hours * 3600))
                FROM phantoms.videos WHERE key = :key""",
            platform=platform,
            account=account,
            state=state,
            key=key,
            at=at,
            hours=hours,
        )
        return int(self.world.rows("SELECT max(id) AS id FROM phantoms.posts")[0]["id"])

    def snapshot(self, post: int, *, hours: float = 0, **numbers: float) -> None:
        """What was read that many hours ago."""
        given = {**dict.fromkeys(("views", "likes", "comments", "shares", "watch_seconds")), **numbers}
        self.world.write(
            """INSERT INTO phantoms.metric_snapshots (post_id, at, views, likes, comments, shares, watch_seconds)
                SELECT :post, clock_timestamp() - make_interval(secs => :hours * 3600), :views, :likes, :comments, :shares,
                    :watch_seconds""",
            post=post,
            hours=hours,
            **given,
        )

    def cost(self, key: str, dollars: float) -> None:
        """Money spent on that video."""
        self.world.write(
            """UPDATE phantoms.attempts SET cost = :dollars WHERE id = (SELECT max(a.id) FROM phantoms.attempts a
                JOIN phantoms.videos v ON v.id = a.video_id WHERE v.key = :key)""",
            key=key,
            dollars=dollars,
        )

    def later(self, span: timedelta) -> None:
        """Let time pass for what is due."""
        self.world.write("UPDATE phantoms.post_reads SET due_at = due_at - :span", span=span)

    def due(self) -> list[int]:
        """The ids of the posts whose turn it is."""
        return [row.post_id for row in self.results.due()]

    def renewed(self, name: str) -> list[dict[str, Any]]:
        """The rows of a table, renewed."""
        self.tables.renew(name)
        frame = self.tables.table(name)
        rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
        return [{str(column): value for column, value in row.items()} for row in rows]


@pytest.fixture
def archive(database_url: str) -> Iterator[Archive]:
    world = World(database_url)
    yield Archive(world)
    world.engine.dispose()


def read(post: int, *, again: timedelta = HOUR, **numbers: Any) -> PostReading:
    return PostReading(post, again, metrics=Metrics("r", **numbers))


# --- whose turn it is


def test_a_post_is_due_when_it_is_out_and_again_after_its_pause(archive: Archive) -> None:
    [out, intent, old, _] = archive.world.add(4)
    post = archive.post(out)
    archive.post(intent, state="uploading")
    archive.post(old, hours=24 * 366)
    [row] = archive.results.due()
    assert (row.post_id, row.platform, row.remote_id, row.gone) == (post, Platform("youtube"), f"r-{out}", False)
    assert HOUR <= row.age < 2 * HOUR
    archive.results.record([read(post, views=5)])
    assert archive.due() == []
    archive.later(HOUR)
    assert archive.due() == [post]


def test_the_longest_overdue_comes_first_so_that_a_full_pool_never_starves_a_post(archive: Archive) -> None:
    first, second, third = (archive.post(key, hours=24 * n) for n, key in enumerate(archive.world.add(3), 1))
    archive.results.record([read(third, again=timedelta(0))])
    archive.results.record([read(first, again=-HOUR)])
    assert archive.due() == [second, first, third]


def test_a_post_that_fails_waits_twice_as_long_each_time_and_a_success_forgives(archive: Archive) -> None:
    [key] = archive.world.add(1)
    post = archive.post(key)
    waits = []
    for _ in range(8):
        archive.results.record([PostReading(post, HOUR, problem="odd")])
        [row] = archive.world.rows("SELECT due_at - clock_timestamp() AS wait, failures, problem FROM phantoms.post_reads")
        waits.append(round(row["wait"].total_seconds() / 3600))
    assert waits == [1, 2, 4, 8, 16, 32, 32, 32]
    assert row["problem"] == "odd"
    archive.results.record([read(post)])
    [row] = archive.world.rows("SELECT failures, problem FROM phantoms.post_reads")
    assert dict(row) == {"failures": 0, "problem": None}


def test_a_post_that_is_gone_is_marked_keeps_its_last_numbers_and_is_not_counted_as_zero(archive: Archive) -> None:
    read_once, never = archive.world.add(2)
    post, other = archive.post(read_once), archive.post(never)
    archive.results.record([read(post, views=70), PostReading(other, HOUR, gone=True)])
    archive.results.record([PostReading(post, HOUR, gone=True)])
    gone = archive.world.rows("SELECT post_id, gone_at FROM phantoms.post_reads ORDER BY post_id")
    assert [(row["post_id"], row["gone_at"] is not None) for row in gone] == [(post, True), (other, True)]
    assert [(row["video_key"], row["views"], row["posts"]) for row in archive.renewed("video_performance")] == [(read_once, 70, 1)]
    archive.later(HOUR)
    assert {row.gone for row in archive.results.due()} == {True}
    archive.results.record([read(post, views=80)])
    assert archive.world.rows("SELECT gone_at FROM phantoms.post_reads WHERE post_id = :p", p=post)[0]["gone_at"] is None


# --- accounts


def test_an_account_that_is_not_read_is_reported_with_the_time_since_when_until_it_is_read(archive: Archive) -> None:
    def turn(problem: str | None) -> None:
        archive.results.record_accounts([AccountRead(Platform("instagram"), "main", asked=1, problem=problem)], {})

    turn("token dead")
    [silent] = archive.results.unread()
    turn("still dead")
    [still] = archive.results.unread()
    assert (still.platform, still.account, still.problem, still.since) == (
        Platform("instagram"),
        "main",
        "still dead",
        silent.since,
    )
    assert archive.results.unread(longer_than=HOUR) == []
    turn(None)
    assert archive.results.unread() == []


def test_metrics_that_an_account_does_not_have_are_remembered_for_a_week(archive: Archive) -> None:
    account = AccountRead(Platform("instagram"), "main", asked=1, unsupported=frozenset({"watch"}))
    archive.results.record_accounts([account], {})
    assert archive.results.unsupported() == {(Platform("instagram"), "main"): frozenset({"watch"})}
    archive.world.write("UPDATE phantoms.account_reads SET unsupported_at = unsupported_at - interval '8 days'")
    assert archive.results.unsupported() == {}


# --- thinning


def test_snapshots_are_thinned_by_age_and_no_number_is_lost(archive: Archive) -> None:
    [key] = archive.world.add(1)
    post = archive.post(key, hours=24 * 200)
    archive.world.write(
        """INSERT INTO phantoms.metric_snapshots (post_id, at, views)
            SELECT :post, clock_timestamp() - quarter * interval '15 minutes' - interval '1 minute', 100000 - quarter
            FROM generate_series(0, :quarters) quarter WHERE quarter % 4 = 0 OR quarter < :whole""",
        post=post,
        quarters=4 * 24 * 120 - 1,
        whole=4 * 24 * 8,
    )
    before = archive.renewed("video_performance")
    kept = archive.world.rows("SELECT count(*) AS n FROM phantoms.metric_snapshots")[0]["n"]
    deleted = archive.results.thin()
    assert archive.results.thin() == 0
    left = archive.world.rows(
        """SELECT CASE WHEN at > clock_timestamp() - interval '2 days' THEN 'all' WHEN at > clock_timestamp() - interval '7 days'
                THEN 'hours' WHEN at > clock_timestamp() - interval '90 days' THEN 'days' ELSE 'weeks' END AS span, count(*) AS n
            FROM phantoms.metric_snapshots GROUP BY 1"""
    )
    counts = {row["span"]: row["n"] for row in left}
    assert sum(counts.values()) == kept - deleted
    assert counts["all"] == 2 * 24 * 4
    assert 119 <= counts["hours"] <= 121
    assert 82 <= counts["days"] <= 84
    assert 4 <= counts["weeks"] <= 6
    after = archive.renewed("video_performance")
    assert [{**row, "computed_at": None} for row in after] == [{**row, "computed_at": None} for row in before]


def test_thinning_keeps_the_last_word_on_each_number(archive: Archive) -> None:
    [key] = archive.world.add(1)
    post = archive.post(key, hours=24 * 400)
    week = timedelta(days=7).total_seconds() / 3600
    # All three within one week of long ago, by the calendar that weeks are counted in.
    monday = datetime(2001, 1, 1, tzinfo=UTC)
    hours = (datetime.now(UTC) - monday).total_seconds() / 3600
    start = hours % week + 20 * week
    archive.snapshot(post, hours=start - 1, views=10, likes=1, watch_seconds=5.0)
    archive.snapshot(post, hours=start - 2, views=20, likes=2)
    archive.snapshot(post, hours=start - 3, views=30)
    archive.snapshot(post, hours=start - 4, views=40)
    assert archive.results.thin() == 1
    [row] = archive.renewed("video_performance")
    assert (row["views"], row["likes"], row["watch_seconds"]) == (40, 2, 5.0)


# --- tables


def test_the_last_number_a_platform_gave_counts_even_when_it_is_silent_later(archive: Archive) -> None:
    [key] = archive.world.add(1)
    post = archive.post(key)
    archive.snapshot(post, hours=1, likes=7)
    archive.snapshot(post, hours=3, views=10, likes=1)
    archive.snapshot(post, hours=2, views=20, likes=5)
    [row] = archive.renewed("video_performance")
    assert (row["views"], row["likes"], row["shares"]) == (20, 7, 0)


def test_a_number_that_went_down_is_believed_and_a_zero_is_a_number(archive: Archive) -> None:
    fell, zero = archive.world.add(2)
    post, other = archive.post(fell), archive.post(zero)
    archive.snapshot(post, hours=2, views=20)
    archive.snapshot(post, hours=1, views=15)
    archive.snapshot(other, hours=2, views=10, watch_seconds=5.0)
    archive.snapshot(other, hours=1, views=0)
    rows = {row["video_key"]: row for row in archive.renewed("video_performance")}
    assert rows[fell]["views"] == 15
    assert (rows[zero]["views"], rows[zero]["watch_seconds"]) == (0, 5.0)


async def test_a_video_sums_its_posts_and_shares_its_cost_once(archive: Archive) -> None:
    [key] = archive.world.add(1)
    await archive.world.carry([key], "script")
    archive.cost(key, 0.3)
    first, second = archive.post(key, at=EVENING), archive.post(key, platform="tiktok", at=EVENING - HOUR)
    archive.snapshot(first, views=100, likes=10, comments=2, shares=3, watch_seconds=50.0)
    archive.snapshot(second, views=300, likes=20, comments=4, shares=1)
    [row] = archive.renewed("video_performance")
    assert (row["posts"], row["views"], row["likes"], row["watch_seconds"]) == (2, 400, 30, 50.0)
    assert row["engagement_rate"] == pytest.approx(40 / 400)
    assert float(row["cost"]) == pytest.approx(0.3)
    assert row["first_published_at"] == EVENING - HOUR
    assert (row["hook"], row["channel"]) == ("Did you know?", "facts")
    assert row["computed_at"] is not None
    await archive.world.async_engine.dispose()


def test_watch_time_that_no_platform_gave_is_missing_and_so_is_a_rate_without_views(archive: Archive) -> None:
    [key] = archive.world.add(1)
    archive.snapshot(archive.post(key), likes=3)
    [row] = archive.renewed("video_performance")
    assert (row["watch_seconds"], row["engagement_rate"]) == (None, None)


def test_videos_are_listed_with_the_most_views_first(archive: Archive) -> None:
    few, many = archive.world.add(2)
    archive.snapshot(archive.post(few), views=1)
    archive.snapshot(archive.post(many), views=5)
    assert [row["video_key"] for row in archive.renewed("video_performance")] == [many, few]
    assert list(archive.tables.table("video_performance", most=1)["video_key"]) == [many]


async def test_platforms_are_split_by_the_day_of_publication_in_utc_and_share_the_cost(archive: Archive) -> None:
    first, second = archive.world.add(2)
    await archive.world.carry([first, second], "script")
    archive.cost(first, 0.3)
    archive.cost(second, 0.5)
    archive.snapshot(archive.post(first, at=EVENING), views=10)
    archive.snapshot(archive.post(first, platform="tiktok", at=EVENING + HOUR), views=20)
    archive.snapshot(archive.post(second, at=EVENING), views=30)
    found: list[tuple[Any, ...]] = [
        (r["day"], r["platform"], r["posts"], r["views"], float(r["cost"])) for r in archive.renewed("platform_performance")
    ]
    assert found == [
        (date(2026, 11, 20), "youtube", 2, 40, pytest.approx(0.65)),
        (date(2026, 11, 21), "tiktok", 1, 20, pytest.approx(0.15)),
    ]
    await archive.world.async_engine.dispose()


async def test_new_views_are_booked_on_the_day_on_which_they_came_not_on_that_of_the_post(archive: Archive) -> None:
    first, second = archive.world.add(2)
    young, old = archive.post(first, hours=50), archive.post(second, platform="tiktok", hours=24 * 90)
    for hours, views in ((49, 5), (25, 12), (1, 12)):
        archive.snapshot(young, hours=hours, views=views)
    for hours, views in ((26, 1_000), (2, 1_003)):
        archive.snapshot(old, hours=hours, views=views)
    rows = archive.tables.new_views(days=30).to_dict("records")
    by_platform = {name: [row["views"] for row in rows if row["platform"] == name] for name in ("youtube", "tiktok")}
    assert sum(by_platform["youtube"]) == 12
    assert sum(by_platform["tiktok"]) == 3, "what an old post had before is no news"
    days = [row["day"] for row in rows if row["platform"] == "youtube"]
    assert len(set(days)) == len(days) >= 2
    assert (datetime.now(UTC).date() - days[0]).days in (2, 3)


async def test_hooks_gather_all_videos_that_open_with_them_and_videos_without_one_are_left_out(archive: Archive) -> None:
    first, second, without = archive.world.add(3)
    await archive.world.carry([first, second], "script")
    for key, views in ((first, 10), (second, 20), (without, 99)):
        archive.snapshot(archive.post(key), views=views)
    assert [(r["hook"], r["posts"], r["views"]) for r in archive.renewed("hook_performance")] == [("Did you know?", 2, 30)]
    assert len(archive.renewed("video_performance")) == 3
    await archive.world.async_engine.dispose()


def test_posts_that_are_set_apart_are_read_but_are_in_no_sum(archive: Archive) -> None:
    """A trial reel is shown to other people than the channel's other reels."""
    first, second = archive.world.add(2)
    usual = archive.post(first, platform="youtube")
    trial = archive.post(first, platform="instagram")
    only = archive.post(second, platform="instagram")
    archive.world.write("UPDATE phantoms.posts SET set_apart = 'trial reel' WHERE id IN (:a, :b)", a=trial, b=only)
    for post, views in ((usual, 10), (trial, 1_000), (only, 1_000)):
        archive.snapshot(post, views=views)
    for name in PerformanceTables.TABLES:
        made = archive.tables.renew(name)
        assert made.adds_up
        assert (made.posts, made.views) == ((1, 10) if name != "hook_performance" or made.rows else (0, 0))
    assert list(archive.tables.table("video_performance")["video_key"]) == [first]
    assert [row.post_id for row in archive.results.due()] == [usual, trial, only]


@pytest.mark.parametrize("name", list(PerformanceTables.TABLES))
def test_without_snapshots_there_are_no_rows(archive: Archive, name: str) -> None:
    archive.post(*archive.world.add(1))
    assert archive.renewed(name) == []
