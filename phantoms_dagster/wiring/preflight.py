"""Checks before posts, for the job, commands and the desk: assembles what `production.preflight` needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from phantoms_dagster.domain.errors import InvalidInput, NotYet
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.preflight import PreflightCheck, worst
from phantoms_dagster.production.preflight import PreflightRound, PreflightTools, check_account, preflight_round
from phantoms_dagster.production.stages.post import next_opening
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.preflight import Preflights
from phantoms_dagster.wiring.pipeline import Pipeline
from phantoms_dagster.wiring.posts import with_pipeline
from phantoms_dagster.wiring.redis_connection import RedisAway
from phantoms_dagster.wiring.services import Services
from phantoms_dagster.wiring.watching import watching


def preflights(services: Services) -> Preflights:
    """The tables of the checks."""
    return Preflights(services.engine, next_opening)


async def run_preflight(services: Services, pipeline: Pipeline, *, key: str | None = None) -> PreflightRound:
    """Check the posts that must be checked now, or those of one video."""
    tools = replace(pipeline.preflight, quota=await _quotas(services.settings))
    return await preflight_round(preflights(services), tools, services.clock.now(), key=key)


def check_now(services: Services, key: str) -> PreflightRound:
    """Check the posts of one video now. Not to be called on an event loop."""
    return with_pipeline(services, lambda pipeline: run_preflight(services, pipeline, key=key))


def check_account_now(services: Services, platform: Platform, account: str) -> list[PreflightCheck]:
    """Check an account now, and save the result. If nothing is wrong, a barred account's next post tries at once.

    Not to be called on an event loop.
    """
    route = services.routes().get((platform, account), "")

    async def work(pipeline: Pipeline) -> list[PreflightCheck]:
        tools: PreflightTools = replace(pipeline.preflight, quota=await _quotas(services.settings))
        return await check_account(tools, platform, account, route)

    checks = with_pipeline(services, work)
    preflights(services).save_account(platform, account, checks)
    if worst(checks) != "wrong":
        Accounts(services.engine).try_soon(platform, account)
    return checks


async def _quotas(settings: Settings) -> Mapping[Platform, PreflightCheck]:
    """What is left today of our own daily limit of posts, by platform. Empty while Redis is away."""
    if settings.redis.url is None:
        return {}
    try:
        async with watching(settings) as watcher:
            views = {view.pool: view for view in await watcher.pools()}
    except (RedisAway, NotYet, InvalidInput):
        return {}
    found = {}
    for platform in Platform:
        name = f"publish_{platform}"
        view, limits = views.get(name), platform.spec.pools.get(name)
        if view is None or view.quota is None or view.quota_left is None or limits is None or limits.daily is None:
            continue
        used = f"{view.quota - view.quota_left} of {view.quota} posts of this day are used"
        if view.quota_left > 0:
            found[platform] = PreflightCheck("daily limit", "ok", used)
            continue
        zone = ZoneInfo(limits.daily.zone)
        tomorrow = datetime.now(UTC).astimezone(zone).date() + timedelta(days=1)
        fix = f"posts go on when {tomorrow} begins in {limits.daily.zone}; move this one, or raise the quota"
        found[platform] = PreflightCheck("daily limit", "wrong", used, fix)
    return found
