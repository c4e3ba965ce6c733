"""The desk as an ASGI application: its routes, what stands before them, and its upkeep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from types import ModuleType

import anyio.to_thread
from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute

from phantoms_dagster.desk import api, errors
from phantoms_dagster.desk.access import ROLES
from phantoms_dagster.desk.api.routes import ApiRoute
from phantoms_dagster.desk.context import CONNECTIONS, Desk
from phantoms_dagster.desk.pages import PAGES
from phantoms_dagster.desk.shield import Shield
from phantoms_dagster.desk.upkeep import carry_on, commit_due, repeated
from phantoms_dagster.desk.visits import admit, tidy


def create_app(desk: Desk, pages: Sequence[ModuleType] = (*PAGES, *api.MODULES)) -> FastAPI:
    """The application. It owns `desk` and closes it at the end.

    Raises RuntimeError for a route that `access.ROLES` does not name.
    """

    @asynccontextmanager
    async def running(_: FastAPI) -> AsyncIterator[None]:
        # As many pages at once as there are connections for them, and a few that wait for something else.
        anyio.to_thread.current_default_thread_limiter().total_tokens = CONNECTIONS + 4
        async with (
            repeated(lambda: commit_due(desk.pending), "commit decisions"),
            repeated(lambda: carry_on(desk.bulk), "carry on bulk actions"),
        ):
            yield
        desk.close()

    app = FastAPI(
        title="Phantoms desk",
        lifespan=running,
        docs_url=None,  # that page would come from somebody else's server
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(tidy), Depends(admit)],
    )
    app.state.desk = desk
    for module in pages:
        module.register(app)
    app.state.paths = frozenset(_checked(app))
    errors.install(app)
    hosts = desk.hosts()
    app.add_middleware(Shield, hosts=lambda: hosts)
    return app


def _checked(app: FastAPI) -> list[str]:
    """The paths of all routes, each of which is in the table of roles."""
    paths = []
    for route in app.routes:
        if not isinstance(route, APIRoute):
            raise RuntimeError(f"{route} is no route of a page: register pages with app.get and app.post")
        # Where something is to be looked at, its headers alone may be asked for. A stream of events would never end.
        methods = route.methods or set()
        if "GET" in methods and not isinstance(route, ApiRoute) and route.path != "/events":
            methods.add("HEAD")
        for method in methods - {"HEAD"}:
            if (method, route.path) not in ROLES:
                raise RuntimeError(f"{method} {route.path} is not in desk/access.py: say there who may use it")
        paths.append(route.path)
    return paths
