"""API routes. Each authenticates before it reads the body, and refuses query parameters that it does not know."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.responses import Response

from phantoms_dagster.desk.visits import admit
from phantoms_dagster.domain.errors import InvalidInput

PREFIX = "/api/v1"


class Problem(BaseModel):
    """Problem details (RFC 9457). `errors` has one line per invalid part when there are several."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    errors: list[str] = Field(default=[])


_SAID = {
    400: "The request is malformed, or its `Host` is not a name of this desk.",
    401: "No user is logged in, or the token is unknown.",
    403: "The role does not allow this, or the CSRF token of a session is missing.",
    404: "It does not exist.",
    405: "The path does not support this method.",
    409: "Somebody else was first, or the current state does not allow this.",
    413: "The body is too large.",
    422: "The request is invalid; `detail` says what is wrong.",
    500: "Something went wrong on the server. The desk's log has the details.",
    503: "PostgreSQL or Redis does not answer; `Retry-After` says when to try again.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": said, "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, said in _SAID.items()
}


class ApiRoute(APIRoute):
    """A route that authenticates before it reads the body and refuses unknown query parameters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        answer = super().get_route_handler()
        known = frozenset(parameters(self.dependant))

        async def handler(request: Request) -> Response:
            await admit(request)
            for name in request.query_params:
                if name not in known:
                    raise InvalidInput(f"unknown parameter {name[:60]!r}; known are: {', '.join(sorted(known)) or 'none'}")
            return await answer(request)

        return handler


def add(app: FastAPI, method: str, path: str, endpoint: Callable[..., Any], *, tag: str, status: int = 200) -> None:
    """Add a route to the API and to its document."""
    app.router.add_api_route(
        f"{PREFIX}{path}",
        endpoint,
        methods=[method],
        status_code=status,
        tags=[tag],
        responses=PROBLEMS,
        operation_id=endpoint.__name__,
        route_class_override=ApiRoute,
    )


def parameters(dependant: Dependant) -> Iterator[str]:
    """Yield the names of a route's query parameters."""
    yield from (field.alias for field in dependant.query_params)
    for other in dependant.dependencies:
        yield from parameters(other)
