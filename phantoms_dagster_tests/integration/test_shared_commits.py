"""Many videos share a commit: one provider's answer must not fail another video, and no error contains a value."""

from __future__ import annotations

import asyncio
import math
import traceback
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.errors import Evidence, Transient
from phantoms_dagster.domain.stages import PostState
from phantoms_dagster.execution import storage
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster.store.rows import json_text
from phantoms_dagster_tests.integration.stage_world import PERSON, World, media_file, open_world
from phantoms_dagster_tests.integration.test_runner import MADE, SCRIPT_STAGE, runner

SECRET = "https://upload.example/session?token=abc"


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


ODD = [math.nan, math.inf, -math.inf, "a\x00b", "half \ud800", 10**5000, deep(5_000), {"k\x00": [math.nan]}]


@pytest.mark.parametrize("odd", ODD, ids=["nan", "inf", "minus inf", "nul", "surrogate", "digits", "depth", "key"])
async def test_what_no_jsonb_holds_is_replaced_on_its_way_in(world: World, odd: Any) -> None:
    (stored,) = world.rows("SELECT CAST(:value AS jsonb) AS value", value=json_text({"odd": odd, "plain": 1.5}))
    assert stored["value"]["plain"] == 1.5


async def test_an_answer_with_nan_does_not_fail_its_neighbours(world: World) -> None:
    keys = world.add(3)

    async def use_case(task: StageTask) -> StageResult:
        odd = task.video.key == keys[1]
        await task.attempt.received({"score": math.nan if odd else 1.0})
        return MADE

    results = await runner(world, use_case).run(SCRIPT_STAGE, keys, PERSON)
    assert [result.outcome for result in results] == ["done"] * 3
    assert world.attempts(keys[1], "script")[0]["response"] == {"score": "nan"}


async def test_only_the_post_that_cannot_be_written_fails(world: World) -> None:
    keys = world.add(2)
    await world.carry(keys, "script", "voiceover", "rendered_video", "approval", "youtube/variant")
    _, claims = await world.claim("youtube/post", keys)
    ledgers = PostgresLedgers(world.async_engine)
    posts = [
        await ledgers.post(c, account=f"a{n}", marker=f"m{n}", video=media_file("v"), caption="c", sandbox=True)
        for n, c in enumerate(claims.claimed)
    ]
    await asyncio.gather(*(post.save(PostState.OPENED, handle={"url": SECRET}) for post in posts))
    good, guilty = await asyncio.gather(
        posts[0].save(PostState.UPLOADING, offset=10), posts[1].save(PostState.UPLOADING, offset=2**70), return_exceptions=True
    )
    assert not isinstance(good, BaseException)
    assert isinstance(guilty, DBAPIError)
    assert [r["state"] for r in world.rows("SELECT state FROM phantoms.posts ORDER BY id")] == ["uploading", "opened"]


async def test_an_ending_that_cannot_be_written_becomes_a_letter_of_its_own_video(world: World) -> None:
    keys = world.add(2)

    async def use_case(task: StageTask) -> StageResult:
        if task.video.key == keys[0]:
            world.write("ALTER TABLE phantoms.attempts ADD CONSTRAINT odd CHECK (provider_ref IS DISTINCT FROM 'refused')")
            return StageResult(MADE.output, MADE.cost, "refused")
        return MADE

    results = await runner(world, use_case).run(SCRIPT_STAGE, keys, PERSON)
    assert [result.outcome for result in results] == ["failed", "done"]
    assert "cannot be stored" in world.letters(keys[0])[0]["message"]


async def test_an_attempt_that_cannot_be_closed_becomes_a_letter_of_its_own_video(world: World) -> None:
    keys = world.add(2)
    world.write("ALTER TABLE phantoms.attempts ADD CONSTRAINT odd CHECK (code IS DISTINCT FROM 'refused')")

    async def use_case(task: StageTask) -> StageResult:
        if task.video.key == keys[0]:
            raise Transient("overloaded", provider="llm", code="refused", evidence=Evidence(body=SECRET))
        return MADE

    results = await runner(world, use_case).run(SCRIPT_STAGE, keys, PERSON)
    assert [result.outcome for result in results] == ["failed", "done"]
    assert SECRET not in world.letters(keys[0])[0]["message"]


FAULTS = [
    ("SELECT CAST(:value AS jsonb)", f'{{"url": "{SECRET}", "n": NaN}}'),
    ("INSERT INTO phantoms.channels (name, config) VALUES (:value, '{}'), (:value, '{}')", SECRET),
    ("SELECT nothing FROM phantoms.channels WHERE name = :value", SECRET),
]


@pytest.mark.parametrize(("statement", "value"), FAULTS)
@pytest.mark.parametrize("whose", ["ours", "the runner's", "Dagster's"])
async def test_an_error_of_a_statement_repeats_no_value(world: World, whose: str, statement: str, value: str) -> None:
    async def ask() -> None:
        if whose == "the runner's":
            async with world.async_engine.begin() as connection:
                await connection.execute(text(statement), {"value": value})
            return
        database = world.engine if whose == "ours" else storage.engine(world.url.replace("+psycopg:", "+psycopg2:"))
        try:
            with database.connect() as connection:
                connection.execute(text(statement), {"value": value})
        finally:
            database.dispose()

    with pytest.raises(DBAPIError) as raised:
        await ask()
    said = "".join(traceback.format_exception(raised.value))
    assert "upload.example" not in said
    assert "token=abc" not in said


@pytest.mark.parametrize("whose", ["ours", "the runner's"])
async def test_an_error_of_the_driver_itself_repeats_no_value(world: World, whose: str) -> None:
    # PostgreSQL never saw it, so there is no error of its own to show instead.
    statement, given = text("SELECT CAST(:value AS text)"), {"value": f"{SECRET}\x00"}
    with pytest.raises(DBAPIError) as raised:  # noqa: PT012
        if whose == "ours":
            with world.engine.connect() as connection:
                connection.execute(statement, given)
        else:
            async with world.async_engine.connect() as runners:
                await runners.execute(statement, given)
    said = "".join(traceback.format_exception(raised.value))
    assert "upload.example" not in said
    assert "token=abc" not in said
