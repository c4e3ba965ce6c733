"""The stand-in for Instagram Login's authorization server, below `/instagram`.

A code gives a token for an hour, which gets one for 60 days; that one gets its successor when it is a day old. The API takes these
tokens when `instagram.login` is "instagram", because graph.facebook.com does not know them either.

Settings: `instagram.trailing_slash` (True: the dashboard has added a slash to each registered address that had none),
`instagram.old_token_dies` (True, as it is not documented; False: a renewed token works until its own end),
`instagram.token_in_data` (False; True: the first answer is inside `data`), and those of `grants` and `consent`. The default app has
the id `APP_ID` and the secret `APP_SECRET` of `people`, and `https://localhost:8400/callback`, to which the dashboard adds the
slash.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.consent import Authorization, AuthorizationError, Client, authorize, client_of
from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.grants import ACCESS, DAY, Grants, IssuedToken, SandboxGrant
from phantoms_dagster.sandbox.instagram.people import APP_ID, APP_SECRET, INSTAGRAM_SCOPES, ig_user_id
from phantoms_dagster.sandbox.instagram.rules import GraphError, living
from phantoms_dagster.sandbox.tokens import token_of

PLATFORM = "instagram"
REDIRECT_URI = "https://localhost:8400/callback"
HOUR = 3_600
LONG_SECONDS = 5_184_000


def _scopes(query: Mapping[str, str]) -> tuple[str, ...]:
    asked = tuple(query.get("scope", "").replace(" ", ",").split(","))
    if not set(INSTAGRAM_SCOPES).issuperset(asked) or INSTAGRAM_SCOPES[0] not in asked:
        raise AuthorizationError("invalid_scope", f"Invalid scopes; {INSTAGRAM_SCOPES[0]} is required")
    return asked


def _rules(sandbox: Sandbox) -> Authorization:
    def redirects(registered: str, uri: str) -> bool:
        slashed = sandbox.setting("instagram.trailing_slash", True) and not registered.endswith("/")
        return uri == (f"{registered}/" if slashed else registered)

    return Authorization(
        platform=PLATFORM,
        title="Instagram",
        id_parameter="client_id",
        default_client=Client(APP_ID, APP_SECRET, (REDIRECT_URI,)),
        code_seconds=HOUR,
        scopes=_scopes,
        challenge=lambda _: ("", "none"),
        redirects=redirects,
        denied={
            "error": "access_denied",
            "error_reason": "user_denied",
            "error_description": "The user denied your request",
        },
        granular=True,
        ending="#_",
    )


class _TokenEndpoint:
    def __init__(self, sandbox: Sandbox, rules: Authorization) -> None:
        self.sandbox = sandbox
        self.rules = rules
        self.grants = Grants.of(sandbox)

    async def code(self, request: web.Request) -> web.Response:
        """POST a form with the code: the short-lived token."""
        form = await request.post()
        client = client_of(self.sandbox, self.rules, str(form.get("client_id", "")))
        if client is None or client.secret != form.get("client_secret"):
            return _refused("Invalid platform app")
        if form.get("grant_type") != "authorization_code":
            return _refused("Invalid grant_type")
        uri = str(form.get("redirect_uri", ""))
        code = self.grants.take_code(PLATFORM, str(form.get("code", "")), client=client.id, redirect_uri=uri)
        if code is None:
            return _refused("This authorization code has been used, has expired, or belongs to a different redirect_uri")
        grant = self.grants.new_grant(PLATFORM, client.id, code.account, code.scopes)
        body: dict[str, Any] = {
            "access_token": self.grants.issue(grant, ACCESS, "IGAAS", seconds=HOUR),
            "user_id": int(ig_user_id(grant.account)),
            "permissions": ",".join(grant.scopes),
        }
        return web.json_response({"data": [body]} if self.sandbox.setting("instagram.token_in_data", False) else body)

    async def exchange(self, request: web.Request) -> web.Response:
        """GET with a short-lived token and the app's secret: the long-lived token."""
        return self._graph(request, "ig_exchange_token")

    async def renew(self, request: web.Request) -> web.Response:
        """GET with a long-lived token: its successor."""
        return self._graph(request, "ig_refresh_token")

    def _graph(self, request: web.Request, grant_type: str) -> web.Response:
        try:
            if request.query.get("grant_type") != grant_type:
                raise GraphError(400, 100, f"(#100) Param grant_type must be {grant_type}")
            text = request.query.get("access_token", "")
            living(token_of(self.sandbox, PLATFORM, text, INSTAGRAM_SCOPES))
            token = self.grants.token(PLATFORM, ACCESS, text)
            if token is None:
                raise GraphError(400, 100, "This token was not issued by Instagram Login")
            grant = self.grants.grant_of(token)
            short = token.expires_at is not None and token.expires_at - token.issued_at <= HOUR
            return (
                self._exchanged(request, grant, short) if grant_type == "ig_exchange_token" else self._renewed(token, grant, short)
            )
        except GraphError as error:
            return web.json_response(error.body, status=error.status)

    def _exchanged(self, request: web.Request, grant: SandboxGrant, short: bool) -> web.Response:
        client = client_of(self.sandbox, self.rules, grant.client)
        if client is None or client.secret != request.query.get("client_secret"):
            raise GraphError(400, 1, "Error validating client secret.")
        if not short:
            raise GraphError(400, 100, "Unsupported request: the access token is not short-lived")
        return self._long(grant, "issued")

    def _renewed(self, token: IssuedToken, grant: SandboxGrant, short: bool) -> web.Response:
        if INSTAGRAM_SCOPES[0] not in token.scopes:
            raise GraphError(403, 10, "(#10) Application does not have permission for this action")
        if short or self.sandbox.now() - token.issued_at < DAY:
            raise GraphError(400, 100, "The access token must be long-lived and at least 24 hours old")
        if self.sandbox.setting("instagram.old_token_dies", True):
            self.grants.end(token)
        return self._long(grant, "rotated")

    def _long(self, grant: SandboxGrant, event: str) -> web.Response:
        token = self.grants.issue(grant, ACCESS, "IGAAL", seconds=LONG_SECONDS, event=event)
        body = {"access_token": token, "token_type": "bearer", "expires_in": LONG_SECONDS, "permissions": ",".join(grant.scopes)}
        return web.json_response(body)


def _refused(message: str) -> web.Response:
    return web.json_response({"error_type": "OAuthException", "code": 400, "error_message": message}, status=400)


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The routes of the authorization server."""
    rules = _rules(sandbox)
    endpoint = _TokenEndpoint(sandbox, rules)
    return [
        *authorize(sandbox, rules, "/instagram/oauth/authorize", "instagram"),
        web.post("/instagram/oauth/access_token", endpoint.code, name="instagram.token"),
        web.get("/instagram/access_token", endpoint.exchange, name="instagram.exchange_token"),
        web.get("/instagram/refresh_access_token", endpoint.renew, name="instagram.refresh_token"),
    ]
