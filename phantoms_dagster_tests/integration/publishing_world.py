"""Videos that wait for review or for their posts, in a real database, and a real YouTube adapter before a sandbox over HTTP."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.claims import Claim, StageResult, StageTask
from phantoms_dagster.domain.models import (
    ApprovalOutput,
    Channel,
    MediaFile,
    Platform,
    Probe,
    RenderedVideoOutput,
    VariantOutput,
    content_hash,
)
from phantoms_dagster.domain.ports import FitResult
from phantoms_dagster.domain.posting_slots import DayLimit
from phantoms_dagster.domain.wording import post_words
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.platforms.youtube.publisher import YouTubePublisher
from phantoms_dagster.production.stages.approval import Approve
from phantoms_dagster.production.stages.post import Publish
from phantoms_dagster.production.stages.variant import MakeVariant
from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.sandbox.youtube.routes import routes
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster.store.post_times import PostgresPostTimes
from phantoms_dagster_tests.integration.stage_world import CHANNEL, PROBE, SCRIPT, World, done, media_file

BEFORE_REVIEW = ("script", "voiceover")


class Clock:
    """A clock that a test sets; sleeping moves it, and the sandbox's, on."""

    def __init__(self, sandbox: Sandbox | None = None) -> None:
        self.time = datetime.now(UTC)
        self.sandbox = sandbox

    def now(self) -> datetime:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)
        if self.sandbox is not None:
            self.sandbox.advance(seconds)


class Keeps:
    """A studio to which every video fits."""

    async def probe(self, path: Path, *, loudness: bool = False) -> Probe:
        return PROBE

    async def missing_glyphs(self, texts: Sequence[str]) -> tuple[str, ...]:
        raise AssertionError("nobody asks")

    async def thumbnail(self, path: Path, destination: Path) -> None:
        raise AssertionError("nobody wants one")

    async def fit(
        self, path: Path, platform: Platform, destination: Callable[[], Path], *, known: Probe | None = None
    ) -> FitResult:
        return FitResult("kept", PROBE)


class FakeTokens:
    async def token(self, platform: Platform, account: str) -> str:
        return f"sandbox-{account}"

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        return None


@dataclass
class Studio:
    """The world, its media and a sandbox."""

    world: World
    sandbox: Sandbox
    base_url: str
    client: httpx.AsyncClient
    store: FolderStore
    clock: Clock
    folder: Path
    limits: Mapping[Platform, Sequence[DayLimit]] = field(default_factory=dict)

    async def media_file(self, name: str = "video") -> MediaFile:
        file = self.folder / f"{name}.mp4"
        file.write_bytes(b"\x00\x00\x00\x18ftypmp42" + random.Random(name).randbytes(300_000))
        return await self.store.add(file)

    async def rendered(
        self, *, count: int = 1, channel: Channel = CHANNEL, platforms: tuple[Platform, ...] = (Platform("youtube"),)
    ) -> list[str]:
        """Videos that wait for review, their words shown as the channel says now."""
        self.world.catalogue.put_channels([channel])
        keys = self.world.add(count, platforms=platforms)
        await self.world.carry(keys, *BEFORE_REVIEW)
        words = post_words(SCRIPT, channel, platforms)
        for key in keys:
            video = await self.media_file(key)
            output = RenderedVideoOutput(
                video=video,
                thumbnail=media_file("still", ".jpg"),
                probe=PROBE,
                renderer="test",
                render_id="r",
                words=words,
                content_sha256=content_hash(SCRIPT, video, words),
            )
            await self.world.carry([key], "rendered_video", outputs={"rendered_video": output})
        self.world.catalogue.registered(keys)
        return keys

    async def make(self, key: str, name: str, use_case: Any) -> StageResult:
        """One stage of one video, to done."""
        store, claim = await self.world.claimed(name, key, owner=f"{name}-{key}")
        made: StageResult = await use_case(StageTask(claim, await store.attempt(claim)))
        assert await store.finish(claim, done(made))
        return made

    async def approved(self, key: str) -> ApprovalOutput:
        output = (await self.make(key, "approval", Approve(self.clock))).output
        assert isinstance(output, ApprovalOutput)
        return output

    async def varied(self, key: str, platform: Platform = Platform("youtube")) -> VariantOutput:
        output = (await self.make(key, f"{platform}/variant", MakeVariant(studio=Keeps(), media=self.store))).output
        assert isinstance(output, VariantOutput)
        return output

    async def ready_to_post(self, *, count: int = 1, channel: Channel = CHANNEL) -> list[str]:
        """Videos whose posts could go out now."""
        keys = await self.rendered(count=count, channel=channel)
        for key in keys:
            Decisions(self.world.engine).decide(key, approved=True, reviewer="ann", via="cli")
            await self.approved(key)
            await self.varied(key)
        return keys

    def youtube(self, *, sandbox: bool = True, **options: Any) -> YouTubePublisher:
        return YouTubePublisher(
            client=self.client, base_url=self.base_url, tokens=FakeTokens(), clock=self.clock, sandbox=sandbox, **options
        )

    def publish(self, publisher: Any | None = None) -> Publish:
        return Publish(
            publishers={Platform("youtube"): publisher or self.youtube()},
            media=self.store,
            ledgers=PostgresLedgers(self.world.async_engine),
            times=PostgresPostTimes(self.world.async_engine, limits=self.limits, clock=self.clock),
            clock=self.clock,
        )

    async def claim(self, key: str, *, owner: str = "poster") -> tuple[Any, Claim]:
        self.world.let_leases_expire()
        return await self.world.claimed("youtube/post", key, owner=owner)

    def posts(self) -> Sequence[Mapping[str, Any]]:
        return [e for e in self.sandbox.ledger if e["kind"] == "post"]


@asynccontextmanager
async def open_studio(world: World, folder: Path) -> AsyncIterator[Studio]:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [routes(sandbox)])) as server, httpx.AsyncClient() as client:
        base_url = str(server.make_url("/")).rstrip("/")
        yield Studio(world, sandbox, base_url, client, FolderStore(folder / "media"), Clock(sandbox), folder)
