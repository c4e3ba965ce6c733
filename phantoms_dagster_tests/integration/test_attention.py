"""What waits for a person: everything is in one list, with the next step, from the first moment."""

from __future__ import annotations

import os
import shlex
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, SensorInstigatorData, TickData, TickStatus
from dagster_shared.error import SerializableErrorInfo
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.defs.attention import RUNS, TICKS, failed_runs, failing_ticks
from phantoms_dagster.domain.attention import Attention, Notice
from phantoms_dagster.production.inbox import refused_files
from phantoms_dagster.store.attention import AttentionBoard
from phantoms_dagster_tests.integration.stage_world import World, open_world

MAKING = ("script", "voiceover", "rendered_video")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


def board(world: World) -> dict[str, Attention]:
    return {item.id: item for item in AttentionBoard(world.engine).read()}


def age(world: World, table: str, column: str, hours: int, where: str = "true") -> None:
    world.write(f"UPDATE phantoms.{table} SET {column} = clock_timestamp() - make_interval(hours => :h) WHERE {where}", h=hours)


async def test_nothing_waits_when_all_is_well(world: World) -> None:
    world.add(3)
    assert board(world) == {}


async def test_reviews_are_shown_at_once_and_told_by_notices_alone(world: World) -> None:
    keys = world.add(2)
    await world.carry(keys, *MAKING)
    found = board(world)["review"]
    assert (found.count, found.keys, found.alert) == (2, tuple(keys), False)
    assert found.what.startswith("2 videos wait for your approval, the oldest since 20")
    assert found.next_step == f"phantoms show {keys[0]}"
    age(world, "stages", "ready_at", 25, "stage = 'approval'")
    assert not board(world)["review"].alert
    await world.carry(keys, "approval")
    assert board(world) == {}


async def test_a_post_that_stays_unknown_is_shown_and_told_after_an_hour(world: World) -> None:
    world.add(platforms=("tiktok",))
    world.write("UPDATE phantoms.stages SET state = 'deferred', retry_at = clock_timestamp() WHERE stage = 'tiktok/post'")
    world.write(
        """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256, attempted_at)
        SELECT id, 'tiktok', 'a', 'unknown', 'm', 'v', 'c', clock_timestamp() FROM phantoms.videos"""
    )
    assert not board(world)["unknown:tiktok"].alert
    age(world, "posts", "attempted_at", 2)
    found = board(world)["unknown:tiktok"]
    assert (found.alert, found.what.startswith("1 post on tiktok may be out")) == (True, True)


async def test_what_a_platform_refuses_to_add_to_its_posts_is_told_once_for_each_account(world: World) -> None:
    keys = world.add(3, platforms=("youtube",))
    world.write(
        """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, video_sha256, caption_sha256, attempted_at)
        SELECT id, 'youtube', 'main', 'confirmed', 'm' || id, 'v', 'c', clock_timestamp() FROM phantoms.videos"""
    )
    world.write(
        """INSERT INTO phantoms.post_extras (post_id, name, state, detail, updated_at)
        SELECT p.id, e.name, e.state, 'the channel is not verified', clock_timestamp() - make_interval(hours => CAST(p.id AS int))
        FROM phantoms.posts p, (VALUES ('thumbnail', 'refused'), ('captions', 'added')) e(name, state)"""
    )
    found = board(world)
    assert list(found) == ["extra:youtube:main:thumbnail"]
    item = found["extra:youtube:main:thumbnail"]
    assert (item.count, item.alert, item.keys[0]) == (3, True, keys[0])
    assert item.what.startswith("3 posts of the youtube account main went out without thumbnail since 20")
    assert item.what.endswith("UTC: the channel is not verified")
    assert item.next_step == f"phantoms posts show {keys[0]} youtube"
    age(world, "post_extras", "updated_at", 24 * 8)
    assert board(world) == {}


async def test_a_video_deferred_for_longer_than_a_day_is_reported_with_its_reason(world: World) -> None:
    first, second = world.add(2)
    for key, reason in ((first, "the breaker of openai is open"), (second, "goes out at 2030-01-01 10:00 UTC")):
        world.write(
            """UPDATE phantoms.stages SET state = 'deferred', retry_at = clock_timestamp(), reason = :reason,
                started_at = clock_timestamp() - interval '25 hours'
            WHERE stage = 'script' AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)""",
            key=key,
            reason=reason,
        )
    [found] = board(world).values()
    assert (found.id, found.count, found.keys, found.alert) == ("deferred:script", 1, (first,), True)
    assert found.what.endswith("the breaker of openai is open")
    age(world, "stages", "started_at", 23)
    assert board(world) == {}


async def test_an_account_that_cannot_post_or_be_read_is_one_thing_however_many_posts_wait(world: World) -> None:
    world.write(
        """INSERT INTO phantoms.accounts (platform, name, state, reason, state_since)
        VALUES ('tiktok', 'main', 'refused', 'the token was revoked', clock_timestamp())"""
    )
    world.write(
        """INSERT INTO phantoms.account_reads (platform, account, failing_since, problem)
        VALUES ('instagram', 'main', clock_timestamp() - interval '7 hours', 'answered 400')"""
    )
    found = board(world)
    assert found["account:tiktok:main"].what.endswith("the token was revoked")
    # An alert tells of an account that stopped working together with the breakers, at once: not here a second time.
    assert (found["unread:instagram:main"].alert, found["account:tiktok:main"].alert) == (True, False)
    age(world, "account_reads", "failing_since", 1)
    assert not board(world)["unread:instagram:main"].alert


async def test_an_account_that_cannot_post_is_the_cause_of_all_that_waits_for_it(world: World) -> None:
    keys = world.add(2)
    world.write(
        """INSERT INTO phantoms.accounts (platform, name, state, reason, state_since)
        VALUES ('youtube', 'main', 'disconnected', 'the token was revoked', clock_timestamp())"""
    )
    world.write(
        """INSERT INTO phantoms.account_reads (platform, account, failing_since, problem)
        VALUES ('youtube', 'main', clock_timestamp() - interval '7 hours', 'answered 401')"""
    )
    for key, reason in zip(
        keys, ("youtube account main waits: the token was revoked", "the breaker of youtube is open"), strict=True
    ):
        world.write(
            """UPDATE phantoms.stages SET state = 'deferred', started_at = clock_timestamp() - interval '25 hours', reason = :reason
            WHERE stage = 'youtube/post' AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)""",
            key=key,
            reason=reason,
        )
    found = board(world)
    assert set(found) == {"account:youtube:main", "deferred:youtube/post"}
    assert found["account:youtube:main"].next_step == "phantoms accounts connect youtube --name main"
    assert (found["deferred:youtube/post"].count, found["deferred:youtube/post"].keys) == (1, (keys[1],))


async def test_a_notice_stays_until_it_is_no_longer_kept_and_remembers_since_when(world: World) -> None:
    notices = AttentionBoard(world.engine)
    early, late = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, tzinfo=UTC)
    notices.keep(RUNS, [Notice("run:a", "a failed", "look", early), Notice("run:b", "b failed", "look", early)])
    notices.keep(TICKS, [Notice("tick:s", "s fails", "look", late)])
    notices.keep(RUNS, [Notice("run:a", "a failed again", "look", late)])
    assert {name: (item.what, item.since) for name, item in board(world).items()} == {
        "notice:run:a": ("a failed again", early),
        "notice:tick:s": ("s fails", late),
    }
    notices.keep(RUNS, [])
    assert set(board(world)) == {"notice:tick:s"}


def test_the_folder_of_refused_files_can_be_copied_into_a_shell(tmp_path: Path) -> None:
    inbox = tmp_path / "it's my [studio] $HOME" / "inbox"
    (inbox / "refused").mkdir(parents=True)
    (inbox / "refused" / "a.csv.errors.txt").write_text("a.csv:1: no title")
    [found] = refused_files(inbox)
    words = shlex.split(found.next_step.split(", put")[0])
    assert words == ["read", str(inbox / "refused")]


def test_refused_files_wait_and_another_one_is_news_again(tmp_path: Path) -> None:
    assert refused_files(tmp_path) == []
    (tmp_path / "refused").mkdir()
    for number, name in enumerate(("a.csv", "b.csv"), start=1):
        path = tmp_path / "refused" / f"{name}.errors.txt"
        path.write_text("")
        os.utime(path, (number, number))
        [found] = refused_files(tmp_path)
        assert (found.id, found.count) == (f"inbox:{name}.errors.txt", number)
        assert found.since == datetime.fromtimestamp(1, UTC)


@dg.op
def fails(context) -> None:  # type: ignore[no-untyped-def]
    if context.run.tags.get("well") != "yes":
        raise RuntimeError("broken")


@dg.job
def scheduled_job() -> None:
    fails()


def test_the_last_run_of_a_scheduled_job_is_a_notice_when_it_failed() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        scheduled_job.execute_in_process(instance=instance, raise_on_error=False, tags={"phantoms/stage": "script"})
        assert list(failed_runs(instance)) == []
        scheduled_job.execute_in_process(instance=instance, raise_on_error=False)
        [notice] = failed_runs(instance)
        assert notice.id == "run:scheduled_job"
        assert notice.what.startswith("the last run of scheduled_job failed at 20")
        scheduled_job.execute_in_process(instance=instance, tags={"well": "yes"})
        assert list(failed_runs(instance)) == []


def test_a_sensor_is_a_notice_when_its_last_ticks_all_failed(tmp_path: Path) -> None:
    where = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "repository")
    data = SensorInstigatorData(min_interval=30)
    origin = RemoteInstigatorOrigin(where, "a_sensor")
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        instance.add_instigator_state(state)
        for number, status in enumerate((TickStatus.SUCCESS, TickStatus.FAILURE, TickStatus.FAILURE, TickStatus.FAILURE)):
            assert list(failing_ticks(instance)) == []
            error = SerializableErrorInfo("it is broken\n", [], None) if status is TickStatus.FAILURE else None
            at = (datetime(2026, 11, 22, 12, tzinfo=UTC) + timedelta(minutes=number)).timestamp()
            made = TickData(
                state.instigator_origin_id,
                "a_sensor",
                InstigatorType.SENSOR,
                status,
                at,
                run_ids=[],
                error=error,
                selector_id=state.selector_id,
            )
            instance.create_tick(made)
        [notice] = failing_ticks(instance)
        assert notice.what == "a_sensor fails: it is broken"
        assert (notice.id, notice.since) == ("tick:a_sensor", datetime(2026, 11, 22, 12, 1, tzinfo=UTC))
        instance.update_instigator_state(state.with_status(InstigatorStatus.STOPPED))
        assert list(failing_ticks(instance)) == []


def test_status_lists_what_waits_also_before_there_is_a_video(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, database_url: str
) -> None:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    (tmp_path / "inbox" / "refused").mkdir(parents=True)
    (tmp_path / "inbox" / "refused" / "a.csv.errors.txt").write_text("")
    result = CliRunner().invoke(app, ["status"])
    assert result.exit_code == 0
    assert "Waits for you:" in result.stdout
    assert "1 file of the inbox was refused" in result.stdout
