"""Reads the permissions of a Google token, at no cost (discovery document oauth2 v2)."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from phantoms_dagster.domain.errors import Disconnected
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Tokens
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.providers import http
from phantoms_dagster.providers.redaction import redact

TOKENINFO_PATH = "oauth2/v2/tokeninfo"
GOOGLE_HOST = "https://www.googleapis.com"
_GOOGLE_PREFIX = "https://www.googleapis.com/auth/"

SCOPES = (
    Scope("youtube.upload", "uploads videos", frozenset({"youtube", "youtube.force-ssl", "youtubepartner"})),
    Scope(
        "youtube.readonly",
        "finds the channel, its videos and their numbers",
        frozenset({"youtube", "youtube.force-ssl", "youtubepartner"}),
    ),
    Scope("youtube.force-ssl", "makes an uploaded video public and adds captions", frozenset({"youtube", "youtubepartner"})),
    Scope("yt-analytics.readonly", "reads watch time", frozenset({"youtube", "youtube.readonly"})),
)


class YouTubeGrants:
    """Implements `Grants` with Google's tokeninfo. Uses the same path on other hosts; a 404 there means unknown."""

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens) -> None:
        self._client = client
        host = httpx.URL(base_url).host
        self._base = GOOGLE_HOST if host.endswith(".googleapis.com") else base_url.rstrip("/")
        self._tokens = tokens

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """See the port."""
        token = await self._tokens.token(Platform("youtube"), account)
        url = f"{self._base}/{TOKENINFO_PATH}"
        response = await http.send(self._client, "POST", url, provider="youtube", params={"access_token": token})
        if response.status_code == 404:
            return None
        if not response.is_server_error and http.is_foreign(response):
            raise http.foreign(response, provider="youtube")
        if response.status_code in (400, 401):
            said = redact(str(http.lenient_json(response).get("error_description") or response.status_code))
            message = f"Google does not accept the token ({said.replace(token, '***')})"
            raise Disconnected(message, provider="youtube", code="invalid_token", evidence=http.evidence(response))
        if response.status_code >= 500:
            raise http.server_error(response, provider="youtube")
        if not response.is_success:
            raise http.unexpected(response, provider="youtube")
        listed = str(http.json_object(response, provider="youtube").get("scope") or "")
        granted = {name.removeprefix(_GOOGLE_PREFIX) for name in listed.split()}
        return [scope for scope in SCOPES if not scope.covered_by(granted)]
