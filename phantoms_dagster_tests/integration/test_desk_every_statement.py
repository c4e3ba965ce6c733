"""Every statement of the desk's pages finds its rows by an index, in the tables of a busy year.

The statements are collected where SQLAlchemy sends them, so none can be forgotten; each is explained with the values that it had.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from phantoms_dagster.desk.access import ROLES
from phantoms_dagster.desk.upkeep import advance_bulk_actions, commit_due
from phantoms_dagster.store.engine import engine
from phantoms_dagster_tests.benchmarks.desk_pages import PAGES, Samples, addresses, left_out
from phantoms_dagster_tests.benchmarks.desk_tables import fill
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk

VIDEOS = 20_000
ROUNDS = 8
# Tables with fewer rows than this are read as they are: a channel, a person, a session, an open decision each.
SMALL = 500
# Blocks of 8 kB that one statement may touch: what a page shows, and not what there is.
MOST_BLOCKS = 6_000


class Said:
    """The statements of one engine, each with the values it was said with first."""

    def __init__(self, database: Engine) -> None:
        self.statements: dict[str, Any] = {}
        self.by_page: dict[str, str] = {}
        self.page = ""
        event.listen(database, "before_cursor_execute", self._hear)

    def _hear(self, connection: Connection, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        del connection, cursor, context, many
        words = statement.lstrip().upper()
        if words.startswith(("SELECT", "WITH")) and statement not in self.statements:
            self.statements[statement] = parameters
            self.by_page[statement] = self.page


@pytest.fixture
async def desk(module_database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(module_database_url, redis_url, tmp_path) as opened:
        yield opened


@pytest.fixture(scope="module")
def counted(module_database_url: str) -> Iterator[Mapping[str, int]]:
    """The tables are full; how many rows they have."""
    database = engine(module_database_url)
    yield fill(database, videos=VIDEOS)
    database.dispose()


def test_every_page_that_can_be_opened_is_measured() -> None:
    """A new page gets an address in `benchmarks.desk_pages`; then it is measured, and what it says is explained here."""
    assert left_out() == set()
    assert {route for route in PAGES if ("GET", route) not in ROLES} == set()


async def test_every_statement_finds_its_rows_by_an_index_and_touches_little(counted: Mapping[str, int], desk: DeskWorld) -> None:
    large = {table for table, rows in counted.items() if rows >= SMALL}
    assert {"videos", "stages", "attempts", "posts", "dead_letters", "audit_log", "video_performance"} <= large
    samples = Samples.of(desk.world.engine)
    browser = await desk.logged_in("olga", "operator")
    said = Said(desk.desk.services.engine)
    for number in range(ROUNDS):
        for name, address in addresses(samples, number).items():
            said.page = f"{name}: {address}"
            answer = await browser.get(address)
            assert answer.status_code in (200, 303), (address, answer.text[:500])
    said.page = "what the desk does by itself"
    await asyncio.to_thread(commit_due, desk.desk.pending)
    await asyncio.to_thread(advance_bulk_actions, desk.desk.bulk)
    await asyncio.to_thread(desk.desk.queue.counts)
    assert len(said.statements) > 40
    wrong = {}
    with desk.world.engine.connect() as connection:
        for statement, values in said.statements.items():
            found = plan_of(connection, statement, values)
            whole = {table for table in whole_reads(found["Plan"]) if table in large}
            blocks = found["Plan"]["Shared Hit Blocks"] + found["Plan"]["Shared Read Blocks"]
            if whole or blocks > MOST_BLOCKS:
                wrong[" ".join(statement.split())] = (said.by_page[statement], whole, blocks)
    told = [f"{page}\n  reads all of {whole or 'nothing'}, {n} blocks\n  {said}" for said, (page, whole, n) in wrong.items()]
    assert not wrong, "\n\n".join(told)


def plan_of(connection: Connection, statement: str, values: Any) -> dict[str, Any]:
    """PostgreSQL's plan for it. The changes are rolled back."""
    with connection.begin_nested() as savepoint:
        answer = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", values).scalar_one()
        savepoint.rollback()
    found = json.loads(answer) if isinstance(answer, str) else answer
    return dict(found[0])


def whole_reads(node: Any) -> Iterator[str]:
    """The tables that a plan reads from their beginning to their end."""
    if isinstance(node, dict):
        if node.get("Node Type") == "Seq Scan" and node.get("Actual Loops", 1):
            yield node["Relation Name"]
        for part in node.values():
            yield from whole_reads(part)
    elif isinstance(node, list):
        for part in node:
            yield from whole_reads(part)


def test_a_statement_that_reads_a_whole_table_is_noticed(counted: Mapping[str, int], module_database_url: str) -> None:
    assert counted["attempts"] > SMALL
    database = engine(module_database_url)
    said = Said(database)
    with database.connect() as connection:
        connection.execute(text("SELECT count(*) FROM phantoms.attempts WHERE message = :said"), {"said": "no"})
        [(statement, values)] = said.statements.items()
        found = plan_of(connection, statement, values)
    database.dispose()
    assert set(whole_reads(found["Plan"])) == {"attempts"}
