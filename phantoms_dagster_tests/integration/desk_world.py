"""What tests of the desk share: a desk on a real database, browsers without a window (cookies, forms), and videos to review."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from phantoms_dagster.desk.app import create_app
from phantoms_dagster.desk.context import Desk
from phantoms_dagster.desk.passwords import hash_password
from phantoms_dagster.domain.models import MediaFile, Platform, RenderedVideoOutput, StageOutput
from phantoms_dagster.settings import Settings, grouped
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.users import RoleName
from phantoms_dagster_tests.integration.stage_world import PROBE, World, media_file, open_world

TESTER = Actor("tests", "cli")
PASSWORD = "a long enough password"
MADE = ("script", "voiceover", "rendered_video")


class Browser:
    """A person at the desk: keeps cookies, and sends the token that the last page had in its forms."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self.csrf = ""

    async def get(self, path: str, **given: Any) -> httpx.Response:
        """Open a page."""
        answer = await self.client.get(path, **given)
        found = re.search(r'data-csrf="([^"]+)"', answer.text) if "html" in answer.headers.get("content-type", "") else None
        if found:
            self.csrf = found[1]
        return answer

    async def post(self, path: str, form: Mapping[str, Any] | None = None, **given: Any) -> httpx.Response:
        """Send a form of the last page."""
        return await self.client.post(path, data={"_csrf": self.csrf, **(form or {})}, **given)

    async def log_in(self, name: str, password: str = PASSWORD, to: str = "/") -> httpx.Response:
        """Log in by the form."""
        await self.get("/login")
        return await self.post("/login", {"name": name, "password": password, "next": to})


class DeskWorld:
    """A desk, its database, and the videos in it."""

    def __init__(self, world: World, desk: Desk, media: Path) -> None:
        self.world = world
        self.desk = desk
        self.app = create_app(desk)
        self.media = media
        self._clients: list[httpx.AsyncClient] = []

    def browser(self, *, address: str = "127.0.0.1", host: str = "127.0.0.1:4000") -> Browser:
        """A fresh browser at that address."""
        transport = httpx.ASGITransport(self.app, client=(address, 5000), raise_app_exceptions=False)
        client = httpx.AsyncClient(transport=transport, base_url=f"http://{host}")
        self._clients.append(client)
        return Browser(client)

    def add_user(self, name: str, role: RoleName = "reviewer") -> None:
        """Add a user with the password of all tests."""
        self.desk.users.add(name, role, hash_password(PASSWORD), actor=TESTER)

    async def logged_in(self, name: str, role: RoleName = "reviewer") -> Browser:
        """A browser whose person is logged in."""
        self.add_user(name, role)
        browser = self.browser()
        assert (await browser.log_in(name)).status_code == 303
        await browser.get("/audit")
        return browser

    async def waiting(self, count: int = 1, outputs: Mapping[str, StageOutput] | None = None, **changes: Any) -> list[str]:
        """Videos that wait for a decision; their keys, the most urgent first."""
        keys = self.world.add(count, **{"platforms": Platform.usual(), **changes})
        await self.world.carry(keys, *MADE, outputs=outputs)
        return keys

    def keep(self, content: bytes, suffix: str = ".mp4") -> MediaFile:
        """Put a file into the media folder."""
        file = media_file(content.hex(), suffix).model_copy(update={"size": len(content)})
        path = self.media / file.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return file

    def content(self, key: str) -> str:
        """The hash of what a decision would be about."""
        review = self.desk.decisions.review(key)
        assert review is not None
        return review.content

    def approvals(self, key: str) -> list[Mapping[str, Any]]:
        """The decisions that were recorded, oldest first."""
        statement = """SELECT d.* FROM phantoms.approvals d JOIN phantoms.videos v ON v.id = d.video_id
            WHERE v.key = :key ORDER BY d.id"""
        return [dict(row) for row in self.world.rows(statement, key=key)]

    async def aclose(self) -> None:
        """Give connections back."""
        for client in self._clients:
            await client.aclose()
        self.desk.close()


def master(file: MediaFile, **changes: Any) -> RenderedVideoOutput:
    """A rendered video of that file."""
    still = media_file("still", ".jpg")
    return RenderedVideoOutput(video=file, thumbnail=still, probe=PROBE, renderer="test", render_id="r1", **changes)


@asynccontextmanager
async def open_desk(database_url: str, redis_url: str, home: Path, **settings: Any) -> AsyncIterator[DeskWorld]:
    """A desk without a server: requests go to the application itself."""
    urls = {"database_url": SecretStr(database_url), "redis_url": SecretStr(redis_url)}
    given = Settings(**grouped({"home": home, "media": home / "media", **urls, **settings}))
    async with open_world(database_url) as world:
        desk = DeskWorld(world, Desk.of(given), home / "media")
        try:
            yield desk
        finally:
            await desk.aclose()
