"""Google's authorization and token endpoints, for YouTube (developers.google.com/identity/protocols/oauth2, November 2026).

A refresh token does not rotate, so two refreshes at once are harmless.
"""

from __future__ import annotations

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.grants import Consent, Grant, StoredGrant
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms import oauth
from phantoms_dagster.platforms.youtube.grants import SCOPES

PLATFORM = Platform("youtube")
PREFIX = "https://www.googleapis.com/auth/"
# Apps whose consent screen is in testing lose their refresh tokens after 7 days.
TESTING_SECONDS = 8 * 86_400.0
# A connection that ended earlier was ended by a person or by Google, for another reason.
TESTING_SECONDS_LEAST = 6 * 86_400.0
TESTING = (
    "Google ends the connection of an app in testing after 7 days: set its publishing status to In production "
    "(Google Auth Platform, Audience)"
)


class GoogleOAuth(oauth.Endpoints):
    """Implements `domain.grants.OAuth`. `base_url`: the host of `/token` and `/revoke`."""

    needed = SCOPES

    def consent(self, *, redirect_uri: str, state: str) -> Consent:
        """See the port. Without `consent` Google gives no refresh token to an app that the owner has accepted before.

        Without `select_account` a browser in which one person is logged in never asks for the owner of a second account.
        """
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # noqa: PLC0415

        verifier = oauth.new_verifier()
        params = {
            "response_type": "code",
            "client_id": self._client_id(),
            "redirect_uri": redirect_uri,
            "scope": " ".join(PREFIX + scope.name for scope in self.needed),
            "access_type": "offline",
            "include_granted_scopes": "true",
            "prompt": "select_account consent",
            "state": state,
            "code_challenge": create_s256_code_challenge(verifier),
            "code_challenge_method": "S256",
        }
        return Consent(oauth.url_with(self._authorize_url, params), verifier)

    async def exchange(self, code: str, *, redirect_uri: str, verifier: str) -> Grant:
        """See the port."""
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}
        grant = await self._granted(form)
        if grant.refresh_token is None:
            page = "https://myaccount.google.com/connections"
            message = f"Google gave no refresh token: remove the app's access at {page}, then connect again"
            raise Permanent(message, provider="youtube", code="no_refresh_token")
        return grant

    async def renew(self, stored: StoredGrant) -> Grant:
        """See the port."""
        return await self._granted({"grant_type": "refresh_token", "refresh_token": stored.credential})

    async def _granted(self, form: dict[str, str]) -> Grant:
        data = {**form, "client_id": self._app.id, "client_secret": self._app.secret}
        answer = await oauth.ask(self._client, "POST", f"{self._base}/token", platform=PLATFORM, data=data)
        listed, lasts = answer.get("scope"), "refresh_token_expires_in"  # only from an app in testing, or for access with an end
        return Grant(
            access_token=oauth.text(answer, "access_token", platform=PLATFORM),
            life_seconds=oauth.seconds(answer, "expires_in", platform=PLATFORM),
            refresh_token=oauth.text(answer, "refresh_token", platform=PLATFORM) if "refresh_token" in answer else None,
            refresh_life_seconds=oauth.seconds(answer, lasts, platform=PLATFORM) if lasts in answer else None,
            scopes=tuple(name.removeprefix(PREFIX) for name in listed.split()) if isinstance(listed, str) else None,
        )

    async def revoke(self, stored: StoredGrant) -> bool:
        """See the port."""
        return await oauth.revoked(self._client, f"{self._base}/revoke", platform=PLATFORM, data={"token": stored.credential})

    def warning(self, grant: Grant) -> str:
        """See the port."""
        ends = grant.refresh_life_seconds
        return TESTING if ends is not None and ends < TESTING_SECONDS else ""

    def why_dead(self, stored: StoredGrant) -> str:
        """See the port."""
        return TESTING if TESTING_SECONDS_LEAST <= stored.connected_seconds < TESTING_SECONDS else ""
