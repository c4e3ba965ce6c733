"""What tests of the store and of production share: a catalogue with videos in a real database, sample outputs, a clock.

Nothing here decides anything: videos are carried through stages by the real store, as a runner would.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from sqlalchemy import Engine, RowMapping, text
from sqlalchemy.ext.asyncio import AsyncEngine

from phantoms_dagster.domain.claims import AttemptOutcome, Claim, Claims, ReviewDecision, RunContext, StageResult
from phantoms_dagster.domain.models import (
    ApprovalOutput,
    Brief,
    Channel,
    MediaFile,
    Platform,
    PostOutput,
    Probe,
    RenderedVideoOutput,
    Scene,
    Script,
    ScriptOutput,
    Sentence,
    StageOutput,
    VariantOutput,
    VoiceoverOutput,
    content_hash,
)
from phantoms_dagster.domain.stages import StageState, stage
from phantoms_dagster.platforms.tiktok.choices import TikTokChoices
from phantoms_dagster.store.catalogue import Catalogue
from phantoms_dagster.store.engine import async_engine, engine
from phantoms_dagster.store.planning import Planning
from phantoms_dagster.store.stage_store import PostgresStageStore

CHANNEL = Channel(
    name="facts",
    title="Facts",
    brand_voice="calm",
    accounts={platform: f"{platform}-account" for platform in Platform.usual()},
).model_copy(update={"tiktok": TikTokChoices(privacy="PUBLIC_TO_EVERYONE")})
SCRIPT = Script(
    hook="Did you know?",
    scenes=(Scene(narration="The sea is deep.", on_screen_text="Deep"),),
    title="The sea",
    caption="About the sea.",
    hashtags=("#sea",),
)
PROBE = Probe(
    container="mp4",
    seconds=20.0,
    size=1000,
    width=1080,
    height=1920,
    fps=30.0,
    video_codec="h264",
    pixel_format="yuv420p",
    bit_rate=1000,
    moov_first=True,
)
PERSON = RunContext(run_id="run-person", by="person")
SENSOR = RunContext(run_id="run-sensor", by="sensor")
NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def media_file(name: str, suffix: str = ".mp4") -> MediaFile:
    """A file whose hash is that of its name."""
    return MediaFile(sha256=hashlib.sha256(name.encode()).hexdigest(), size=1000, suffix=suffix)


def output_of(name: str, *, master: str = "master", script: Script = SCRIPT) -> StageOutput:
    """What the stage of that name could have made."""
    wanted = stage(name)
    video = media_file(master)
    if wanted.kind == "script":
        return ScriptOutput(script=script, model="test")
    if wanted.kind == "voiceover":
        sentence = Sentence(text="Did you know?", scene=-1, start=0.0, end=1.0)
        return VoiceoverOutput(audio=media_file("voice", ".wav"), seconds=20.0, sentences=(sentence,), voice="test")
    if wanted.kind == "rendered_video":
        still = media_file("still", ".jpg")
        return RenderedVideoOutput(video=video, thumbnail=still, probe=PROBE, renderer="test", render_id="r1")
    content = content_hash(script, video)
    if wanted.kind == "approval":
        return ApprovalOutput(reviewer="ann", content_sha256=content, decided_at=NOON)
    assert wanted.platform is not None
    if wanted.kind == "variant":
        words = {"title": "The sea", "caption": "About the sea.", "content_sha256": content}
        return VariantOutput(platform=wanted.platform, video=video, probe=PROBE, how="kept", **words)
    return PostOutput(
        platform=wanted.platform,
        account=CHANNEL.accounts[wanted.platform],
        remote_id="42",
        url="https://example.org/42",
        published_at=NOON,
    )


def brief(number: int, **changes: Any) -> Brief:
    """A brief unlike those of other numbers."""
    fields: dict[str, Any] = {"title": f"Ocean facts {number}", "channel": CHANNEL.name, "platforms": (Platform("youtube"),)}
    return Brief(**{**fields, **changes})


class FakeClock:
    """A clock that moves only when a test or a sleep moves it. Sleeping takes no time, and the clock records each sleep."""

    def __init__(self) -> None:
        self.time = datetime.now(UTC)
        self.slept: list[float] = []

    def now(self) -> datetime:
        """See the port."""
        return self.time

    async def sleep(self, seconds: float) -> None:
        """See the port."""
        self.slept.append(seconds)
        self.time += timedelta(seconds=seconds)
        await asyncio.sleep(0)


class World:
    """A database with the channel in it, and short ways to put videos where a test wants them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine: Engine = engine(url)
        self.async_engine: AsyncEngine = async_engine(url)
        self.catalogue = Catalogue(self.engine)
        self.catalogue.put_channels([CHANNEL])

    def store(self, *, lease_seconds: float = 60.0) -> PostgresStageStore:
        """A store for one runner."""
        return PostgresStageStore(self.async_engine, lease_seconds=lease_seconds)

    def add(self, count: int = 1, **changes: Any) -> list[str]:
        """Add videos; their keys."""
        taken = self.rows("SELECT count(*) AS n FROM phantoms.videos")[0]["n"]
        return [a.key for a in self.catalogue.add([brief(taken + n, **changes) for n in range(count)], source="test")]

    def rows(self, statement: str, **values: Any) -> Sequence[RowMapping]:
        """The rows of a query."""
        with self.engine.connect() as connection:
            return connection.execute(text(statement), values).mappings().all()

    def write(self, statement: str, **values: Any) -> None:
        """Change rows directly, without the product's code."""
        with self.engine.begin() as connection:
            connection.execute(text(statement), values)

    def until_blocked(self, count: int = 1) -> None:
        """Wait until that many transactions wait for a lock of another one."""
        while self.blocked() < count:
            time.sleep(0.01)

    def blocked(self) -> int:
        """How many transactions wait for a lock of another one."""
        return len(self.rows("SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"))

    def write_post(self, statement: str, **values: Any) -> None:
        """Change posts past the guard of their states, as only a test may: their rows are then as another version left them."""
        with self.engine.begin() as connection:
            connection.execute(text("ALTER TABLE phantoms.posts DISABLE TRIGGER posts_guard"))
            connection.execute(text(statement), values)
            connection.execute(text("ALTER TABLE phantoms.posts ENABLE TRIGGER posts_guard"))

    def write_render(self, statement: str, **values: Any) -> None:
        """Change renders past the guard of their states: see `write_post`."""
        with self.engine.begin() as connection:
            connection.execute(text("ALTER TABLE phantoms.renders DISABLE TRIGGER renders_guard"))
            connection.execute(text(statement), values)
            connection.execute(text("ALTER TABLE phantoms.renders ENABLE TRIGGER renders_guard"))

    def row(self, key: str, name: str) -> RowMapping:
        """The row of a stage of a video."""
        statement = """SELECT s.* FROM phantoms.stages s JOIN phantoms.videos v ON v.id = s.video_id
            WHERE v.key = :key AND s.stage = :stage"""
        return self.rows(statement, key=key, stage=name)[0]

    def states(self, name: str) -> list[str]:
        """The states of all videos in a stage, in the order they were added."""
        return [r["state"] for r in self.rows("SELECT state FROM phantoms.stages WHERE stage = :s ORDER BY video_id", s=name)]

    def attempts(self, key: str, name: str) -> Sequence[RowMapping]:
        """The attempts of a stage of a video, oldest first."""
        statement = """SELECT a.* FROM phantoms.attempts a JOIN phantoms.videos v ON v.id = a.video_id
            WHERE v.key = :key AND a.stage = :stage ORDER BY a.id"""
        return self.rows(statement, key=key, stage=name)

    def letters(self, key: str) -> Sequence[RowMapping]:
        """The dead letters of a video, oldest first."""
        statement = """SELECT d.* FROM phantoms.dead_letters d JOIN phantoms.videos v ON v.id = d.video_id
            WHERE v.key = :key ORDER BY d.id"""
        return self.rows(statement, key=key)

    def due(self, name: str) -> list[str]:
        """What the planner would run in that stage, the most urgent first."""
        return [video.key for video in Planning(self.engine).most_urgent({name: 1000}, [])[name]]

    def let_leases_expire(self) -> None:
        """As if the process that holds them had been killed a while ago."""
        self.write("UPDATE phantoms.stages SET lease_until = clock_timestamp() - interval '1 second' WHERE state = 'running'")

    async def claim(
        self, name: str, keys: Sequence[str], *, owner: str = "runner", context: RunContext = PERSON
    ) -> tuple[PostgresStageStore, Claims]:
        """A store and what it claimed."""
        store = self.store()
        return store, await store.claim(stage(name), keys, owner=owner, context=context)

    async def claimed(
        self, name: str, key: str, *, owner: str = "runner", context: RunContext = PERSON
    ) -> tuple[PostgresStageStore, Claim]:
        """A store and its claim of one video."""
        store, claims = await self.claim(name, [key], owner=owner, context=context)
        assert len(claims.claimed) == 1, claims.unclaimed
        return store, claims.claimed[0]

    async def carry(self, keys: Sequence[str], *names: str, outputs: Mapping[str, StageOutput] | None = None) -> None:
        """Carry videos through stages, to done."""
        for name in names:
            store, claims = await self.claim(name, keys, owner=f"setup-{name}")
            assert len(claims.claimed) == len(keys), claims.unclaimed
            made = StageResult((outputs or {}).get(name) or output_of(name))
            ended = await asyncio.gather(*(store.finish(claim, done(made)) for claim in claims.claimed))
            assert all(ended)


def done(made: StageResult) -> AttemptOutcome:
    """The outcome of a success."""
    return AttemptOutcome(StageState.DONE, result=made, counts=False)


def finished(name: str, cost: Decimal = Decimal(0)) -> AttemptOutcome:
    """The outcome of a success with a sample output."""
    return done(StageResult(output_of(name), cost))


def deciding(*, approved: bool = True) -> RunContext:
    """A person who decides in the run config."""
    return RunContext("run-decides", "person", ReviewDecision(approved, "ann", decided_at=NOON))


@asynccontextmanager
async def open_world(url: str) -> AsyncIterator[World]:
    """A world whose connections are given back."""
    world = World(url)
    try:
        yield world
    finally:
        await world.async_engine.dispose()
        world.engine.dispose()
