"""The pools of every integration. Their limits are in the records of the providers and the platforms.

A pool named `publish_youtube:*` is one pool per account. `admission` enforces the limits.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from phantoms_dagster.registry.integrations import INTEGRATIONS
from phantoms_dagster.registry.pools import DAY, HOUR, MINUTE, PACIFIC, DailyQuota, PoolLimits, Rate

__all__ = [
    "DAY",
    "DEFAULT_POOLS",
    "HOUR",
    "MINUTE",
    "NO_ACCOUNT",
    "PACIFIC",
    "SANDBOX",
    "DailyQuota",
    "PoolLimits",
    "Pools",
    "Rate",
]

# The account of calls that name none.
NO_ACCOUNT = "-"
# The prefix of pools and breakers for calls to the sandbox. They have the real service's limits but count separately.
SANDBOX = "sandbox/"

# A number that is too high is lowered by 429 answers. Raise one that is too low in the settings.
DEFAULT_POOLS: Mapping[str, PoolLimits] = MappingProxyType(
    {name: limits for spec in INTEGRATIONS.values() for name, limits in spec.pools.items()}
)


class Pools:
    """The pools and their limits: `defaults`, where `overrides` replaces those of the same name."""

    def __init__(
        self, overrides: Mapping[str, PoolLimits] | None = None, *, defaults: Mapping[str, PoolLimits] = DEFAULT_POOLS
    ) -> None:
        self._limits = {**defaults, **(overrides or {})}

    def limits(self, pool: str) -> PoolLimits:
        """The limits of a pool such as `render` or `publish_youtube:main`. Raises KeyError for an undefined pool."""
        found = self._find(pool)
        if found is None:
            raise KeyError(f"no pool {pool!r}; there are: {', '.join(sorted(self._limits))}")
        return found

    def has(self, pool: str) -> bool:
        """Whether the pool is defined."""
        return self._find(pool) is not None

    def _find(self, pool: str) -> PoolLimits | None:
        pool = pool.removeprefix(SANDBOX)
        found = self._limits.get(pool)
        if found is None and ":" in pool:
            found = self._limits.get(pool.split(":", 1)[0] + ":*")
        return found

    def of(self, pool: str, account: str | None, *, sandbox: bool = False) -> list[str]:
        """The pools that one call goes through: the app's pool first, then the account's, as far as they exist.

        Calls that name no account share one pool, so forgetting the account makes calls slower but never too fast. `sandbox`: the
        sandbox's pools, which count separately.
        """
        names = [pool] if pool in self._limits else []
        if names and (shared := self._limits[pool].shares) is not None:
            names.append(shared)
        if f"{pool}:*" in self._limits:
            names.append(f"{pool}:{account or NO_ACCOUNT}")
        if not names:
            self.limits(pool)  # raises and lists the pools that exist
        return [SANDBOX + name for name in names] if sandbox else names

    def names(self) -> list[str]:
        """All defined names, sorted. `*` means any account."""
        return sorted(self._limits)
