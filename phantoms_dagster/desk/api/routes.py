"""How a route of the API is made: who asks is known before the body is read, and nothing unknown is taken silently."""

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
    """What went wrong (RFC 9457). `errors`: one line for each part that is wrong, when there are several."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    instance: str
    errors: list[str] = Field(default=[])


_SAID = {
    400: "The request is not readable, or its `Host` is not a name of this desk.",
    401: "Nobody is logged in, or the token is not known here.",
    403: "The role does not allow it, or the CSRF token of a session is missing.",
    404: "There is no such thing.",
    405: "The path cannot be used like this.",
    409: "Somebody else was first, or the state of things does not allow it.",
    413: "The body is too large.",
    422: "Something in the request cannot be used; `detail` says what.",
    500: "Something went wrong here; it is in the log of the desk.",
    503: "PostgreSQL or Redis does not answer now; `Retry-After` says when to try again.",
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": said, "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, said in _SAID.items()
}


class ApiRoute(APIRoute):
    """A route that asks who it is before it reads the body, and refuses parameters that it does not know."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI."""
        answer = super().get_route_handler()
        known = frozenset(parameters(self.dependant))

        async def handler(request: Request) -> Response:
            await admit(request)
            for name in request.query_params:
                if name not in known:
                    raise InvalidInput(f"there is no parameter {name[:60]!r}; there are {', '.join(sorted(known)) or 'none'}")
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
    """The names of the parameters that a route takes from the query."""
    yield from (field.alias for field in dependant.query_params)
    for other in dependant.dependencies:
        yield from parameters(other)
