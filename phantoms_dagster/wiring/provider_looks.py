"""What Redis knows of providers, in one look: breakers, pools, and what happened to one of them. For pages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.breakers.breaker import BreakerState, Transition
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.redis_looks import RedisAway
from phantoms_dagster.wiring.watching import PoolView, watching


@dataclass(frozen=True)
class ProviderLook:
    """`history`: of the breakers that were asked for, by name, the newest first. `problem`: why Redis could not be asked."""

    breakers: Sequence[BreakerState] = ()
    pools: Sequence[PoolView] = ()
    history: dict[str, list[Transition]] = field(default_factory=dict)
    problem: str = ""


def look_at_providers(settings: Settings, *, history_of: Sequence[str] = ()) -> ProviderLook:
    """Ask Redis, once. Raises InvalidInput without a usable address of it. Call it where no event loop runs."""

    async def ask() -> ProviderLook:
        async with watching(settings) as watcher:
            breakers, pools, histories = await asyncio.gather(
                watcher.breakers.look(),
                watcher.pools(),
                asyncio.gather(*(watcher.breakers.history(name) for name in history_of)),
            )
            return ProviderLook(breakers, pools, dict(zip(history_of, histories, strict=True)))

    try:
        return asyncio.run(ask())
    except (RedisAway, NotYet) as error:
        return ProviderLook(problem=str(error))
