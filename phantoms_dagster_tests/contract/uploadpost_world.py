"""Upload-Post's stand-in over HTTP, and publishers of TikTok posts through it."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.platforms.tiktok import gateway
from phantoms_dagster.platforms.tiktok.choices import TikTokChoices
from phantoms_dagster.platforms.tools import Tools
from phantoms_dagster.providers.tools import ServiceTools
from phantoms_dagster.providers.uploadpost.publisher import UploadPostPublisher
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.uploadpost.routes import routes
from phantoms_dagster.sandbox.uploadpost.state import SandboxRequest
from phantoms_dagster_tests.contract.publishing_kit import FakeJournal, MortalTransport, SandboxClock, SandboxTokens
from phantoms_dagster_tests.contract.tiktok_world import CAPTION, probe


@dataclass
class UploadPost:
    """A running sandbox and a client for it."""

    sandbox: Sandbox
    clock: SandboxClock
    transport: MortalTransport
    client: httpx.AsyncClient
    origin: str
    folder: Path
    key: str = "sandbox-key"

    def service(self) -> ServiceTools:
        return ServiceTools(
            client=self.client,
            base_url=f"{self.origin}/uploadpost/api",
            key=lambda: self.key,
            clock=self.clock,
            sandbox=True,
            setting=lambda name: None,
            secret=lambda name: None,
        )

    def tools(self) -> Tools:
        return Tools(
            client=self.client,
            base_url="",
            tokens=SandboxTokens(),
            clock=self.clock,
            sandbox=True,
            max_wait=60.0,
            setting=lambda name: None,
            secret=lambda name: None,
            folder=self.folder,
            service=lambda name: self.service(),
        )

    def publisher(self) -> UploadPostPublisher:
        return gateway.publisher(self.tools())

    def job(self, size: int = 20_000, *, privacy: str = "PUBLIC_TO_EVERYONE", **choices: Any) -> PublishJob:
        file = self.folder / f"{size}.mp4"
        file.write_bytes((size.to_bytes(8, "big") * (size // 8 + 1))[:size])
        terms = TikTokChoices.model_validate({"privacy": privacy, "route": "gateway", **choices}).terms()
        return PublishJob(
            video_key="20261122-ocean-facts-7f3a",
            platform=Platform("tiktok"),
            account="ocean_facts",
            marker="m-1",
            file=file,
            size=size,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            probe=probe(30.0, size),
            title="Three hearts",
            caption=CAPTION,
            privacy=privacy,
            terms=terms,
            route="gateway",
        )

    def journal(self) -> FakeJournal:
        return FakeJournal(clock=self.clock)

    def fault(self, route: str, kind: str = "status", **facts: Any) -> None:
        self.sandbox.faults.append(Fault(route=f"uploadpost.{route}", kind=kind, **({"times": 1} | facts)))

    @property
    def requests(self) -> list[SandboxRequest]:
        found: list[SandboxRequest] = self.sandbox.state["uploadpost"].requests
        return found

    @property
    def posts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.sandbox.ledger if entry["kind"] == "post"]

    def calls(self, route: str) -> int:
        return self.sandbox.calls.get(f"uploadpost.{route}", 0)


@asynccontextmanager
async def a_world(folder: Path) -> AsyncIterator[UploadPost]:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server:
        transport = MortalTransport()
        async with httpx.AsyncClient(transport=transport, timeout=5.0) as client:
            yield UploadPost(sandbox, SandboxClock(sandbox), transport, client, str(server.make_url("")).rstrip("/"), folder)
