"""Turns exceptions into error pages, and for the API into problem details (RFC 9457).

Each says what is wrong, what to do, and whether it will pass by itself.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from urllib.parse import quote, urlencode

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import DataError, SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Match

from phantoms_dagster.desk.access import Role
from phantoms_dagster.desk.render import THEME, THEMES, environment, flash_message
from phantoms_dagster.desk.shield import BodyStalled, BodyTooLarge
from phantoms_dagster.desk.visits import (
    SAFE_METHODS,
    LogInFirst,
    NotAllowed,
    StaleForm,
    UnknownToken,
    Visit,
    field,
    form_of,
    local_path,
    referring_page,
    typed_in,
)
from phantoms_dagster.domain.errors import InvalidInput, NotFound, PhantomsError, SchemaMismatch, StoreAway
from phantoms_dagster.store.answers import StillBusy
from phantoms_dagster.store.away import in_words, is_away
from phantoms_dagster.store.decisions import DecidedFirst
from phantoms_dagster.wiring.redis_connection import RedisAway

AGAIN_SECONDS = 5
API = "/api/"
_NO_PAGE = "This page does not exist."
_UNPROVEN = (
    "A request that changes something needs a token: `Authorization: Bearer ...`. "
    "`phantoms users token NAME --role ROLE` makes one. "
    "With a session cookie it needs the header X-CSRF-Token instead; each page has its value as `data-csrf`."
)

_log = logging.getLogger(__name__)


def install(app: FastAPI) -> None:
    """Register the error handlers."""
    app.add_exception_handler(LogInFirst, _log_in_first)
    for kind in (
        NotAllowed,
        PhantomsError,
        SQLAlchemyError,
        HTTPException,
        RequestValidationError,
        BodyTooLarge,
        BodyStalled,
        Exception,
    ):
        app.add_exception_handler(kind, _answer)


async def _log_in_first(request: Request, error: Exception) -> Response:
    assert isinstance(error, LogInFirst)
    if request.url.path.startswith(API):
        return problem(request, 401, "Log in first, or send a token: `Authorization: Bearer ...`.", {"WWW-Authenticate": "Bearer"})
    there = f"/login?{urlencode({'next': error.to})}" if error.to != "/" else "/login"
    said = "You are logged out, so nothing was changed. Log in and try again."
    if typed := await typed_in(request):
        return error_page(request, 401, said, {}, typed=typed, way=(there, "Log in"))
    if request.headers.get("sec-fetch-mode", "navigate") != "navigate":
        # A script of an open page asks. Following a redirect, it would get a new cookie, and the log-in form in another tab would
        # no longer match.
        return PlainTextResponse("You are logged out.", 401)
    response = RedirectResponse(there, 303)
    if request.method not in SAFE_METHODS:
        flash_message(request.state.visit, response, said, "info")
    return response


async def _answer(request: Request, error: Exception) -> Response:
    if isinstance(error, HTTPException) and error.status_code == 405 and (there := _nearest(request)) is not None:
        return RedirectResponse(there, 303)
    if isinstance(error, StaleForm) and (response := await _already_out(request)) is not None:
        return response
    api = request.url.path.startswith(API)
    status, message, headers = _judged(error, api=api)
    if status >= 500 and status != 503:
        # Log the route, not the URL: a guest's URL contains a secret.
        _log.error("%s %s failed", request.method, getattr(request.scope.get("route"), "path", "?"), exc_info=error)
    if api:
        if isinstance(error, UnknownToken):
            status, headers = 401, {"WWW-Authenticate": "Bearer"}
        if isinstance(error, StaleForm):
            message = _UNPROVEN
        return problem(request, status, message, headers)
    stale = isinstance(error, StaleForm)
    way = (referring_page(request), "Load the page again") if stale else None
    title = "That page is too old" if stale else ""
    # A body that could not be read once cannot be read again.
    typed = {} if isinstance(error, BodyTooLarge | BodyStalled) else await typed_in(request)
    return error_page(request, status, message, headers, title=title, typed=typed, way=way)


def _nearest(request: Request) -> str | None:
    """Return the nearest page above a URL that only accepts POST; None for API paths and other methods than GET.

    A visitor gets there by reloading the URL of a form, or after a log-in.
    """
    path = request.url.path
    if path.startswith(API) or request.method != "GET":
        return None
    while path != "/":
        path = path.rpartition("/")[0] or "/"
        scope = {**request.scope, "path": path}
        if any(route.matches(scope)[0] is Match.FULL for route in request.app.routes):
            return quote(path, safe="/")
    return None


async def _already_out(request: Request) -> Response | None:
    """Redirect to the log-in page when a stale log-in or log-out form was sent and no user is logged in; else None.

    After a log-in the user still gets to the page that they wanted.
    """
    visit: Visit = request.state.visit
    if visit.role is not Role.PUBLIC or request.url.path not in ("/login", "/logout"):
        return None
    wanted = local_path(field(await form_of(request), "next") or "/")
    response = RedirectResponse(f"/login?{urlencode({'next': wanted})}" if wanted != "/" else "/login", 303)
    said = "You are logged out." if request.url.path == "/logout" else "That page was too old. Please log in again."
    flash_message(visit, response, said, "info")
    return response


def _judged(error: Exception, *, api: bool) -> tuple[int, str, dict[str, str]]:  # noqa: PLR0912 - a table
    """Return the status, the message for the user, and extra headers."""
    again = {"Retry-After": str(AGAIN_SECONDS)}
    match error:
        case NotAllowed():
            return 403, str(error), {}
        case DecidedFirst() | StillBusy():
            return 409, str(error), {}
        case NotFound():
            return 404, str(error), {}
        case InvalidInput():
            return 422, str(error), {}
        case SchemaMismatch() | RedisAway():
            return 503, str(error), again
        case StoreAway():
            return 503, f"PostgreSQL does not answer ({error.reason}).", again
        case DataError():
            _log.warning("PostgreSQL rejected a submitted value: %s", type(error.orig).__name__)
            return 422, "A number is too large, or a text has an invisible character. Correct it and send it again.", {}
        case SQLAlchemyError() if is_away(error):
            return 503, f"PostgreSQL does not answer ({in_words(error)}).", again
        case BodyTooLarge():
            return 413, "That is too large to send at once.", {}
        case BodyStalled():
            return 408, "Only a part of the request arrived. Send it again.", {"Connection": "close"}
        case HTTPException():
            said = {404: _NO_PAGE, 405: "This page does not accept that kind of request."}
            return error.status_code, said.get(error.status_code, str(error.detail)), dict(error.headers or {})
        case RequestValidationError():
            found = error.errors()[0]
            place = ".".join(str(part) for part in found["loc"][1:])
            if found["loc"][0] == "path" and not api:
                return 404, _NO_PAGE, {}
            if found["type"] == "json_invalid":
                return 422, f"the body is not valid JSON: {found['ctx']['error']}, at character {place}", {}
            return 422, f"{place}: {found['msg']}" if place else f"the body: {found['msg']}", {}
        case PhantomsError():
            return 500, str(error), {}
        case _:
            return 500, "Something went wrong on our side. Nothing was left half done. The desk's log has the details.", {}


def error_page(
    request: Request,
    status: int,
    message: str,
    headers: dict[str, str],
    *,
    title: str = "",
    typed: Mapping[str, str] | None = None,
    way: tuple[str, str] | None = None,
) -> HTMLResponse:
    """Return an error page. It needs neither a session nor a store. For a GET, a 503 page reloads itself.

    `typed` holds the texts of the submitted form by field name. The page shows them, so that the user does not lose them.
    `way` is the path and label of the button; by default it leads back to where the request came from.
    """
    theme = request.cookies.get(THEME, "auto")
    safe = request.method in ("GET", "HEAD")
    # When the database goes down during a commit, the outcome is unknown. Before `admit` has run, nothing was changed.
    uncertain = status == 503 and not safe and getattr(request.state, "visit", None) is not None
    back = referring_page(request)
    content = (
        environment()
        .get_template("error.html")
        .render(
            status=status,
            title=title or _TITLES.get(status, HTTPStatus(status).phrase),
            message=message,
            theme=theme if theme in THEMES else "auto",
            again=AGAIN_SECONDS if status == 503 and safe else 0,
            changed_nothing=not safe and not uncertain,
            uncertain=uncertain,
            way=way if way and way[0] != "/" else (back, "Back" if back != "/" else "To the desk"),
            typed=typed or {},
        )
    )
    return HTMLResponse(content, status, headers)


def problem(
    request: Request, status: int, message: str, headers: Mapping[str, str] | None = None, *, errors: Sequence[str] = ()
) -> Response:
    """Return problem details (RFC 9457). `errors` has one line per invalid part when there are several."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": message,
        "instance": request.url.path,
        "errors": list(errors),
    }
    # ASCII only: the input may contain a lone surrogate, which UTF-8 cannot encode.
    return Response(json.dumps(body), status, dict(headers or {}), "application/problem+json")


_TITLES = {
    401: "Log in again",
    403: "Not allowed",
    404: "Not found",
    409: "Somebody else was first",
    413: "Too large",
    422: "Please check your input",
    500: "Something went wrong",
    503: "Back in a moment",
}
