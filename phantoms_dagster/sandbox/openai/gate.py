"""The common parts of all endpoints of the OpenAI stand-in: keys, headers, and the format of errors."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox

PREFIX = "/openai/v1"
REQUESTS_PER_MINUTE, TOKENS_PER_MINUTE = 10_000, 2_000_000

Answer = Callable[[web.Request, str], Awaitable["dict[str, Any] | web.StreamResponse"]]
Endpoint = Callable[[Answer], Callable[[web.Request], Awaitable[web.StreamResponse]]]


class OpenAiApiError(Exception):
    """An error answer, with the parts of the API's error body."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, kind: str = "invalid_request_error"
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def wrong_type(param: str, expected: str, value: object) -> OpenAiApiError:
    """The error for a parameter of the wrong type."""
    got = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", int: "an integer", float: "a decimal"}
    text = f"Invalid type for '{param}': expected {expected}, but got {got.get(type(value), 'null')} instead."
    return OpenAiApiError(400, text, param=param, code="invalid_type")


def missing(param: str) -> OpenAiApiError:
    """The error for a request without a required parameter."""
    return OpenAiApiError(400, f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def account(authorization: str | None) -> str:
    """The account of a key: what follows `sandbox` in `Bearer sandbox-name`. Raises the error 401 for any other key."""
    key = (authorization or "").removeprefix("Bearer ").strip()
    if not key or not (authorization or "").startswith("Bearer "):
        raise OpenAiApiError(
            401,
            "You didn't provide an API key. You need to provide your API key in an Authorization header using Bearer auth "
            "(i.e. Authorization: Bearer YOUR_KEY).",
        )
    if not key.startswith("sandbox"):
        shown = f"{key[:4]}***{key[-4:]}" if len(key) > 12 else "***"
        raise OpenAiApiError(
            401, f"Incorrect API key provided: {shown}. The sandbox takes keys like sandbox-me.", code="invalid_api_key"
        )
    return key.removeprefix("sandbox").removeprefix("-") or "default"


async def json_body(request: web.Request) -> Any:
    """The body of a request; None if it is not JSON."""
    try:
        return await request.json()
    except ValueError:
        return None


def digest(*parts: object) -> str:
    """An identifier that is always the same for the same parts."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def gate(sandbox: Sandbox) -> Endpoint:
    """A decorator for handlers: checks the key, turns errors into the API's format, and adds the headers."""
    numbers = itertools.count()

    def headers() -> dict[str, str]:
        return {
            "x-request-id": f"req_{digest(sandbox.seed, 'request', next(numbers))[:32]}",
            "openai-version": "2020-10-01",
            "openai-processing-ms": "1",
            "x-ratelimit-limit-requests": str(REQUESTS_PER_MINUTE),
            "x-ratelimit-remaining-requests": str(REQUESTS_PER_MINUTE - 1),
            "x-ratelimit-reset-requests": "6ms",
            "x-ratelimit-limit-tokens": str(TOKENS_PER_MINUTE),
            "x-ratelimit-remaining-tokens": str(TOKENS_PER_MINUTE - 1_000),
            "x-ratelimit-reset-tokens": "30ms",
        }

    def endpoint(answer: Answer) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            said = headers()
            try:
                given = await answer(request, account(request.headers.get("Authorization")))
            except OpenAiApiError as error:
                return web.json_response(error.body, status=error.status, headers=said)
            if isinstance(given, web.StreamResponse):
                if not given.prepared:
                    given.headers.update(said)
                return given
            return web.json_response(given, headers=said)

        return handle

    return endpoint


def dead_ends(known: list[web.RouteDef]) -> list[web.RouteDef]:
    """Routes for all other requests below the prefix: 405 for a known path, 404 for any other, in the API's format."""
    paths = {route.path for route in known}

    async def wrong_method(request: web.Request) -> web.Response:
        where = request.path.removeprefix("/openai")
        error = OpenAiApiError(405, f"Not allowed to {request.method} on {where}.", code="method_not_supported")
        return web.json_response(error.body, status=error.status)

    async def nowhere(request: web.Request) -> web.Response:
        error = OpenAiApiError(404, f"Invalid URL ({request.method} {request.path.removeprefix('/openai')})")
        return web.json_response(error.body, status=error.status)

    return [
        *(web.route("*", path, wrong_method) for path in sorted(paths)),
        web.route("*", f"{PREFIX}{{rest:(?:/.*)?}}", nowhere, name="openai.nowhere"),
    ]
