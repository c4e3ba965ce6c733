"""Which pool each request of an integration falls under, so that adapters need not say it.

A table of paths and nothing else; the numbers of the pools are in `pools`, a platform's rows and numbers in its rules.
What a row costs against a daily quota is the provider's own price list. Reading results has pools and breakers of its own: whatever
happens to it, publishing goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from phantoms_dagster.registry import routes
from phantoms_dagster.registry.platforms import SPECS
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


def _route(method: str | None, url: str, pool: str, cost: int = 1, *, integration: str | None = None) -> ScopeRoute:
    return ScopeRoute(method, re.compile(url), pool, cost, integration)


def _compiled(route: routes.Route) -> ScopeRoute:
    return ScopeRoute(route.method, re.compile(route.url), route.pool, route.cost, route.integration)


# The first row that matches decides; each integration ends with one that matches all.
ROUTES: dict[str, tuple[ScopeRoute, ...]] = {
    "openai": (_route(None, r"/audio/", "voiceover"), _route(None, r"", "script")),
    "shotstack": (
        _route(None, r"/edit/", "render"),
        _route(None, r"/serve/", "render_serve"),
        _route(None, r"/ingest/", "render_ingest"),
        # Signed uploads and finished files live in object storage, which may ail while the render API is well.
        _route(None, r"", "transfer", integration="shotstack_files"),
    ),
    **{name: tuple(_compiled(route) for route in spec.routes) for name, spec in SPECS.items()},
}


def scope_of(integration: str) -> Callable[[httpx.Request], CallScope]:
    """The scope of each request of `openai`, `shotstack` or a platform. Raises KeyError for any other."""
    routes = ROUTES[integration]

    def scope(request: httpx.Request) -> CallScope:
        url = str(request.url).partition("?")[0]
        for route in routes:
            if (route.method is None or route.method == request.method) and route.url.search(url):
                return CallScope(route.integration or integration, pool=route.pool, cost=route.cost)
        raise AssertionError(f"the routes of {integration} do not end with one for all")

    return scope
