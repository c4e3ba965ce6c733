"""The stand-in for TikTok's authorization server, as Login Kit Desktop describes it.

Its routes below `/tiktok` are `/v2/auth/authorize/`, `/v2/oauth/token/` and `/v2/oauth/revoke/`.

A refresh gives another refresh token, and the old one dies. Errors are flat. What TikTok does not document is at its most awkward:

- `tiktok.old_refresh_token_seconds` (0): how long the old refresh token works after a refresh;
- `tiktok.rotates` (True; False: the refresh token stays the same);
- `tiktok.refresh_life_restarts` (False: another refresh token ends when the first one would have);
- `tiktok.oauth_error_status` (200): the status of errors;
- `tiktok.pkce` ("hex"; "base64url" as in RFC 7636; "none": not checked, as for web apps);
- `tiktok.sandbox_app` (False; True: the app gets invalid_grant for every refresh);
- `tiktok.access_seconds` (86400) and `tiktok.refresh_seconds` (31536000), and those of `grants` and `consent`.

The default app has the client key `CLIENT_KEY`, the secret `CLIENT_SECRET` and `http://127.0.0.1:*/callback`.
"""

from __future__ import annotations

import base64
import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from phantoms_dagster.sandbox.consent import Authorization, AuthorizationError, Client, authorize, client_of, loopback
from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.grants import ACCESS, REFRESH, Code, Grants, SandboxGrant
from phantoms_dagster.sandbox.tiktok.app import CLIENT_KEY, CLIENT_SECRET, open_id
from phantoms_dagster.sandbox.tiktok.state import ALL_SCOPES

PLATFORM = "tiktok"
CODE_SECONDS = 60.0  # not documented
ACCESS_SECONDS, REFRESH_SECONDS, CLIENT_SECONDS = 86_400, 31_536_000, 7_200
VERIFIER = re.compile(r"[A-Za-z0-9._~-]{43,128}")
HOSTS = ("localhost", "127.0.0.1")
FORM = "application/x-www-form-urlencoded"


def _scopes(query: Mapping[str, str]) -> tuple[str, ...]:
    asked = tuple(query.get("scope", "").split(","))
    if not ALL_SCOPES.issuperset(asked):
        raise AuthorizationError("invalid_scope", "The scope is invalid: separate the names by commas.")
    return asked


def _redirects(registered: str, uri: str) -> bool:
    if ":*" not in registered:
        return registered == uri
    return loopback(uri, HOSTS) and re.fullmatch(re.escape(registered).replace(r":\*", r":\d+"), uri) is not None


def _rules(sandbox: Sandbox) -> Authorization:
    def challenge(query: Mapping[str, str]) -> tuple[str, str]:
        method = str(sandbox.setting("tiktok.pkce", "hex"))
        if method != "none" and (not query.get("code_challenge") or query.get("code_challenge_method") != "S256"):
            raise AuthorizationError("invalid_request", "code_challenge and code_challenge_method=S256 are required.")
        return query.get("code_challenge", ""), method

    return Authorization(
        platform=PLATFORM,
        title="TikTok",
        id_parameter="client_key",
        default_client=Client(CLIENT_KEY, CLIENT_SECRET, ("http://127.0.0.1:*/callback", "http://localhost:*/callback")),
        code_seconds=CODE_SECONDS,
        scopes=_scopes,
        challenge=challenge,
        redirects=_redirects,
        denied={"error": "access_denied", "error_description": "The user denied the request."},
        granular=True,
        lists_scopes=True,
        code_ending="*1!6287.e1",  # must be decoded from the address before it is sent
    )


def _proven(code: Code, verifier: str) -> bool:
    if code.method == "none":
        return True
    if not VERIFIER.fullmatch(verifier):
        return False
    digest = hashlib.sha256(verifier.encode()).digest()
    wanted = digest.hex() if code.method == "hex" else base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    return code.challenge == wanted


class _TokenEndpoint:
    def __init__(self, sandbox: Sandbox, rules: Authorization) -> None:
        self.sandbox = sandbox
        self.rules = rules
        self.grants = Grants.of(sandbox)

    async def token(self, request: web.Request) -> web.Response:
        """POST a form."""
        if request.content_type != FORM:
            return self._refused("invalid_request", f"Only `{FORM}` is accepted as Content-Type.")
        form = await request.post()
        client = self._client(form)
        if client is None:
            return self._refused("invalid_client", "Client key or secret is incorrect.")
        given = form.get("grant_type")
        if given == "authorization_code":
            return self._exchange(form, client)
        if given == "refresh_token":
            return self._refresh(str(form.get("refresh_token", "")), client)
        if given == "client_credentials":
            grant = self.grants.new_grant("tiktok app", client.id, client.id, ())
            token = self.grants.issue(grant, ACCESS, "clt.", seconds=CLIENT_SECONDS)
            return _given({"access_token": token, "expires_in": CLIENT_SECONDS, "token_type": "Bearer"})
        return self._refused("unsupported_grant_type", "The grant type is not supported.")

    async def revoke(self, request: web.Request) -> web.Response:
        """POST a form with `token`, an access token. The answer is empty."""
        form = await request.post()
        client = self._client(form)
        if client is None:
            return self._refused("invalid_client", "Client key or secret is incorrect.")
        token = self.grants.token(PLATFORM, ACCESS, str(form.get("token", "")))
        if token is None or not self.grants.alive(token) or self.grants.grant_of(token).client != client.id:
            return self._refused("invalid_request", "The access token is invalid.")
        self.grants.revoke(PLATFORM, self.grants.grant_of(token).account, client.id)
        return web.Response()

    def _client(self, form: Mapping[str, Any]) -> Client | None:
        client = client_of(self.sandbox, self.rules, str(form.get("client_key", "")))
        return client if client and client.secret == form.get("client_secret") else None

    def _exchange(self, form: Mapping[str, Any], client: Client) -> web.Response:
        uri = str(form.get("redirect_uri", ""))
        code = self.grants.take_code(PLATFORM, str(form.get("code", "")), client=client.id, redirect_uri=uri)
        if code is None:
            return self._refused("invalid_grant", "Authorization code is expired.")
        if not _proven(code, str(form.get("code_verifier", ""))):
            return self._refused("invalid_grant", "Code verifier or code challenge is invalid.")
        grant = self.grants.new_grant(PLATFORM, client.id, code.account, code.scopes)
        seconds = float(self.sandbox.setting("tiktok.refresh_seconds", REFRESH_SECONDS))
        return self._tokens(grant, self.grants.issue(grant, REFRESH, "rft.", seconds=seconds), seconds)

    def _refresh(self, given: str, client: Client) -> web.Response:
        token = self.grants.token(PLATFORM, REFRESH, given)
        grant = self.grants.grant_of(token) if token else None
        barred = bool(self.sandbox.setting("tiktok.sandbox_app", False))
        if token is None or grant is None or barred or grant.client != client.id or not self.grants.alive(token):
            return self._refused("invalid_grant", "Refresh token is invalid or expired.")
        full = float(self.sandbox.setting("tiktok.refresh_seconds", REFRESH_SECONDS))
        restarts = token.expires_at is None or self.sandbox.setting("tiktok.refresh_life_restarts", False)
        seconds = full if restarts else float(token.expires_at or 0) - self.sandbox.now()
        if not self.sandbox.setting("tiktok.rotates", True):
            return self._tokens(grant, given, seconds)
        refresh = self.grants.issue(grant, REFRESH, "rft.", seconds=seconds, event="rotated")
        self.grants.end(token, in_seconds=float(self.sandbox.setting("tiktok.old_refresh_token_seconds", 0)))
        return self._tokens(grant, refresh, seconds)

    def _tokens(self, grant: SandboxGrant, refresh_token: str, refresh_seconds: float) -> web.Response:
        seconds = int(self.sandbox.setting("tiktok.access_seconds", ACCESS_SECONDS))
        return _given(
            {
                "access_token": self.grants.issue(grant, ACCESS, "act.", seconds=seconds),
                "expires_in": seconds,
                "open_id": open_id(grant.account),
                "refresh_expires_in": int(refresh_seconds),
                "refresh_token": refresh_token,
                "scope": ",".join(grant.scopes),
                "token_type": "Bearer",
            }
        )

    def _refused(self, error: str, description: str) -> web.Response:
        body = {"error": error, "error_description": description, "log_id": uuid.uuid4().hex.upper()}
        return web.json_response(body, status=int(self.sandbox.setting("tiktok.oauth_error_status", 200)))


def _given(body: dict[str, Any]) -> web.Response:
    return web.json_response(body, headers={"Cache-Control": "no-store"})


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The routes of the authorization server."""
    rules = _rules(sandbox)
    endpoint = _TokenEndpoint(sandbox, rules)
    return [
        *authorize(sandbox, rules, "/tiktok/v2/auth/authorize/", "tiktok"),
        web.post("/tiktok/v2/oauth/token/", endpoint.token, name="tiktok.token"),
        web.post("/tiktok/v2/oauth/revoke/", endpoint.revoke, name="tiktok.revoke"),
    ]
