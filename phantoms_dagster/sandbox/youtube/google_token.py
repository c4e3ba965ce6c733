"""The stand-in for Google's token endpoints: exchanges refresh tokens for access tokens, and `tokeninfo` lists a token's scopes.

A refresh token has the form `1//sandbox-<account>` and stays the same, as Google's do. Settings: `google.token_seconds` (3599),
`google.dead_refresh_tokens` ([]: refresh tokens that get invalid_grant).
"""

from __future__ import annotations

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox, account_behind
from phantoms_dagster.sandbox.tokens import token_of
from phantoms_dagster.sandbox.youtube.rules import SCOPES

PREFIX = "1//"
SCOPE_PREFIX = "https://www.googleapis.com/auth/"
CLIENT_ID = "1234567890-sandbox.apps.googleusercontent.com"


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The routes of the stand-in."""

    async def token(request: web.Request) -> web.Response:
        """POST a form. Errors have the format of RFC 6749."""
        form = await request.post()
        if not form.get("client_id") or not form.get("client_secret"):
            return _refused(401, "invalid_client", "The OAuth client was not found.")
        if form.get("grant_type") != "refresh_token":
            return _refused(400, "unsupported_grant_type", f"Invalid grant_type: {form.get('grant_type', '')}")
        given = str(form.get("refresh_token", ""))
        account = account_behind(given.removeprefix(PREFIX)) if given.startswith(PREFIX) else None
        if account is None or given in sandbox.setting("google.dead_refresh_tokens", []):
            return _refused(400, "invalid_grant", "Token has been expired or revoked.")
        return web.json_response(
            {
                "access_token": f"sandbox-{account}~{sandbox.number('google.token') + 1}",
                "expires_in": sandbox.setting("google.token_seconds", 3_599),
                "scope": " ".join(sorted(SCOPES)),
                "token_type": "Bearer",
            },
            headers={"Cache-Control": "no-store"},
        )

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
        web.post("/token", token, name="google.token"),
        web.post("/oauth2/v2/tokeninfo", tokeninfo, name="google.tokeninfo"),
    ]


def _refused(status: int, error: str, description: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description}, status=status)
