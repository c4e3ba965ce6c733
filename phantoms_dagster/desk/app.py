"""The desk as an ASGI application: routes, middleware and background tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from types import ModuleType

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from phantoms_dagster.desk import api, errors, provider_events
from phantoms_dagster.desk.access import ROLES
from phantoms_dagster.desk.api.routes import ApiRoute
from phantoms_dagster.desk.context import CONNECTIONS, Desk
from phantoms_dagster.desk.pages import PAGES
from phantoms_dagster.desk.shield import RequestGuard
from phantoms_dagster.desk.upkeep import advance_bulk_actions, commit_due, follow_events, run_repeatedly
from phantoms_dagster.desk.visits import admit, close_uploads


def create_app(desk: Desk, pages: Sequence[ModuleType] = (*PAGES, *api.MODULES, provider_events)) -> FastAPI:
    """Return the application. It owns `desk` and closes it on shutdown.

    Raises RuntimeError when a route is missing in `access.ROLES`.
    """

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        # One thread per database connection, and a few for requests that wait for something else.
        anyio.to_thread.current_default_thread_limiter().total_tokens = CONNECTIONS + 4
        async with (
            run_repeatedly(lambda: commit_due(desk.pending), "commit decisions"),
            run_repeatedly(lambda: advance_bulk_actions(desk.bulk), "run bulk actions"),
            AsyncExitStack() as optional,
        ):
            if desk.settings.provider_events.url is not None:
                following = run_repeatedly(follow_events(desk.provider_events), "follow events of providers")
                await optional.enter_async_context(following)
            yield
        desk.close()

    app = FastAPI(
        title="Phantoms desk",
        lifespan=running,
        docs_url=None,  # FastAPI's page loads its scripts from another server
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(close_uploads), Depends(admit)],
    )
    app.state.desk = desk
    for module in pages:
        module.register(app)
    app.state.paths = frozenset(_checked(app))
    errors.install(app)
    hosts = desk.hosts()
    app.add_middleware(RequestGuard, hosts=lambda: hosts)
    return app


def _checked(app: FastAPI) -> list[str]:
    """Return the paths of all routes. Raises RuntimeError when a route has no role."""
    paths = []
    for route in app.routes:
        if not isinstance(route, APIRoute):
            raise RuntimeError(f"{route} is not a page route: register pages with app.get and app.post")
        # Every GET route also answers HEAD, except the event stream, which would never end.
        methods = route.methods or set()
        if "GET" in methods and not isinstance(route, ApiRoute) and route.path != "/events":
            methods.add("HEAD")
        for method in methods - {"HEAD"}:
            if (method, route.path) not in ROLES:
                raise RuntimeError(f"{method} {route.path} has no role: add it to ROLES in desk/access.py")
        paths.append(route.path)
    return paths
