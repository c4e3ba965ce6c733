"""Which routes onto a platform an account can use, in words, for `phantoms doctor`, `phantoms accounts check` and the desk."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms.route_facts import RouteFact
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.platforms import adapters


def account_routes(endpoints: Endpoints, platform: Platform, route: str, missing: Collection[str] = ()) -> Sequence[RouteFact]:
    """The routes of an account, the one that it uses first. Empty for a platform with one route.

    `missing`: the permissions that its token lacks; empty if the platform was not asked.
    """
    tell = getattr(adapters(platform), "route_facts", None)
    if tell is None:
        return ()
    key = platform.spec.gateway is not None and not endpoints.missing(platform.spec.gateway)
    told: Sequence[RouteFact] = tell(missing, route, gateway=key)
    return sorted(told, key=lambda fact: fact.name != route)
