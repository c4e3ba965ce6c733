"""What the desk reads is found by an index, at a hundred thousand videos and a million attempts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text

from phantoms_dagster.domain.search import parse
from phantoms_dagster.store import board, bulk, issues
from phantoms_dagster.store.engine import engine
from phantoms_dagster_tests.integration.test_statement_plans import reads

VIDEOS = 100_000
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LARGE = ("videos", "stages", "attempts", "dead_letters", "bulk_items", "audit_log", "posts", "renders")
SEARCHES = (
    "",
    "ocean",
    "state:failed",
    "state:done",
    "state:held",
    "state:retired",
    "stage:post",
    "stage:post state:failed",
    "stage:script state:done",
    "stage:render state:deferred channel:facts since:6h platform:tiktok",
    "channel:facts",
    "since:6h",
    "platform:tiktok",
    "priority:1",
)
_FILL = """
    INSERT INTO phantoms.channels (name, config) VALUES ('facts', '{}'), ('other', '{}');
    INSERT INTO phantoms.videos (key, channel, title, brief, platforms, source, fingerprint, priority, created_at)
    SELECT 'v-' || n, CASE WHEN n % 50 = 0 THEN 'facts' ELSE 'other' END, 'Ocean ' || n, '{}', '{youtube,tiktok}', 'test', 'f' || n,
        5, now() - n * interval '1 minute'
    FROM generate_series(1, :videos) AS n;
    INSERT INTO phantoms.stages (video_id, stage, state)
    SELECT v.id, s.name, CASE WHEN v.id % 500 = 0 AND s.place = 8 THEN 'failed' WHEN v.id % 300 = 0 AND s.place = 3 THEN 'deferred'
        WHEN v.id % 100 = 0 AND s.place > 3 THEN 'blocked' ELSE 'done' END
    FROM phantoms.videos v, unnest(ARRAY['script', 'voiceover', 'rendered_video', 'approval', 'youtube/variant', 'youtube/post',
        'tiktok/variant', 'tiktok/post']) WITH ORDINALITY AS s(name, place);
    INSERT INTO phantoms.attempts (video_id, stage, revision, generation, provider, state)
    SELECT v.id, 'script', 1, 1, 'openai', 'ok' FROM phantoms.videos v, generate_series(1, 10);
    INSERT INTO phantoms.dead_letters (video_id, stage, revision, provider, error_class, code, message, attempts)
    SELECT v.id, 'tiktok/post', 1, 'tiktok', 'transient', (v.id % 400)::text, 'upload ' || v.id || ' failed', '[]'
    FROM phantoms.videos v WHERE v.id % 10 = 0;
    INSERT INTO phantoms.posts (video_id, platform, account, marker, video_sha256, caption_sha256)
    SELECT v.id, 'tiktok', 'a', 'm', 'x', 'x' FROM phantoms.videos v;
    INSERT INTO phantoms.renders (video_id, revision) SELECT v.id, 1 FROM phantoms.videos v;
    INSERT INTO phantoms.bulk_actions (action, who, via) SELECT 'retry', 'ann', 'desk' FROM generate_series(1, 50);
    INSERT INTO phantoms.bulk_items (bulk_id, n, key)
    SELECT b, n, 'v-' || n FROM generate_series(1, 50) b, generate_series(1, 1000) n;
"""


@pytest.fixture(scope="module")
def filled(module_database_url: str) -> Iterator[Engine]:
    """A database of a busy year."""
    database = engine(module_database_url)
    with database.begin() as connection:
        # The rows fit one another: the keys between tables need not be checked one by one.
        connection.execute(text("SET LOCAL session_replication_role = replica"))
        for statement in _FILL.split(";"):
            if statement.strip():
                connection.execute(text(statement), {"videos": VIDEOS} if ":videos" in statement else {})
    with database.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    yield database
    database.dispose()


def plan(database: Engine, statement: str, values: dict[str, Any]) -> Any:
    with database.connect() as connection:
        answer = connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement}"), values).scalar_one()
        return json.loads(answer) if isinstance(answer, str) else answer


def assert_indexed(database: Engine, statement: str, values: dict[str, Any]) -> None:
    found = set(reads(plan(database, statement, values)))
    assert not [place for place, kind in found if kind == "Seq Scan" and place in LARGE], found


@pytest.mark.parametrize("typed", SEARCHES)
def test_every_search_is_answered_along_an_index(filled: Engine, typed: str) -> None:
    search = parse(typed, now=datetime.now(UTC))
    conditions, values = board.conditions_of(search)
    page = f"SELECT {board._ROW} FROM phantoms.videos v WHERE v.id < :before{conditions} ORDER BY v.id DESC LIMIT :limit"
    assert_indexed(filled, page, {**values, "before": board.NEWEST, "limit": 51})
    counted, values = board.count_of(search)
    assert_indexed(filled, counted.text, values)
    keys, values = board.key_statement(search)
    assert_indexed(filled, keys.text, {**values, "limit": 10_001})


@pytest.mark.parametrize(
    ("statement", "values"),
    [
        (board.COUNTS, {}),
        (bulk.LATEST, {"before": bulk.NEWEST, "limit": 51}),
        (bulk.ONE, {"id": 7}),
        (bulk.COUNTED, {"ids": [7, 8]}),
        (bulk.ITEMS, {"id": 7, "state": "pending", "after": 0, "limit": 51}),
        (bulk.OPEN, {}),
        (bulk.NEXT, {"id": 7}),
        (bulk.CANARY, {"id": 7}),
        (issues.ALL, {"limit": issues.MOST_ISSUES}),
        (issues.ONE, {"cause": "c"}),
        (issues.TREND, {"causes": ["c", "d"], "since": "2026-11-12T00:00:00+00:00"}),
        (issues.LETTERS["open"], {"cause": "c", "before": issues.NEWEST, "limit": 51}),
        (issues.LETTERS["closed"], {"cause": "c", "before": issues.NEWEST, "limit": 51}),
        (issues.CHOSEN, {"cause": "c", "ids": None, "limit": 10_000}),
        (issues.CHOSEN, {"cause": "c", "ids": [7, 8], "limit": 10_000}),
        (issues._SAY, {"cause": "c", "state": "resolved", "seen": 7, "by": "ann", "note": ""}),
    ],
)
def test_everything_else_that_pages_read_is_found_by_an_index(filled: Engine, statement: Any, values: dict[str, Any]) -> None:
    assert_indexed(filled, statement.text, values)
