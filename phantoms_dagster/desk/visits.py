"""Authentication and authorisation: the session or token of a request, the visitor's role, and the CSRF check.

`admit` runs before every page and stores a `Visit`. A page knows nothing else about its visitor.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated
from urllib.parse import quote, urlsplit

from fastapi import Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from phantoms_dagster.desk.access import ROLES, WITHOUT_VISITOR, Role
from phantoms_dagster.desk.context import Desk, forwarded, is_loopback
from phantoms_dagster.desk.shield import MOST_BYTES, BodyStalled, BodyTooLarge
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.text import unfit
from phantoms_dagster.store.audit import Actor
from phantoms_dagster.store.users import Credentials, Principal
from phantoms_dagster.wiring.this_user import this_user

COOKIE = "phantoms_desk"
FLASH = "phantoms_flash"
CSRF_FIELD, CSRF_HEADER = "_csrf", "x-csrf-token"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class LogInFirst(Exception):
    """No user is logged in. `to` is the page that was requested."""

    def __init__(self, to: str) -> None:
        super().__init__("log in first")
        self.to = to


class NotAllowed(Exception):
    """The visitor may not do that. The message says why and what would help."""


class StaleForm(NotAllowed):
    """The form does not match the session: it was loaded before a log-in or log-out."""

    def __init__(self) -> None:
        super().__init__(
            "This page was loaded before you logged in or out, or your browser blocks cookies from this address. "
            "Load the page again and repeat what you did."
        )


class UnknownToken(NotAllowed):
    """This desk does not know the token."""


@dataclass(frozen=True)
class Visit:
    """A request with its visitor: name, role, and the secret of their session cookie.

    `fresh`: the visitor had no cookie yet. `open`: no log-in is needed, because only this machine can ask and there are no users.
    """

    request: Request
    desk: Desk
    name: str
    role: Role
    secret: str
    fresh: bool
    open: bool = False
    via: str = "desk"

    @property
    def csrf(self) -> str:
        """The CSRF token that every form sends."""
        return self.desk.keys.mac("csrf", self.secret)

    @property
    def address(self) -> str:
        """The client's IP address."""
        return address_of(self.request)

    @property
    def actor(self) -> Actor:
        """The actor for the audit log."""
        return Actor(self.name, self.via, self.address)

    def may(self, role: str) -> bool:
        """Whether the visitor has this role (`reviewer`, `operator`) or a higher one. For templates."""
        return self.role >= Role[role.upper()]


def address_of(request: Request) -> str:
    """Return the client's IP address; empty when it is not known."""
    return request.client.host if request.client else ""


async def close_uploads(request: Request) -> AsyncIterator[None]:
    """Close uploaded files when the request ends, even when it was refused."""
    try:
        yield
    finally:
        await request.close()


async def admit(request: Request) -> None:
    """Check the visitor's role and the origin of the request. A dependency of every route.

    Raises LogInFirst, NotAllowed, StaleForm or UnknownToken.
    """
    if getattr(request.state, "visit", None) is not None:
        return  # an API route has called this already, before it read the body
    desk: Desk = request.app.state.desk
    method = "GET" if request.method == "HEAD" else request.method
    path = request.scope["route"].path
    if path in WITHOUT_VISITOR:
        return
    need = ROLES[method, path]
    visit = await run_in_threadpool(_visit, request, desk)
    request.state.visit = visit
    if visit.role < need:
        if visit.role is Role.PUBLIC:
            raise LogInFirst(_wanted(request))
        raise NotAllowed(f"This needs the role {need.name.lower()}; yours is {visit.role.name.lower()}. An operator can change it.")
    if method not in SAFE_METHODS and visit.via != "api":
        await _check_origin(request, visit)


async def visit_of(request: Request) -> Visit:
    """Return the visit that `admit` stored."""
    visit: Visit = request.state.visit
    return visit


async def form_of(request: Request) -> FormData:
    """Parse the form. A logged-in visitor may send fields as long as a body: a checked file of briefs comes back as one field."""
    if request.state.visit.role is Role.PUBLIC:
        return await request.form()
    return await request.form(max_part_size=MOST_BYTES)


CurrentVisit = Annotated[Visit, Depends(visit_of)]
Form = Annotated[FormData, Depends(form_of)]


def field(form: FormData, name: str, *, most: int = 2_000) -> str:
    """Return a form field as stripped text; empty when it is missing. Text beyond `most` characters is cut off."""
    found = form.get(name, "")
    return found.strip()[:most] if isinstance(found, str) else ""


def visible_text(form: FormData, name: str, *, most: int = 2_000) -> str:
    """Return a form field that people will read. Raises InvalidInput for control characters: a terminal could obey them."""
    found = field(form, name, most=most)
    if (problem := unfit(found)) is not None:
        raise InvalidInput(f"the field {name} {problem}")
    return found


# --- log-in and log-out


def log_in(visit: Visit, user: Credentials, response: Response) -> None:
    """Start a session with a new secret, so that a cookie planted before the log-in (session fixation) is useless."""
    secret = secrets.token_urlsafe(32)
    lives = timedelta(hours=visit.desk.settings.desk.session_hours)
    visit.desk.users.start_session(secret, user, actor=Actor(user.name, "desk", visit.address), lives=lives)
    _set_cookie(visit, response, secret, int(lives.total_seconds()))


def log_out(visit: Visit, response: Response) -> None:
    """End the session on the server and delete the cookie."""
    visit.desk.users.end_session(visit.secret, actor=visit.actor)
    response.delete_cookie(COOKIE, path="/")


def keep_cookie(visit: Visit, response: Response) -> None:
    """Set the cookie for a new visitor. Their forms are checked against it."""
    if visit.fresh:
        _set_cookie(visit, response, visit.secret, None)


def _set_cookie(visit: Visit, response: Response, secret: str, seconds: int | None) -> None:
    response.set_cookie(
        COOKIE,
        visit.desk.keys.seal("session", secret),
        max_age=seconds,
        path="/",
        httponly=True,
        samesite="lax",
        secure=visit.request.url.scheme == "https",
    )


# --- authentication


def _visit(request: Request, desk: Desk) -> Visit:
    bearer = request.headers.get("authorization", "")
    if bearer:
        scheme, _, token = bearer.partition(" ")
        known = desk.users.token(token.strip()) if scheme.casefold() == "bearer" else None
        if known is None:
            raise UnknownToken("This desk does not know that token: it was revoked, or it was made for another desk.")
        return Visit(request, desk, known.name, Role[known.role.upper()], "", fresh=False, via="api")
    sealed = desk.keys.unseal("session", request.cookies.get(COOKIE, ""))
    secret = sealed if isinstance(sealed, str) else ""
    known = desk.users.session(secret) if secret else None
    fresh = not secret
    secret = secret or secrets.token_urlsafe(32)
    if known is not None:
        return _known(request, desk, known, secret)
    if is_open(request, desk):
        return Visit(request, desk, this_user(), Role.OPERATOR, secret, fresh=fresh, open=True)
    return Visit(request, desk, "", Role.PUBLIC, secret, fresh=fresh)


def _known(request: Request, desk: Desk, known: Principal, secret: str) -> Visit:
    return Visit(request, desk, known.name, Role[known.role.upper()], secret, fresh=False)


def is_open(request: Request, desk: Desk) -> bool:
    """Whether the visitor may do everything without a log-in: only this machine can reach the desk, and it has no users."""
    here = desk.loopback and is_loopback(address_of(request)) and not forwarded(request.headers)
    return here and desk.oidc is None and not desk.users.any()


# --- CSRF


async def _check_origin(request: Request, visit: Visit) -> None:
    """Refuse requests that a page of another site sent through the visitor's browser.

    Browsers name the origin of a request, and the other site does not know the CSRF token. Raises NotAllowed or StaleForm.
    """
    if not _of_our_page(request):
        raise NotAllowed("That request came from another website. Nothing was changed.")
    given = request.headers.get(CSRF_HEADER) or ""
    if not given:
        given = field(await form_of(request), CSRF_FIELD)
    if visit.fresh or not visit.desk.keys.verify("csrf", visit.secret, given):
        raise StaleForm


def _of_our_page(request: Request) -> bool:
    """Whether a page of this desk sent the request, or a program, which sends no origin."""
    origin, fetched = request.headers.get("origin"), request.headers.get("sec-fetch-site", "same-origin")
    named = not origin or urlsplit(origin).netloc.casefold() == request.headers.get("host", "").casefold()
    return named and fetched in ("same-origin", "none")


# The free-text fields. Error pages show only these again.
_WRITTEN = frozenset(
    {"note", "reason", "why", "title", "angle", "facts", "caption", "hashtags", "hook", "narration", "headline", "guest"}
)


def _typed(form: FormData) -> dict[str, str]:
    """Return the free texts of a form by field name, without those that the user did not change."""
    found = {name: field(form, name, most=50_000) for name in form if name.partition("-")[0] in _WRITTEN}
    same = {name for name, text in found.items() if text.split() == field(form, f"was-{name}", most=50_000).split()}
    return {name: _seen(text) for name, text in found.items() if text and name not in same}


def _seen(text: str) -> str:
    """Return the text without control and invisible characters."""
    return "".join(letter for letter in text if letter in "\r\n" or unfit(letter) is None)


async def typed_in(request: Request) -> dict[str, str]:
    """Return the free texts of the submitted form, so that an error page can show them again. Empty when there is no form.

    Also empty for a request from another site, which must not make this desk show its words.
    """
    if request.method in SAFE_METHODS or not _of_our_page(request):
        return {}
    try:
        return _typed(await request.form())
    except (HTTPException, RuntimeError, ClientDisconnect, BodyTooLarge, BodyStalled):
        return {}  # the form is not readable, or was partly read before


def referring_page(request: Request) -> str:
    """Return the path of the desk page that the request came from; `/` when there is none."""
    parts = urlsplit(request.headers.get("referer", ""))
    if parts.netloc != request.headers.get("host"):
        return "/"
    return local_path(f"{parts.path}?{parts.query}".rstrip("?"))


def _wanted(request: Request) -> str:
    """Return the path to return to after the log-in. Always a page of this desk."""
    if request.method not in SAFE_METHODS:
        return referring_page(request)
    return quote(request.url.path, safe="/") + (f"?{request.url.query}" if request.url.query else "")


def local_path(wanted: str) -> str:
    """Return `wanted` when it is a path of this desk, else `/`. Prevents open redirects."""
    if not wanted.startswith("/") or wanted.startswith("//") or "\\" in wanted or any(ord(c) < 32 for c in wanted):
        return "/"
    parts = urlsplit(wanted)
    return wanted if not parts.scheme and not parts.netloc else "/"
