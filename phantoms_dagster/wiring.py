"""The composition root: from settings to real objects, made when they are first needed. No decisions are made here.

`Workshop` is one process's: synchronous, for commands and sensors. `Pipeline` belongs to one event loop and is open only
while a step runs.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
from aiohttp import web
from httpx_aiohttp import AiohttpTransport
from pydantic import SecretStr
from sqlalchemy import Engine

from phantoms_dagster import settings as settings_module
from phantoms_dagster.domain import channels as channels_file
from phantoms_dagster.domain.errors import InvalidInput, Permanent
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.ports import MetricsReader, Publisher, Renderer
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.media.local_renderer import LocalRenderer, render
from phantoms_dagster.media.studio import FfmpegStudio
from phantoms_dagster.media.voice import NeuralVoice
from phantoms_dagster.production.approving import Approve
from phantoms_dagster.production.inbox import InboxReport, take_inbox
from phantoms_dagster.production.publishing import Publish
from phantoms_dagster.production.rendering import RenderVideo
from phantoms_dagster.production.runner import StageRunner, UseCase
from phantoms_dagster.production.scripting import WriteScript
from phantoms_dagster.production.speaking import SpeakScript
from phantoms_dagster.production.varying import MakeVariant
from phantoms_dagster.providers.instagram import InstagramPublisher
from phantoms_dagster.providers.instagram_metrics import InstagramMetricsReader
from phantoms_dagster.providers.openai_scripts import OpenAIScriptWriter
from phantoms_dagster.providers.shotstack import ShotstackRenderer
from phantoms_dagster.providers.shotstack_edit import job_from_edit
from phantoms_dagster.providers.tiktok import TikTokPublisher
from phantoms_dagster.providers.tiktok_metrics import TikTokMetricsReader
from phantoms_dagster.providers.youtube import YouTubePublisher
from phantoms_dagster.providers.youtube_metrics import YouTubeMetricsReader
from phantoms_dagster.sandbox import instagram as instagram_sandbox
from phantoms_dagster.sandbox import openai as openai_sandbox
from phantoms_dagster.sandbox import shotstack as shotstack_sandbox
from phantoms_dagster.sandbox import tiktok as tiktok_sandbox
from phantoms_dagster.sandbox import youtube as youtube_sandbox
from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.catalogue import Catalogue
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.engine import async_engine, engine
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster.store.planning import Planning
from phantoms_dagster.store.results import Results
from phantoms_dagster.store.stage_store import PostgresStageStore

INTEGRATIONS = ("openai", "shotstack", "youtube", "tiktok", "instagram")
SANDBOX_SETTLE_SECONDS = 0.5
CONNECT_SECONDS, READ_SECONDS = 10.0, 120.0


class SystemClock:
    """The clock on the wall."""

    def now(self) -> datetime:
        """See the port."""
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        """See the port."""
        await asyncio.sleep(seconds)


class Endpoints:
    """Where each integration is and with which key: the real service with a key, else the sandbox."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def secret(self, integration: str) -> str | None:
        """The key or token that is set."""
        name = f"{integration}_api_key" if integration in ("openai", "shotstack") else f"{integration}_token"
        value: SecretStr | None = getattr(self._settings, name)
        return value.get_secret_value() if value else None

    def sandboxed(self, integration: str) -> bool:
        """Whether the sandbox answers. Raises InvalidInput when a key is missing and the sandbox is off."""
        match self._settings.sandbox:
            case "on":
                return True
            case "off" if self.secret(integration) is None:
                kind = "API_KEY" if integration in ("openai", "shotstack") else "TOKEN"
                raise InvalidInput(f"PHANTOMS_{integration.upper()}_{kind} is not set and PHANTOMS_SANDBOX is off")
            case _:
                return self.secret(integration) is None

    @property
    def renderer(self) -> str:
        """`local` or `shotstack`, as the setting says."""
        if self._settings.renderer != "auto":
            return self._settings.renderer
        others_are_real = any(self.secret(name) for name in INTEGRATIONS if name != "shotstack")
        return "local" if self.secret("shotstack") is None and others_are_real else "shotstack"

    @property
    def sandbox_needed(self) -> list[str]:
        """The integrations that the sandbox answers for."""
        if self._settings.sandbox == "off":
            return []
        used = [name for name in INTEGRATIONS if name != "shotstack" or self.renderer == "shotstack"]
        return [name for name in used if self.sandboxed(name)]

    def base_url(self, integration: str) -> str:
        """The base URL that the adapter is given."""
        if self.sandboxed(integration):
            paths = {"openai": "/openai/v1", "shotstack": "/shotstack", "tiktok": "/tiktok", "instagram": "/instagram"}
            return self.sandbox_url + paths.get(integration, "")
        return str(getattr(self._settings, f"{integration}_base_url"))

    @property
    def instagram_upload_url(self) -> str:
        """The host of Instagram's resumable upload."""
        if self.sandboxed("instagram"):
            return self.sandbox_url + "/instagram/rupload"
        return self._settings.instagram_upload_url

    @property
    def sandbox_url(self) -> str:
        """Where the sandbox is. Raises InvalidInput when none is running."""
        if self._settings.sandbox_url is None:
            raise InvalidInput("no key is set and no sandbox is running: start `phantoms up`, or set PHANTOMS_SANDBOX_URL")
        return self._settings.sandbox_url.rstrip("/")

    def key(self, integration: str) -> str:
        """The key that the adapter is given."""
        return "sandbox-key" if self.sandboxed(integration) else self.secret(integration) or ""

    async def token(self, platform: Platform, account: str) -> str:
        """See `ports.Tokens`."""
        if self.sandboxed(str(platform)):
            return f"sandbox-{account}"
        token = self.secret(str(platform))
        if token is None:
            message = f"{platform.title} account {account} is not connected; set PHANTOMS_{platform.upper()}_TOKEN"
            raise Permanent(message, provider=str(platform), code="not_connected")
        return token


@dataclass(frozen=True)
class Pipeline:
    """What a step works with: the runner and the readers of results."""

    runner: StageRunner
    readers: Mapping[Platform, MetricsReader]


class Workshop:
    """Everything of one process, made from its settings."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.endpoints = Endpoints(settings)
        self.clock = SystemClock()

    @classmethod
    def from_environment(cls) -> Workshop:
        """The workshop of the environment this process was started in."""
        return cls(settings_module.load())

    # --- the synchronous side

    @property
    def database_url(self) -> str:
        """The URL of PostgreSQL. Raises InvalidInput when there is none."""
        if self.settings.database_url is None:
            raise InvalidInput("no database is running here: start `phantoms up`, or set PHANTOMS_DATABASE_URL")
        return self.settings.database_url.get_secret_value()

    @cached_property
    def engine(self) -> Engine:
        """The engine of commands and sensors."""
        return engine(self.database_url)

    @property
    def media_folder(self) -> Path:
        """Where the media store keeps its files."""
        return self.settings.path("media")

    def channels(self) -> dict[str, Channel]:
        """The channels of channels.yaml (the default ones when there is no file). Raises InvalidInput."""
        path = self.settings.path("channels")
        if not path.exists():
            return channels_file.parse(channels_file.default_text(), name="the default channels.yaml")
        try:
            content = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{path} cannot be read: {error}") from error
        return channels_file.parse(content, name=str(path))

    def catalogue(self) -> Catalogue:
        """The catalogue of videos."""
        return Catalogue(self.engine)

    def decisions(self) -> Decisions:
        """Reviewers' decisions."""
        return Decisions(self.engine)

    def planning(self) -> Planning:
        """The planner's reader."""
        return Planning(self.engine)

    def results(self) -> Results:
        """Metrics and performance tables."""
        return Results(self.engine)

    def record_decision(self, key: str, *, approved: bool, reviewer: str, note: str) -> None:
        """Record a decision made in the Dagster UI."""
        self.decisions().decide(key, approved=approved, reviewer=reviewer, note=note, via="dagster")

    def take_inbox(self) -> list[InboxReport]:
        """Take what lies in the inbox folder into the catalogue."""
        catalogue = self.catalogue()

        def channels() -> Mapping[str, Channel]:
            found = self.channels()
            catalogue.put_channels(found.values())
            return found

        return take_inbox(self.settings.path("inbox"), channels, catalogue.add_from)

    def close(self) -> None:
        """Give connections back."""
        if "engine" in self.__dict__:
            self.engine.dispose()

    # --- the asynchronous side

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Pipeline]:
        """A pipeline on the running event loop."""
        async with AsyncExitStack() as stack:
            database = async_engine(self.database_url)
            stack.push_async_callback(database.dispose)
            clients = {name: await stack.enter_async_context(_client()) for name in INTEGRATIONS}
            yield Pipeline(
                runner=self._runner(PostgresStageStore(database, lease_seconds=self.settings.lease_seconds), database, clients),
                readers=self._readers(clients),
            )

    def _runner(self, store: PostgresStageStore, database: Any, clients: Mapping[str, httpx.AsyncClient]) -> StageRunner:
        s = self.settings
        policy = RetryPolicy(
            attempts=s.attempts,
            backoff_seconds=s.backoff_seconds,
            backoff_max_seconds=s.backoff_max_seconds,
            patience_seconds=s.patience_seconds,
        )
        return StageRunner(
            store=store,
            use_cases=self._use_cases(PostgresLedgers(database), clients),
            clock=self.clock,
            policy=policy,
            random=random.random,
            new_owner=lambda: f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}",
            in_flight=s.in_flight,
            heartbeat_seconds=s.lease_seconds / 3,
        )

    def _use_cases(self, ledgers: PostgresLedgers, clients: Mapping[str, httpx.AsyncClient]) -> Mapping[str, UseCase]:
        s = self.settings
        media = FolderStore(self.media_folder)
        studio = FfmpegStudio()
        rendering = _Lazy(
            lambda: RenderVideo(
                renderer=self._renderer(clients["shotstack"]),
                studio=studio,
                media=media,
                ledgers=ledgers,
                clock=self.clock,
                poll_seconds=s.render_poll_seconds,
                patience_seconds=s.patience_seconds,
            )
        )
        publishing = _Lazy(
            lambda: Publish(
                publishers=self._publishers(clients),
                media=media,
                ledgers=ledgers,
                clock=self.clock,
                privacy={Platform.YOUTUBE: s.youtube_privacy},
            )
        )
        return {
            "script": _Lazy(lambda: WriteScript(self._writer(clients["openai"]))),
            "voiceover": _Lazy(lambda: SpeakScript(NeuralVoice(media))),
            "rendered_video": rendering,
            "approval": Approve(self.clock),
            "variant": MakeVariant(studio=studio, media=media),
            "post": publishing,
        }

    def _writer(self, client: httpx.AsyncClient) -> OpenAIScriptWriter:
        return OpenAIScriptWriter(
            http_client=client,
            api_key=self.endpoints.key("openai"),
            base_url=self.endpoints.base_url("openai"),
            model=self.settings.openai_model,
            clock=self.clock,
            input_usd_per_million=self.settings.openai_input_usd_per_million,
            output_usd_per_million=self.settings.openai_output_usd_per_million,
            sandbox=self.endpoints.sandboxed("openai"),
        )

    def _renderer(self, client: httpx.AsyncClient) -> Renderer:
        if self.endpoints.renderer == "local":
            return LocalRenderer(self.media_folder / "work", in_flight=self.settings.renders_in_flight)
        return ShotstackRenderer(
            client=client,
            base_url=self.endpoints.base_url("shotstack"),
            api_key=self.endpoints.key("shotstack"),
            stage=self.settings.shotstack_stage,
            clock=self.clock,
            sandbox=self.endpoints.sandboxed("shotstack"),
            usd_per_minute=self.settings.shotstack_usd_per_minute,
        )

    def _publishers(self, clients: Mapping[str, httpx.AsyncClient]) -> Mapping[Platform, Publisher]:
        e, patience = self.endpoints, self.settings.patience_seconds
        instagram_sandboxed = e.sandboxed("instagram")
        return {
            Platform.YOUTUBE: YouTubePublisher(
                client=clients["youtube"],
                base_url=e.base_url("youtube"),
                tokens=e,
                clock=self.clock,
                sandbox=e.sandboxed("youtube"),
                patience=patience,
            ),
            Platform.TIKTOK: TikTokPublisher(
                client=clients["tiktok"],
                base_url=e.base_url("tiktok"),
                tokens=e,
                clock=self.clock,
                sandbox=e.sandboxed("tiktok"),
                privacy=self.settings.tiktok_privacy,
                patience=patience,
            ),
            Platform.INSTAGRAM: InstagramPublisher(
                client=clients["instagram"],
                base_url=e.base_url("instagram"),
                upload_url=e.instagram_upload_url,
                tokens=e,
                clock=self.clock,
                sandbox=instagram_sandboxed,
                version=self.settings.instagram_version,
                patience=patience,
                settle_seconds=SANDBOX_SETTLE_SECONDS if instagram_sandboxed else 60.0,
            ),
        }

    def _readers(self, clients: Mapping[str, httpx.AsyncClient]) -> Mapping[Platform, MetricsReader]:
        e = self.endpoints
        makers: Mapping[Platform, Callable[[], MetricsReader]] = {
            Platform.YOUTUBE: lambda: YouTubeMetricsReader(
                client=clients["youtube"], base_url=e.base_url("youtube"), tokens=e, clock=self.clock
            ),
            Platform.TIKTOK: lambda: TikTokMetricsReader(client=clients["tiktok"], base_url=e.base_url("tiktok"), tokens=e),
            Platform.INSTAGRAM: lambda: InstagramMetricsReader(
                client=clients["instagram"],
                base_url=e.base_url("instagram"),
                tokens=e,
                clock=self.clock,
                version=self.settings.instagram_version,
            ),
        }
        return _LazyMapping(makers)


class _Lazy:
    """A use case that is made when it is first called: a script run needs neither ffmpeg nor a publisher's token."""

    def __init__(self, make: Callable[[], UseCase]) -> None:
        self._make = make

    @cached_property
    def _use_case(self) -> UseCase:
        return self._make()

    async def __call__(self, work: Any) -> Any:
        return await self._use_case(work)


class _LazyMapping(dict[Platform, MetricsReader]):
    def __init__(self, makers: Mapping[Platform, Callable[[], MetricsReader]]) -> None:
        super().__init__()
        self._makers = makers

    def __missing__(self, platform: Platform) -> MetricsReader:
        self[platform] = reader = self._makers[platform]()
        return reader


@asynccontextmanager
async def _client() -> AsyncIterator[httpx.AsyncClient]:
    timeout = httpx.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
    # httpcore's own pool costs 5 ms a call at 200 in flight; this transport 0.3 ms.
    async with httpx.AsyncClient(transport=AiohttpTransport(), timeout=timeout, follow_redirects=False) as client:
        yield client


def sandbox_application(*, seed: int, base_url: str, work_dir: Path, real_renders: bool = True) -> web.Application:
    """The sandbox's HTTP application. Its render API is backed by the local renderer unless `real_renders` is off."""
    sandbox = Sandbox(seed=seed, base_url=base_url)

    async def render_edit(edit: dict[str, Any], audio: Path | None, destination: Path) -> None:
        if audio is None:
            raise ValueError("the edit has no voiceover")
        await render(job_from_edit(edit, audio), destination, fonts=work_dir / "fonts")

    callback: Callable[[dict[str, Any], Path | None, Path], Awaitable[None]] | None = render_edit if real_renders else None
    app = application(
        sandbox,
        [
            openai_sandbox.routes(sandbox),
            shotstack_sandbox.routes(sandbox, render=callback, work_dir=work_dir),
            youtube_sandbox.routes(sandbox),
            tiktok_sandbox.routes(sandbox),
            instagram_sandbox.routes(sandbox),
        ],
    )
    shotstack_sandbox.setup(app)
    return app
