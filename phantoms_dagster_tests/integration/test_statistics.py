"""Statistics against a real database: what is counted, that nothing is counted twice, and that indexes serve the queries."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.domain.claims import AttemptOutcome
from phantoms_dagster.domain.stages import STAGES, StageState, stage
from phantoms_dagster.store import statistics as module
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.statistics import BUCKETS, Statistics
from phantoms_dagster_tests.integration.stage_world import SENSOR, World, finished, open_world

FAILED = AttemptOutcome(StageState.FAILED, provider="openai", error_class="permanent", code="400", message="no")
THROTTLED = AttemptOutcome(StageState.DEFERRED, counts=False, provider="openai", error_class="throttled", message="slow down")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def statistics(database_url: str) -> Iterator[Statistics]:
    database = engine(database_url, pool_size=1)
    yield Statistics(database)
    database.dispose()


async def end(world: World, key: str, outcome: AttemptOutcome, name: str = "script") -> None:
    store = world.store()
    claims = await store.claim(stage(name), [key], owner=f"o-{key}", context=SENSOR)
    assert await store.finish(claims.claimed[0], outcome)


def published(world: World, key: str, after_seconds: float | None, *, ago: str = "0 s") -> None:
    """A post of that video, `after_seconds` after its approval (None: without one), published `ago`."""
    video = world.rows("SELECT id FROM phantoms.videos WHERE key = :key", key=key)[0]["id"]
    if after_seconds is not None:
        for approved, earlier in ((True, 1e6), (True, 0.0), (False, -1.0)):
            world.write(
                "INSERT INTO phantoms.approvals (video_id, approved, reviewer, content_sha256, via, decided_at) VALUES (:video,"
                " :approved, 'ann', 'x', 'cli', clock_timestamp() - CAST(:ago AS interval) - make_interval(secs => :seconds))",
                video=video,
                approved=approved,
                ago=ago,
                seconds=after_seconds + earlier,
            )
    world.write(
        "INSERT INTO phantoms.posts (video_id, platform, account, marker, video_sha256, caption_sha256, state, published_at)"
        " VALUES (:video, 'youtube', 'a', :key, 'x', 'x', 'confirmed', clock_timestamp() - CAST(:ago AS interval))",
        video=video,
        key=key,
        ago=ago,
    )


async def test_every_stage_and_state_is_counted_and_nothing_is_zero(world: World, statistics: Statistics) -> None:
    empty = statistics.read()
    assert set(empty.videos.values()) == {0}
    assert len(empty.videos) == len(STAGES) * len(StageState)
    assert set(empty.oldest_seconds.values()) == {0.0}
    assert empty.totals == module.Totals()
    keys = world.add(3)
    await end(world, keys[0], finished("script", Decimal("0.25")))
    found = statistics.read()
    assert (found.videos["script", "done"], found.videos["script", "ready"]) == (1, 2)
    assert (found.videos["voiceover", "ready"], found.videos["youtube/post", "blocked"]) == (1, 3)
    assert sum(found.videos.values()) == 3 * 6


async def test_the_oldest_is_the_one_that_could_have_been_worked_on_for_longest(world: World, statistics: Statistics) -> None:
    ready, deferred, future, _ = world.add(4)
    for key, state, ready_at, retry_at in (
        (ready, "ready", "100 s", None),
        (deferred, "deferred", "9000 s", "500 s"),
        (future, "deferred", "9000 s", "-500 s"),
    ):
        world.write(
            "UPDATE phantoms.stages s SET state = :state, ready_at = now() - CAST(:ready AS interval),"
            " retry_at = now() - CAST(:retry AS interval)"
            " FROM phantoms.videos v WHERE v.id = s.video_id AND v.key = :key AND s.stage = 'script'",
            key=key,
            state=state,
            ready=ready_at,
            retry=retry_at,
        )
    world.write("UPDATE phantoms.stages SET state = 'ready', ready_at = now() + interval '1 h' WHERE stage = 'youtube/post'")
    world.write("UPDATE phantoms.stages SET state = 'deferred', retry_at = now() + interval '1 h' WHERE stage = 'voiceover'")
    oldest = statistics.read().oldest_seconds
    assert oldest["voiceover"] == 0.0
    assert 500 <= oldest["script"] < 600
    assert oldest["youtube/post"] == 0.0


async def test_attempts_are_counted_by_outcome_and_cost_adds_up(world: World, statistics: Statistics) -> None:
    good, bad, slow, running = world.add(4)
    await end(world, good, finished("script", Decimal("0.25")))
    await end(world, bad, FAILED)
    store = world.store()
    (claim,) = (await store.claim(stage("script"), [slow], owner="o", context=SENSOR)).claimed
    again = await store.try_again(claim, THROTTLED)
    assert await store.finish(again, finished("script", Decimal("0.50")))
    await store.claim(stage("script"), [running], owner="o", context=SENSOR)
    found = statistics.read()
    assert found.totals.attempts == {
        ("script", "", "done"): 2,
        ("script", "openai", "permanent"): 1,
        ("script", "openai", "throttled"): 1,
    }
    assert found.totals.cost_usd == Decimal("0.75")
    assert found.dead_letters == {("script", "permanent"): 1}
    world.write("UPDATE phantoms.dead_letters SET state = 'discarded'")
    assert statistics.read().dead_letters == {}


async def test_totals_that_have_settled_are_counted_once_and_never_again(
    world: World, statistics: Statistics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The window slides: rows pass from the part that is read each time into the part that is kept."""
    monkeypatch.setattr(module, "_STEP", timedelta(0))
    keys = world.add(6)
    for key in keys[:4]:
        await end(world, key, finished("script", Decimal("0.1")))
    for n, key in enumerate(keys[:2]):
        published(world, key, 20.0, ago=f"{n * 10} min")
    ages = ["10 min", "5 min 100 ms", "4 min", "0 s"]
    for key, age in zip(keys, ages, strict=False):
        world.write(
            "UPDATE phantoms.attempts a SET finished_at = now() - CAST(:age AS interval) FROM phantoms.videos v"
            " WHERE v.id = a.video_id AND v.key = :key",
            key=key,
            age=age,
        )
    for _ in range(5):
        totals = statistics.read().totals
        assert (totals.attempts["script", "", "done"], totals.cost_usd) == (4, Decimal("0.4"))
        assert (totals.posts, totals.waits) == ({"youtube": 2}, {1: 2})
    assert statistics._settled.attempts["script", "", "done"] == 2
    await end(world, keys[4], finished("script", Decimal("0.1")))
    assert statistics.read().totals.attempts["script", "", "done"] == 5


async def test_what_has_settled_is_not_read_again(world: World, statistics: Statistics) -> None:
    (key,) = world.add(1)
    await end(world, key, finished("script"))
    world.write("UPDATE phantoms.attempts SET finished_at = now() - interval '1 h'")
    assert statistics.read().totals.attempts["script", "", "done"] == 1
    world.write("DELETE FROM phantoms.attempts")
    assert statistics.read().totals.attempts["script", "", "done"] == 1


@pytest.mark.parametrize("seconds", [0.5, 10.5, 3_500.0, 700_000.0])
async def test_the_wait_from_the_last_approval_to_the_post_falls_in_its_bucket(
    world: World, statistics: Statistics, seconds: float
) -> None:
    first, second = world.add(2)
    published(world, first, seconds)
    published(world, second, None)
    totals = statistics.read().totals
    place = sum(bound < seconds for bound in BUCKETS)
    assert totals.waits == {place: 1}
    assert totals.waited_seconds == pytest.approx(seconds, abs=0.4)
    assert totals.posts == {"youtube": 2}


async def test_a_reading_that_fails_counts_nothing(world: World, statistics: Statistics) -> None:
    (key,) = world.add(1)
    await end(world, key, finished("script"))
    world.write("UPDATE phantoms.attempts SET finished_at = now() - interval '1 h'")
    world.write("ALTER TABLE phantoms.dead_letters RENAME TO gone")
    with pytest.raises(SQLAlchemyError):
        statistics.read()
    world.write("ALTER TABLE phantoms.gone RENAME TO dead_letters")
    assert statistics.read().totals.attempts["script", "", "done"] == 1


def test_a_large_catalogue_is_read_through_indexes(world: World) -> None:
    world.write(
        "INSERT INTO phantoms.videos (key, channel, title, brief, platforms, source, fingerprint)"
        " SELECT 'k' || n, 'facts', 't', '{}', '{youtube}', 'test', n::text FROM generate_series(1, 3000) n"
    )
    world.write(
        "INSERT INTO phantoms.stages (video_id, stage, state, ready_at, output)"
        " SELECT v.id, s, 'done', now(), jsonb_build_object('x', repeat('y', 500)) FROM phantoms.videos v,"
        " unnest(CAST(:stages AS text[])) s",
        stages=["script", "voiceover", "rendered_video", "approval"],
    )
    world.write(
        "INSERT INTO phantoms.attempts (video_id, stage, revision, generation, state, finished_at)"
        " SELECT video_id, stage, 1, 1, 'done', now() - interval '1 d' * random() FROM phantoms.stages"
    )
    with world.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE"))

    def plan(statement: str, **values: object) -> str:
        return "\n".join(row["QUERY PLAN"] for row in world.rows(f"EXPLAIN {statement}", **values))

    span = {"since": world.rows("SELECT now() - interval '5 min' AS t")[0]["t"], "until": "infinity"}
    assert "Index Only Scan using stages_by_state" in plan(module._VIDEOS.text)
    assert "Seq Scan" not in (oldest := plan(module._OLDEST.text, stages=["script"]))
    assert "stages_ready" in oldest
    assert "stages_deferred" in oldest
    assert "attempts_finished" in plan(module._ATTEMPTS.text, **span)
