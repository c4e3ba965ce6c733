"""The job that asks for late public ids as Dagster runs it, with TikTok's stand-in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from phantoms_dagster.defs.late_ids import late_ids_job, late_ids_sensor
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.integration.stage_world import NOON, open_world
from phantoms_dagster_tests.integration.test_late_ids import posted
from phantoms_dagster_tests.sandbox_thread import sandbox_thread

REST_OF_THE_HANDLE = {
    "upload_url": "",
    "username": "a",
    "content": "",
    "size": 1,
    "chunk_size": 1,
    "count": 1,
    "opened_at": NOON.isoformat(),
}


@pytest.fixture
def services(database_url: str, redis_url: str, tmp_path: Path) -> Iterator[Services]:
    with sandbox_thread(tmp_path) as running:
        made = Services(
            Settings(
                paths={"home": tmp_path},
                database={"url": database_url},
                redis={"url": redis_url},
                sandbox={"mode": "on", "url": running.url},
            )
        )
        yield made
        made.close()


async def post_without_a_public_id(url: str) -> None:
    async with open_world(url) as world:
        await posted(world, "v_pub_file~1")
        world.write("UPDATE phantoms.posts SET handle = handle || CAST(:rest AS jsonb)", rest=json.dumps(REST_OF_THE_HANDLE))
        world.engine.dispose()


def test_the_sensor_starts_the_job_when_an_id_is_due_and_the_job_asks_the_platform(database_url: str, services: Services) -> None:
    with dg.DagsterInstance.ephemeral() as instance:

        def ticked() -> dg.SensorExecutionData:
            context = dg.build_sensor_context(instance=instance, resources={"services": services}, sensor_name=late_ids_sensor.name)
            return late_ids_sensor.evaluate_tick(context)

        assert ticked().skip_message == "no look-up of a public id is due"
        asyncio.run(post_without_a_public_id(database_url))
        assert len(ticked().run_requests or []) == 1
        result = late_ids_job.execute_in_process(instance=instance, resources={"services": services})
        [event] = [event for event in result.all_events if event.is_successful_output]
        told = {name: value.value for name, value in event.step_output_data.metadata.items()}
        assert told == {"found": 0, "still_waiting": 1, "given_up": 0}
        assert ticked().skip_message == "no look-up of a public id is due"
