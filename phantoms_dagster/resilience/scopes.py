"""Which pool each request of an integration falls under, so that adapters need not say it.

A table of paths and nothing else; its rows, and the numbers of the pools, are in the records of the providers and the platforms.
What a row costs against a daily quota is the provider's own price list. Reading results has pools and breakers of its own: whatever
happens to it, publishing goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from phantoms_dagster.registry import routes
from phantoms_dagster.registry.integrations import INTEGRATIONS
from phantoms_dagster.resilience.limits import CallScope

if TYPE_CHECKING:
    import httpx


class ScopeRoute(NamedTuple):
    """Requests of this method (None: any) whose URL matches. `integration` is another breaker's when it is another's service."""

    method: str | None
    url: re.Pattern[str]
    pool: str
    cost: int = 1
    integration: str | None = None


def _compiled(route: routes.Route) -> ScopeRoute:
    return ScopeRoute(route.method, re.compile(route.url), route.pool, route.cost, route.integration)


# The first row that matches decides; each integration ends with one that matches all.
ROUTES: dict[str, tuple[ScopeRoute, ...]] = {
    spec.name: tuple(_compiled(route) for route in spec.routes) for spec in INTEGRATIONS.values()
}


def scope_of(integration: str) -> Callable[[httpx.Request], CallScope]:
    """The scope of each request of a provider or a platform. Raises KeyError for any other."""
    routes = ROUTES[integration]

    def scope(request: httpx.Request) -> CallScope:
        url = str(request.url).partition("?")[0]
        for route in routes:
            if (route.method is None or route.method == request.method) and route.url.search(url):
                return CallScope(route.integration or integration, pool=route.pool, cost=route.cost)
        raise AssertionError(f"the routes of {integration} do not end with one for all")

    return scope
