"""The front page, which redirects to the review, and what all pages share: static files, health check and theme."""

from __future__ import annotations

import mimetypes

from fastapi import FastAPI
from starlette.responses import PlainTextResponse, RedirectResponse, Response

from phantoms_dagster.desk.render import THEME, THEMES, redirect_to, static_files
from phantoms_dagster.desk.visits import CurrentVisit, Form, field, local_path
from phantoms_dagster.domain.errors import NotFound

_YEAR = 31_536_000


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/", include_in_schema=False)(front)
    app.get("/health", include_in_schema=False)(health)
    app.get("/static/{digest}/{name}", include_in_schema=False)(static)
    app.post("/theme", include_in_schema=False)(theme)


async def front() -> Response:
    """Redirect to the review."""
    return RedirectResponse("/review", 303)


async def health() -> Response:
    """Answer that the process is up. Checks neither PostgreSQL nor Redis."""
    return PlainTextResponse("ok\n")


async def static(digest: str, name: str) -> Response:
    """Serve a static file. A URL of an older version gets the current file, uncached."""
    found = static_files().get(name)
    if found is None:
        raise NotFound(f"there is no file {name}")
    kept = f"public, max-age={_YEAR}, immutable" if digest == found.digest else "no-cache"
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    return Response(found.content, media_type=kind, headers={"Cache-Control": kept, "ETag": f'"{found.digest}"'})


async def theme(visit: CurrentVisit, form: Form) -> Response:
    """Save the visitor's theme in a cookie."""
    chosen = field(form, "theme")
    response = redirect_to(visit, local_path(field(form, "back") or "/"))
    if chosen in THEMES:
        response.set_cookie(THEME, chosen, max_age=_YEAR, path="/", samesite="lax", httponly=True)
    return response
