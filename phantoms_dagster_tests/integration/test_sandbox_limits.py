"""Calls to the sandbox use no quota of the real services and say nothing about their health. On a real Valkey."""

from __future__ import annotations

import httpx
import pytest
from aiohttp.test_utils import TestServer

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.breakers.breaker import Breakers, CallOutcome
from phantoms_dagster.resilience.limits import CallScope
from phantoms_dagster.sandbox.core import Sandbox, application
from phantoms_dagster.sandbox.tiktok import routes as tiktok
from phantoms_dagster.sandbox.youtube import routes as youtube
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clients import guarded_clients
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.limits import limits_of
from phantoms_dagster.wiring.watching import known_breaker, watching

SEARCH = CallScope("youtube", "main", "youtube_search")


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis={"url": redis_url}, pacing={"pools": {"youtube_search": {"daily": [2, "UTC"]}}})


async def called(settings: Settings, scope: CallScope) -> None:
    """One call that is answered."""
    async with limits_of(settings, SystemClock()) as limits:
        permit = await limits.admit(scope, max_wait=0, hold_seconds=9)
        limits.admission.release_soon(permit.lease) if permit.lease else None


async def test_calls_to_the_sandbox_use_up_nothing_of_the_real_daily_quota(settings: Settings) -> None:
    tried = CallScope("youtube", "main", "youtube_search", sandbox=True)
    await called(settings, tried)
    await called(settings, tried)
    with pytest.raises(NotYet):  # the sandbox is paced by the same numbers
        await called(settings, tried)
    await called(settings, SEARCH)
    async with watching(settings) as watcher:
        left = {view.pool: (view.quota, view.quota_left) for view in await watcher.pools("youtube_search")}
    assert left == {"youtube_search": (2, 1), "sandbox/youtube_search": (2, 0)}


async def test_a_breaker_that_opens_for_the_sandbox_holds_no_real_call(settings: Settings) -> None:
    async with limits_of(settings, SystemClock()) as limits:
        await limits.breakers.trip("sandbox/youtube", seconds=600, why="the sandbox is down")
        with pytest.raises(NotYet, match="sandbox/youtube"):
            await limits.admit(CallScope("youtube", "main", "youtube_api", sandbox=True), max_wait=0, hold_seconds=9)
        await limits.settle(await limits.admit(SEARCH, max_wait=0, hold_seconds=9), CallOutcome.ANSWERED)
    assert known_breaker("sandbox/youtube:main") == "sandbox/youtube:main"


async def test_the_wiring_knows_which_integration_the_sandbox_answers(redis_url: str) -> None:
    sandbox = Sandbox(seed=1)
    async with TestServer(application(sandbox, [youtube.routes(sandbox), tiktok.routes(sandbox)])) as server:
        await asked(redis_url, str(server.make_url("")).rstrip("/"))


async def asked(redis_url: str, free_sandbox: str) -> None:
    given = Settings(
        redis={"url": redis_url}, sandbox={"url": free_sandbox}, platforms={"youtube": {"token": "real", "base_url": free_sandbox}}
    )
    async with guarded_clients(given, SystemClock(), sandboxed=Endpoints(given).sandboxed) as clients:
        for name, path in (("youtube", "/youtube/v3/videos"), ("tiktok", "/tiktok/v2/post/publish/creator_info/query/")):
            answer = await clients[name].get(free_sandbox + path, extensions={"phantoms": {"account": "main"}})
            assert isinstance(answer, httpx.Response)
    async with watching(given) as watcher:
        used = {view.pool for view in await watcher.pools() if view.used}
        names = {state.name for state in await watcher.breakers.look()}
    assert used == {"youtube_api", "sandbox/tiktok_creator:main"}
    assert all(name.startswith("sandbox/") == ("tiktok" in name) for name in names)


def test_the_sandbox_breaker_has_the_policy_of_the_real_one() -> None:
    assert Breakers.of("sandbox/youtube", "main") == ("sandbox/youtube:main", "sandbox/youtube")
