"""A batch costs what its rows cost, no matter what PostgreSQL's statistics say: rows of stages are found by their key."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy import TextClause, text

from phantoms_dagster.store import claims, ledgers, outcomes
from phantoms_dagster_tests.integration.stage_world import World, open_world

VIDEOS = 3000
STATEMENTS: dict[str, tuple[TextClause, dict[str, Any]]] = {
    "an outcome": (outcomes._FINISH, {"rows": "[]", "next": "[]"}),
    "an attempt's end": (outcomes._CLOSE_ATTEMPTS, {"rows": "[]"}),
    "the next attempt": (outcomes._NEXT_ATTEMPT, {"rows": "[]"}),
    "a dead letter": (outcomes._BURY, {"rows": "[]"}),
    "a doubt": (outcomes._STILL_OURS, {"rows": "[]"}),
    "a step of a post": (ledgers._SAVE_POSTS, {"rows": "[]"}),
    "a step of a render": (ledgers._SAVE_RENDERS, {"rows": "[]"}),
    "a look at what was claimed": (claims._LOOK, {"stage": "voiceover", "keys": ["a"], "needs": ["script"], "before": ["script"]}),
}


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """Thousands are running, of which PostgreSQL has not heard: its statistics are of when none was."""
    async with open_world(database_url) as opened:
        opened.write(
            """WITH v AS (
                INSERT INTO phantoms.videos (key, channel, title, brief, platforms, source, fingerprint)
                SELECT 'v' || n, 'facts', 't', '{}', '{youtube}', 'test', 'f' || n FROM generate_series(1, :count) AS n
                RETURNING id)
            INSERT INTO phantoms.stages (video_id, stage, state)
            SELECT v.id, s, 'blocked' FROM v, unnest(ARRAY['script', 'voiceover', 'rendered_video', 'approval']) AS s""",
            count=VIDEOS,
        )
        with opened.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE phantoms.stages"))
        opened.write("UPDATE phantoms.stages SET state = 'running', lease_owner = 'r' WHERE stage = 'voiceover'")
        yield opened


def reads(node: Any) -> Iterator[tuple[str, str]]:
    """How each scan of a plan finds its rows: the table or index, and the kind of node."""
    if isinstance(node, dict):
        if "Scan" in node.get("Node Type", ""):
            yield node.get("Index Name") or node.get("Relation Name") or "", node["Node Type"]
        for part in node.values():
            yield from reads(part)
    elif isinstance(node, list):
        for part in node:
            yield from reads(part)


async def plan(world: World, statement: TextClause, values: dict[str, Any]) -> Any:
    async with world.async_engine.connect() as connection:
        found = await connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}"), values)
        answer = found.scalar_one()
        return json.loads(answer) if isinstance(answer, str) else answer


@pytest.mark.parametrize("name", STATEMENTS)
async def test_the_rows_of_a_batch_are_found_by_their_primary_key(world: World, name: str) -> None:
    found = set(reads(await plan(world, *STATEMENTS[name])))
    of_stages = {(place, kind) for place, kind in found if place.startswith("stages")}
    assert {place for place, _ in of_stages} == {"stages_pkey"}, found


async def test_a_runner_plans_a_statement_once_a_connection(world: World) -> None:
    async with world.async_engine.connect() as connection:
        for _ in range(3):
            await connection.execute(outcomes._STILL_OURS, {"rows": "[]"})
        plans = "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE position(:start in statement) BETWEEN 1 AND 9"
        counted = await connection.execute(text(plans), {"start": "SELECT g.video_id"})
        assert [tuple(row) for row in counted] == [(3, 0)]
