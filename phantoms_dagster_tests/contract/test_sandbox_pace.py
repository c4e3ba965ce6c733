"""The stand-ins can take as long as the real services. Without that setting they are quick."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.sandbox.pace import REALISTIC, wait_seconds
from phantoms_dagster_tests.contract.test_instagram import Stand, standing
from phantoms_dagster_tests.contract.test_instagram_sandbox import Api
from phantoms_dagster_tests.contract.tiktok_world import World, a_world


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with a_world(tmp_path) as made:
        yield made


@pytest.fixture
async def stand() -> AsyncIterator[Stand]:
    async with standing() as made:
        yield made


@pytest.mark.parametrize("name", REALISTIC)
def test_every_wait_is_realistic_only_when_asked_for_and_always_the_same(name: str) -> None:
    sandbox = Sandbox(seed=7)
    assert wait_seconds(sandbox, name, "1") <= 0.2
    sandbox.config["processing"] = "realistic"
    shortest, longest = REALISTIC[name]
    waits = [wait_seconds(sandbox, name, str(n)) for n in range(200)]
    assert all(shortest <= wait <= longest for wait in waits)
    assert len(set(waits)) == 200
    assert waits == [wait_seconds(sandbox, name, str(n)) for n in range(200)]
    assert waits != [wait_seconds(_realistic(8), name, str(n)) for n in range(200)]
    sandbox.config[name] = 3
    assert wait_seconds(sandbox, name, "1") == 3
    sandbox.config[name] = None
    assert wait_seconds(sandbox, name, "1") == waits[1]


def _realistic(seed: int) -> Sandbox:
    sandbox = Sandbox(seed=seed)
    sandbox.config["processing"] = "realistic"
    return sandbox


async def test_tiktok_processes_for_tens_of_seconds_and_names_the_public_id_later(world: World) -> None:
    world.sandbox.config["processing"] = "realistic"
    job, journal = world.job(), world.journal()
    began = world.sandbox.now()
    post = await world.persist(job, journal)
    took = world.sandbox.now() - began
    assert 10 <= took < 300
    assert post.remote_id.startswith("v_pub_file~")
    assert await world.late_ids().public_id(job.account, journal.record.handle, last=False) is None
    world.sandbox.advance(7_200)
    found = await world.late_ids().public_id(job.account, journal.record.handle, last=False)
    assert found is not None
    assert found.remote_id == world.posts[0]["remote_id"]


async def test_instagram_processes_for_half_a_minute_to_two(stand: Stand) -> None:
    stand.sandbox.config["processing"] = "realistic"
    api = Api(stand)
    container = await api.finished()
    stand.sandbox.advance(28)
    assert (await api.get(container, fields="status_code"))["status_code"] == "IN_PROGRESS"
    stand.sandbox.advance(92)
    assert (await api.get(container, fields="status_code"))["status_code"] == "FINISHED"


async def test_a_pace_that_does_not_exist_is_refused_with_the_ones_that_do() -> None:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [])) as server, httpx.AsyncClient(trust_env=False) as client:
        url = str(server.make_url("/_sandbox/config"))

        async def told(values: dict[str, Any]) -> httpx.Response:
            return await client.post(url, json=values)

        refused = await told({"processing": "real", "tiktok.daily_posts": 1})
        assert (refused.status_code, refused.json()["error"]) == (400, "`processing` is one of quick, realistic")
        assert sandbox.config == {}
        assert (await told({"processing": "realistic"})).json() == {"processing": "realistic"}
