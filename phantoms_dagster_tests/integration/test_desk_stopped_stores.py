"""PostgreSQL or Redis is frozen or away for some seconds: pages say so, none hangs, and all come back by themselves."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from phantoms_dagster.embedded.servers import EmbeddedServers, ServerUrls
from phantoms_dagster.store.migrate import upgrade
from phantoms_dagster_tests.integration.desk_process import DeskProcess, open_process
from phantoms_dagster_tests.integration.desk_world import Browser, DeskWorld, open_desk
from phantoms_dagster_tests.integration.test_dead_letters import fail

PAGES = ("/review", "/review?held=1", "/pipeline", "/bulk", "/dead-letters", "/calendar", "/providers", "/providers/tiktok")
PLACES = (*PAGES, "/performance", "/add", "/audit", "/api/v1/videos", "/api/v1/issues", "/api/v1/performance")


@dataclass
class Stores:
    """Servers of this module alone, which may be stopped."""

    servers: EmbeddedServers
    urls: ServerUrls

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """SIGSTOP of a server with all its processes: it takes connections and answers nothing."""
        parent = self.servers.pids[name]
        os.kill(parent, signal.SIGSTOP)  # from now on it starts no other
        children = [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
        for pid in children:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in (parent, *children):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Both are stopped, and nothing listens."""
        self.servers.stop()
        try:
            yield
        finally:
            self.servers.start()


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    servers = EmbeddedServers(tmp_path_factory.mktemp("stores"), durable=False)
    with servers as urls:
        upgrade(urls.database_url)
        yield Stores(servers, urls)


@pytest.fixture
async def world(stores: Stores, tmp_path: Path) -> AsyncIterator[DeskWorld]:
    async with open_desk(stores.urls.database_url, stores.urls.redis_url, tmp_path) as opened:
        if not opened.desk.users.any():
            opened.add_user("kim", "operator")
        yield opened


@pytest.fixture
async def desk(world: DeskWorld, stores: Stores, tmp_path: Path) -> AsyncIterator[DeskProcess]:
    async with open_process(tmp_path, stores.urls.database_url, stores.urls.redis_url) as running:
        yield running


async def asked(browser: Browser, path: str) -> tuple[str, httpx.Response]:
    """The page's answer. The browser gives up on a page that hangs, and the test fails."""
    return path, await browser.client.get(path)


async def paths_of(world: DeskWorld) -> list[str]:
    """Each page, also those of a video."""
    [key] = await world.waiting()
    [failed] = world.world.add(angle="That one fails")
    await fail(world.world, [failed], "script")
    cause = world.world.rows("SELECT cause FROM phantoms.dead_letters LIMIT 1")[0]["cause"]
    return [*PLACES, f"/review/{key}", f"/review/{key}/edit", f"/videos/{key}", f"/calendar/{key}", f"/dead-letters/{cause}"]


async def all_well(browser: Browser, paths: list[str], log: Path) -> None:
    """Every page is there again within some seconds, and nothing of it was a fault of ours."""
    for path in paths:
        for _ in range(100):
            answer = (await asked(browser, path))[1]
            if answer.status_code == 200:
                break
            assert answer.status_code == 503, answer.text
            await asyncio.sleep(0.2)
        assert answer.status_code == 200, path
        assert "does not answer" not in answer.text, path
    assert "Traceback" not in log.read_text()


def check_away(found: list[tuple[str, httpx.Response]]) -> None:
    """Each says clearly that PostgreSQL is away, and pages try again by themselves."""
    for path, answer in found:
        assert answer.status_code == 503, (path, answer.text)
        assert "PostgreSQL does not answer" in answer.text, path
        assert answer.headers["retry-after"] == "5"
        assert path.startswith("/api/") or '<meta http-equiv="refresh" content="5">' in answer.text, path


async def test_while_postgresql_is_frozen_every_page_says_so_and_comes_back(
    world: DeskWorld, desk: DeskProcess, stores: Stores
) -> None:
    paths = await paths_of(world)
    async with desk.person("kim") as kim:
        await all_well(kim, paths, desk.log)
        with stores.frozen("postgres"):
            found = [await asked(kim, paths[0]), *await asyncio.gather(*(asked(kim, path) for path in paths[1:]))]
            sent = await kim.post("/add", {"title": "Why bees dance", "platforms": ["youtube"]})
            healthy = await kim.client.get("/health")
        check_away(found)
        assert (sent.status_code, healthy.status_code) == (503, 200)
        assert "Nothing was changed" in sent.text
        await all_well(kim, paths, desk.log)


async def test_a_form_that_postgresql_does_not_answer_says_that_nothing_is_half_done(
    world: DeskWorld, desk: DeskProcess, stores: Stores
) -> None:
    """It waits in the middle of its transaction, on a lock, for longer than a page may."""
    [key] = await world.waiting()
    async with desk.person("kim") as kim:
        await kim.get(f"/review/{key}")
        with world.world.engine.begin() as gate:
            gate.exec_driver_sql(f"SELECT 1 FROM phantoms.videos WHERE key = '{key}' FOR UPDATE")
            form = {"answer": "approve", "content": world.content(key)}
            answer = await kim.post(f"/review/{key}/decide", form)
        assert answer.status_code == 503
        assert "no answer within 6 s" in answer.text
        assert "We do not know whether your change was saved" in answer.text
        assert world.world.rows("SELECT 1 FROM phantoms.pending_decisions WHERE state = 'pending'") == []
        assert (await kim.post(f"/review/{key}/decide", form)).status_code == 303


async def test_while_redis_is_frozen_pages_work_and_say_what_is_not_known(
    world: DeskWorld, desk: DeskProcess, stores: Stores
) -> None:
    paths = await paths_of(world)
    async with desk.person("kim") as kim:
        token = re.search(r'data-csrf="([^"]+)"', (await kim.get("/providers/tiktok")).text)
        assert token
        with stores.frozen("valkey"):
            found = await asyncio.gather(*(asked(kim, path) for path in paths))
            tripped = await kim.post("/providers/tiktok/trip", {"breaker": "tiktok", "why": "maintenance", "seconds": ""})
            async with desk.person("kim") as again:  # logging in works, too
                assert again.csrf
        for path, answer in found:
            assert answer.status_code == 200, (path, answer.text)
            assert ("Redis does not answer" in answer.text) == path.startswith(("/providers", "/pipeline")), path
            assert (tripped.status_code, "Redis does not answer" in tripped.text) == (503, True)
        await all_well(kim, paths, desk.log)


async def test_while_both_are_gone_every_page_says_so_and_comes_back(world: DeskWorld, desk: DeskProcess, stores: Stores) -> None:
    paths = await paths_of(world)
    async with desk.person("kim") as kim:
        await all_well(kim, paths, desk.log)
        world.world.engine.dispose()
        world.desk.services.engine.dispose()
        with stores.gone():
            check_away(list(await asyncio.gather(*(asked(kim, path) for path in paths))))
        await all_well(kim, paths, desk.log)
