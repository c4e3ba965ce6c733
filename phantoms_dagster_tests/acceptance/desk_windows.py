"""A running stack with its desk, and windows of a real browser at it, which note errors and requests to other hosts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from phantoms_dagster.domain.models import Brief, Platform
from phantoms_dagster.wiring import Services
from phantoms_dagster_tests.acceptance.conftest import SandboxProcess, StackProcess, open_sandbox, open_stack, wait_for

CHROMIUM = shutil.which("chromium")
MAX_WAIT = 60_000
PASSWORD = "a long enough password"
LAPTOP: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}

sync_api: Any = pytest.importorskip("playwright.sync_api") if CHROMIUM else None


@dataclass
class RunningDesk:
    """A stack that runs, its sandbox, and its tables."""

    stack: StackProcess
    sandbox: SandboxProcess
    services: Services
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = self.value("PHANTOMS_DESK_URL").rstrip("/")

    def value(self, name: str) -> str:
        """A line of the file by which other commands find the stack."""
        lines = (self.stack.home / "running.env").read_text().splitlines()
        return next(line.partition("=")[2].strip("'") for line in lines if line.startswith(f"{name}="))

    def add_user(self, name: str, role: str) -> None:
        """Add a person by the command line."""
        secret = self.stack.home / "password.txt"
        secret.write_text(PASSWORD)
        added = self.stack.phantoms("users", "add", name, "--role", role, "--password-file", str(secret))
        assert added.returncode == 0, added.stderr

    def add(self, titles: Sequence[str], **changes: Any) -> list[str]:
        """Briefs for all platforms; the keys of their videos."""
        channel = next(iter(self.services.channels().values()))
        briefs = [Brief(title=title, channel=channel.name, platforms=Platform.usual(), **changes) for title in titles]
        return [added.key for added in self.services.catalogue().add(briefs, source="test")]

    def wait_until_videos(self, keys: Sequence[str]) -> None:
        """Wait until each of them waits for a decision."""
        wait_for(lambda: set(keys) <= set(self.services.decisions().undecided()), pause=0.25)

    def rows(self, statement: str, **values: Any) -> list[dict[str, Any]]:
        """What the tables have."""
        with self.services.engine.begin() as connection:
            return [dict(row) for row in connection.execute(text(statement), values).mappings()]

    def states(self, key: str) -> dict[str, str]:
        """The state of each stage."""
        return {name: row.state for name, row in self.services.catalogue().stages(key).items()}

    def revision(self, key: str, stage: str) -> int:
        """How often that stage was made."""
        return self.services.catalogue().stages(key)[stage].revision

    def end_of_undo(self, key: str) -> None:
        """As if the time for undoing the decision on that video were over; waits until the desk has committed it."""
        where = "WHERE state = 'pending' AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)"
        with self.services.engine.begin() as connection:
            connection.execute(text(f"UPDATE phantoms.pending_decisions SET commit_at = clock_timestamp() {where}"), {"key": key})
        wait_for(lambda: not self.rows(f"SELECT 1 FROM phantoms.pending_decisions {where}", key=key), pause=0.1)

    def end_of_waits(self, key: str) -> None:
        """As if the waits of that video's stages were over: who waits for a breaker asks again after a minute at most."""
        where = "WHERE state = 'deferred' AND video_id = (SELECT id FROM phantoms.videos WHERE key = :key)"
        with self.services.engine.begin() as connection:
            connection.execute(text(f"UPDATE phantoms.stages SET retry_at = clock_timestamp() {where}"), {"key": key})

    def posted(self, key: str) -> list[str]:
        """The platforms on which the sandbox has a post of that video, one entry for each post."""
        ids = {row["remote_id"] for row in self.rows(_POSTS, key=key)}
        return sorted(str(entry["platform"]) for entry in self.sandbox.ledger("post") if str(entry["remote_id"]) in ids)

    def renders(self, key: str) -> int:
        """How many renders of that video were paid for."""
        return sum(entry["video_key"] == key for entry in self.sandbox.ledger("render"))


_POSTS = """SELECT s.output ->> 'remote_id' AS remote_id FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
    WHERE v.key = :key AND s.stage LIKE '%/post' AND s.state = 'done'"""


@contextmanager
def open_desk(folder: Path, **settings: str) -> Iterator[RunningDesk]:
    """A running stack; it and its sandbox end with the block."""
    with open_sandbox(folder) as sandbox, open_stack(folder, sandbox, **settings) as stack:
        stack.start()
        services = stack.services
        try:
            yield RunningDesk(stack, sandbox, services)
        finally:
            services.close()


class Window:
    """A browser's window. `errors`: what its console said, and requests to other hosts."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.url = url
        self.errors: list[str] = []
        page.set_default_timeout(MAX_WAIT)
        page.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda asked: None if asked.url.startswith((url, "data:")) else self.errors.append(asked.url))

    def open(self, path: str) -> None:
        """Open a page of the desk."""
        self.page.goto(f"{self.url}{path}")

    def at(self, path: str) -> None:
        """Wait until the page is that one."""
        self.page.wait_for_url(lambda url: url.startswith(f"{self.url}{path}"), wait_until="load")

    def log_in(self, name: str) -> None:
        """Log in by the form."""
        self.open("/login")
        self.page.get_by_label("Name").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        self.at("/review")

    def until(self, script: str) -> None:
        """Wait until that is true. Playwright's own way evaluates a text inside the page, which the page's policy forbids."""
        for _ in range(MAX_WAIT // 50):
            if self.page.evaluate(script):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"never: {script}")

    def says(self, words: str) -> None:
        """Wait until the page shows these words."""
        self.page.get_by_text(words).first.wait_for()

    def press(self, key: str) -> None:
        """Press a key, wherever the focus is."""
        self.page.keyboard.press(key)

    def fits(self) -> bool:
        """Whether nothing is wider than the window."""
        return bool(self.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))


@contextmanager
def open_browser() -> Iterator[Any]:
    """Chromium."""
    with sync_api.sync_playwright() as playwright:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def open_window(browser: Any, url: str, session: Any, **looks: Any) -> Iterator[Window]:
    """A window of its own, with the cookies of that session or none. At the end there was no error and no other host in it."""
    context = browser.new_context(**(looks or LAPTOP), storage_state=session)
    window = Window(context.new_page(), url)
    try:
        yield window
    finally:
        context.close()
    assert window.errors == []
