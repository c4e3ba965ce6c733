"""Public ids that come late: asked for with growing gaps, written into ledger and output, never for posts that get none."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, event

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.late_ids import LOOKUP_AGES, LatePost, next_lookup
from phantoms_dagster.domain.models import Platform, PostOutput
from phantoms_dagster.domain.ports import FoundPost
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.production.late_ids import MOST_AT_ONCE, LookupRound, find_late_ids
from phantoms_dagster.registry.spec import LateIdRule
from phantoms_dagster.store.late_ids import LateIdTable
from phantoms_dagster_tests.integration.stage_world import NOON, FakeClock, World, open_world

NUMBER = "7400000000000000042"


class Finder:
    """TikTok as far as public ids go: the answers by publish_id; an error to raise instead."""

    provider = "tiktok"
    platform = Platform("tiktok")
    sandbox = True

    def __init__(self, **known: str) -> None:
        self.known = known
        self.asked: list[tuple[str, str, bool]] = []
        self.errors: dict[str, Exception] = {}

    async def public_id(self, account: str, handle: JsonObject, *, last: bool) -> FoundPost | None:
        self.asked.append((account, str(handle["publish_id"]), last))
        if account in self.errors:
            raise self.errors[account]
        number = self.known.get(str(handle["publish_id"]))
        return None if number is None else FoundPost(number, f"https://www.tiktok.com/@a/video/{number}")


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as made:
        yield made


async def posted(
    world: World,
    publish_id: str,
    *,
    ago: timedelta = timedelta(minutes=2),
    account: str = "a",
    kind: str | None = None,
    **changes: Any,
) -> str:
    """A video whose TikTok post settled with its publish_id that long ago."""
    [key] = world.add(platforms=(Platform("tiktok"),))
    output = PostOutput(
        platform=Platform("tiktok"),
        account=account,
        remote_id=publish_id,
        url="https://www.tiktok.com/@a",
        published_at=NOON,
        sandbox=True,
    )
    stages = ("script", "voiceover", "rendered_video", "approval", "tiktok/variant", "tiktok/post")
    await world.carry([key], *stages, outputs={"tiktok/post": output})
    given = {"privacy": "PUBLIC_TO_EVERYONE", "sandbox": True, "remote_id": publish_id, **changes}
    world.write(
        """INSERT INTO phantoms.posts (video_id, platform, account, state, marker, remote_id, url, handle, sandbox, video_sha256,
                caption_sha256, published_at)
            SELECT id, 'tiktok', :account, 'confirmed', key, :remote_id, 'https://www.tiktok.com/@a',
                jsonb_strip_nulls(jsonb_build_object(
                    'publish_id', CAST(:publish_id AS text), 'privacy', CAST(:privacy AS text), 'kind', CAST(:kind AS text)
                )), :sandbox, '', '',
                clock_timestamp() - :ago
            FROM phantoms.videos WHERE key = :key""",
        key=key,
        account=account,
        publish_id=publish_id,
        ago=ago,
        kind=kind,
        **given,
    )
    return key


def table(world: World) -> LateIdTable:
    rule = Platform("tiktok").spec.late_ids
    assert rule is not None
    return LateIdTable(world.engine, Platform("tiktok"), rule)


async def a_round(world: World, finder: Finder) -> LookupRound:
    clock = FakeClock()
    clock.time = datetime.now(UTC)
    done = LookupRound()
    await find_late_ids(table(world), {Platform("tiktok"): finder}, clock, done, sandbox=True)
    return done


def due(world: World) -> list[LatePost]:
    return list(table(world).due(sandbox=True, most=100))


async def test_a_public_id_that_came_late_is_written_into_the_ledger_and_the_output(world: World) -> None:
    key = await posted(world, "v_pub_file~1")
    done = await a_round(world, Finder(**{"v_pub_file~1": NUMBER}))
    assert [post.video_key for post in done.found] == [key]
    [row] = world.rows("SELECT remote_id, url FROM phantoms.posts")
    assert dict(row) == {"remote_id": NUMBER, "url": f"https://www.tiktok.com/@a/video/{NUMBER}"}
    output = world.row(key, "tiktok/post")["output"]
    assert (output["remote_id"], output["url"]) == (NUMBER, f"https://www.tiktok.com/@a/video/{NUMBER}")
    assert due(world) == []


async def test_posts_that_never_get_a_public_id_are_never_asked_for(world: World) -> None:
    await posted(world, "v_pub_file~1", privacy="SELF_ONLY")
    await posted(world, "v_pub_file~2", privacy="MUTUAL_FOLLOW_FRIENDS")
    await posted(world, "v_pub_file~3", remote_id=NUMBER)
    await posted(world, "v_pub_file~4", sandbox=False)
    await posted(world, "v_pub_file~5", ago=timedelta(seconds=5))
    finder = Finder()
    assert await a_round(world, finder) == LookupRound()
    assert finder.asked == []


async def test_the_gaps_between_two_questions_grow_and_end_after_a_week(world: World) -> None:
    await posted(world, "v_pub_file~1")
    finder = Finder()
    done = await a_round(world, finder)
    assert done.waiting == 1
    assert due(world) == []
    [row] = world.rows("SELECT l.ask_at - p.published_at AS age FROM phantoms.late_ids l JOIN phantoms.posts p ON p.id = l.post_id")
    assert row["age"] == timedelta(minutes=5)
    world.write("UPDATE phantoms.posts SET published_at = published_at - interval '8 days'")
    world.write("UPDATE phantoms.late_ids SET ask_at = ask_at - interval '8 days'")
    done = await a_round(world, finder)
    assert len(done.given_up) == 1
    assert [last for _, _, last in finder.asked] == [False, True]
    world.write("UPDATE phantoms.late_ids SET ask_at = clock_timestamp() - interval '1 day'")
    assert due(world) == []


def test_a_post_is_asked_for_at_1_5_15_and_60_minutes_then_hourly_and_daily() -> None:
    asked, at = [], NOON
    while (again := next_lookup(NOON, at)) is not None:
        asked.append(again - NOON)
        at = again
    assert asked[:5] == [timedelta(minutes=m) for m in (1, 5, 15, 60, 120)]
    assert asked[-6:] == [timedelta(hours=48), *(timedelta(days=d) for d in range(3, 8))]
    assert asked == list(LOOKUP_AGES)
    assert next_lookup(NOON, NOON + timedelta(hours=30, minutes=10)) == NOON + timedelta(hours=31), "an outage makes no backlog"


async def test_an_account_that_cannot_be_asked_holds_up_no_other_and_gives_nothing_up(world: World) -> None:
    await posted(world, "v_pub_file~1", ago=timedelta(days=9), account="away")
    await posted(world, "v_pub_file~2", account="here")
    finder = Finder(**{"v_pub_file~2": NUMBER})
    finder.errors["away"] = Permanent("reconnect the TikTok account", provider="tiktok", code="access_token_invalid")
    done = await a_round(world, finder)
    assert len(done.found) == 1
    assert done.failures == {"tiktok:away": "reconnect the TikTok account"}
    [row] = world.rows("SELECT given_up, ask_at > clock_timestamp() AS later FROM phantoms.late_ids")
    assert (row["given_up"], row["later"]) == (False, True)


async def test_one_account_is_asked_for_few_posts_in_a_round(world: World) -> None:
    for number in range(MOST_AT_ONCE + 2):
        await posted(world, f"v_pub_file~{number}")
    finder = Finder()
    await a_round(world, finder)
    assert len(finder.asked) == MOST_AT_ONCE
    await a_round(world, finder)
    assert len(finder.asked) == MOST_AT_ONCE + 2


async def test_a_number_that_another_post_has_is_not_given_to_a_second_one(world: World) -> None:
    await posted(world, "v_pub_file~1", remote_id=NUMBER)
    await posted(world, "v_pub_file~2")
    await a_round(world, Finder(**{"v_pub_file~2": NUMBER}))
    assert [row["remote_id"] for row in world.rows("SELECT remote_id FROM phantoms.posts ORDER BY id")] == [NUMBER, "v_pub_file~2"]
    assert due(world) == []


async def test_each_platform_says_which_of_its_posts_lack_their_public_id(world: World) -> None:
    """Only TikTok's posts were ever asked for, whatever platform had late ids."""
    await posted(world, "v_pub_file~1")
    await posted(world, "it's:50%", kind="draft")
    await posted(world, "public-1", kind="draft")
    await posted(world, "lost", kind="secret")
    world.write("UPDATE phantoms.posts SET platform = 'youtube' WHERE handle ? 'kind'")
    late = LateIdTable(world.engine, Platform("youtube"), LateIdRule("^(public|it's:%)-", ({"kind": "draft"}, {"kind": "sketch"})))
    [post] = late.due(sandbox=True, most=100)
    assert (post.platform, post.handle["publish_id"]) == ("youtube", "it's:50%")
    late.save(post, FoundPost("public-2", "https://example.com/2"))
    assert late.due(sandbox=True, most=100) == []
    assert [one.handle["publish_id"] for one in due(world)] == ["v_pub_file~1"]


def test_the_index_of_posts_without_a_public_id_also_serves_a_plan_that_knows_no_values(world: World) -> None:
    """A prepared statement may have such a plan."""
    plan: list[str] = []

    def explain(connection: Connection, _cursor: Any, statement: str, _values: Any, *_rest: Any) -> None:
        if "AS due_at" not in statement or statement.startswith("PREPARE"):
            return
        numbers = {name: n for n, name in enumerate(dict.fromkeys(re.findall(r"%\((\w+)\)s", statement)), 1)}
        prepared = re.sub(r"%\((\w+)\)s", lambda match: f"${numbers[match[1]]}", statement)
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off; SET LOCAL plan_cache_mode = force_generic_plan")
        connection.exec_driver_sql(f"PREPARE late AS {prepared}")
        plan.extend(
            str(row[0]) for row in connection.exec_driver_sql(f"EXPLAIN EXECUTE late({', '.join(['NULL'] * len(numbers))})")
        )

    event.listen(world.engine, "before_cursor_execute", explain)
    try:
        due(world)
    finally:
        event.remove(world.engine, "before_cursor_execute", explain)
    assert any("posts_without_public_id" in line for line in plan), plan
