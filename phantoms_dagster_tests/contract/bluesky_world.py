"""Bluesky's stand-in over HTTP, a publisher for it and a job."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.models import Platform, Probe
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.platforms.bluesky.api import Calls
from phantoms_dagster.platforms.bluesky.publisher import BlueskyPublisher
from phantoms_dagster.sandbox.bluesky.routes import routes
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster_tests.contract.publishing_kit import MortalTransport, SandboxClock, SandboxTokens
from phantoms_dagster_tests.made_videos import video_bytes

ACCOUNT = "ocean.example.org"
CAPTION = "Eels cross an ocean to spawn. 🐟 More: https://example.org/eels.\n\n#ocean #Ökologie"


@dataclass
class Bluesky:
    """A running sandbox and a client for it."""

    sandbox: Sandbox
    clock: SandboxClock
    transport: MortalTransport
    client: httpx.AsyncClient
    origin: str
    tokens: SandboxTokens = field(default_factory=SandboxTokens)

    def calls(self) -> Calls:
        return Calls(client=self.client, base_url=f"{self.origin}/bluesky", tokens=self.tokens, clock=self.clock)

    def publisher(self, **changes: Any) -> BlueskyPublisher:
        given: dict[str, Any] = {"video_url": f"{self.origin}/bluesky/video", "clock": self.clock, "sandbox": True}
        return BlueskyPublisher(self.calls(), **{**given, "site": f"{self.origin}/bluesky", **changes})

    def fail(self, route: str, kind: str = "status", **given: Any) -> None:
        self.sandbox.faults.append(Fault(route=f"bluesky.{route}", kind=kind, **{"times": 1, **given}))

    def refuse(self, route: str, name: str | None, status: int = 400, **given: Any) -> None:
        self.fail(route, status=status, body=json.dumps({"error": name, "message": f"it is {name}"}), **given)

    @property
    def posts(self) -> list[dict[str, Any]]:
        return [entry for entry in self.sandbox.ledger if entry["kind"] == "post"]

    def asked(self, route: str) -> int:
        return self.sandbox.calls.get(f"bluesky.{route}", 0)


@asynccontextmanager
async def world() -> AsyncIterator[Bluesky]:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server:
        transport = MortalTransport()
        async with httpx.AsyncClient(transport=transport, timeout=5.0) as client:
            yield Bluesky(sandbox, SandboxClock(sandbox), transport, client, str(server.make_url("")).rstrip("/"))


def make_job(folder: Path, **changes: Any) -> PublishJob:
    content = video_bytes(seconds=12.0, fps=24, width=64, height=114, moov_first=True)
    file = folder / "variant.mp4"
    file.write_bytes(content)
    probe = Probe(
        container="mp4", seconds=12.0, size=len(content), width=1080, height=1920, fps=24.0, video_codec="h264",
        pixel_format="yuv420p", bit_rate=5_000_000, moov_first=True,
    )  # fmt: skip
    job = PublishJob(
        video_key="20261122-eels-1", platform=Platform("bluesky"), account=ACCOUNT, marker="m-1", file=file, size=len(content),
        sha256=hashlib.sha256(content).hexdigest(), probe=probe, title="Eels", caption=CAPTION,
    )  # fmt: skip
    return dataclasses.replace(job, **changes)


# --- for `test_publication_kills`


@asynccontextmanager
async def opened(killable: Callable[..., Any], folder: Path) -> AsyncIterator[Any]:
    async with world() as w:
        w.sandbox.config |= {"bluesky.videos_per_day": 1_000, "bluesky.sessions_per_day": 10_000}
        yield killable(w.sandbox, w.transport, w.clock, w.publisher, make_job(folder), lambda: None, w.tokens)


REQUESTS, SAVES = 9, 5
ROUTES = (
    "bluesky.session",
    "bluesky.limits",
    "bluesky.auth",
    "bluesky.upload",
    "bluesky.job",
    "bluesky.create",
    "bluesky.read",
)
COMMITS = "bluesky.create"


def decisive(request: httpx.Request) -> bool:
    """Whether the request can make a post public."""
    return request.url.path.endswith("createRecord")
