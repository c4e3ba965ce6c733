"""The stand-in for Google's authorization server: `/o/oauth2/v2/auth`, `/token`, `/revoke` and `tokeninfo`.

Refresh tokens stay the same when they are used. A refresh token of the form `1//sandbox-<account>` works for every app without a
consent. The default app has the id `CLIENT_ID`, the secret `CLIENT_SECRET` and loopback addresses.

Settings: `google.token_seconds` (3599), `google.dead_refresh_tokens` ([]: refresh tokens that get invalid_grant), `google.testing`
(False; True: the app's consent screen is in testing, so refresh tokens die after 7 days), `google.rapt_accounts` ([]: accounts
whose administrator wants a new log-in), and those of `grants` and `consent` for `youtube`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from phantoms_dagster.sandbox.consent import Authorization, AuthorizationError, Client, authorize, client_of, loopback
from phantoms_dagster.sandbox.core import Sandbox, account_behind
from phantoms_dagster.sandbox.grants import ACCESS, DAY, REFRESH, Code, Grants, SandboxGrant
from phantoms_dagster.sandbox.tokens import token_of
from phantoms_dagster.sandbox.youtube.rules import SCOPES

PLATFORM = "youtube"
PREFIX = "1//"
SCOPE_PREFIX = "https://www.googleapis.com/auth/"
CLIENT_ID = "1234567890-sandbox.apps.googleusercontent.com"
CLIENT_SECRET = "sandbox-secret"  # noqa: S105 - of the sandbox's own app
LOOPBACK = "http://localhost"  # registered for desktop apps: any port and path of this machine
HOSTS = ("localhost", "127.0.0.1", "::1")
CODE_SECONDS = 600.0
MOST_REFRESH_TOKENS = 100  # alive for one account and app
UNUSED_SECONDS = 183 * DAY
TESTING_SECONDS = 7 * DAY


def _scopes(query: Mapping[str, str]) -> tuple[str, ...]:
    asked = query.get("scope", "").split()
    unknown = [scope for scope in asked if scope.removeprefix(SCOPE_PREFIX) not in SCOPES or not scope.startswith(SCOPE_PREFIX)]
    if unknown or not asked:
        raise AuthorizationError("invalid_scope", f"Some requested scopes were invalid: {' '.join(unknown)}")
    return tuple(scope.removeprefix(SCOPE_PREFIX) for scope in asked)


def _challenge(query: Mapping[str, str]) -> tuple[str, str]:
    challenge, method = query.get("code_challenge", ""), query.get("code_challenge_method", "plain")
    if method not in ("plain", "S256"):
        raise AuthorizationError("invalid_request", "code_challenge_method must be plain or S256")
    return challenge, method


def _redirects(registered: str, uri: str) -> bool:
    return loopback(uri, HOSTS) if registered == LOOPBACK else registered == uri


RULES = Authorization(
    platform=PLATFORM,
    title="Google",
    id_parameter="client_id",
    default_client=Client(CLIENT_ID, CLIENT_SECRET, (LOOPBACK,)),
    code_seconds=CODE_SECONDS,
    scopes=_scopes,
    challenge=_challenge,
    redirects=_redirects,
    denied={"error": "access_denied"},
    granular=True,
    asks_offline=True,
)


def _proven(code: Code, verifier: str) -> bool:
    if not code.challenge:
        return True
    if code.method == "plain":
        return verifier == code.challenge
    digest = hashlib.sha256(verifier.encode("utf-8", "surrogatepass")).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == code.challenge


def _credentials(request: web.Request, form: Mapping[str, Any]) -> tuple[str, str]:
    """The app's id and secret, from the form or from the header of HTTP Basic."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Basic":
        return str(form.get("client_id", "")), str(form.get("client_secret", ""))
    try:
        name, _, secret = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return unquote(name), unquote(secret)


class _TokenEndpoint:
    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.grants = Grants.of(sandbox)

    async def token(self, request: web.Request) -> web.Response:
        """POST a form. Errors have the format of RFC 6749."""
        form = await request.post()
        client_id, secret = _credentials(request, form)
        if not client_id or not secret:
            return _refused(401, "invalid_client", "The OAuth client was not found.")
        grant_type, given = form.get("grant_type"), str(form.get("refresh_token", ""))
        if grant_type == "refresh_token" and given.startswith(PREFIX) and (account := account_behind(given.removeprefix(PREFIX))):
            return self._free(account, given)
        client = client_of(self.sandbox, RULES, client_id)
        if client is None:
            return _refused(401, "invalid_client", "The OAuth client was not found.")
        if client.secret != secret:
            return _refused(401, "invalid_client", "The provided client secret is invalid.")
        if grant_type == "authorization_code":
            return self._exchange(form, client)
        if grant_type == "refresh_token":
            return self._refresh(given, client)
        return _refused(400, "unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type', '')}")

    def _free(self, account: str, given: str) -> web.Response:
        if given in self.sandbox.setting("google.dead_refresh_tokens", []):
            return _refused(400, "invalid_grant", "Token has been expired or revoked.")
        return self._answer(f"sandbox-{account}~{self.sandbox.number('google.token') + 1}", SCOPES)

    def _exchange(self, form: Mapping[str, Any], client: Client) -> web.Response:
        uri = str(form.get("redirect_uri", ""))
        code = self.grants.take_code(PLATFORM, str(form.get("code", "")), client=client.id, redirect_uri=uri)
        if code is None:
            return _refused(400, "invalid_grant", "Bad Request")
        if not _proven(code, str(form.get("code_verifier", ""))):
            return _refused(400, "invalid_grant", "Invalid code verifier.")
        grant = self.grants.new_grant(PLATFORM, client.id, code.account, code.scopes)
        if not code.offline:
            return self._access(grant)
        alive = [
            token
            for earlier in self.grants.live(PLATFORM, client.id, code.account)
            for token in self.grants.tokens(earlier, REFRESH)
            if self.grants.alive(token)
        ]
        for oldest in alive[: max(0, len(alive) - MOST_REFRESH_TOKENS + 1)]:
            self.grants.end(oldest)
        testing = bool(self.sandbox.setting("google.testing", False))
        refresh = self.grants.issue(grant, REFRESH, PREFIX, seconds=TESTING_SECONDS if testing else UNUSED_SECONDS)
        ends = {"refresh_token_expires_in": int(TESTING_SECONDS)} if testing else {}
        return self._access(grant, refresh_token=refresh, **ends)

    def _refresh(self, given: str, client: Client) -> web.Response:
        token = self.grants.token(PLATFORM, REFRESH, given)
        grant = self.grants.grant_of(token) if token else None
        dead = given in self.sandbox.setting("google.dead_refresh_tokens", [])
        if token is None or grant is None or dead or grant.client != client.id or not self.grants.alive(token):
            return _refused(400, "invalid_grant", "Token has been expired or revoked.")
        if grant.account in self.sandbox.setting("google.rapt_accounts", []):
            return _refused(400, "invalid_grant", "reauth related error (invalid_rapt)", error_subtype="invalid_rapt")
        if self.sandbox.setting("google.testing", False):
            left = max(0.0, (token.issued_at + TESTING_SECONDS) - self.sandbox.now())
            if left == 0:
                return _refused(400, "invalid_grant", "Token has been expired or revoked.")
            return self._access(grant, refresh_token_expires_in=int(left))
        self.grants.used(token, lasts=UNUSED_SECONDS)
        return self._access(grant)

    def _access(self, grant: SandboxGrant, **more: Any) -> web.Response:
        seconds = float(self.sandbox.setting("google.token_seconds", 3_599))
        return self._answer(self.grants.issue(grant, ACCESS, "ya29.", seconds=seconds), grant.scopes, **more)

    def _answer(self, token: str, scopes: Any, **more: Any) -> web.Response:
        body = {
            "access_token": token,
            "expires_in": self.sandbox.setting("google.token_seconds", 3_599),
            "scope": " ".join(SCOPE_PREFIX + scope for scope in sorted(scopes)),
            "token_type": "Bearer",
        }
        return web.json_response({**body, **more}, headers={"Cache-Control": "no-store"})

    async def revoke(self, request: web.Request) -> web.Response:
        """POST `token` in the form or the query: an access or a refresh token. All tokens of the account and app die."""
        given = str((await request.post()).get("token") or request.query.get("token", ""))
        found = self.grants.token(PLATFORM, REFRESH, given) or self.grants.token(PLATFORM, ACCESS, given)
        if found is None or not self.grants.alive(found):
            return _refused(400, "invalid_token", "Token expired or revoked")
        grant = self.grants.grant_of(found)
        self.grants.revoke(PLATFORM, grant.account, grant.client)
        return web.json_response({})


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The routes of the stand-in."""
    endpoint = _TokenEndpoint(sandbox)

    async def tokeninfo(request: web.Request) -> web.Response:
        """POST with `access_token` in the query, as in the discovery document of oauth2 v2."""
        given = request.query.get("access_token")
        if not given:
            return _refused(400, "invalid_request", "either access_token, id_token, or token_handle required")
        found = token_of(sandbox, "youtube", given, SCOPES)
        if found is None or not found.alive:
            return _refused(400, "invalid_token", "Invalid Value")
        left = 3_599.0 if found.expires_at is None else found.expires_at - sandbox.now()
        return web.json_response(
            {
                "issued_to": CLIENT_ID,
                "audience": CLIENT_ID,
                "scope": " ".join(SCOPE_PREFIX + scope for scope in sorted(found.scopes)),
                "expires_in": int(left),
                "access_type": "offline",
            }
        )

    return [
        *authorize(sandbox, RULES, "/o/oauth2/v2/auth", "google"),
        web.post("/token", endpoint.token, name="google.token"),
        web.post("/revoke", endpoint.revoke, name="google.revoke"),
        web.post("/oauth2/v2/tokeninfo", tokeninfo, name="google.tokeninfo"),
    ]


def _refused(status: int, error: str, description: str, **more: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description, **more}, status=status)
