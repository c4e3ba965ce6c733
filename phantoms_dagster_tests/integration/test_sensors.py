"""The sensors' look at the tables: partitions in one order here and in Dagster, also after crashes and hands that help."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import dagster as dg
import pytest
from pydantic import SecretStr

from phantoms_dagster.defs.partitions import VIDEOS
from phantoms_dagster.defs.sensors import register, tick
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring import Workshop
from phantoms_dagster_tests.integration.stage_world import World, open_world


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


@pytest.fixture
def workshop(world: World) -> Iterator[Workshop]:
    opened = Workshop(Settings(database_url=SecretStr(world.url), fuse_videos=0))
    yield opened
    opened.close()


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
    world: World, instance: dg.DagsterInstance, workshop: Workshop
) -> None:
    keys = world.add(3)
    assert [(run.work, run.first, run.last) for run in tick(instance, workshop)] == [("script", keys[0], keys[2])]


async def test_a_partition_that_somebody_deleted_comes_back_and_stops_nobody_else(
    world: World, instance: dg.DagsterInstance, workshop: Workshop
) -> None:
    keys = world.add(3)
    register(instance, world.catalogue)
    instance.delete_dynamic_partition(VIDEOS, keys[0])
    assert tick(instance, workshop) == []  # a range that Dagster does not know would refuse every run of the tick
    [again] = [run.keys for run in tick(instance, workshop)]
    assert again == (keys[1], keys[2], keys[0])
    assert list(instance.get_dynamic_partitions(VIDEOS)) == in_order(world) == list(again)
