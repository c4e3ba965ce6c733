"""Log-in and log-out with an OpenID Connect provider: the redirects there and back. The protocol is in `desk.oidc`.

Both are GETs, because the provider redirects the browser. The return works once, and only in the browser that started the log-in.
"""

from __future__ import annotations

import secrets
from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response

from phantoms_dagster.desk.access import Role
from phantoms_dagster.desk.oidc import BEGUN_SECONDS, NotLoggedIn, OidcProvider, ProviderAway
from phantoms_dagster.desk.render import flash_message, page
from phantoms_dagster.desk.visits import CurrentVisit, Visit, local_path, log_in
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.store.users import digest

COOKIE, PATH = "phantoms_oidc", "/login/oidc"
# A cookie with the ID token until the user logs out, and one with the state of a log-out at the provider.
_THEIRS, _LOGOUT = "phantoms_oidc_session", "/logout"
_ENDED, _LOGIN = "phantoms_oidc_ended", "/login"
# Browsers store cookies of at most 4096 bytes. A longer ID token is not stored; then the provider asks the user on log-out.
_LONGEST_COOKIE = 3_800


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get(PATH, include_in_schema=False)(leave)
    app.get(f"{PATH}/back", include_in_schema=False)(come_back)


def leave(visit: CurrentVisit, next: str = "/") -> Response:  # noqa: A002 - the name of the parameter in the address
    """Redirect to the provider."""
    provider = _provider(visit)
    if visit.role > Role.PUBLIC:
        return RedirectResponse(local_path(next), 303)
    if (moved := _elsewhere(visit)) is not None:
        return RedirectResponse(f"{moved}?{urlencode({'next': local_path(next)})}", 303)
    try:
        begun = provider.begin(_back(visit), local_path(next))
    except ProviderAway as error:
        return _refused(visit, 503, str(error))
    response = RedirectResponse(begun.address, 303)
    _set(visit, response, COOKIE, visit.desk.keys.seal("oidc", dict(begun.kept)), PATH)
    return response


def come_back(visit: CurrentVisit) -> Response:
    """Log in the user whom the provider sent back. The answer works once."""
    provider = _provider(visit)
    answer = {name: value[:4_000] for name, value in visit.request.query_params.items()}
    users = visit.desk.users
    try:
        kept = provider.returned(visit.desk.keys.unseal("oidc", visit.request.cookies.get(COOKIE, "")), answer)
        if not users.spend_state(digest(str(kept["state"]))):
            raise NotLoggedIn("That log-in was already used. Please start again.")
        arrived = provider.finish(kept, answer, _back(visit))
        person = arrived.person
        user = users.from_provider(person.issuer, person.subject, person.name, person.role)
    except ProviderAway as error:
        return _refused(visit, 503, str(error))
    except (NotLoggedIn, InvalidInput) as error:
        return _refused(visit, 403, str(error))
    response = RedirectResponse(local_path(str(kept["next"])), 303)
    response.delete_cookie(COOKIE, path=PATH)
    log_in(visit, user, response)
    _remember(visit, response, arrived.id_token)
    return response


def log_out_there(visit: Visit, response: Response) -> Response:
    """Return the response to a log-out: `response`, or a page that leads to the provider's log-out.

    The user is already logged out of the desk. Users who logged in with a password have no session at the provider to end.
    """
    provider = visit.desk.oidc
    theirs = visit.desk.keys.unseal("oidc-session", visit.request.cookies.get(_THEIRS, ""))
    if provider is None or not isinstance(theirs, dict) or theirs.get("issuer") != provider.issuer:
        flash_message(visit, response, "You are logged out.", "info")
        return response
    state = secrets.token_urlsafe(32)
    try:
        address = provider.end(str(theirs["token"]), f"{_base(visit)}{_LOGIN}", state)
        why = ""
    except ProviderAway as error:
        address, why = None, f" {error}"
    if address is None:
        response.delete_cookie(_THEIRS, path=_LOGOUT)
        said = f"You are logged out of the desk. Your session at {provider.host} is still open; log out there, too.{why}"
        flash_message(visit, response, said, "info")
        return response
    # A page, not a redirect: the policy `form-action 'self'` forbids redirects of a form to another site.
    leading = page(visit, "logged_out.html", address=address, host=provider.host)
    for header in response.headers.getlist("set-cookie"):
        leading.headers.append("set-cookie", header)
    leading.delete_cookie(_THEIRS, path=_LOGOUT)
    _set(visit, leading, _ENDED, visit.desk.keys.seal("oidc-ended", state), _LOGIN)
    return leading


def back_from_log_out(visit: Visit) -> bool:
    """Whether the provider sent this browser back from a log-out that it started."""
    kept = visit.desk.keys.unseal("oidc-ended", visit.request.cookies.get(_ENDED, ""))
    return isinstance(kept, str) and secrets.compare_digest(kept.encode(), visit.request.query_params.get("state", "").encode())


def forget(response: Response) -> None:
    """Delete the cookie with the ID token. After a log-in with a password it no longer belongs to this user."""
    response.delete_cookie(_THEIRS, path=_LOGOUT)


def _remember(visit: Visit, response: Response, id_token: str) -> None:
    assert visit.desk.oidc is not None
    for token in (id_token, ""):
        sealed = visit.desk.keys.seal("oidc-session", {"issuer": visit.desk.oidc.issuer, "token": token})
        if len(sealed) <= _LONGEST_COOKIE:
            break
    _set(visit, response, _THEIRS, sealed, _LOGOUT, seconds=int(visit.desk.settings.desk.session_hours * 3600))


def _set(visit: Visit, response: Response, name: str, sealed: str, path: str, *, seconds: int = BEGUN_SECONDS) -> None:
    secure = visit.request.url.scheme == "https"
    response.set_cookie(name, sealed, max_age=seconds, path=path, httponly=True, samesite="lax", secure=secure)


def _provider(visit: Visit) -> OidcProvider:
    if visit.desk.oidc is None:
        raise NotFound("This desk has no OpenID Connect provider. Log in with a password.")
    return visit.desk.oidc


def _elsewhere(visit: Visit) -> str | None:
    """Return this page's URL under PHANTOMS_DESK_URL when the browser uses another host name; else None.

    The provider returns to PHANTOMS_DESK_URL, where the cookie of another host name is not sent.
    """
    desk_url = visit.desk.settings.desk.url
    if not desk_url or urlsplit(desk_url).hostname == visit.request.url.hostname:
        return None
    return f"{desk_url.rstrip('/')}{PATH}"


def _back(visit: Visit) -> str:
    """Return our redirect URL."""
    return f"{_base(visit)}{PATH}/back"


def _base(visit: Visit) -> str:
    """Return the desk's base URL without a trailing slash: PHANTOMS_DESK_URL, else that of this request."""
    return (visit.desk.settings.desk.url or str(visit.request.base_url)).rstrip("/")


def _refused(visit: Visit, status: int, problem: str) -> Response:
    """Show the log-in page with the error. Local users can still log in there."""
    response = page(visit, "login.html", status=status, wanted="/", name="", problem=problem, notice="")
    response.delete_cookie(COOKIE, path=PATH)
    return response
