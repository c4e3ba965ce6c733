"""The OpenAPI document, generated from the API routes. It does not include the desk's pages."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from phantoms_dagster.desk.api.routes import PREFIX, ApiRoute, Problem

PATH = f"{PREFIX}/openapi.json"
_DESCRIPTION = """\
Everything that the pages of the desk do, as JSON.

A program sends `Authorization: Bearer TOKEN`. `phantoms users token NAME --role ROLE` makes a token with that role.
A session cookie works as well. Then every POST needs the header `X-CSRF-Token`; each page has its value as `data-csrf`.

Errors are problem details (RFC 9457). Lists are paginated: pass `next_cursor` of a response as `cursor` of the next request.
"""


def register(app: FastAPI) -> None:
    """Add the route."""

    async def openapi() -> dict[str, Any]:
        return made(app)

    app.router.add_api_route(PATH, openapi, methods=["GET"], include_in_schema=False, route_class_override=ApiRoute)


def made(app: FastAPI) -> dict[str, Any]:
    """Return the document. It is generated on the first request and then cached."""
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
