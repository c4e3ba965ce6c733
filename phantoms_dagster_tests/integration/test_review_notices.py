"""Notices of videos that wait for approval, through a real destination of Apprise: grouped, once, with reminders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestClient, TestServer
from sqlalchemy import text

from phantoms_dagster.cli.metrics import metrics_application
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.review.notices import ReviewNotices
from phantoms_dagster.wiring.alerts import destinations
from phantoms_dagster.wiring.review_notices import notify, tell
from phantoms_dagster_tests.integration.stage_world import World, open_world
from phantoms_dagster_tests.integration.test_alert_sensor import PASSWORD, Receiver

# One of Apprise's plugins looks for imghdr, which says that it will go.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr':DeprecationWarning")
MADE = ("script", "voiceover", "rendered_video")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def settings(database_url: str, redis_url: str, receiver: Receiver, tmp_path: Path) -> Settings:
    return Settings(
        paths={"home": tmp_path},
        database={"url": database_url},
        redis={"url": redis_url},
        alerts={"urls": [receiver.hook]},
        desk={"url": "https://desk.example"},
        review={"notice_minutes": 5, "reminder_hours": 24},
    )


async def look(world: World, settings: Settings) -> list[str]:
    """Look at all destinations once. Return the result of each."""
    store = ReviewNotices(world.engine)
    found = []
    for name, send in destinations(settings).items():
        found.append(await asyncio.to_thread(tell, settings, store, name, send))
    return found


def age(world: World, minutes: float) -> None:
    """As if so much time had passed."""
    for statement in (
        "UPDATE phantoms.stages SET ready_at = ready_at - make_interval(mins => :m) WHERE stage = 'approval'",
        """UPDATE phantoms.review_notices SET ready_at = ready_at - make_interval(mins => :m),
            told_at = told_at - make_interval(mins => :m)""",
        "UPDATE phantoms.review_destinations SET retry_at = retry_at - make_interval(mins => :m)",
    ):
        world.write(statement.replace("=> :m", "=> CAST(:m AS int)"), m=minutes)


async def test_videos_that_become_ready_within_the_time_are_one_message_with_a_link_each(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    first = world.add(2)
    await world.carry(first, *MADE)
    assert await look(world, settings) == ["nothing is due"]
    age(world, 4)
    later = world.add(1)
    await world.carry(later, *MADE)
    age(world, 2)
    assert await look(world, settings) == ["Phantoms: 3 videos wait for approval"]
    [message] = receiver.got
    assert message["title"] == "Phantoms: 3 videos wait for approval"
    assert message["type"] == "info"
    lines = message["message"].splitlines()
    assert lines[:2] == ["Ocean facts 0 (facts)", f"  https://desk.example/review/{first[0]}"]
    assert [line.strip() for line in lines[1:6:2]] == [f"https://desk.example/review/{key}" for key in (*first, *later)]
    assert lines[-1] == "All: https://desk.example/review"
    assert await look(world, settings) == ["nothing is due"]


async def test_a_video_that_was_decided_in_time_is_in_no_notice(world: World, settings: Settings, receiver: Receiver) -> None:
    decided, held, left = world.add(3)
    await world.carry([decided, held, left], *MADE)
    age(world, 6)
    world.write(
        """INSERT INTO phantoms.approvals (video_id, approved, reviewer, content_sha256, via)
            SELECT id, true, 'ann', 'x', 'cli' FROM phantoms.videos WHERE key = :key""",
        key=decided,
    )
    world.write(
        "INSERT INTO phantoms.holds (video_id, reviewer, via) SELECT id, 'ann', 'cli' FROM phantoms.videos WHERE key = :key",
        key=held,
    )
    assert await look(world, settings) == ["Phantoms: 1 video waits for approval"]
    assert left in receiver.got[0]["message"]
    assert decided not in receiver.got[0]["message"]


async def test_a_reminder_comes_once_a_period_while_videos_still_wait(world: World, settings: Settings, receiver: Receiver) -> None:
    keys = world.add(2)
    await world.carry(keys, *MADE)
    age(world, 6)
    await look(world, settings)
    age(world, 23 * 60)
    new = world.add(1)
    await world.carry(new, *MADE)
    age(world, 10)
    assert await look(world, settings) == ["Phantoms: 1 video waits for approval"]
    assert await look(world, settings) == ["nothing is due"]
    age(world, 60)
    assert await look(world, settings) == ["Phantoms: reminder, 3 videos still wait for approval"]
    assert receiver.got[-1]["type"] == "warning"
    assert receiver.got[-1]["message"].startswith("The oldest has waited since 20")
    for _ in range(3):
        age(world, 7 * 60)
        assert await look(world, settings) == ["nothing is due"]
    age(world, 4 * 60)
    assert await look(world, settings) == ["Phantoms: reminder, 3 videos still wait for approval"]
    await world.carry([*keys, *new], "approval")
    age(world, 48 * 60)
    assert await look(world, settings) == ["nothing is due"]
    assert len(receiver.got) == 4


async def test_without_a_time_for_reminders_there_are_none(world: World, settings: Settings, receiver: Receiver) -> None:
    quiet = settings.changed({"review": {"reminder_hours": 0.0}})
    await world.carry(world.add(1), *MADE)
    age(world, 6)
    await look(world, quiet)
    age(world, 30 * 24 * 60)
    assert await look(world, quiet) == ["nothing is due"]
    assert len(receiver.got) == 1


async def test_a_video_that_was_made_again_is_news_again(world: World, settings: Settings, receiver: Receiver) -> None:
    from phantoms_dagster.domain.stages import stage  # noqa: PLC0415

    keys = world.add(1)
    await world.carry(keys, *MADE)
    age(world, 6)
    await look(world, settings)
    await world.store().regenerate(stage("rendered_video"), keys)
    await world.carry(keys, "rendered_video")
    age(world, 6)
    assert await look(world, settings) == ["Phantoms: 1 video waits for approval"]
    assert len(receiver.got) == 2


async def test_a_destination_that_failed_gets_the_notice_later_and_the_other_does_not_get_it_twice(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    broken = Receiver()
    broken.status = 500
    both = settings.changed({"alerts": {"urls": [*settings.alerts.urls, broken.hook]}})
    try:
        await world.carry(world.add(1), *MADE)
        age(world, 6)
        assert (await look(world, both))[0] == "Phantoms: 1 video waits for approval"
        said = await look(world, both)
        assert said == ["nothing is due", "another process is sending, or it is not time yet"]
        assert PASSWORD not in str(said)
        broken.status = 200
        age(world, 1)
        assert (await look(world, both))[1] == "Phantoms: 1 video waits for approval"
        assert (len(receiver.got), len(broken.got)) == (1, 1)
    finally:
        broken.close()


async def test_of_many_processes_one_tells_and_only_once(world: World, settings: Settings, receiver: Receiver) -> None:
    assert settings.database.url is not None
    keys = world.add(5)
    await world.carry(keys, *MADE)
    age(world, 6)
    engines = [engine(settings.database.url.get_secret_value(), pool_size=1) for _ in range(4)]
    loops = [asyncio.create_task(notify(settings, one, every_seconds=0.01)) for one in engines]
    for _ in range(600):
        await asyncio.sleep(0.05)
        if receiver.got:
            break
    await asyncio.sleep(1)
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)
    for one in engines:
        one.dispose()
    assert [message["title"] for message in receiver.got] == ["Phantoms: 5 videos wait for approval"]


async def test_notices_wait_while_postgresql_is_away_and_the_metrics_process_sends_them(
    world: World, settings: Settings, receiver: Receiver
) -> None:
    async with TestClient(TestServer(metrics_application(settings, notice_seconds=0.05))):
        await asyncio.sleep(0.3)
        with world.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(
                text(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                    " AND pid <> pg_backend_pid()"
                )
            )
        await world.carry(world.add(2), *MADE)
        age(world, 6)
        for _ in range(600):
            await asyncio.sleep(0.05)
            if receiver.got:
                break
    assert [message["title"] for message in receiver.got] == ["Phantoms: 2 videos wait for approval"]


async def test_what_waits_is_found_by_an_index(world: World) -> None:
    from phantoms_dagster.store.review.notices import WAITING  # noqa: PLC0415
    from phantoms_dagster_tests.integration.test_desk_statement_plans import scans  # noqa: PLC0415

    world.write(
        """INSERT INTO phantoms.videos (key, channel, title, brief, platforms, source, fingerprint)
            SELECT 'v' || n, 'facts', 't', '{}', '{youtube}', 'test', 'f' || n FROM generate_series(1, 20000) AS n"""
    )
    world.write(
        """INSERT INTO phantoms.stages (video_id, stage, state, ready_at)
            SELECT id, 'approval', CASE WHEN id % 500 = 0 THEN 'ready' ELSE 'done' END, now() FROM phantoms.videos"""
    )
    world.write(
        """INSERT INTO phantoms.approvals (video_id, approved, reviewer, content_sha256, via)
            SELECT id, true, 'ann', 'x', 'cli' FROM phantoms.videos WHERE id % 500 <> 0"""
    )
    world.write(
        """INSERT INTO phantoms.review_notices (destination, video_id, ready_at, told_at)
            SELECT 'a', id, now(), now() FROM phantoms.videos"""
    )
    with world.engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
        plan = connection.execute(text(f"EXPLAIN (FORMAT JSON) {WAITING.text}"), {"name": "a"}).scalar_one()
    assert set(scans(plan)) - {"holds", "pending_decisions"} == set()
