"""The nightly job, its schedule and the sensor, as Dagster runs them."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import pytest

from phantoms_dagster.defs import in_flight
from phantoms_dagster.defs.build import build_definitions
from phantoms_dagster.defs.retirement import make_retirement_schedule, retirement_job, revival_sensor
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.execution.slots import DEFAULT_QUEUE, queue_of
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.integration.retirement_world import Archive, dagster_instance
from phantoms_dagster_tests.integration.stage_world import World, open_world


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def archive(world: World, tmp_path: Path, dagster_database_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Archive]:
    with dagster_instance(tmp_path, dagster_database_url, monkeypatch) as instance:
        yield Archive(world, instance)


def night(archive: Archive, *, raises: bool = True, **changes: Any) -> dg.ExecuteInProcessResult:
    """One run of the job under these settings."""
    services = Services(Settings(**grouped({"database_url": archive.world.url, **changes})))
    try:
        return retirement_job.execute_in_process(instance=archive.instance, resources={"services": services}, raise_on_error=raises)
    finally:
        services.close()


def told(result: dg.ExecuteInProcessResult, op: str) -> dict[str, Any]:
    """The metadata of an op."""
    [event] = [e for e in result.all_events if e.is_successful_output and e.step_key == op]
    return {name: value.value for name, value in event.step_output_data.metadata.items()}


def test_a_night_tells_what_it_retired_what_it_held_and_what_it_never_does(archive: Archive, tmp_path: Path) -> None:
    keys = archive.finished(3)
    archive.run(key=keys[1])
    result = night(archive, home=tmp_path)
    assert archive.known() == [keys[1]]
    assert told(result, "retire_finished_videos") | {"ended_before": ""} == {
        "retired": 2,
        "with_a_run_in_flight": 1,
        "taken_back": 0,
        "most_a_night": 5_000,
        "more_tomorrow": False,
        "ended_before": "",
        "videos": f"{keys[0]}, {keys[2]}",
        "videos_with_a_run": keys[1],
    }
    assert told(result, "clean_media") == {"keep": "all"}


def test_with_zero_days_only_what_a_person_retired_goes(archive: Archive, tmp_path: Path) -> None:
    keys = archive.finished(2)
    archive.store.mark([keys[1]], lambda _: True)
    result = night(archive, home=tmp_path, retire_days=0)
    assert archive.known() == [keys[0]]
    assert told(result, "retire_finished_videos")["ended_before"] == "never: PHANTOMS_RETIRE_DAYS is 0"


async def test_a_night_frees_the_files_that_the_policy_does_not_keep(archive: Archive, tmp_path: Path) -> None:
    [key] = archive.finished()
    store = FolderStore(tmp_path / "media")
    voice = tmp_path / "voice.wav"
    voice.write_bytes(b"v" * 1_500)
    file = await store.add(voice)
    archive.world.write(
        "UPDATE phantoms.stages SET output = jsonb_set(output, '{audio}', CAST(:file AS jsonb)) WHERE stage = 'voiceover'",
        file=file.model_dump_json(),
    )
    settings: dict[str, Any] = {"home": tmp_path, "media_keep": "master", "media_keep_days": 0}
    archive.retire()
    an_hour_ago = time.time() - 3_700
    os.utime(tmp_path / "media" / file.name, (an_hour_ago, an_hour_ago))
    freed = told(await asyncio.to_thread(night, archive, **settings), "clean_media")
    assert (freed["videos"], freed["files"], freed["bytes"], freed["still_needed"]) == (1, 1, 1_500, 1)
    assert (freed["keep"], freed["goes"]) == ("master", ", ".join(["voiceover", *(f"{platform}/variant" for platform in Platform)]))
    assert not (tmp_path / "media" / file.name).exists()
    assert archive.world.catalogue.stages(key)["voiceover"].cleaned
    assert told(await asyncio.to_thread(night, archive, **settings), "clean_media")["files"] == 0


def test_videos_are_retired_even_without_a_media_store(archive: Archive, tmp_path: Path, redis_url: str) -> None:
    gone = archive.finished()
    archive.retire()
    archive.finished(2)
    archive.world.write("UPDATE phantoms.stages SET output = NULL WHERE video_id > 1")  # samples share their bytes
    result = night(
        archive,
        raises=False,
        home=tmp_path,
        media_keep="none",
        media_keep_days=0,
        media_url="s3://bucket",
        media_endpoint_url="http://127.0.0.1:1",
        media_access_key_id="k",
        media_secret_access_key="s",
        redis_url=redis_url,
    )
    [failure] = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    assert "the media store could not delete files: " in str(failure.user_failure_data)
    assert archive.known() == []
    assert not archive.world.catalogue.stages(gone[0])["voiceover"].cleaned


def test_an_open_run_without_partitions_works_on_no_video(archive: Archive) -> None:
    archive.instance.add_run(dg.DagsterRun("analytics_job", status=dg.DagsterRunStatus.STARTED))
    assert not in_flight.VideoPartitions(archive.instance).in_flight().unclear
    archive.finished()
    assert len(archive.retire().retired) == 1


def test_the_schedule_requests_one_run_each_local_night_on_the_queue_for_other_runs() -> None:
    schedule = make_retirement_schedule("Europe/Berlin")
    at = datetime(2026, 11, 23, 4, 17, tzinfo=ZoneInfo("Europe/Berlin"))
    with dg.build_schedule_context(scheduled_execution_time=at) as context:
        asked = schedule.evaluate_tick(context)
    [request] = asked.run_requests or []
    assert request.run_key == "2026-11-23"
    assert (schedule.execution_timezone, schedule.default_status) == ("Europe/Berlin", dg.DefaultScheduleStatus.RUNNING)
    job = build_definitions().resolve_job_def("retirement_job")
    assert queue_of(job.tags) == DEFAULT_QUEUE


def test_the_sensor_takes_back_who_has_work_again(archive: Archive, tmp_path: Path) -> None:
    key, asleep = archive.finished(2)
    archive.retire()

    def tick() -> str:
        services = Services(Settings(database={"url": archive.world.url}, paths={"home": tmp_path}))
        with dg.build_sensor_context(instance=archive.instance, resources={"services": services}) as context:
            answer = revival_sensor(context)
        services.close()
        assert isinstance(answer, dg.SkipReason)
        return answer.skip_message or ""

    assert tick() == "no retired video has work"
    archive.set(key, "youtube/post", "ready")
    assert tick() == f"brought back: {key}"
    assert (archive.retired(), archive.register(), archive.known()) == ([asleep], [key], [key])


def test_a_retired_video_stays_retired_however_often_the_intake_looks_at_the_order(archive: Archive) -> None:
    keys = archive.finished(3)
    archive.world.write("UPDATE phantoms.videos SET registered_at = now() - interval '60 days'")
    archive.set(keys[1], "youtube/post", "deferred")
    archive.retire()
    young = archive.finished(1, ago=timedelta(days=1))
    for _ in range(2):
        archive.world.catalogue.reorder(archive.known())
        assert archive.register() == []
    assert archive.known() == [keys[1], *young]
    assert archive.retired() == [keys[0], keys[2]]
