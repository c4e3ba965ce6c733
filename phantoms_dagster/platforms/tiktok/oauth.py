"""TikTok's authorization and token endpoints: Login Kit for Desktop (developers.tiktok.com/doc/login-kit-desktop, November 2026).

A renewed access token may come with another refresh token, which is then the only one that is known to work. Errors may come with
status 200.
"""

from __future__ import annotations

import hashlib
from typing import Self

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.grants import Consent, Grant, StoredGrant
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms import oauth
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.platforms.tiktok.grants import SCOPES, scopes_for

PLATFORM = Platform("tiktok")
TOKEN_PATH = "/v2/oauth/token/"  # noqa: S105 - a path
REVOKE_PATH = "/v2/oauth/revoke/"
# An access token lives a day. A connection that ends with its first renewal is usually one of TikTok's sandbox.
FIRST_RENEWAL_SECONDS = 2 * 86_400.0
SANDBOX = (
    "TikTok may renew no tokens for the sandbox of an app: if the client key is the sandbox's, use the key of the app that TikTok "
    "has approved, and connect again"
)


class TikTokOAuth(oauth.Endpoints):
    """Implements `domain.grants.OAuth`."""

    needed: tuple[Scope, ...] = SCOPES

    def for_route(self, route: str | None) -> Self:
        """Ask for the permissions that an account with that route needs."""
        self.needed = scopes_for(route)
        return self

    def consent(self, *, redirect_uri: str, state: str) -> Consent:
        """See the port. TikTok wants the challenge in hexadecimal, unlike RFC 7636, and the scopes separated by commas.

        Without `disable_auto_auth` TikTok shows no page to a person who has accepted the app before: it sends the browser back at
        once, with the account that is logged in there and its old permissions.
        """
        verifier = oauth.new_verifier()
        params = {
            "client_key": self._client_id(),
            "scope": ",".join(scope.name for scope in self.needed),
            "response_type": "code",
            "redirect_uri": redirect_uri,
            "state": state,
            "disable_auto_auth": "1",
            "code_challenge": hashlib.sha256(verifier.encode()).hexdigest(),
            "code_challenge_method": "S256",
        }
        return Consent(oauth.url_with(self._authorize_url, params), verifier)

    async def exchange(self, code: str, *, redirect_uri: str, verifier: str) -> Grant:
        """See the port."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
        grant = await self._granted(form)
        if grant.refresh_token is None:
            raise Permanent("TikTok gave no refresh token: connect again", provider="tiktok", code="no_refresh_token")
        return grant

    async def renew(self, stored: StoredGrant) -> Grant:
        """See the port."""
        return await self._granted({"grant_type": "refresh_token", "refresh_token": stored.credential})

    def why_dead(self, stored: StoredGrant) -> str:
        """See the port. Developers report `invalid_grant` for every renewal in the sandbox of TikTok for Developers."""
        return SANDBOX if stored.connected_seconds < FIRST_RENEWAL_SECONDS else ""

    async def _granted(self, form: dict[str, str]) -> Grant:
        data = {**form, "client_key": self._app.id, "client_secret": self._app.secret}
        answer = await oauth.ask(self._client, "POST", self._base + TOKEN_PATH, platform=PLATFORM, data=data)
        listed, owner, lasts = answer.get("scope"), answer.get("open_id"), "refresh_expires_in"
        return Grant(
            access_token=oauth.text(answer, "access_token", platform=PLATFORM),
            life_seconds=oauth.seconds(answer, "expires_in", platform=PLATFORM),
            refresh_token=oauth.text(answer, "refresh_token", platform=PLATFORM) if "refresh_token" in answer else None,
            refresh_life_seconds=oauth.seconds(answer, lasts, platform=PLATFORM) if lasts in answer else None,
            scopes=tuple(name.strip() for name in listed.split(",") if name.strip()) if isinstance(listed, str) else None,
            subject=owner if isinstance(owner, str) and owner else None,
        )

    async def revoke(self, stored: StoredGrant) -> bool:
        """See the port."""
        data = {"client_key": self._app.id, "client_secret": self._app.secret, "token": stored.access_token}
        return await oauth.revoked(self._client, self._base + REVOKE_PATH, platform=PLATFORM, data=data)
