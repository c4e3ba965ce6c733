"""The pools that calls are admitted by. Their numbers are in the records of the providers and the platforms.

This holds values. How limits are kept is `admission`; a pool named `publish_youtube:*` is one pool per account.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from phantoms_dagster.registry.integrations import INTEGRATIONS
from phantoms_dagster.registry.pools import DAY, HOUR, MINUTE, PACIFIC, DailyQuota, PoolLimits, Rate

__all__ = ["DAY", "DEFAULT_POOLS", "HOUR", "MINUTE", "NOBODY", "PACIFIC", "SANDBOX", "DailyQuota", "PoolLimits", "Pools", "Rate"]

# The account of calls that name none.
NOBODY = "-"
# What pools and breakers of calls to the sandbox begin with. Their limits are those of the real service; what is used is not.
SANDBOX = "sandbox/"

# A number that is too high is learnt downwards from 429; one that is too low is what settings are for.
DEFAULT_POOLS: Mapping[str, PoolLimits] = MappingProxyType(
    {name: limits for spec in INTEGRATIONS.values() for name, limits in spec.pools.items()}
)


class Pools:
    """The pools that calls are admitted by: the defaults, with `overrides` on top (same names)."""

    def __init__(
        self, overrides: Mapping[str, PoolLimits] | None = None, *, defaults: Mapping[str, PoolLimits] = DEFAULT_POOLS
    ) -> None:
        self._limits = {**defaults, **(overrides or {})}

    def limits(self, pool: str) -> PoolLimits:
        """The limits of `render` or `publish_youtube:main`. Raises KeyError for a pool that nobody defined."""
        found = self._find(pool)
        if found is None:
            raise KeyError(f"no pool {pool!r}; there are: {', '.join(sorted(self._limits))}")
        return found

    def has(self, pool: str) -> bool:
        """Whether `limits` knows it."""
        return self._find(pool) is not None

    def _find(self, pool: str) -> PoolLimits | None:
        pool = pool.removeprefix(SANDBOX)
        found = self._limits.get(pool)
        if found is None and ":" in pool:
            found = self._limits.get(pool.split(":", 1)[0] + ":*")
        return found

    def of(self, pool: str, account: str | None, *, sandbox: bool = False) -> list[str]:
        """The pools that one call goes through: the app's own first, then the account's; whichever of them exist.

        Calls that name no account share one, so that forgetting it can make them slower but never too fast. `sandbox`: the pools
        of the sandbox, which count for themselves.
        """
        names = [pool] if pool in self._limits else []
        if names and (shared := self._limits[pool].shares) is not None:
            names.append(shared)
        if f"{pool}:*" in self._limits:
            names.append(f"{pool}:{account or NOBODY}")
        if not names:
            self.limits(pool)  # says what there is
        return [SANDBOX + name for name in names] if sandbox else names

    def names(self) -> list[str]:
        """All defined names, `*` standing for any account."""
        return sorted(self._limits)
