"""What browser tests of the desk share: a running desk, and windows of Debian's Chromium that record errors."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from phantoms_dagster_tests.integration.desk_world import PASSWORD, DeskWorld, open_desk

CHROMIUM = shutil.which("chromium")
MAX_WAIT = 60_000

MARKS = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium: apt-get install chromium"),
]
async_api: Any = pytest.importorskip("playwright.async_api") if CHROMIUM else None


@dataclass
class Served:
    """A desk at an address, and its world."""

    world: DeskWorld
    url: str


@asynccontextmanager
async def open_served(database_url: str, redis_url: str, home: Path, **settings: Any) -> AsyncIterator[Served]:
    """A desk that is served on a port of this machine."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with open_desk(database_url, redis_url, home, desk_port=port, **settings) as world:
            server = uvicorn.Server(uvicorn.Config(world.app, log_config=None, ws="none", timeout_graceful_shutdown=2))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()
            try:
                yield Served(world, f"http://127.0.0.1:{port}")
            finally:
                server.should_exit = True
                await asyncio.to_thread(thread.join, 30)


@asynccontextmanager
async def open_browser() -> AsyncIterator[Any]:
    """Chromium."""
    async with async_api.async_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        opened = await playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        yield opened
        await opened.close()


class Window:
    """A browser's window that notes errors and requests to other hosts, but for those in `also`."""

    def __init__(self, page: Any, url: str, also: Sequence[str] = ()) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        fine = (url, "data:", *also)
        page.set_default_timeout(MAX_WAIT)
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith(fine) else self.errors.append(asked.url))

    async def open(self, path: str) -> None:
        """Open a page of the desk."""
        await self.page.goto(f"{self.url}{path}")

    async def at(self, path: str) -> None:
        """Wait until the page is that one."""
        await self.page.wait_for_url(lambda url: url.startswith(f"{self.url}{path}"), wait_until="load")

    async def says(self, words: str) -> None:
        """Wait until the page shows these words."""
        await self.page.get_by_text(words).first.wait_for()

    async def log_in(self, name: str) -> None:
        """Log in with the form of the log-in page."""
        await self.page.get_by_label("Name").fill(name)
        await self.page.get_by_label("Password").fill(PASSWORD)
        await self.page.get_by_role("button", name="Log in").click()

    async def log_out(self) -> None:
        """Log out by the menu."""
        await self.page.locator(".me > summary").click()
        await self.page.get_by_role("button", name="Log out").click()

    async def until(self, script: str) -> None:
        """Wait until that is true. Playwright's own way evaluates a text inside the page, which the page's policy forbids."""
        for _ in range(MAX_WAIT // 50):
            if await self.page.evaluate(script):
                return
            await self.page.wait_for_timeout(50)
        pytest.fail(f"never: {script}")

    async def seconds(self) -> float:
        """Where the video is."""
        return float(await self.page.evaluate("document.querySelector('video').currentTime"))

    async def press(self, key: str) -> None:
        """Press a key, outside of any field."""
        await self.page.keyboard.press(key)
