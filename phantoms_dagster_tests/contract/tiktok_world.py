"""What the tests of TikTok share: the stand-in on a loopback port, a journal that checks every step, jobs, a clock."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import (
    NotYet,
    Transient,
    Unknown,
)
from phantoms_dagster.domain.models import Platform, Probe
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.publication import PublishedPost
from phantoms_dagster.platforms.tiktok.choices import TikTokChoices
from phantoms_dagster.platforms.tiktok.late import TikTokLateIds
from phantoms_dagster.platforms.tiktok.metrics import TikTokMetricsReader
from phantoms_dagster.platforms.tiktok.publisher import TikTokPublisher
from phantoms_dagster.platforms.tiktok.routes import CREATORS_CHOICE
from phantoms_dagster.production.publication import publish
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.tiktok.routes import routes
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal, SandboxClock, SandboxTokens

MB = 1_000_000
CAPTION = "Why octopuses have three hearts 🐙 #ocean"


@dataclass
class World:
    """A sandbox on a loopback port, a client, a clock."""

    sandbox: Sandbox
    client: httpx.AsyncClient
    base_url: str
    folder: Path
    clock: SandboxClock
    tokens: SandboxTokens = field(default_factory=SandboxTokens)

    def publisher(self, **changes: Any) -> TikTokPublisher:
        known: dict[str, Any] = {
            "client": self.client,
            "base_url": self.base_url,
            "tokens": self.tokens,
            "clock": self.clock,
            "sandbox": True,
        }
        return TikTokPublisher(**(known | changes))

    def reader(self) -> TikTokMetricsReader:
        return TikTokMetricsReader(client=self.client, base_url=self.base_url, tokens=self.tokens)

    def late_ids(self, **changes: Any) -> TikTokLateIds:
        known: dict[str, Any] = {"client": self.client, "base_url": self.base_url, "tokens": self.tokens, "sandbox": True}
        return TikTokLateIds(**(known | changes))

    def journal(self) -> FakeJournal:
        return FakeJournal(clock=self.clock)

    def job(
        self,
        size: int = 20_000,
        *,
        caption: str = CAPTION,
        account: str = "ocean_facts",
        seconds: float = 30.0,
        privacy: str = "PUBLIC_TO_EVERYONE",
        route: str = "",
        **choices: bool,
    ) -> PublishJob:
        file = self.folder / f"{size}.mp4"
        content = bytes(1_000) + size.to_bytes(8, "big") * (size // 8 + 1)
        file.write_bytes(content[:size])
        return PublishJob(
            video_key="20261122-ocean-facts-7f3a",
            platform=Platform("tiktok"),
            account=account,
            marker="m-1",
            file=file,
            size=size,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            probe=probe(seconds, size),
            title="Three hearts",
            caption=caption,
            privacy=CREATORS_CHOICE if route == "inbox" else privacy,
            terms=TikTokChoices.model_validate({"privacy": privacy, "route": route or "direct", **choices}).terms(),
            route=route,
        )

    def fault(self, route: str, kind: str = "status", **facts: Any) -> Fault:
        fault = Fault(route=f"tiktok.{route}", kind=kind, **({"times": 1} | facts))
        self.sandbox.faults.append(fault)
        return fault

    @property
    def drafts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.sandbox.ledger if entry["kind"] == "draft"]

    def creator_posts(self, publish_id: str, **post_info: Any) -> None:
        """The creator finishes the draft in the TikTok app."""
        self.sandbox.state["tiktok"].finish_draft(publish_id, post_info)

    @property
    def posts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.sandbox.ledger if entry["kind"] == "post"]

    def calls(self, route: str) -> int:
        return self.sandbox.calls.get(f"tiktok.{route}", 0)

    def known_uploads(self) -> dict[str, Any]:
        uploads: dict[str, Any] = self.sandbox.state["tiktok"].uploads
        return uploads

    async def persist(self, job: PublishJob, journal: FakeJournal, *, tries: int = 12, **changes: Any) -> PublishedPost:
        """Publish as the runner would: again after each deferral, an hour at most between two tries."""
        for _ in range(tries):
            try:
                return await publish(self.publisher(**changes), job, journal)
            except (NotYet, Transient, Unknown) as later:
                self.sandbox.advance(getattr(later, "retry_after", None) or 1.0)
        raise AssertionError(f"not published after {tries} tries: {journal.states}")


def probe(seconds: float, size: int) -> Probe:
    return Probe(
        container="mp4",
        seconds=seconds,
        size=size,
        width=1080,
        height=1920,
        fps=30,
        video_codec="h264",
        pixel_format="yuv420p",
        bit_rate=4_000_000,
        moov_first=True,
    )


@asynccontextmanager
async def a_world(folder: Path, *, transport: httpx.AsyncBaseTransport | None = None) -> AsyncIterator[World]:
    sandbox = Sandbox(seed=1)
    # Most uploads here are noise of a chosen size; which videos are refused is tested in `test_uploaded_videos.py`.
    sandbox.config["tiktok.check_media"] = False
    async with (
        TestServer(application(sandbox, [routes(sandbox)])) as server,
        httpx.AsyncClient(timeout=10, transport=transport) as client,
    ):
        yield World(sandbox, client, str(server.make_url("/tiktok")), folder, SandboxClock(sandbox))
