"""The status of providers in Redis, for pages: breakers, pools, and the history of some breakers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.breakers.breaker import BreakerState, Transition
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.redis_connection import RedisAway
from phantoms_dagster.wiring.watching import PoolView, watching


@dataclass(frozen=True)
class ProviderStatus:
    """The providers' status. `history`: by breaker, newest change first. `problem`: why Redis could not be asked."""

    breakers: Sequence[BreakerState] = ()
    pools: Sequence[PoolView] = ()
    history: dict[str, list[Transition]] = field(default_factory=dict)
    problem: str = ""


def read_provider_status(settings: Settings, *, history_of: Sequence[str] = ()) -> ProviderStatus:
    """Read the status from Redis. Raises InvalidInput without a usable Redis URL. Must not be called on an event loop."""

    async def ask() -> ProviderStatus:
        async with watching(settings) as watcher:
            breakers, pools, histories = await asyncio.gather(
                watcher.breakers.look(),
                watcher.pools(),
                asyncio.gather(*(watcher.breakers.history(name) for name in history_of)),
            )
            return ProviderStatus(breakers, pools, dict(zip(history_of, histories, strict=True)))

    try:
        return asyncio.run(ask())
    except (RedisAway, NotYet) as error:
        return ProviderStatus(problem=str(error))
