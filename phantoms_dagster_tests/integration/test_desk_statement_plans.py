"""The statements of the desk find their rows by an index, however many videos there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, TextClause, text

from phantoms_dagster.store import answers, audit, bulk, decision_rows, earlier, guest_links, holds, pending, text_edits, users
from phantoms_dagster.store.engine import engine
from phantoms_dagster.store.review import queue as review_queue

VIDEOS = 20_000
STATEMENTS: dict[str, tuple[TextClause, dict[str, Any]]] = {
    "the queue": (review_queue._QUEUE, {"channel": "", "limit": 200}),
    "the videos on hold": (review_queue._HELD, {"channel": "", "limit": 200}),
    "the counts of the queue": (review_queue._COUNTS, {}),
    "one video": (review_queue._SCREEN, {"key": "v7"}),
    "what is decided on": (decision_rows.LOOK, {"keys": ["v7"]}),
    "what is undecided": (decision_rows.UNDECIDED, {"limit": 1000}),
    "earlier revisions": (earlier._NEWEST, {"key": "v7", "current": 9, "limit": 20}),
    "a video that is edited": (text_edits._VIDEO, {"key": "v7"}),
    "its stages": (text_edits._STAGES, {"id": 7}),
    "its posts": (text_edits._POSTS, {"id": 7}),
    "what is kept of it": (text_edits._KEEP, {"ids": [7], "stage": "script"}),
    "holds": (holds.HELD, {"limit": 1000}),
    "decisions that are due": (pending._DUE, {"limit": 100}),
    "decisions of a person": (pending._OF, {"reviewer": "ann", "since": timedelta(seconds=20), "limit": 3}),
    "one decision": (pending._ONE, {"id": 7}),
    "an answer of the API": (answers.FOUND, {"who": "p1", "key": "k7", "kept": answers.KEPT}),
    "an answer that is known": (answers.KNOWN, {"who": "p1", "key": "k7", "kept": answers.KEPT}),
    "answers to forget": (answers.FORGET, {"kept": answers.KEPT}),
    "the lock of a decision": (decision_rows.LOCK_APPROVALS, {"keys": ["v7"]}),
    "a form that was sent twice": (bulk.MADE_ONCE, {"once": "o7", "who": "ann"}),
    "first approvals": (decision_rows.FIRSTS, {"keys": ["v7"]}),
    "a guest link": (guest_links._BY_SECRET, {"secret": "s7"}),
    "a guest link to revoke": (guest_links._LOCK_ID, {"id": 7}),
    "the guest links": (guest_links._NEWEST, {"before": guest_links.NEWEST, "limit": 51}),
    "the guest links of a video": (guest_links._OF_VIDEO, {"key": "v7", "before": guest_links.NEWEST, "limit": 51}),
    "a session": (users._SESSION, {"id": "x", "seen": 60}),
    "a token": (users._TOKEN, {"secret": "x", "seen": 60}),
    "a log-in": (users._CREDENTIALS, {"name": "kim"}),
    "the log": (audit._PAGES[""], {"before": audit.NEWEST, "limit": 51}),
    "the log of a video": (audit._PAGES["subject"], {"value": "v7", "before": audit.NEWEST, "limit": 51}),
    "the log of a person": (audit._PAGES["who"], {"value": "ann", "before": audit.NEWEST, "limit": 51}),
}
# They have a few rows, whatever there is to review: one for each channel, person or open decision.
SMALL = {"channels", "users", "api_tokens", "desk_sessions", "holds"}


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """Many finished videos, of which few wait for a decision."""
    made = engine(database_url)
    fill = """
        INSERT INTO phantoms.channels (name, config) VALUES ('facts', '{}');
        INSERT INTO phantoms.videos (key, channel, title, brief, platforms, source, fingerprint)
            SELECT 'v' || n, 'facts', 't', '{}', '{youtube}', 'test', 'f' || n FROM generate_series(1, :count) AS n;
        INSERT INTO phantoms.stages (video_id, stage, state, ready_at)
            SELECT v.id, s, CASE WHEN v.id % 500 = 0 AND s = 'approval' THEN 'ready' ELSE 'done' END, now()
            FROM phantoms.videos v, unnest(ARRAY['script', 'voiceover', 'rendered_video', 'approval']) AS s;
        INSERT INTO phantoms.attempts (video_id, stage, revision, generation, state)
            SELECT v.id, s, 1, 1, 'done' FROM phantoms.videos v, unnest(ARRAY['script', 'rendered_video']) AS s;
        INSERT INTO phantoms.approvals (video_id, approved, reviewer, content_sha256, via, decided_at)
            SELECT v.id, true, 'ann', 'x', 'desk', now() - interval '1 day' FROM phantoms.videos v WHERE v.id % 500 <> 0;
        INSERT INTO phantoms.pending_decisions (video_id, answer, reviewer, content_sha256, via, state, made_at, commit_at)
            SELECT v.id, 'approve', 'p' || v.id % 9, 'x', 'desk', 'committed', now() - interval '1 day', now() - interval '1 day'
            FROM phantoms.videos v;
        INSERT INTO phantoms.posts (video_id, platform, account, marker, video_sha256, caption_sha256)
            SELECT v.id, 'youtube', 'a', 'm', 'x', 'x' FROM phantoms.videos v;
        INSERT INTO phantoms.api_answers (who, key, body_sha256)
            SELECT 'p' || n % 9, 'k' || n, 'x' FROM generate_series(1, :count) AS n;
        INSERT INTO phantoms.earlier_revisions (video_id, revision, script, rendered)
            SELECT v.id, 1, '{}', '{}' FROM phantoms.videos v;
        INSERT INTO phantoms.first_approvals (video_id, person, reviewer, via, content_sha256)
            SELECT v.id, 'ann', 'ann', 'desk', 'x' FROM phantoms.videos v;
        INSERT INTO phantoms.guest_links (video_id, secret_sha256, guest, content_sha256, made_by, expires_at, decision_id)
            SELECT p.video_id, 's' || p.id, 'g', 'x', 'ann', now(), p.id FROM phantoms.pending_decisions p;
        INSERT INTO phantoms.audit_log (who, via, action, subject)
            SELECT 'p' || v.id % 9, 'desk', 'approve', v.key FROM phantoms.videos v;
        INSERT INTO phantoms.bulk_actions (action, who, via, state, once)
            SELECT 'retry', 'ann', 'desk', 'ended', 'o' || n FROM generate_series(1, :count) AS n
    """
    with made.begin() as connection:
        for statement in fill.split(";"):
            connection.execute(text(statement), {"count": VIDEOS} if ":count" in statement else {})
    with made.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("VACUUM ANALYZE"))
    yield made
    made.dispose()


def scans(node: Any) -> Iterator[str]:
    """The tables that a plan reads from their beginning to their end."""
    if isinstance(node, dict):
        if node.get("Node Type") == "Seq Scan":
            yield node["Relation Name"]
        for part in node.values():
            yield from scans(part)
    elif isinstance(node, list):
        for part in node:
            yield from scans(part)


def test_no_statement_of_the_desk_reads_a_whole_table(database: Engine) -> None:
    found = {}
    with database.connect() as connection:
        for name, (statement, values) in STATEMENTS.items():
            answer = connection.execute(text(f"EXPLAIN (FORMAT JSON) {statement.text}"), values).scalar_one()
            whole = set(scans(json.loads(answer) if isinstance(answer, str) else answer)) - SMALL
            if whole:
                found[name] = whole
    assert found == {}
