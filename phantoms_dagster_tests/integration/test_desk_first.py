"""Two people decide on one video at the same moment, in real sessions: one counts, and the other person hears who was first."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from phantoms_dagster.cli.main import app
from phantoms_dagster_tests.integration.desk_process import DeskProcess, open_process, plain, until, waiting_for_locks
from phantoms_dagster_tests.integration.desk_world import Browser, DeskWorld, open_desk

LOCK = "SELECT v.id FROM phantoms.videos v JOIN phantoms.stages s ON s.video_id = v.id WHERE v.key = %s FOR UPDATE"


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        for name in ("ann", "ben"):
            opened.add_user(name)
        yield opened


@pytest.fixture
async def desk(world: DeskWorld, database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskProcess]:
    async with open_process(tmp_path, database_url, redis_url) as running:
        yield running


def decide(world: DeskWorld, browser: Browser, key: str, answer: str) -> asyncio.Task[httpx.Response]:
    form = {"answer": answer, "content": world.content(key), "note": "wrong fact" if answer == "reject" else ""}
    return asyncio.create_task(browser.post(f"/review/{key}/decide", form))


@pytest.mark.parametrize(("one", "other"), [("approve", "approve"), ("approve", "reject"), ("hold", "approve")])
async def test_of_two_sessions_that_decide_at_once_one_counts_and_the_other_is_told_who_was_first(
    world: DeskWorld, desk: DeskProcess, one: str, other: str
) -> None:
    """Both sessions wait for the same row before either of them reads it."""
    [key] = await world.waiting()
    async with desk.person("ann") as ann, desk.person("ben") as ben:
        for browser in (ann, ben):
            await browser.get(f"/review/{key}")
        with plain(desk.database_url) as gate, plain(desk.database_url) as look:
            with gate.transaction():
                gate.execute(LOCK, [key])
                both = [decide(world, ann, key, one), decide(world, ben, key, other)]
                await until(lambda: waiting_for_locks(look) == 2, "both wait")
            answers = await asyncio.gather(*both)
    assert sorted(answer.status_code for answer in answers) == [303, 409], [answer.text for answer in answers]
    first, said = ("ann", one) if answers[0].status_code == 303 else ("ben", other)
    [loser] = [answer for answer in answers if answer.status_code == 409]
    assert f"{first} was first" in loser.text
    assert "Somebody else was first" in loser.text
    [pending] = world.world.rows("SELECT reviewer, answer FROM phantoms.pending_decisions")
    assert (pending["reviewer"], pending["answer"]) == (first, said)


@pytest.mark.parametrize("first", ["the desk", "the command line"])
@pytest.mark.parametrize("typed", ["approve", "reject", "hold"])
async def test_of_the_desk_and_the_command_line_at_once_one_counts_and_the_other_is_told_so(
    world: DeskWorld, desk: DeskProcess, monkeypatch: pytest.MonkeyPatch, typed: str, first: str
) -> None:
    """The first to wait for the row gets it first. The other had begun to read before that decision was there."""
    for name in ("PHANTOMS_HOME", "PHANTOMS_DATABASE_URL"):
        monkeypatch.setenv(name, desk.environment[name])
    [key] = await world.waiting()
    # Imports now what the command needs: a page waits for a lock for some seconds only.
    assert (await asyncio.to_thread(CliRunner().invoke, app, ["unhold", key])).exit_code == 2

    def type_it() -> asyncio.Task[Result]:
        command = [typed, key, "--reviewer", "ben", "--note", "wrong fact"]
        return asyncio.create_task(asyncio.to_thread(CliRunner().invoke, app, command, env={"COLUMNS": "200"}))

    async with desk.person("ann") as ann:
        await ann.get(f"/review/{key}")
        with plain(desk.database_url) as gate, plain(desk.database_url) as look:
            with gate.transaction():
                gate.execute(LOCK, [key])
                typing = type_it() if first != "the desk" else None
                if typing is not None:
                    await until(lambda: waiting_for_locks(look) == 1, "the command line waits")
                at_desk = decide(world, ann, key, "approve")
                await until(lambda: waiting_for_locks(look) == (1 if typing is None else 2), "the desk waits")
                if typing is None:
                    typing = type_it()
                    await until(lambda: waiting_for_locks(look) == 2, "both wait")
            answer, told = await asyncio.gather(at_desk, typing)
    if answer.status_code == 303:
        assert (told.exit_code, "ann was first: approved" in told.output) == (2, True), told.output
        assert world.approvals(key) == []
        [pending] = world.world.rows("SELECT reviewer FROM phantoms.pending_decisions")
        assert pending["reviewer"] == "ann"
    else:
        assert (answer.status_code, told.exit_code) == (409, 0), (answer.text, told.output)
        assert ("on hold by ben" if typed == "hold" else "ben was first") in answer.text
        table = "holds" if typed == "hold" else "approvals"
        assert [row["reviewer"] for row in world.world.rows(f"SELECT reviewer FROM phantoms.{table}")] == ["ben"]
        assert world.world.rows("SELECT 1 FROM phantoms.pending_decisions") == []
