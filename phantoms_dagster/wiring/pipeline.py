"""Assembles a pipeline for one event loop: the runner with its use cases, and the metrics readers."""

from __future__ import annotations

import os
import random
import socket
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, cast

import httpx
from sqlalchemy.ext.asyncio import AsyncEngine

from phantoms_dagster.domain.attempt_context import WaitingClock
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import (
    Clock,
    ExtraAdder,
    IdentityReader,
    LateIds,
    MediaStore,
    MetricsReader,
    PostReader,
    PostRemover,
    Publisher,
)
from phantoms_dagster.domain.retry import RetryPolicy
from phantoms_dagster.domain.stages import KINDS
from phantoms_dagster.media.studio import FfmpegStudio
from phantoms_dagster.production.accounts import AccountGate
from phantoms_dagster.production.preflight import PreflightTools
from phantoms_dagster.production.runner import StageRunner, UseCase
from phantoms_dagster.production.stages.approval import Approve
from phantoms_dagster.production.stages.post import Publish
from phantoms_dagster.production.stages.rendered_video import RenderVideo
from phantoms_dagster.production.stages.script import WriteScript
from phantoms_dagster.production.stages.variant import MakeVariant
from phantoms_dagster.production.stages.voiceover import SpeakScript
from phantoms_dagster.production.token_refresh import TokenRefresher
from phantoms_dagster.registry.providers import PROVIDERS, RENDERERS, VOICES, WRITERS
from phantoms_dagster.resilience.limits import calling_for
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.accounts import PostgresAccounts
from phantoms_dagster.store.engine import async_engine
from phantoms_dagster.store.grants import PostgresGrants
from phantoms_dagster.store.kept_files import files_are_known
from phantoms_dagster.store.ledgers import PostgresLedgers
from phantoms_dagster.store.post_times import PostgresPostTimes
from phantoms_dagster.store.provider_events import NamedRenders
from phantoms_dagster.store.sealed_urls import SealedUrls
from phantoms_dagster.store.stage_checks import StageChecks
from phantoms_dagster.store.stage_store import PostgresStageStore
from phantoms_dagster.wiring import logs
from phantoms_dagster.wiring.account_adapters import AccountExtras, AccountLateIds, AccountMetricsReader, AccountPublisher
from phantoms_dagster.wiring.clients import guarded_clients
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints, gateway_of, wanted_privacy
from phantoms_dagster.wiring.limits import limits_of
from phantoms_dagster.wiring.media_gate import GatedUseCase, MediaGate, media_gate
from phantoms_dagster.wiring.object_store_guard import guarded_media
from phantoms_dagster.wiring.platforms import LazyAdapters, Toolbox, can, oauth_adapters
from phantoms_dagster.wiring.pool_limits import post_limits
from phantoms_dagster.wiring.providers import Providers, adapters
from phantoms_dagster.wiring.token_keys import vault
from phantoms_dagster.wiring.tokens import AccountTokens, KeyTokens


@dataclass(frozen=True)
class PublishedReads:
    """What reads published posts, by platform: metrics, late public ids, how posts stand, and who owns an account."""

    metrics: Mapping[Platform, MetricsReader]
    late_ids: Mapping[Platform, LateIds]
    posts: Mapping[Platform, PostReader]
    identities: Mapping[Platform, IdentityReader]


@dataclass(frozen=True)
class Pipeline:
    """Everything that a step or a command uses to reach providers.

    The runner, what reads published posts at their platforms and at the gateways that published them, what adds extras to posts,
    the media store, the removers of posts, the checks of stages, the refresher of tokens, and what preflight checks read with.
    """

    runner: StageRunner
    own: PublishedReads
    gateways: PublishedReads
    extras: Mapping[Platform, ExtraAdder]
    media: MediaStore
    removers: Mapping[Platform, PostRemover]
    standing: StageChecks
    refresher: TokenRefresher
    preflight: PreflightTools

    def reads_of(self, *, by_gateway: bool) -> PublishedReads:
        """What reads a post: the gateway that published it, or the platform itself."""
        return self.gateways if by_gateway else self.own


@asynccontextmanager
async def open_pipeline(settings: Settings, endpoints: Endpoints, clock: Clock, database_url: str) -> AsyncIterator[Pipeline]:
    """A pipeline on the running event loop. Its connections are closed at exit."""
    logs.configure(settings)
    database = async_engine(database_url)
    try:
        if isinstance(clock, SystemClock):
            await clock.agree_with(database)
        waiting = WaitingClock(clock)
        async with (
            limits_of(settings, waiting) as limits,  # one connection to Redis for all three
            guarded_clients(settings, waiting, logs.log_call, sandboxed=endpoints.sandboxed, limits=limits) as clients,
            guarded_media(settings, waiting, limits=limits) as media,
            media_gate(settings, waiting, lambda: files_are_known(database), limits=limits) as gate,
            AsyncExitStack() as stack,
        ):
            accounts = PostgresAccounts(database)
            if settings.sandbox.mode != "on":
                endpoints.connect(await accounts.connected_platforms())
            keys = vault(settings)
            grants = PostgresGrants(database, keys)
            ledgers = PostgresLedgers(database, SealedUrls(keys))
            named = NamedRenders(database).of
            parts = _Parts(settings, endpoints, clock, clients, media, gate=gate, accounts=accounts, grants=grants, named=named)
            stack.push_async_callback(parts.refresher.finish)
            yield Pipeline(
                runner=parts.runner(database, ledgers),
                own=parts.own_reads(),
                gateways=parts.gateway_reads(),
                extras=parts.extras(),
                media=media,
                removers=parts.post_removers(),
                standing=StageChecks(database),
                refresher=parts.refresher,
                preflight=parts.preflight(),
            )
    finally:
        await database.dispose()


class _Parts:
    def __init__(
        self,
        settings: Settings,
        endpoints: Endpoints,
        clock: Clock,
        clients: Mapping[str, httpx.AsyncClient],
        media: MediaStore,
        *,
        gate: MediaGate,
        accounts: PostgresAccounts,
        grants: PostgresGrants,
        named: Callable[[str, str], Awaitable[Sequence[str]]],
    ) -> None:
        self.accounts = accounts
        self.tokens = AccountTokens(endpoints, accounts.token_sources, lambda: self.refresher)
        self.settings = settings
        self.endpoints = endpoints
        self.wall_clock = clock
        self.clock = WaitingClock(clock)
        self.clients = clients
        self.media = media
        self.gate = gate
        self.toolbox = Toolbox(settings, endpoints, clients, self.tokens, self.clock)
        self.refresher = TokenRefresher(store=grants, oauth=oauth_adapters(self.toolbox), clock=self.clock)
        self.providers = Providers(settings, endpoints, clients, media, self.clock, named=named)

    def runner(self, database: AsyncEngine, ledgers: PostgresLedgers) -> StageRunner:
        s = self.settings
        policy = RetryPolicy(
            attempts=s.pacing.attempts,
            backoff_seconds=s.pacing.backoff_seconds,
            backoff_max_seconds=s.pacing.backoff_max_seconds,
            max_wait_seconds=s.pacing.max_wait_seconds,
            give_up_seconds=s.pacing.give_up_minutes * 60,
            give_up_alone_seconds=s.pacing.give_up_alone_hours * 3_600,
        )
        return StageRunner(
            store=PostgresStageStore(database, lease_seconds=s.pacing.lease_seconds),
            use_cases=self._use_cases(database, ledgers),
            clock=self.wall_clock,
            policy=policy,
            random=random.random,
            new_owner=lambda: f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:12]}",
            in_flight=s.pacing.in_flight,
            heartbeat_seconds=s.pacing.lease_seconds / 3,
            policies={kind: replace(policy, attempts=most) for kind, most in s.pacing.stage_attempts.items()},
        )

    def _use_cases(self, database: AsyncEngine, ledgers: PostgresLedgers) -> Mapping[str, UseCase]:
        s, media = self.settings, self.media
        studio = FfmpegStudio()
        privacy = wanted_privacy(s)
        rendering = _Lazy(
            lambda: RenderVideo(
                renderer=self.providers.make(RENDERERS),
                studio=studio,
                media=media,
                ledgers=ledgers,
                clock=self.clock,
                poll_seconds=s.renderer.poll_seconds,
                max_wait_seconds=s.pacing.max_wait_seconds,
                lost_seconds=s.renderer.lost_seconds,
                privacy=privacy,
                deadline_seconds=s.renderer.deadline_minutes * 60,
            )
        )
        publishing = _Lazy(
            lambda: Publish(
                publishers=self._publishers(),
                gateways=self._gateways(),
                media=media,
                ledgers=ledgers,
                times=PostgresPostTimes(database, limits=post_limits(s), clock=self.clock),
                clock=self.clock,
                max_wait_seconds=s.pacing.max_wait_seconds,
                privacy=privacy,
            )
        )
        by_kind: Mapping[str, UseCase] = {
            "script": _Lazy(lambda: WriteScript(self.providers.make(WRITERS))),
            "voiceover": _Lazy(lambda: SpeakScript(self.providers.make(VOICES))),
            "rendered_video": rendering,
            "approval": Approve(self.clock, privacy),
            "variant": MakeVariant(studio=studio, media=media),
            "post": publishing,
        }
        return {kind: self._on_media(kind, use_case) for kind, use_case in by_kind.items()}

    def _on_media(self, kind: str, use_case: UseCase) -> UseCase:
        """The use case, behind the media gate if its stage works with files."""
        files = KINDS[kind].files
        return use_case if files == "none" else GatedUseCase(self.gate, use_case, writing=files == "writes")

    def _publishers(self) -> Mapping[Platform, Publisher]:
        gate = self._account_gate()

        def make(platform: Platform) -> Publisher:
            return AccountPublisher(cast(Publisher, self.toolbox.make(platform, "publisher")), gate)

        return LazyAdapters(make, tuple(Platform))

    def _gateways(self) -> Mapping[Platform, Publisher]:
        """The publishers for posts whose route is the gateway."""

        def make(platform: Platform) -> Publisher:
            return AccountPublisher(cast(Publisher, self.toolbox.make(platform, "gateway")), self._gateway_gate(platform))

        return LazyAdapters(make, _all_with("gateway"))

    def _gateway_gate(self, platform: Platform) -> AccountGate:
        """The gate of accounts that a gateway publishes for. Its key is checked as the token of an account is."""
        e, gateway = self.endpoints, gateway_of(platform)
        return AccountGate(
            store=self.accounts.at(gateway),
            tokens=KeyTokens(gateway, e),
            readers={platform: cast(IdentityReader, self.toolbox.make(platform, "gateway"))},
            sandboxed=lambda _: e.sandboxed(gateway),
        )

    def _account_gate(self) -> AccountGate:
        e = self.endpoints
        return AccountGate(
            store=self.accounts,
            tokens=self.tokens,
            readers=identity_readers(self.toolbox, e),
            sandboxed=lambda platform: not platform.spec.remote or e.sandboxed(str(platform)),
        )

    def own_reads(self) -> PublishedReads:
        """What reads posts at their platform."""
        return self._reads("metrics", "late_ids", "post_reader", "identity", lambda _: self._account_gate())

    def gateway_reads(self) -> PublishedReads:
        """What reads posts at the gateway that published them."""
        return self._reads("gateway_metrics", "gateway_late_ids", "gateway_post_reader", "gateway", self._gateway_gate)

    def _reads(self, metrics: str, late: str, posts: str, identity: str, gate: Callable[[Platform], AccountGate]) -> PublishedReads:
        def make(what: str) -> Callable[[Platform], Any]:
            return lambda platform: self.toolbox.make(platform, what)

        def reader(platform: Platform) -> MetricsReader:
            return AccountMetricsReader(cast(MetricsReader, self.toolbox.make(platform, metrics)), gate(platform))

        def finder(platform: Platform) -> LateIds:
            return AccountLateIds(cast(LateIds, self.toolbox.make(platform, late)))

        return PublishedReads(
            metrics=LazyAdapters(reader, _all_with(metrics)),
            late_ids=LazyAdapters(finder, _all_with(late)),
            posts=LazyAdapters(make(posts), _all_with(posts)),
            identities=LazyAdapters(make(identity), _all_with(identity)),
        )

    def extras(self) -> Mapping[Platform, ExtraAdder]:
        def make(platform: Platform) -> ExtraAdder:
            return AccountExtras(cast(ExtraAdder, self.toolbox.make(platform, "extras")), self._account_gate())

        return LazyAdapters(make, _all_with("extras"))

    def post_removers(self) -> Mapping[Platform, PostRemover]:
        def make(platform: Platform) -> PostRemover:
            return cast(PostRemover, self.toolbox.make(platform, "post_remover"))

        return LazyAdapters(make, _all_with("post_remover"))

    def preflight(self) -> PreflightTools:
        def all_of(what: str) -> Mapping[Platform, Any]:
            return LazyAdapters(lambda platform: self.toolbox.make(platform, what), _all_with(what))

        return PreflightTools(
            identities=all_of("identity"),
            permissions=all_of("grants"),
            readers=all_of("preflight"),
            publishers=all_of("publisher"),
            media=self.media,
            calls_of=calling_for,
            gateways=all_of("gateway"),
        )


def _all_with(what: str) -> tuple[Platform, ...]:
    """The platforms that have this adapter."""
    return tuple(platform for platform in Platform if can(platform, what))


def identity_readers(toolbox: Toolbox, endpoints: Endpoints) -> Mapping[Platform, IdentityReader]:
    """The readers of token owners, by platform. A platform that the sandbox answers for, or that has no tokens, has none."""

    def make(platform: Platform) -> IdentityReader:
        if endpoints.sandboxed(str(platform)):
            raise KeyError(platform)
        return cast(IdentityReader, toolbox.make(platform, "identity"))

    return LazyAdapters(make, _all_with("identity"))


class _Lazy:
    """A use case that is created with its first call, because a script run needs neither ffmpeg nor a publisher's token."""

    def __init__(self, make: Callable[[], UseCase]) -> None:
        self._make = make

    @cached_property
    def _use_case(self) -> UseCase:
        return self._make()

    async def __call__(self, task: Any) -> Any:
        return await self._use_case(task)


# Imported here once, in the parent: a run imports none.
for _provider in PROVIDERS:
    adapters(_provider)
