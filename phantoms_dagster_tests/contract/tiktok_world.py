"""What the tests of TikTok share: the stand-in on a loopback port, a journal that checks every step, jobs, a clock."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import (
    IllegalTransition,
    NotYet,
    Transient,
    Unknown,
)
from phantoms_dagster.domain.models import Platform, Probe, TikTokChoices, TikTokTerms
from phantoms_dagster.domain.ports import PostRecord, PublishedPost, PublishJob
from phantoms_dagster.domain.stages import POST_TRANSITIONS, PostState
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.providers.tiktok import TikTokPublisher
from phantoms_dagster.providers.tiktok_late import TikTokLateIds
from phantoms_dagster.providers.tiktok_metrics import TikTokMetricsReader
from phantoms_dagster.sandbox.core import Fault, Sandbox, application
from phantoms_dagster.sandbox.tiktok import routes

MB = 1_000_000
CAPTION = "Why octopuses have three hearts 🐙 #ocean"


class Killed(BaseException):
    """The process dies here; no handler of the product may see it."""


class FakeJournal:
    """The ledger's row, in memory: every step is checked against the legal transitions. `kill` dies at the n-th save."""

    def __init__(self, clock: SandboxClock) -> None:
        self._clock = clock
        self._record = PostRecord(state=PostState.INTENT)
        self.saves: list[PostRecord] = []
        self.kill: tuple[str, int] | None = None

    @property
    def record(self) -> PostRecord:
        return self._record

    async def save(
        self,
        state: PostState,
        *,
        handle: JsonObject | None = None,
        offset: int | None = None,
        remote_id: str | None = None,
        url: str | None = None,
    ) -> PostRecord:
        if state not in POST_TRANSITIONS[self._record.state]:
            raise IllegalTransition(f"{self._record.state} -> {state}")
        if self.kill == ("before", len(self.saves)):
            raise Killed
        given = {"handle": handle, "offset": offset, "remote_id": remote_id, "url": url}
        # As in the ledger: from the first step that is more than an intent.
        attempted_at = None if state is PostState.INTENT else self._record.attempted_at or self._clock.now()
        kept = {name: value for name, value in given.items() if value is not None}
        self._record = replace(self._record, state=state, attempted_at=attempted_at, **kept)  # type: ignore[arg-type]
        self.saves.append(self._record)
        if self.kill == ("after", len(self.saves) - 1):
            raise Killed
        return self._record

    @property
    def states(self) -> list[PostState]:
        return [record.state for record in self.saves]


class SandboxClock:
    """The sandbox's own time; a sleep moves it on at once."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.slept: list[float] = []

    def now(self) -> datetime:
        return datetime.fromtimestamp(self._sandbox.now(), UTC)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._sandbox.advance(seconds)
        await asyncio.sleep(0)


class SandboxTokens:
    """Every account is connected; `revoked` ones have a token that TikTok refuses."""

    def __init__(self) -> None:
        self.revoked: set[str] = set()

    async def token(self, platform: Platform, account: str) -> str:
        assert platform is Platform.TIKTOK
        return f"revoked-{account}" if account in self.revoked else f"sandbox-{account}"


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
        known = {"client": self.client, "base_url": self.base_url, "tokens": self.tokens, "clock": self.clock, "sandbox": True}
        return TikTokPublisher(**(known | changes))

    def reader(self) -> TikTokMetricsReader:
        return TikTokMetricsReader(client=self.client, base_url=self.base_url, tokens=self.tokens)

    def late_ids(self, **changes: Any) -> TikTokLateIds:
        known = {"client": self.client, "base_url": self.base_url, "tokens": self.tokens, "sandbox": True}
        return TikTokLateIds(**(known | changes))

    def journal(self) -> FakeJournal:
        return FakeJournal(self.clock)

    def job(
        self,
        size: int = 20_000,
        *,
        caption: str = CAPTION,
        account: str = "ocean_facts",
        seconds: float = 30.0,
        privacy: str = "PUBLIC_TO_EVERYONE",
        **choices: bool,
    ) -> PublishJob:
        file = self.folder / f"{size}.mp4"
        content = bytes(1_000) + size.to_bytes(8, "big") * (size // 8 + 1)
        file.write_bytes(content[:size])
        return PublishJob(
            video_key="20261122-ocean-facts-7f3a",
            platform=Platform.TIKTOK,
            account=account,
            marker="m-1",
            file=file,
            size=size,
            sha256=hashlib.sha256(file.read_bytes()).hexdigest(),
            probe=probe(seconds, size),
            title="Three hearts",
            caption=caption,
            privacy=privacy,
            tiktok=TikTokTerms.of(TikTokChoices.model_validate({"privacy": privacy, **choices})),
        )

    def fault(self, route: str, kind: str = "status", **facts: Any) -> Fault:
        fault = Fault(route=f"tiktok.{route}", kind=kind, **({"times": 1} | facts))
        self.sandbox.faults.append(fault)
        return fault

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
                return await self.publisher(**changes).publish(job, journal)
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
    # Most uploads here are noise of a chosen size; which films are refused is tested in `test_sandbox_films.py`.
    sandbox.config["tiktok.check_media"] = False
    async with (
        TestServer(application(sandbox, [routes(sandbox)])) as server,
        httpx.AsyncClient(timeout=10, transport=transport) as client,
    ):
        yield World(sandbox, client, str(server.make_url("/tiktok")), folder, SandboxClock(sandbox))
