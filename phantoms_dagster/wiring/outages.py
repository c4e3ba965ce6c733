"""The breakers that are open now and the stages that wait for them, for commands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.outlook import Outage, Outages
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.registry.providers import PROVIDERS
from phantoms_dagster.registry.providers import stages_of as stages_of_provider
from phantoms_dagster.resilience.breakers.breaker import Breakers, BreakerState
from phantoms_dagster.resilience.pools import SANDBOX
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.redis_connection import RedisAway, breaker_policy, redis_scripts

# A breaker that a person opened without a time limit has its next probe in a hundred years.
_FOR_EVER_DAYS = 365
_WITH_FILES = frozenset(name for name, stage in STAGES.items() if stage.files != "none")
_OF_INTEGRATION = {
    **{
        breaker: stages_of_provider(name)
        for name, spec in PROVIDERS.items()
        for breaker in (name, *(route.integration for route in spec.routes if route.integration is not None))
    },
    **{
        gateway: frozenset(f"{p}/post" for p in Platform if p.spec.gateway == gateway)
        for gateway in {p.spec.gateway for p in Platform if p.spec.gateway}
    },
    **{str(p): frozenset(name for name, s in STAGES.items() if s.kind == "post" and s.platform is p) for p in Platform},
}


def outages_now(settings: Settings, endpoints: Endpoints) -> Outages:
    """Read the open breakers from Redis. `problem` says why Redis could not be asked."""

    async def ask() -> list[BreakerState]:
        async with redis_scripts(settings) as scripts:
            return await Breakers(scripts, policy=breaker_policy(settings)).look()

    try:
        states = asyncio.run(ask())
    except (RedisAway, NotYet) as error:
        return Outages(problem=str(error))
    return Outages(tuple(_outages(states, endpoints)))


def _outages(states: list[BreakerState], endpoints: Endpoints) -> Iterator[Outage]:
    for state in states:
        if state.state == "closed":
            continue
        name = state.name.removeprefix(SANDBOX)
        integration, _, account = name.partition(":")
        stages = stages_of(integration)
        if not integration.startswith("media") and not _concerns(integration, endpoints, sandbox=state.name != name):
            continue
        for_ever = state.until is None or (state.until - datetime.now(UTC)).days > _FOR_EVER_DAYS
        until = None if for_ever else state.until
        yield Outage(state.name, stages, account or None, until, probing=state.state == "half-open")


def stages_of(integration: str) -> frozenset[str]:
    """The stages that wait while an integration's breaker is open."""
    return _WITH_FILES if integration.startswith("media") else _OF_INTEGRATION.get(integration, frozenset())


def _concerns(integration: str, endpoints: Endpoints, *, sandbox: bool) -> bool:
    """Whether calls now go to the side that the breaker is for: the sandbox or the real service."""
    base = integration.partition("_")[0]
    if base in PROVIDERS and not endpoints.used(base):
        return False
    return endpoints.sandboxed(base) == sandbox
