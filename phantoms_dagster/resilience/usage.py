"""The present use of each pool's rates, for display. It reads the grants that admission records and decides nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phantoms_dagster.resilience.pools import PoolLimits
from phantoms_dagster.resilience.redis.scripts import Argument, LuaScript, Scripts, lua

_COUNT = LuaScript(lua("count_use"))


@dataclass(frozen=True, slots=True)
class RateUse:
    """A rate of `calls` calls per `seconds`, of which `used` were granted in the last `seconds`."""

    calls: int
    seconds: float
    used: int


async def rates_used(
    scripts: Scripts, pools: Mapping[str, PoolLimits], *, namespace: str = "phantoms"
) -> dict[str, tuple[RateUse, ...]]:
    """The use of every rate, by pool name and in the order of the pool's rates. Raises NotYet while Redis is unavailable."""
    keys: list[str] = []
    windows: list[Argument] = []
    for name, limits in pools.items():
        for n, (_, seconds, _) in enumerate(limits.rates, 1):
            keys.append(f"{namespace}:pool:{name}#r{n}")
            windows.append(int(seconds * 1e6))
    counts: list[Any] = await scripts.run(_COUNT, keys, windows) if keys else []
    used = iter(counts)
    found: dict[str, tuple[RateUse, ...]] = {}
    for name, limits in pools.items():
        found[name] = tuple(RateUse(calls, seconds, int(next(used))) for calls, seconds, _ in limits.rates)
    return found
