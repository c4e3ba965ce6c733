"""Log-in and log-out by an OpenID Connect provider: the way there and the way back. The protocol is in `desk.oidc`.

The log-in's ways are GETs, because browsers come back by one. The way back is bound to the browser that left, and works once.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response

from phantoms_dagster.desk.access import Role
from phantoms_dagster.desk.oidc import BEGUN_SECONDS, NotLoggedIn, OidcProvider, ProviderAway
from phantoms_dagster.desk.render import page, tell
from phantoms_dagster.desk.visits import Seen, Visit, log_in, own_page
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.store.users import digest

COOKIE, PATH = "phantoms_oidc", "/login/oidc"
# Who logged in by the provider: their ID token, until they log out. And, on the way back from a log-out there, its state.
_THEIRS, _LOGOUT = "phantoms_oidc_session", "/logout"
_ENDED, _LOGIN = "phantoms_oidc_ended", "/login"
# Browsers keep cookies of at most 4096 bytes. With a longer ID token the provider asks who it is.
_LONGEST_COOKIE = 3_800


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get(PATH, include_in_schema=False)(leave)
    app.get(f"{PATH}/back", include_in_schema=False)(come_back)


def leave(visit: Seen, next: str = "/") -> Response:  # noqa: A002 - the name of the parameter in the address
    """Go to the provider."""
    provider = _provider(visit)
    if visit.role > Role.PUBLIC:
        return RedirectResponse(own_page(next), 303)
    if (moved := _elsewhere(visit)) is not None:
        return RedirectResponse(f"{moved}?{urlencode({'next': own_page(next)})}", 303)
    try:
        begun = provider.begin(_back(visit), own_page(next))
    except ProviderAway as error:
        return _refused(visit, 503, str(error))
    response = RedirectResponse(begun.address, 303)
    _set(visit, response, COOKIE, visit.desk.keys.seal("oidc", dict(begun.kept)), PATH)
    return response


def come_back(visit: Seen) -> Response:
    """Log in whom the provider sent, once."""
    provider = _provider(visit)
    answer = {name: value[:4_000] for name, value in visit.request.query_params.items()}
    users = visit.desk.users
    try:
        kept = provider.returned(visit.desk.keys.opened("oidc", visit.request.cookies.get(COOKIE, "")), answer)
        if not users.spend_state(digest(str(kept["state"]))):
            raise NotLoggedIn("That log-in was used already. Begin again.")
        arrived = provider.finish(kept, answer, _back(visit))
        person = arrived.person
        user = users.from_provider(person.issuer, person.subject, person.name, person.role)
    except ProviderAway as error:
        return _refused(visit, 503, str(error))
    except (NotLoggedIn, InvalidInput) as error:
        return _refused(visit, 403, str(error))
    response = RedirectResponse(own_page(str(kept["next"])), 303)
    response.delete_cookie(COOKIE, path=PATH)
    log_in(visit, user, response)
    _remember(visit, response, arrived.id_token)
    return response


def log_out_there(visit: Visit, response: Response) -> Response:
    """The answer to a log-out, which was done here already: of `response`, or one that leads on to the provider.

    Somebody who did not log in by the provider has no session there that would be ours to end.
    """
    provider = visit.desk.oidc
    theirs = visit.desk.keys.opened("oidc-session", visit.request.cookies.get(_THEIRS, ""))
    if provider is None or not isinstance(theirs, dict) or theirs.get("issuer") != provider.issuer:
        tell(visit, response, "You are logged out.", "info")
        return response
    state = secrets.token_urlsafe(32)
    try:
        address = provider.end(str(theirs["token"]), f"{_base(visit)}{_LOGIN}", state)
        why = ""
    except ProviderAway as error:
        address, why = None, f" {error}"
    if address is None:
        response.delete_cookie(_THEIRS, path=_LOGOUT)
        said = f"You are logged out of the desk. Your session at {provider.host} is still open: log out there, too.{why}"
        tell(visit, response, said, "info")
        return response
    # A page, not a redirect: the answer to a form may lead to no other site (`form-action`).
    leading = page(visit, "logged_out.html", address=address, host=provider.host)
    for header in response.headers.getlist("set-cookie"):
        leading.headers.append("set-cookie", header)
    leading.delete_cookie(_THEIRS, path=_LOGOUT)
    _set(visit, leading, _ENDED, visit.desk.keys.seal("oidc-ended", state), _LOGIN)
    return leading


def back_from_log_out(visit: Visit) -> bool:
    """Whether the provider sent this browser back after a log-out that began in it."""
    kept = visit.desk.keys.opened("oidc-ended", visit.request.cookies.get(_ENDED, ""))
    return isinstance(kept, str) and secrets.compare_digest(kept.encode(), visit.request.query_params.get("state", "").encode())


def forget(response: Response) -> None:
    """Somebody logs in with a password: a session at the provider is not theirs any more."""
    response.delete_cookie(_THEIRS, path=_LOGOUT)


def _remember(visit: Visit, response: Response, id_token: str) -> None:
    assert visit.desk.oidc is not None
    for token in (id_token, ""):
        sealed = visit.desk.keys.seal("oidc-session", {"issuer": visit.desk.oidc.issuer, "token": token})
        if len(sealed) <= _LONGEST_COOKIE:
            break
    _set(visit, response, _THEIRS, sealed, _LOGOUT, seconds=int(visit.desk.settings.desk_session_hours * 3600))


def _set(visit: Visit, response: Response, name: str, sealed: str, path: str, *, seconds: int = BEGUN_SECONDS) -> None:
    secure = visit.request.url.scheme == "https"
    response.set_cookie(name, sealed, max_age=seconds, path=path, httponly=True, samesite="lax", secure=secure)


def _provider(visit: Visit) -> OidcProvider:
    if visit.desk.oidc is None:
        raise NotFound("This desk has no OpenID Connect provider; log in with a password.")
    return visit.desk.oidc


def _elsewhere(visit: Visit) -> str | None:
    """This page under the name that people use, when the browser has another: its cookie would not come back from there."""
    desk_url = visit.desk.settings.desk_url
    if not desk_url or urlsplit(desk_url).hostname == visit.request.url.hostname:
        return None
    return f"{desk_url.rstrip('/')}{PATH}"


def _back(visit: Visit) -> str:
    """Our address that the provider sends people to: the one that people use, else that of this request."""
    return f"{_base(visit)}{PATH}/back"


def _base(visit: Visit) -> str:
    """The desk's address, the one that people use, else that of this request; without a slash at its end."""
    return (visit.desk.settings.desk_url or str(visit.request.base_url)).rstrip("/")


def _refused(visit: Visit, status: int, problem: str) -> Response:
    """The log-in page with what went wrong; local users log in there all the same."""
    response = page(visit, "login.html", status=status, wanted="/", name="", problem=problem, notice="")
    response.delete_cookie(COOKIE, path=PATH)
    return response
