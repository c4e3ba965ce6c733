"""Which routes onto a platform an account can use, in words, for `phantoms doctor`, `phantoms accounts check` and the desk."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms.route_facts import RouteFact
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.registry.providers import PROVIDERS
from phantoms_dagster.wiring.endpoints import Endpoints, variable_of_key
from phantoms_dagster.wiring.platforms import adapters


def account_routes(endpoints: Endpoints, platform: Platform, route: str, missing: Collection[str] = ()) -> Sequence[RouteFact]:
    """The routes of an account, the one that it uses first. Empty for a platform with one route.

    `missing`: the permissions that its token lacks; empty if the platform was not asked.
    """
    tell = getattr(adapters(platform), "route_facts", None)
    if tell is None:
        return ()
    gateway = platform.spec.gateway
    told: Sequence[RouteFact] = tell(missing, route, gateway=gateway is not None and not endpoints.missing(gateway))
    if gateway is not None and _sandboxed(endpoints, gateway) and (route == GATEWAY or _sandboxed(endpoints, str(platform))):
        title, key = PROVIDERS[gateway].title, variable_of_key(gateway)
        why = f"the sandbox answers for {title} until {key} is set"
        told = [replace(fact, possible="yes", why=why, fix="") if fact.name == GATEWAY else fact for fact in told]
    return sorted(told, key=lambda fact: fact.name != route)


def _sandboxed(endpoints: Endpoints, integration: str) -> bool:
    try:
        return endpoints.sandboxed(integration)
    except InvalidInput:
        return False  # the sandbox is off, and there is no key
