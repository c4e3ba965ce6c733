"""How sensors look at the tables: partitions have one order here and in Dagster, even after crashes and manual changes."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import re
import threading
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from phantoms_dagster.defs import dispatch, resources, sensors, tags
from phantoms_dagster.defs.dispatch import Timings
from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.defs.resources import ServicesResource
from phantoms_dagster.defs.sensors import advance_sensor, intake_sensor, register, release_sensor, tick
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.planning import OpenRun
from phantoms_dagster.domain.stages import CHAINS, STAGES
from phantoms_dagster.execution.daemon import end_listening
from phantoms_dagster.production.inbox import InboxReport
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.integration.stage_world import World, open_world

# Looks only when the test says so.
PATIENT = Timings(listen=3_600.0, look=3_600.0)
MAKE, RELEASE = CHAINS["make"], CHAINS["release"]


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.instance_for_test() as opened:  # an ephemeral one has no sensors' states
        yield opened


@pytest.fixture
def services(world: World) -> Iterator[Services]:
    opened = Services(Settings(database={"url": SecretStr(world.url)}, pacing={"chain_videos": 0}))
    yield opened
    opened.close()


async def test_evaluations_that_outlived_a_killed_daemon_leave_connections_for_those_of_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of them and two new ones listened, and none of them had a connection left to look with."""
    monkeypatch.setattr(resources, "_kept", None)
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", world.url)
    with dg.build_init_resource_context() as context, ServicesResource().yield_for_execution(context) as services:
        pass
    monkeypatch.setattr(services.engine.pool, "_timeout", 1.0)
    with contextlib.ExitStack() as listening:
        for _ in range(8):
            listening.enter_context(services.planning().listen(["script"]))
        assert services.catalogue().unknown([]) == []
    services.close()


def in_order(world: World) -> list[str]:
    return [row["key"] for row in world.rows("SELECT key FROM phantoms.videos WHERE place IS NOT NULL ORDER BY place")]


async def test_new_videos_get_partitions_in_the_same_order(world: World, instance: dg.DagsterInstance) -> None:
    keys = world.add(5)
    assert register(instance, world.catalogue) == keys
    assert list(instance.get_dynamic_partitions(VIDEOS)) == in_order(world) == keys
    assert register(instance, world.catalogue) == []


async def test_a_crash_between_dagsters_partitions_and_our_note_leaves_both_in_one_order(
    world: World, instance: dg.DagsterInstance
) -> None:
    keys = world.add(4)
    instance.add_dynamic_partitions(VIDEOS, keys[2:])  # a transaction that began earlier was committed later, and we died then
    register(instance, world.catalogue)
    assert list(instance.get_dynamic_partitions(VIDEOS)) == in_order(world) == [*keys[2:], *keys[:2]]


async def test_a_look_registers_what_is_new_and_plans_it_at_once(
    world: World, instance: dg.DagsterInstance, services: Services
) -> None:
    keys = world.add(3)
    assert [(run.target, run.first, run.last) for run in tick(instance, services, MAKE)] == [("script", keys[0], keys[2])]


async def test_a_partition_that_a_person_deleted_comes_back_and_stops_no_other_video(
    world: World, instance: dg.DagsterInstance, services: Services
) -> None:
    keys = world.add(3)
    register(instance, world.catalogue)
    instance.delete_dynamic_partition(VIDEOS, keys[0])
    assert tick(instance, services, MAKE) == []  # a range that Dagster does not know would refuse every run of the tick
    [again] = [run.keys for run in tick(instance, services, MAKE)]
    assert again == (keys[1], keys[2], keys[0])
    assert list(instance.get_dynamic_partitions(VIDEOS)) == in_order(world) == list(again)


async def approved_and_new(world: World, instance: dg.DagsterInstance) -> tuple[str, str]:
    """One video that a person has approved, and one that has nothing yet."""
    [approved] = world.add(1, platforms=(Platform("youtube"), Platform("tiktok")))
    register(instance, world.catalogue)
    await world.carry([approved], "script", "voiceover", "rendered_video")
    Decisions(world.engine).decide(approved, approved=True, reviewer="ann", via="cli")
    [new] = world.add(1)
    register(instance, world.catalogue)
    return approved, new


async def test_each_sensor_requests_the_runs_of_its_own_stages(
    world: World, instance: dg.DagsterInstance, services: Services
) -> None:
    approved, new = await approved_and_new(world, instance)
    asked = {sensor.name: requests_of(sensor, instance, services) for sensor in (advance_sensor, release_sensor)}
    assert [(r.job_name, r.tags[tags.PARTITION]) for r in asked["advance_sensor"]] == [("script_job", new)]
    assert [(r.job_name, r.tags[tags.PARTITION]) for r in asked["release_sensor"]] == [("approval_job", approved)]


async def test_a_run_names_its_video_or_how_many_it_carries_before_all_other_tags(
    world: World, instance: dg.DagsterInstance, services: Services
) -> None:
    """Its page began with technical tags, and the run of a single video named no partition."""
    [one] = world.add(1)
    [alone] = requests_of(advance_sensor, instance, services)
    assert min(alone.tags.items()) == (tags.VIDEO, one), "Dagster shows tags by their alphabet"
    assert alone.tags[tags.PARTITION] == one
    assert tags.RANGE_START not in alone.tags
    more = world.add(2)
    [together] = requests_of(advance_sensor, instance, services)
    assert min(together.tags.items()) == (tags.VIDEOS, "3")
    assert (together.tags[tags.RANGE_START], together.tags[tags.RANGE_END]) == (one, more[-1])


async def test_a_sensor_with_nothing_to_do_leaves_one_line_for_many_looks_and_says_how_long_it_listened(
    world: World, instance: dg.DagsterInstance, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """45 lines a minute said "0 runs requested"."""
    monkeypatch.setattr(dispatch, "TIMINGS", Timings(listen=0.5, look=0.1))
    looks: list[str] = []
    look = sensors.tick

    def noted(*given: Any) -> Any:
        looks.append("look")
        return look(*given)

    monkeypatch.setattr(sensors, "tick", noted)
    reason = await asyncio.to_thread(reason_of, release_sensor, instance, services)
    assert re.fullmatch(r"nothing became ready in \d+ s; no run is open", reason)
    assert len(looks) >= 3


async def test_the_intake_takes_a_file_that_comes_while_it_looks_and_one_line_tells_of_many_looks(
    world: World, instance: dg.DagsterInstance, services: Services, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An idle hour left 240 lines that said "no new videos"."""
    monkeypatch.setattr(dispatch, "TIMINGS", Timings(listen=20.0, inbox=0.1))
    inbox = tmp_path / "inbox"
    inbox.mkdir()
    services.settings = services.settings.changed({"paths": {"inbox": inbox, "home": tmp_path}})
    looked, looks = threading.Event(), itertools.count()
    look = Services.take_inbox

    def take_inbox(services: Services) -> list[InboxReport]:
        if next(looks) < 2:
            return []
        looked.set()
        return look(services)

    monkeypatch.setattr(Services, "take_inbox", take_inbox)

    async def drop() -> None:
        assert await asyncio.to_thread(looked.wait, 30.0), "it looked once and no longer listened"
        (inbox / "new.part").write_text("title\nWhy octopuses have three hearts\n")
        (inbox / "new.part").rename(inbox / "new.csv")

    reason, _ = await asyncio.gather(asyncio.to_thread(reason_of, intake_sensor, instance, services), drop())
    [key] = instance.get_dynamic_partitions(VIDEOS)
    assert reason.startswith(f"inbox: 1 file read; 1 new video: {key}"), reason
    monkeypatch.setattr(dispatch, "TIMINGS", Timings(listen=0.3, inbox=0.1))
    assert await asyncio.to_thread(reason_of, intake_sensor, instance, services) == "no new videos"


async def test_what_becomes_ready_while_a_sensor_listens_is_requested_at_once(
    world: World, instance: dg.DagsterInstance, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "TIMINGS", PATIENT)
    [key] = world.add(1)
    register(instance, world.catalogue)
    await world.carry([key], "script", "voiceover", "rendered_video")

    async def approve() -> None:
        await asyncio.sleep(0.3)
        Decisions(world.engine).decide(key, approved=True, reviewer="ann", via="cli")

    requests, _ = await asyncio.gather(asyncio.to_thread(requests_of, release_sensor, instance, services), approve())
    assert [request.job_name for request in requests] == ["approval_job"]


async def test_what_becomes_due_by_the_clock_while_a_sensor_listens_is_requested_at_its_time(
    world: World, instance: dg.DagsterInstance, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "TIMINGS", PATIENT)
    world.add(1)
    register(instance, world.catalogue)
    world.write("UPDATE phantoms.stages SET ready_at = now() + interval '1.5 s' WHERE stage = 'script' AND state = 'ready'")
    requests = await asyncio.to_thread(requests_of, advance_sensor, instance, services)
    assert [request.job_name for request in requests] == ["script_job"]


async def test_a_sensor_stops_listening_when_the_daemon_ends(
    world: World, instance: dg.DagsterInstance, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon waits for its sensors; a stop would take as long as they listen."""
    monkeypatch.setattr(dispatch, "TIMINGS", PATIENT)
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", world.url)

    async def stop() -> None:
        await asyncio.sleep(0.3)
        await asyncio.to_thread(end_listening)

    reason, _ = await asyncio.gather(asyncio.to_thread(reason_of, release_sensor, instance, services), stop())
    assert reason.startswith("nothing became ready in ")


async def test_what_is_approved_goes_before_the_most_urgent_of_what_is_still_to_be_made(
    world: World, instance: dg.DagsterInstance, services: Services
) -> None:
    _, new = await approved_and_new(world, instance)
    world.write("UPDATE phantoms.videos SET priority = 0, publish_at = now() + interval '5 minutes' WHERE key = :key", key=new)
    [made], [released] = (tick(instance, services, chain) for chain in (MAKE, RELEASE))
    assert released.priority > made.priority


async def test_a_sensor_does_not_plan_again_what_an_open_run_has(
    world: World, instance: dg.DagsterInstance, services: Services
) -> None:
    approved, _ = await approved_and_new(world, instance)
    open_runs = [OpenRun("approval", approved, approved)]
    assert tick(instance, services, RELEASE, open_runs) == []
    assert len(tick(instance, services, MAKE, open_runs)) == 1


async def test_what_is_ready_on_one_platform_waits_a_moment_for_the_same_on_another(
    world: World, instance: dg.DagsterInstance, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "TIMINGS", Timings(siblings=60.0))
    approved, _ = await approved_and_new(world, instance)
    await world.carry([approved], "approval", "youtube/variant")
    under_way = open_run(instance, "tiktok/variant", approved)

    async def finish_it() -> None:
        await asyncio.sleep(0.1)
        await world.carry([approved], "tiktok/variant")
        instance.report_run_canceled(under_way)

    requests, _ = await asyncio.gather(asyncio.to_thread(requests_of, release_sensor, instance, services), finish_it())
    assert {request.job_name for request in requests} == {"youtube_post_job", "tiktok_post_job"}


async def test_but_not_for_long(world: World, instance: dg.DagsterInstance, services: Services) -> None:
    approved, _ = await approved_and_new(world, instance)
    await world.carry([approved], "approval", "youtube/variant")
    open_run(instance, "tiktok/variant", approved)
    jobs = {request.job_name for request in await asyncio.to_thread(requests_of, release_sensor, instance, services)}
    assert jobs == {"youtube_post_job"}


async def test_new_runs_of_making_stand_back_while_something_is_released_and_not_the_other_way_round(
    world: World, instance: dg.DagsterInstance, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    await approved_and_new(world, instance)
    slept: list[float] = []
    monkeypatch.setattr(sensors, "stand_back", functools.partial(dispatch.stand_back, sleep=slept.append))
    for under_way, who_stands_back in (("script", []), ("youtube/post", [advance_sensor])):
        run = open_run(instance, under_way, "another")
        for sensor, wanted in ((advance_sensor, "script"), (release_sensor, "approval")):
            slept.clear()
            assert [request.tags[tags.STAGE] for request in requests_of(sensor, instance, services)] == [wanted]
            assert (dispatch.TIMINGS.stand_back in slept) == (sensor in who_stands_back)
        instance.report_run_canceled(run)


def open_run(instance: dg.DagsterInstance, stage: str, key: str) -> dg.DagsterRun:
    run = dg.DagsterRun(
        job_name=f"{STAGES[stage].slug}_job",
        run_id=str(uuid.uuid4()),
        status=dg.DagsterRunStatus.STARTED,
        tags={tags.STAGE: stage, tags.PLANNED: "true", tags.RANGE_START: key, tags.RANGE_END: key},
    )
    return instance.add_run(run)


def reason_of(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, services: Services, cursor: str | None = None) -> str:
    resources = {"services": services}
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources, sensor_name=sensor.name)
    return sensor.evaluate_tick(context).skip_message or ""


def requests_of(sensor: dg.SensorDefinition, instance: dg.DagsterInstance, services: Services) -> list[dg.RunRequest]:
    context = dg.build_sensor_context(instance=instance, resources={"services": services}, sensor_name=sensor.name)
    return list(sensor.evaluate_tick(context).run_requests or [])
