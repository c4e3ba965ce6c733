"""The catalogue: adding, finding and listing videos."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from sqlalchemy import event, text

from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store import catalogue
from phantoms_dagster.store.catalogue import partition_key
from phantoms_dagster_tests.integration.stage_world import CHANNEL, World, brief, finished, open_world

DAY = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Ocean facts", "ocean-facts"),
        ("  Ünïcode & Söhne!  ", "unicode-sohne"),
        ("海", "video"),
        ("a very long title that goes on and on and on", "a-very-long-title-that-goes-on"),
        ("a title whose cut falls on a dash", "a-title-whose-cut-falls-on-a"),
        ("x" * 40 + " and more", "x" * 32),
        ("../../etc/passwd", "etc-passwd"),
    ],
)
def test_a_partition_key_reads_like_title_day_and_four_digits_and_cuts_no_word(title: str, slug: str) -> None:
    asked = brief(0, title=title)
    assert partition_key(asked, DAY) == f"{slug}-20261122-{asked.fingerprint[:4]}"


async def test_a_key_that_begins_with_its_day_as_older_versions_made_them_is_found_like_any_other(world: World) -> None:
    key = world.add()[0]
    world.write("UPDATE phantoms.videos SET key = '20261122-eels-7f3a' WHERE key = :key", key=key)
    assert world.catalogue.find("eels") == "20261122-eels-7f3a"
    assert world.catalogue.stages("20261122-eels-7f3a")["script"].state == "ready"


async def test_a_new_video_begins_ready_in_its_first_stage_and_blocked_in_the_others(world: World) -> None:
    key = world.add(platforms=(Platform("tiktok"),))[0]
    assert {name: row.state for name, row in world.catalogue.stages(key).items()} == {
        "script": "ready",
        **dict.fromkeys(("voiceover", "rendered_video", "approval", "tiktok/variant", "tiktok/post"), "blocked"),
    }
    assert world.catalogue.counts()["script"] == {"ready": 1}


async def test_the_same_brief_is_not_added_twice_whatever_its_priority_or_platforms(world: World) -> None:
    first = world.catalogue.add([brief(1)], source="a")[0]
    again = world.catalogue.add([brief(1, priority=1, platforms=(Platform("tiktok"),)), brief(2)], source="b")
    assert first.new
    assert [(a.key == first.key, a.new) for a in again] == [(True, False), (False, True)]
    assert world.catalogue.add_from([brief(1), brief(3)], "c") == (1, 1)


async def test_thousands_of_briefs_are_added_page_by_page_and_not_one_by_one(world: World) -> None:
    statements: list[str] = []
    engine = world.catalogue._engine
    listener = lambda _c, _k, statement, *_: statements.append(statement)  # noqa: E731
    event.listen(engine, "before_cursor_execute", listener)
    briefs = [brief(n) for n in range(2_500)]
    added = world.catalogue.add([*briefs, briefs[7]], source="a")
    assert len(statements) < 20
    assert [a.new for a in added] == [True] * 2_500 + [False]
    assert len({a.key for a in added}) == 2_500
    assert added[-1].key == added[7].key
    assert world.catalogue.counts()["script"] == {"ready": 2_500}
    assert world.catalogue.unregistered(limit=2_500) == [a.key for a in added[:2_500]]


async def test_two_briefs_whose_keys_are_alike_get_two_keys_also_when_added_together(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "partition_key", lambda _brief, _today, *, salt="": f"20261122-alike{salt}")
    added = world.catalogue.add([brief(1), brief(2)], source="a") + world.catalogue.add([brief(3)], source="a")
    assert [a.key for a in added] == ["20261122-alike", "20261122-alike-2", "20261122-alike-3"]
    assert all(a.new for a in added)


async def test_the_same_brief_added_by_two_at_once_is_one_video(world: World) -> None:
    added = await asyncio.gather(*(asyncio.to_thread(world.catalogue.add, [brief(1)], source=str(n)) for n in range(4)))
    assert sorted(a[0].new for a in added) == [False, False, False, True]
    assert len({a[0].key for a in added}) == 1


async def test_briefs_that_would_share_a_key_get_a_number_each(world: World) -> None:
    one, other = brief(1), brief(1, angle="another")
    taken = partition_key(other, datetime.now(UTC))
    world.catalogue.add([one], source="test")
    world.write("UPDATE phantoms.videos SET key = :key", key=taken)
    assert world.catalogue.add([other], source="test")[0].key == f"{taken}-2"


async def test_a_batch_with_a_brief_that_cannot_be_stored_adds_nothing(world: World) -> None:
    with pytest.raises(Exception, match="videos_channel_fkey"):
        world.catalogue.add([brief(1), brief(2, channel="nobody")], source="test")
    assert world.catalogue.videos() == []


async def test_a_brief_comes_back_as_it_was_given(world: World) -> None:
    asked = brief(1, angle="Zürich 🌊", facts=("one", "two"), publish_at=DAY, priority=2)
    key = world.catalogue.add([asked], source="test")[0].key
    assert world.catalogue.brief(key) == asked
    with pytest.raises(NotFound, match="no video 'nothing'"):
        world.catalogue.brief("nothing")


async def test_a_video_is_found_by_its_key_or_by_any_part_that_only_it_has(world: World) -> None:
    keys = world.catalogue.add([brief(1, title="deep sea"), brief(2, title="deep space")], source="test")
    assert world.catalogue.find(keys[0].key) == keys[0].key
    assert world.catalogue.find("space") == keys[1].key
    with pytest.raises(InvalidInput, match=f"could be {keys[0].key}, {keys[1].key}"):
        world.catalogue.find("deep")
    with pytest.raises(NotFound):
        world.catalogue.find("deep_sea")


async def test_a_whole_key_wins_over_the_longer_ones_that_contain_it(world: World) -> None:
    short = world.add()[0]
    longer = world.add()[0]
    world.write("UPDATE phantoms.videos SET key = :new WHERE key = :old", new=f"{short}-2", old=longer)
    assert world.catalogue.find(short) == short


async def test_the_list_shows_the_newest_first_with_states_and_what_was_spent(world: World) -> None:
    old, new = world.add(2)
    store, claim = await world.claimed("script", old)
    await store.finish(claim, finished("script", Decimal("0.25")))
    rows = world.catalogue.videos()
    assert [row.key for row in rows] == [new, old]
    assert (rows[1].cost, rows[1].states["script"], rows[1].states["voiceover"]) == (Decimal("0.25"), "done", "ready")
    assert [row.key for row in world.catalogue.videos(keys=[old])] == [old]
    assert [row.key for row in world.catalogue.videos(limit=1)] == [new]
    assert world.catalogue.videos(keys=[]) == []


async def test_videos_are_registered_with_dagster_oldest_first_and_once(world: World) -> None:
    keys = world.add(3)
    assert world.catalogue.unregistered(limit=2) == keys[:2]
    world.catalogue.registered(keys[:2])
    assert world.catalogue.unregistered() == keys[2:]


async def test_a_changed_channel_replaces_the_old_one_and_is_what_claims_see(world: World) -> None:
    key = world.add()[0]
    world.catalogue.put_channels([CHANNEL.model_copy(update={"title": "New facts"})])
    _, claim = await world.claimed("script", key)
    assert claim.video.channel.title == "New facts"


async def test_two_processes_that_read_the_channels_in_different_orders_do_not_deadlock(world: World) -> None:
    """As when a person sorts channels.yaml while the desk and the daemon run."""
    first, second = (CHANNEL.model_copy(update={"name": name, "title": "New"}) for name in ("first", "second"))
    world.catalogue.put_channels([first, second])
    lock = text("SELECT FROM phantoms.channels WHERE name = :name FOR UPDATE")
    with world.engine.begin() as another:
        another.execute(lock, {"name": "first"})
        putting = asyncio.create_task(asyncio.to_thread(world.catalogue.put_channels, [second, first]))
        await asyncio.to_thread(world.until_blocked)
        await asyncio.to_thread(another.execute, lock, {"name": "second"})
    await putting
