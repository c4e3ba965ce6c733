"""The desk is killed in the middle of requests: nothing is half done, and sending a form again doubles nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from phantoms_dagster_tests.integration.desk_process import DeskProcess, open_process, plain, until, waiting_for_locks
from phantoms_dagster_tests.integration.desk_world import Browser, DeskWorld, open_desk

TABLES = ("audit_log", "pending_decisions", "bulk_actions")
GATE = 4711
PAUSE = f"""CREATE FUNCTION phantoms.pause() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock_shared({GATE}); RETURN NEW; END'"""
# Where a request stops: in the middle of its transaction, or in its COMMIT, of which the server makes an end without the desk.
POINTS = {
    "before it has written": "CREATE TRIGGER pause BEFORE INSERT ON phantoms.{} FOR EACH ROW EXECUTE FUNCTION phantoms.pause()",
    "between write and answer": """CREATE CONSTRAINT TRIGGER pause AFTER INSERT ON phantoms.{} DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION phantoms.pause()""",
}
DONE: dict[str, str] = {
    "approve": "SELECT 1 FROM phantoms.pending_decisions WHERE state = 'pending'",
    "edit": "SELECT 1 FROM phantoms.earlier_revisions",
    "move": "SELECT 1 FROM phantoms.videos WHERE publish_at IS NOT NULL",
    "add": "SELECT 1 FROM phantoms.videos WHERE title = 'Why bees dance'",
    "bulk": "SELECT 1 FROM phantoms.bulk_actions",
}
LOGGED = "SELECT action FROM phantoms.audit_log WHERE via = 'desk' AND action NOT IN ('log in', 'retry')"
Forms = dict[str, tuple[str, dict[str, Any]]]


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        opened.add_user("kim", "operator")
        yield opened


@pytest.fixture
async def desk(world: DeskWorld, database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskProcess]:
    async with open_process(tmp_path, database_url, redis_url, PHANTOMS_DESK_UNDO_SECONDS="3600") as running:
        yield running


async def forms_of(world: DeskWorld, browser: Browser) -> Forms:
    """Five filled-in forms, each about a different video."""
    approved, edited = await world.waiting(2)
    moved, retried = world.world.add(2, angle="Another one")
    asked = (await browser.get("/pipeline/act", params={"action": "retry", "key": retried})).text
    [mark] = re.findall(r'name="once" value="([^"]+)"', asked)
    await browser.get(f"/review/{edited}/edit")
    return {
        "approve": (f"/review/{approved}/decide", {"answer": "approve", "content": world.content(approved)}),
        "edit": (
            f"/review/{edited}/edit",
            {"content": world.content(edited), "caption": "Deeper.", "was-caption": "About the sea."},
        ),
        "move": (f"/calendar/{moved}/move", {"at": "2031-05-04T12:00", "was": ""}),
        "add": ("/add", {"title": "Why bees dance", "channel": "", "platforms": ["youtube"]}),
        "bulk": ("/pipeline/act", {"action": "retry", "key": [retried], "once": mark}),
    }


async def send(browser: Browser, form: tuple[str, dict[str, Any]]) -> httpx.Response:
    return await browser.post(*form)


@pytest.mark.parametrize("point", POINTS)
async def test_a_desk_that_is_killed_in_mid_request_leaves_nothing_half_done(
    world: DeskWorld, desk: DeskProcess, point: str
) -> None:
    written = point == "between write and answer"
    with plain(desk.database_url) as gate:
        async with desk.person("kim") as kim:
            forms = await forms_of(world, kim)
            assert not any(world.world.rows(statement) for statement in DONE.values())
            gate.execute(PAUSE)
            for table in TABLES:
                gate.execute(POINTS[point].format(table))
            gate.execute(f"SELECT pg_advisory_lock({GATE})")
            sent = [asyncio.create_task(send(kim, form)) for form in forms.values()]
            await until(lambda: waiting_for_locks(gate) == len(sent), "all of them wait")
            await desk.kill()
            answers = await asyncio.gather(*sent, return_exceptions=True)
            assert all(isinstance(answer, httpx.TransportError) for answer in answers), answers
            gate.execute(f"SELECT pg_advisory_unlock({GATE})")
            await until(lambda: not waiting_for_locks(gate), "PostgreSQL has ended what it began")
            for table in TABLES:
                gate.execute(f"DROP TRIGGER pause ON phantoms.{table}")  # waits until their transactions have ended

            # Each is done as a whole with its line in the audit log, or not at all.
            assert {name: len(world.world.rows(statement)) for name, statement in DONE.items()} == dict.fromkeys(DONE, int(written))
            logged = sorted(row["action"] for row in world.world.rows(LOGGED))
            assert logged == (["add video", "bulk retry", "edit brief", "edit texts"] if written else [])

            await desk.start()
            # The session, the form and its token are as good as before.
            again = {name: await send(kim, form) for name, form in forms.items()}
            first = {name: answer.status_code for name, answer in again.items()}
            if written:
                assert first == {"approve": 409, "edit": 409, "move": 303, "add": 422, "bulk": 303}
                assert "kim was first" in again["approve"].text
                assert "This brief already exists" in again["add"].text
            else:
                assert first == dict.fromkeys(forms, 303)
            [bulk] = world.world.rows("SELECT '/bulk/' || id AS page FROM phantoms.bulk_actions")
            assert again["bulk"].headers["location"] == bulk["page"]
            assert (await send(kim, forms["bulk"])).headers["location"] == bulk["page"]
            assert {name: len(world.world.rows(statement)) for name, statement in DONE.items()} == dict.fromkeys(DONE, 1)
            logged = sorted(row["action"] for row in world.world.rows(LOGGED))
            assert logged == ["add video", "bulk retry", "edit brief", "edit texts"]
            assert (await kim.get(bulk["page"])).status_code == 200
    assert "Traceback" not in desk.log.read_text()
