"""What the pools allow, from the settings. It does not import the client of Redis, which commands that only look do not need."""

from __future__ import annotations

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.posting_slots import DayLimit
from phantoms_dagster.resilience.pools import DAY, PoolLimits, Pools
from phantoms_dagster.settings import Settings


def pool_overrides(settings: Settings) -> dict[str, PoolLimits]:
    """The pools whose limits the settings change. A pool that is not registered has only the limits that the settings give."""
    registered = Pools()
    return {
        name: given.applied_to(registered.limits(name) if registered.has(name) else PoolLimits())
        for name, given in settings.pacing.pools.items()
    }


def post_limits(settings: Settings) -> dict[Platform, list[DayLimit]]:
    """Each platform's limits of posts per day, from its publishing pools. Platforms without a limit are left out."""
    pools = Pools(pool_overrides(settings))
    found: dict[Platform, list[DayLimit]] = {}
    for platform in Platform:
        names = [name for name in (f"publish_{platform}", f"publish_{platform}:*") if pools.has(name)]
        limits = [pools.limits(name) for name in names]
        found[platform] = [
            *(DayLimit(each.daily.units, each.daily.zone) for each in limits if each.daily is not None),
            *(DayLimit(calls) for each in limits for calls, seconds, _ in each.rates if seconds == DAY),
        ]
    return {platform: limits for platform, limits in found.items() if limits}
