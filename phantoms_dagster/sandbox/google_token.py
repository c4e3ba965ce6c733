"""The stand-in of Google's token endpoint: refresh tokens in, access tokens out.

A refresh token reads `1//sandbox-<account>`. It stays the same, as Google's do. Settings: `google.token_seconds` (3599),
`google.dead_refresh_tokens` ([]: those that are answered with invalid_grant).
"""

from __future__ import annotations

import itertools

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox, account_behind
from phantoms_dagster.sandbox.youtube_rules import SCOPES

PREFIX = "1//"


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The routes of the stand-in."""
    numbers = itertools.count(2)

    async def token(request: web.Request) -> web.Response:
        """POST a form. Errors have the shape of RFC 6749."""
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
                "access_token": f"sandbox-{account}~{next(numbers)}",
                "expires_in": sandbox.setting("google.token_seconds", 3_599),
                "scope": " ".join(sorted(SCOPES)),
                "token_type": "Bearer",
            },
            headers={"Cache-Control": "no-store"},
        )

    return [web.post("/token", token, name="google.token")]


def _refused(status: int, error: str, description: str) -> web.Response:
    return web.json_response({"error": error, "error_description": description}, status=status)
