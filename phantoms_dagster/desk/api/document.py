"""The OpenAPI document, made from the routes of the API. The desk's pages are not in it."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from phantoms_dagster.desk.api.routes import PREFIX, ApiRoute, Problem

PATH = f"{PREFIX}/openapi.json"
_DESCRIPTION = """\
Everything that the pages of the desk do, as JSON.

A program sends `Authorization: Bearer TOKEN`; `phantoms users token NAME --role ROLE` makes one, and its role says what it may do.
The cookie of a log-in works as well; then every POST needs the header `X-CSRF-Token`, which each page has as `data-csrf`.

Errors are problem details (RFC 9457). Lists are read page by page: `next_cursor` of one is `cursor` of the next.
"""


def register(app: FastAPI) -> None:
    """Add the route."""

    async def openapi() -> dict[str, Any]:
        return made(app)

    app.router.add_api_route(PATH, openapi, methods=["GET"], include_in_schema=False, route_class_override=ApiRoute)


def made(app: FastAPI) -> dict[str, Any]:
    """The document, made when it is first asked for."""
    kept: dict[str, Any] | None = getattr(app.state, "openapi", None)
    if kept is None:
        routes = [route for route in app.routes if isinstance(route, APIRoute) and route.path.startswith(PREFIX)]
        kept = get_openapi(title="Phantoms", version="1", description=_DESCRIPTION, routes=routes)
        components = kept.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema()
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        kept["security"] = [{"token": []}]
        app.state.openapi = kept
    return kept
