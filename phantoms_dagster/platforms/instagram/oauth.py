"""Instagram Login's authorization and token endpoints (developers.facebook.com, business login for Instagram, November 2026).

There is no refresh token: a long-lived access token, valid for 60 days, gets its own successor while it lives. Facebook Login is
not here: its tokens come from Meta's own tools, and channels.yaml names them (docs/accounts.md).
"""

from __future__ import annotations

import httpx

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.grants import Consent, Grant, StoredGrant, early
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms import oauth
from phantoms_dagster.platforms.instagram.grants import INSTAGRAM_LOGIN
from phantoms_dagster.providers.http import objects

PLATFORM = Platform("instagram")
FACEBOOK_HOST = "graph.facebook.com"
INSTAGRAM = "instagram.com"
TOKEN_PATH = "/oauth/access_token"  # noqa: S105 - a path
DAY = 86_400.0
# A token younger than a day cannot be renewed. Weekly leaves seven chances before it expires.
YOUNGEST, WEEK = DAY, 7 * DAY
DEAD = oauth.DEAD | {"190", "102"}
# Errors of the Graph API that pass by themselves: unknown, service, and the four limits of calls.
TROUBLE = oauth.TROUBLE | {"1", "2", "4", "17", "32", "613"}


class InstagramOAuth(oauth.Endpoints):
    """Implements `domain.grants.OAuth`."""

    needed = INSTAGRAM_LOGIN

    def __init__(self, *, client: httpx.AsyncClient, app: oauth.App, authorize_url: str, token_url: str, base_url: str) -> None:
        """`token_url`: the host that exchanges codes. `base_url`: the host of the Graph API, which renews tokens."""
        super().__init__(client=client, app=app, authorize_url=authorize_url, base_url=base_url)
        self._token_url = token_url.rstrip("/") + TOKEN_PATH

    def consent(self, *, redirect_uri: str, state: str) -> Consent:
        """See the port. Instagram documents no PKCE. `force_reauth`, as in the URL of Meta's dashboard, asks who the owner is."""
        if httpx.URL(self._base).host == FACEBOOK_HOST:
            message = (
                "a connected Instagram account works at graph.instagram.com only: set "
                "PHANTOMS_INSTAGRAM_BASE_URL=https://graph.instagram.com first"
            )
            raise InvalidInput(message)
        if httpx.URL(self._authorize_url).host.endswith(INSTAGRAM) and not redirect_uri.startswith("https://"):
            message = (
                f"Instagram sends people back to https addresses only, and not to {redirect_uri}: register one of yours for the "
                "app, and set PHANTOMS_INSTAGRAM_REDIRECT_URI to it"
            )
            raise InvalidInput(message)
        params = {
            "client_id": self._client_id(),
            "redirect_uri": redirect_uri,
            "response_type": "code",
            "scope": ",".join(scope.name for scope in self.needed),
            "state": state,
            "force_reauth": "true",
        }
        return Consent(oauth.url_with(self._authorize_url, params))

    async def exchange(self, code: str, *, redirect_uri: str, verifier: str) -> Grant:
        """See the port. The code gets a token for an hour, which gets the one for 60 days."""
        del verifier
        form = {
            "client_id": self._app.id,
            "client_secret": self._app.secret,
            "grant_type": "authorization_code",
            "redirect_uri": redirect_uri,
            "code": code.removesuffix("#_"),
        }
        answer = await oauth.ask(self._client, "POST", self._token_url, platform=PLATFORM, data=form)
        short = next(iter(objects(answer, "data")), answer)
        token = oauth.text(short, "access_token", platform=PLATFORM)
        params = {"grant_type": "ig_exchange_token", "client_secret": self._app.secret, "access_token": token}
        return await self._long("access_token", params, scopes=_permissions(short))

    async def renew(self, stored: StoredGrant) -> Grant:
        """See the port."""
        params = {"grant_type": "ig_refresh_token", "access_token": stored.access_token}
        return await self._long("refresh_access_token", params)

    async def _long(self, place: str, params: dict[str, str], *, scopes: tuple[str, ...] | None = None) -> Grant:
        answer = await oauth.ask(
            self._client, "GET", f"{self._base}/{place}", platform=PLATFORM, dead=DEAD, trouble=TROUBLE, params=params
        )
        return Grant(
            access_token=oauth.text(answer, "access_token", platform=PLATFORM),
            life_seconds=oauth.seconds(answer, "expires_in", platform=PLATFORM),
            scopes=_permissions(answer) or scopes,
        )

    async def revoke(self, stored: StoredGrant) -> bool:
        """See the port. Instagram Login documents no revocation; the owner removes the app in Instagram's settings."""
        del stored
        return False

    def renew_after(self, life_seconds: float) -> float:
        """See the port."""
        return max(YOUNGEST, min(WEEK, early(life_seconds)))

    def why_dead(self, stored: StoredGrant) -> str:
        """See the port."""
        return "it had expired, because nothing renewed it in time" if stored.left_seconds <= 0 else ""


def _permissions(answer: JsonObject) -> tuple[str, ...] | None:
    """The granted permissions: a list, or a text with commas; None if the answer does not say."""
    listed = answer.get("permissions")
    names = listed.split(",") if isinstance(listed, str) else listed
    return tuple(str(name).strip() for name in names) if isinstance(names, list) and names else None
