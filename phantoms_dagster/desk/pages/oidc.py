"""Log-in by an OpenID Connect provider: the way there and the way back. The protocol is in `desk.oidc`.

Both are GETs, because browsers come back by one. The way back is bound to the browser that left, and works once.
"""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response

from phantoms_dagster.desk.access import Role
from phantoms_dagster.desk.oidc import BEGUN_SECONDS, NotLoggedIn, OidcProvider, ProviderAway
from phantoms_dagster.desk.render import page
from phantoms_dagster.desk.visits import Seen, Visit, log_in, own_page
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.store.users import digest

COOKIE, PATH = "phantoms_oidc", "/login/oidc"


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
    sealed = visit.desk.keys.seal("oidc", dict(begun.kept))
    secure = visit.request.url.scheme == "https"
    response.set_cookie(COOKIE, sealed, max_age=BEGUN_SECONDS, path=PATH, httponly=True, samesite="lax", secure=secure)
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
        person = provider.finish(kept, answer, _back(visit))
        user = users.from_provider(person.issuer, person.subject, person.name, person.role)
    except ProviderAway as error:
        return _refused(visit, 503, str(error))
    except (NotLoggedIn, InvalidInput) as error:
        return _refused(visit, 403, str(error))
    response = RedirectResponse(own_page(str(kept["next"])), 303)
    response.delete_cookie(COOKIE, path=PATH)
    log_in(visit, user, response)
    return response


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
    base = visit.desk.settings.desk_url or str(visit.request.base_url)
    return f"{base.rstrip('/')}{PATH}/back"


def _refused(visit: Visit, status: int, problem: str) -> Response:
    """The log-in page with what went wrong; local users log in there all the same."""
    response = page(visit, "login.html", status=status, wanted="/", name="", problem=problem)
    response.delete_cookie(COOKIE, path=PATH)
    return response
