"""What the planner reads, from the real table: what is due, most urgent first, and its neighbours without a gap."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from phantoms_dagster.domain.planning import OpenRun, Span
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.dead_letters.letters import DeadLetters, LetterFilter
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.planning import Planning
from phantoms_dagster_tests.integration.stage_world import World, brief, finished, open_world

SCRIPT = "script"


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture
def planning(world: World) -> Planning:
    return Planning(world.engine)


def registered(world: World, count: int) -> list[str]:
    keys = world.add(count)
    world.catalogue.registered(keys)
    return keys


def keys_around(planning: Planning, place: int, most: int = 100) -> list[str]:
    return [video.key for video in planning.around([(SCRIPT, place)], most)[SCRIPT, place]]


async def test_the_nearest_publish_time_comes_first_then_the_priority_then_dagsters_order(world: World, planning: Planning) -> None:
    soon = datetime.now(UTC) + timedelta(hours=2)
    plain, urgent, dated, later = (
        world.catalogue.add([made], source="test")[0].key
        for made in (
            brief(1),
            brief(2, priority=1),
            brief(3, publish_at=soon),
            brief(4, publish_at=soon + timedelta(days=1), priority=0),
        )
    )
    world.catalogue.registered([later, plain, urgent, dated])
    assert world.due(SCRIPT) == [dated, later, urgent, plain]
    assert [video.key for video in planning.most_urgent({SCRIPT: 2, "voiceover": 5}, [])[SCRIPT]] == [dated, later]


async def test_the_next_time_at_which_something_becomes_due_by_the_clock_is_known(world: World, planning: Planning) -> None:
    """No notification says that a time has come. Looking every few seconds cost a tenth of an idle machine's work."""
    first, second, third = registered(world, 3)
    assert planning.next_due([SCRIPT, "voiceover"]) is None  # what is due already has been seen
    world.write("UPDATE phantoms.stages SET ready_at = now() + interval '90 s' WHERE stage = 'script' AND state = 'ready'")
    assert 60 < (planning.next_due([SCRIPT]) or 0) <= 90
    later = (
        "UPDATE phantoms.stages s SET {what} FROM phantoms.videos v WHERE v.id = s.video_id AND stage = 'script' AND v.key = :key"
    )
    world.write(later.format(what="state = 'deferred', retry_at = now() + interval '50 s'"), key=second)
    assert 20 < (planning.next_due([SCRIPT]) or 0) <= 50
    await world.claim(SCRIPT, [third])
    leased = planning.next_due([SCRIPT])
    assert leased is not None
    assert leased <= 50
    assert planning.next_due(["rendered_video"]) is None
    world.write(later.format(what="retry_at = now() - interval '1 s'"), key=second)
    world.write(later.format(what="ready_at = now() - interval '1 s'"), key=first)
    assert (planning.next_due([SCRIPT]) or 0) >= 0


async def test_what_an_open_run_of_the_stage_covers_is_left_to_it(world: World, planning: Planning) -> None:
    keys = registered(world, 4)
    spans = planning.spans([OpenRun(SCRIPT, keys[1], keys[2]), OpenRun("voiceover", keys[0], keys[3])])
    assert spans == [Span(SCRIPT, 2, 3), Span("voiceover", 1, 4)]
    assert [video.key for video in planning.most_urgent({SCRIPT: 9}, spans)[SCRIPT]] == [keys[0], keys[3]]


async def test_a_run_over_a_partition_that_is_gone_covers_nothing(world: World, planning: Planning) -> None:
    keys = registered(world, 1)
    assert planning.spans([OpenRun(SCRIPT, keys[0], "gone"), OpenRun(SCRIPT, keys[0], keys[0])]) == [Span(SCRIPT, 1, 1)]
    assert planning.spans([]) == []


async def test_neighbours_end_where_one_is_not_due(world: World, planning: Planning) -> None:
    keys = registered(world, 7)
    await world.claim(SCRIPT, [keys[1], keys[5]])
    assert keys_around(planning, 4) == keys[2:5]
    assert keys_around(planning, 4, most=1) == [keys[2], keys[3]]
    assert keys_around(planning, 2) == []


async def test_a_retired_video_and_one_that_is_not_registered_are_no_gap(world: World, planning: Planning) -> None:
    keys = registered(world, 4)
    world.write("UPDATE phantoms.videos SET retired_at = now() WHERE key = :key", key=keys[1])
    world.catalogue.forget([keys[2]])
    assert keys_around(planning, 1) == [keys[0], keys[3]]
    assert world.due(SCRIPT) == [keys[0], keys[3]]


async def test_an_approval_has_neighbours_only_where_a_person_decided(world: World, planning: Planning) -> None:
    keys = registered(world, 3)
    await world.carry(keys, "script", "voiceover", "rendered_video")
    for key in keys[:2]:
        Decisions(world.engine).decide(key, approved=True, reviewer="ann", via="cli")
    assert [video.key for video in planning.around([("approval", 1)], 9)["approval", 1]] == keys[:2]


# --- Dagster's order


async def test_a_video_that_is_registered_again_keeps_its_place(world: World) -> None:
    keys = registered(world, 2)
    more = world.add(4)[2:]
    world.catalogue.registered([*keys, *more])
    assert world.due(SCRIPT) == [*keys, *more]


async def test_dagsters_own_order_is_copied_and_lost_partitions_are_registered_again(world: World) -> None:
    keys = registered(world, 4)
    assert world.catalogue.reorder(keys) == 0
    assert world.catalogue.reorder([keys[2], keys[0], "made by hand", keys[3]]) == 3
    assert world.due(SCRIPT) == [keys[2], keys[0], keys[3]]
    assert world.catalogue.unregistered() == [keys[1]]
    world.catalogue.registered([keys[1]])
    assert world.due(SCRIPT) == [keys[2], keys[0], keys[3], keys[1]]


# --- listener


async def test_whatever_makes_something_ready_wakes_the_planner(world: World, planning: Planning) -> None:
    letters = DeadLetters(world.engine)
    with planning.listen(STAGES) as listener:
        assert not listener.wait(0.05)
        [key] = world.add()
        assert listener.wait(5)
        world.catalogue.registered([key])
        assert listener.wait(5)
        await world.carry([key], "script")
        assert listener.wait(5)
        await world.carry([key], "voiceover", "rendered_video")
        while listener.wait(0.05):
            pass
        Decisions(world.engine).decide(key, approved=True, reviewer="ann", via="cli")
        assert listener.wait(5)
        assert not letters.replay(LetterFilter(), by="ann").closed


async def test_a_render_that_waits_for_a_person_wakes_no_sensor(world: World, planning: Planning) -> None:
    [key] = registered(world, 1)
    await world.carry([key], "script", "voiceover")
    store, claim = await world.claimed("rendered_video", key)
    with planning.listen(STAGES) as listener:
        assert await store.finish(claim, finished("rendered_video"))
        assert not listener.wait(0.2)


async def test_what_becomes_ready_wakes_only_those_who_plan_that_stage(world: World, planning: Planning) -> None:
    [key] = registered(world, 1)
    with planning.listen(["voiceover"]) as making, planning.listen(["approval", "youtube/variant"]) as releasing:
        await world.carry([key], "script")
        assert making.wait(5)
        assert not releasing.wait(0.2)
        await world.carry([key], "voiceover", "rendered_video")
        approve = threading.Timer(0.3, Decisions(world.engine).decide, [key], {"approved": True, "reviewer": "ann", "via": "cli"})
        approve.start()
        assert releasing.wait(5)  # not for what was said of the render, but for what is said while it waits
        approve.join()
        await world.carry([key], "approval")
        assert releasing.wait(5)
        assert not making.wait(0.2)
        world.catalogue.registered([key])  # at whichever stage it is
        assert making.wait(5)
        assert releasing.wait(5)


async def test_what_is_said_while_the_planner_looks_is_not_missed(world: World, planning: Planning) -> None:
    with planning.listen(STAGES) as listener:
        said = threading.Thread(target=world.add)
        said.start()
        said.join()
        assert listener.wait(5)
