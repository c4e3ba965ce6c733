"""PostgreSQL goes away in the middle of a run: this decides nothing about a video, and work continues when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from sqlalchemy import make_url, text
from sqlalchemy.exc import DBAPIError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from phantoms_dagster.defs.away import fails_plainly_while_the_store_is_away, skips_while_the_store_is_away
from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.errors import StoreAway
from phantoms_dagster.store import transactions
from phantoms_dagster.store.away import is_away, store_errors
from phantoms_dagster.store.engine import async_engine, engine
from phantoms_dagster.store.transactions import statements, transaction
from phantoms_dagster_tests.integration.stage_world import PERSON, SENSOR, World, open_world
from phantoms_dagster_tests.integration.test_runner import MADE, SCRIPT_STAGE, Steps, runner

Switch = Callable[[bool], None]


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    async with open_world(database_url) as opened:
        yield opened


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transactions, "MAX_WAIT_SECONDS", 0.2)


@pytest.fixture
def administer(_admin: psycopg.Connection, database_url: str) -> Callable[[str], None]:
    """Changes the test's database, `{}` in the statement, from outside of it."""
    name = sql.Identifier(make_url(database_url).database or "")

    def change(statement: str) -> None:
        _admin.execute(sql.SQL(statement).format(name))

    return change


@pytest.fixture
def away(_admin: psycopg.Connection, administer: Callable[[str], None], database_url: str) -> Iterator[Switch]:
    """Closes the test's database to all connections, or opens it again."""
    name = make_url(database_url).database or ""

    def switch(closed: bool) -> None:
        administer("ALTER DATABASE {} ALLOW_CONNECTIONS " + str(not closed))
        if closed:
            _admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))

    yield switch
    switch(False)


async def test_postgresql_going_away_inside_a_use_case_decides_nothing_about_the_video(world: World, away: Switch) -> None:
    key = world.add()[0]

    async def use_case(task: StageTask) -> StageResult:
        away(True)
        try:
            await task.attempt.received({"paid": True})
        finally:
            away(False)  # back before the runner says what is to become of the video
        raise AssertionError("it was not written")

    with pytest.raises(StoreAway, match="PostgreSQL is away"):
        await runner(world, use_case).run(SCRIPT_STAGE, [key], PERSON)
    row = world.row(key, "script")
    assert (row["state"], row["attempts"], world.letters(key)) == ("deferred", 0, [])
    assert (await runner(world, Steps(), owner="second").run(SCRIPT_STAGE, [key], SENSOR))[0].outcome == "done"


async def test_a_run_that_breaks_off_lets_calls_under_way_end_and_gives_back_what_it_did_not_finish(world: World) -> None:
    keys = world.add(3)
    first = keys[0]
    began, broke = asyncio.Event(), asyncio.Event()

    async def use_case(task: StageTask) -> StageResult:
        if task.video.key == first:
            await began.wait()
            broke.set()
            raise StoreAway("the server closed the connection")
        began.set()
        await broke.wait()
        await asyncio.sleep(0)
        return MADE

    with pytest.raises(StoreAway):
        await runner(world, use_case, in_flight=2).run(SCRIPT_STAGE, keys, PERSON)
    assert world.states("script") == ["deferred", "done", "deferred"]
    assert [world.row(key, "script")["attempts"] for key in keys] == [0, 0, 0]
    assert not any(world.letters(key) for key in keys)


async def test_a_database_that_became_read_only_is_away_and_its_connections_are_not_used_again(
    world: World, administer: Callable[[str], None]
) -> None:
    key = world.add()[0]
    async with world.async_engine.begin() as connection:  # as a failover leaves it: an open connection to what is now a standby
        await connection.execute(text("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"))
    administer("ALTER DATABASE {} SET default_transaction_read_only = on")
    store = world.store()
    with pytest.raises(StoreAway, match="read-only"):
        await store.claim(SCRIPT_STAGE, [key], owner="me", context=PERSON)
    administer("ALTER DATABASE {} RESET default_transaction_read_only")
    assert (await store.claim(SCRIPT_STAGE, [key], owner="me", context=PERSON)).claimed


async def test_a_full_pool_of_connections_is_not_a_fault_of_the_work(database_url: str) -> None:
    database = async_engine(database_url, pool_size=1)
    database.pool._timeout = 0.05  # type: ignore[attr-defined]
    try:
        async with database.connect():
            with pytest.raises(StoreAway, match="QueuePool"):
                await transaction(statements(database), lambda c: c.execute(text("SELECT 1")))
    finally:
        await database.dispose()


AWAY = (
    "08006",
    "28P01",
    "40001",
    "40P01",
    "53100",
    "53200",
    "53300",
    "57014",
    "57P01",
    "57P03",
    "58030",
    "25006",
    "25P03",
    "55P03",
)


@pytest.mark.parametrize("code", AWAY)
async def test_what_the_server_says_of_itself_is_not_about_the_work(world: World, code: str) -> None:
    with pytest.raises(StoreAway, match="it says so"):
        await transaction(world.async_engine, lambda connection: refuse(connection, code))


@pytest.mark.parametrize("code", ["22P02", "22003", "23505", "42P01", "42601", "54000", "P0001"])
async def test_what_is_wrong_with_the_work_stays_visible_as_such(world: World, code: str) -> None:
    with pytest.raises(DBAPIError) as refused:
        await transaction(world.async_engine, lambda connection: refuse(connection, code))
    assert not is_away(refused.value)


async def refuse(connection: AsyncConnection, code: str) -> None:
    await connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION 'it says so' USING ERRCODE = '{code}'; END $$"))


async def test_a_statement_that_was_planned_before_a_migration_is_planned_again(world: World) -> None:
    look = text("SELECT * FROM phantoms.channels")
    await transaction(world.async_engine, lambda c: c.execute(look))
    await transaction(world.async_engine, lambda c: c.execute(look))
    world.write("ALTER TABLE phantoms.channels ADD COLUMN colour text")
    names = await transaction(world.async_engine, _names)
    assert "colour" in names


async def _names(connection: AsyncConnection) -> list[str]:
    return list((await connection.execute(text("SELECT * FROM phantoms.channels"))).keys())


def test_a_sensor_and_an_op_say_in_one_line_that_postgresql_is_away(database_url: str, away: Switch) -> None:
    with looking(database_url) as look:

        @skips_while_the_store_is_away
        def sensor() -> dg.SkipReason:
            look()
            return dg.SkipReason("nothing new")

        @skips_while_the_store_is_away
        def requesting() -> Iterator[dg.SkipReason]:
            look()
            yield dg.SkipReason("nothing new")

        assert sensor().skip_message == "nothing new"
        away(True)
        assert "PostgreSQL is away" in (sensor().skip_message or "")
        assert ["PostgreSQL is away" in (skip.skip_message or "") for skip in requesting()] == [True]
        with pytest.raises(dg.Failure) as failed:
            fails_plainly_while_the_store_is_away(look)()
        assert "PostgreSQL is away" in (failed.value.description or "")
        assert failed.value.allow_retries
        assert "\n" not in (failed.value.description or "")


def test_a_wrong_statement_is_not_taken_for_an_absence(database_url: str) -> None:
    with looking(database_url, "SELECT * FROM nothing") as look, pytest.raises(ProgrammingError), store_errors():
        look()


@contextmanager
def looking(url: str, statement: str = "SELECT 1") -> Iterator[Callable[[], None]]:
    database = engine(url)

    def look() -> None:
        with database.connect() as connection:
            connection.execute(text(statement))

    try:
        yield look
    finally:
        database.dispose()
