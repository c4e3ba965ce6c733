"""The page Providers: breakers with their history, waiting videos, what is left of quotas, and tripping and resetting a breaker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from phantoms_dagster.cli.main import app
from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.wiring.watching import watching
from phantoms_dagster_tests.integration.desk_world import DeskWorld, open_desk


@pytest.fixture
async def world(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(database_url, redis_url, tmp_path) as opened:
        yield opened


async def test_a_breaker_is_tripped_and_reset_by_an_operator_with_a_reason_that_stays(world: DeskWorld) -> None:
    browser = await world.logged_in("olga", "operator")
    assert "all calls" in (await browser.get("/providers/youtube")).text.lower()
    form = {"breaker": "youtube", "why": "they announced maintenance", "seconds": "600"}
    answer = await browser.post("/providers/youtube/trip", form)
    assert answer.status_code == 303, answer.text
    page = (await browser.get("/providers/youtube")).text
    assert "stopped" in page
    assert "manually" in page
    assert "next probe from" in page
    assert "they announced maintenance" in page
    assert re.search(r"closed → open</td><td>they announced maintenance</td><td><a [^>]*>olga</a>", page)
    assert (await browser.get("/providers")).text.index("YouTube") < (await browser.get("/providers")).text.index("OpenAI")
    assert (await browser.post("/providers/youtube/reset", {"breaker": "youtube", "why": "it is back"})).status_code == 303
    assert "it is back" in (await browser.get("/providers/youtube")).text
    async with watching(world.desk.settings) as watcher:
        assert (await watcher.breakers.state("youtube")).state == "closed"
    rows = world.desk.audit.page(subject="breaker youtube")
    assert [(row.who, row.via, row.action, row.before, row.after) for row in rows] == [
        ("olga", "desk", "reset breaker", {"state": "open"}, {"state": "closed", "why": "it is back"}),
        (
            "olga",
            "desk",
            "trip breaker",
            {"state": "closed"},
            {"state": "open", "why": "they announced maintenance", "seconds": 600.0},
        ),
    ]


async def test_a_word_to_a_breaker_needs_a_reason_a_time_and_the_right_provider(world: DeskWorld) -> None:
    browser = await world.logged_in("olga", "operator")
    for form, status in (
        ({"breaker": "youtube", "why": " "}, 422),
        ({"breaker": "youtube", "why": "x", "seconds": "nan"}, 422),
        ({"breaker": "youtube", "why": "x", "seconds": "soon"}, 422),
        ({"breaker": "tiktok", "why": "x"}, 404),
        ({"breaker": "", "why": "x"}, 404),
    ):
        assert (await browser.post("/providers/youtube/trip", form)).status_code == status, form
    assert (await browser.get("/providers/nobody")).status_code == 404
    assert world.desk.audit.page(subject="breaker youtube") == []


async def test_a_reviewer_sees_providers_and_gives_breakers_no_word(world: DeskWorld) -> None:
    browser = await world.logged_in("rita", "reviewer")
    page = (await browser.get("/providers/youtube")).text
    assert "YouTube" in page
    assert "/providers/youtube/trip" not in page
    assert (await browser.post("/providers/youtube/trip", {"breaker": "youtube", "why": "x"})).status_code == 403


async def test_the_breakers_of_accounts_and_of_the_sandbox_stand_with_their_provider(world: DeskWorld) -> None:
    async with watching(world.desk.settings) as watcher:
        for name in ("tiktok:main", "sandbox/tiktok"):
            leave = await watcher.breakers.admit(name)
            await watcher.breakers.settle(leave, CallOutcome.FAILED)
        await watcher.breakers.trip("tiktok:main", why="token trouble")
        with pytest.raises(NotYet):
            await watcher.breakers.admit("tiktok:main")
    browser = await world.logged_in("vera", "viewer")
    page = (await browser.get("/providers/tiktok")).text
    assert "account main" in page.lower()
    assert "open until a person resets it" in page
    assert "sandbox/tiktok" in page
    assert "token trouble" not in (await browser.get("/providers/youtube")).text


async def test_the_last_hour_is_a_plot_with_words_and_a_table(world: DeskWorld) -> None:
    [key] = world.world.add(1)
    add = """INSERT INTO phantoms.attempts (video_id, stage, revision, generation, state, provider, error_class, finished_at)
        SELECT id, 'script', 1, 1, 'done', 'openai', :error, clock_timestamp() - make_interval(mins => :ago)
        FROM phantoms.videos WHERE key = :key"""
    for ago, error in ((1, None), (1, None), (31, "transient"), (70, None)):
        world.world.write(add, key=key, ago=ago, error=error)
    browser = await world.logged_in("vera", "viewer")
    page = (await browser.get("/providers/openai")).text
    assert "OpenAI: 3 attempts ended in the last hour, 1 of them with an error" in page
    assert page.count('class="bar-well" x=') == 1
    assert page.count('class="bar-badly" x=') == 1
    assert page.count('<th scope="row">') >= 12
    assert re.findall(r'text-anchor="end">([^<]*)<', page) == ["0", "1", "2"]


async def test_who_waits_for_a_provider_is_named_with_the_reason(world: DeskWorld) -> None:
    [key] = world.world.add(1)
    world.world.write(
        """UPDATE phantoms.stages SET state = 'deferred', retry_at = clock_timestamp() + interval '5 minutes',
            reason = 'the breaker of openai is open' WHERE stage = 'script'"""
    )
    browser = await world.logged_in("vera", "viewer")
    page = (await browser.get("/providers/openai")).text
    assert "1 video waits for <code>script</code>" in page
    assert f"/review/{key}" in page
    assert "the breaker of openai is open" in page


async def test_providers_say_so_while_redis_is_away(database_url: str, tmp_path: Path) -> None:
    async with open_desk(database_url, "redis://127.0.0.1:1/0", tmp_path) as world:
        browser = world.browser()
        for path in ("/providers", "/providers/youtube"):
            answer = await browser.get(path)
            assert answer.status_code == 200
            assert "Redis does not answer" in answer.text
            assert 'class="state closed">healthy' not in answer.text
        answer = await browser.post("/providers/youtube/trip", {"breaker": "youtube", "why": "x"})
        assert answer.status_code == 503


async def test_the_command_line_writes_the_same_audit_log(
    world: DeskWorld, database_url: str, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHANTOMS_HOME", str(tmp_path))
    monkeypatch.setenv("PHANTOMS_DATABASE_URL", database_url)
    monkeypatch.setenv("PHANTOMS_REDIS_URL", redis_url)
    arguments = ["breakers", "trip", "openai", "--why", "quiet please"]
    result = await asyncio.to_thread(CliRunner().invoke, app, arguments)
    assert result.exit_code == 0, result.output
    [row] = world.desk.audit.page(subject="breaker openai")
    assert (row.via, row.action, (row.after or {})["why"]) == ("cli", "trip breaker", "quiet please")
