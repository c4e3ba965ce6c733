"""The pool of each request, by method and URL, so that adapters need not name it.

The routes and the pools' limits are in the records of the providers and the platforms. A route's cost against a daily quota is the
provider's own figure. Requests that read metrics have their own pools and breakers, so their trouble never stops publishing.
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
    """Requests with this method (None: any) and a matching URL. `integration` names the breaker if another service answers them."""

    method: str | None
    url: re.Pattern[str]
    pool: str
    cost: int = 1
    integration: str | None = None


def _compiled(route: routes.Route) -> ScopeRoute:
    return ScopeRoute(route.method, re.compile(route.url), route.pool, route.cost, route.integration)


# The first matching route decides. Each integration ends with a route that matches everything.
ROUTES: dict[str, tuple[ScopeRoute, ...]] = {
    spec.name: tuple(_compiled(route) for route in spec.routes) for spec in INTEGRATIONS.values()
}


def scope_of(integration: str) -> Callable[[httpx.Request], CallScope]:
    """The function that gives the scope of each request of a provider or a platform. Raises KeyError for others."""
    routes = ROUTES[integration]

    def scope(request: httpx.Request) -> CallScope:
        url = str(request.url).partition("?")[0]
        for route in routes:
            if (route.method is None or route.method == request.method) and route.url.search(url):
                return CallScope(route.integration or integration, pool=route.pool, cost=route.cost)
        raise AssertionError(f"the routes of {integration} do not end with one that matches everything")

    return scope
