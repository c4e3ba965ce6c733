"""What the platforms' token endpoints have in common (RFC 6749, RFC 7636): URLs, requests, and how their answers are judged.

Nothing here puts a token, a code or a secret into a message. Each platform's `oauth` module knows its own endpoints.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import httpx

from phantoms_dagster.domain.errors import InvalidInput, Permanent, Throttled, Transient
from phantoms_dagster.domain.grants import AppRefused, Grant, GrantDead, StoredGrant, early
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.providers import http
from phantoms_dagster.providers.redaction import redact

DEAD = frozenset({"invalid_grant"})
# The app itself is not accepted. The grant may be fine.
_APP = frozenset(
    {"invalid_client", "unauthorized_client", "deleted_client", "disabled_client", "invalid_client_key", "client_key_invalid"}
)
# Trouble of the server, which may come with a status below 500 (RFC 6749; google-auth asks again after these three).
TROUBLE = frozenset({"server_error", "temporarily_unavailable", "internal_failure"})
# A token endpoint answers within a second or two. The lease of a refresh is longer than this.
TOTAL_SECONDS = 20.0
VERIFIER_BYTES = 48  # 64 characters of base64url; RFC 7636 allows 43 to 128


class Endpoints:
    """What the adapters of `domain.grants.OAuth` have in common. `needed`: the permissions to ask for."""

    needed: tuple[Scope, ...]

    def __init__(self, *, client: httpx.AsyncClient, app: App, authorize_url: str, base_url: str) -> None:
        """`base_url`: the host of the token endpoints."""
        self._client = client
        self._app = app
        self._authorize_url = authorize_url
        self._base = base_url.rstrip("/")

    def _client_id(self) -> str:
        """The app's id, for the page of consent. Both must be set: without the secret, the code of that page would be wasted."""
        found, _ = self._app.id, self._app.secret
        return found

    def missing(self, granted: Collection[str]) -> Sequence[str]:
        """See the port."""
        return [f"{scope.name} ({scope.purpose})" for scope in self.needed if not scope.covered_by(granted)]

    def renew_after(self, life_seconds: float) -> float:
        """See the port."""
        return early(life_seconds)

    def warning(self, grant: Grant) -> str:  # noqa: ARG002 - only some platforms look at it
        """See the port."""
        return ""

    def why_dead(self, stored: StoredGrant) -> str:  # noqa: ARG002 - only some platforms look at it
        """See the port."""
        return ""


class App:
    """The app that is registered at the platform: its id and its secret, from the settings."""

    def __init__(self, platform: Platform, setting: Callable[[str], Any], secret: Callable[[str], str | None]) -> None:
        self._platform = platform
        self._setting = setting
        self._secret = secret

    @property
    def id(self) -> str:
        """The client id. Raises InvalidInput when it is not set."""
        return self._needed("client_id", str(self._setting("client_id") or "").strip())

    @property
    def secret(self) -> str:
        """The client secret. Raises InvalidInput when it is not set."""
        return self._needed("client_secret", (self._secret("client_secret") or "").strip())

    def _needed(self, name: str, value: str) -> str:
        if not value:
            variable = f"PHANTOMS_{self._platform.upper()}_{name.upper()}"
            message = f"{variable} is not set; docs/accounts.md says where to register the app for {self._platform.title}"
            raise InvalidInput(message)
        return value


def url_with(endpoint: str, params: Mapping[str, str]) -> str:
    """The endpoint's URL with these parameters."""
    from authlib.common.urls import add_params_to_uri  # noqa: PLC0415 - only commands that connect an account need it

    found: str = add_params_to_uri(endpoint, list(params.items()))
    return found


def new_verifier() -> str:
    """A PKCE code verifier."""
    return secrets.token_urlsafe(VERIFIER_BYTES)


async def ask(
    client: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    platform: Platform,
    dead: frozenset[str] = DEAD,
    trouble: frozenset[str] = TROUBLE,
    **request: Any,
) -> JsonObject:
    """The JSON object of a token endpoint's answer.

    Raises GrantDead for an error in `dead`, AppRefused, Permanent for another refusal, Throttled, and Transient for an error in
    `trouble` and for an answer that is not the endpoint's own, such as a proxy's page.
    """
    response = await http.send(
        client, method, url, provider=str(platform), extensions={"phantoms": {"total": TOTAL_SECONDS}}, **request
    )
    body = http.lenient_json(response)
    error, said = _error(body)
    given: dict[str, Any] = {
        "provider": str(platform),
        "code": error or str(response.status_code),
        "evidence": http.evidence(response),
    }
    if response.status_code == 429:
        raise Throttled(f"{platform.title}: too many calls of its token endpoint", retry_after=http.retry_after(response), **given)
    if response.status_code >= 500:
        raise http.server_error(response, provider=str(platform))
    if http.is_foreign(response):  # every refusal of a token endpoint is JSON
        raise http.foreign(response, provider=str(platform))
    if error in trouble or response.status_code == 408:
        wait = http.retry_after(response)
        why = f"{error or response.status_code}{f': {said}' if said else ''}"
        raise Transient(f"{platform.title} cannot give a token now ({why})", retry_after=wait, **given)
    if error in dead:
        raise GrantDead(f"{error}{f': {said}' if said else ''}", **given)
    if error in _APP:
        variables = f"PHANTOMS_{platform.upper()}_CLIENT_ID and PHANTOMS_{platform.upper()}_CLIENT_SECRET"
        raise AppRefused(f"{platform.title} does not accept the app ({error}): check {variables}", **given)
    if error or not response.is_success:
        raise Permanent(f"{platform.title} gave no token ({error or response.status_code}{f': {said}' if said else ''})", **given)
    return http.json_object(response, provider=str(platform))


async def revoked(client: httpx.AsyncClient, url: str, *, platform: Platform, data: Mapping[str, str]) -> bool:
    """Send a revocation. A grant that is dead already counts as revoked. Raises ProviderError."""
    response = await http.send(client, "POST", url, provider=str(platform), data=dict(data))
    if response.status_code >= 500:
        raise http.server_error(response, provider=str(platform))
    error, said = _error(http.lenient_json(response))
    if (response.is_success and not error) or error in ("invalid_token", "invalid_grant", "access_token_invalid"):
        return True
    raise http.unexpected(response, provider=str(platform), message=f"{error} {said}".strip())


def _error(body: JsonObject) -> tuple[str, str]:
    """The error's name and text. The platforms put them in three forms; TikTok's may come with status 200 and as `ok`."""
    error = body.get("error")
    if isinstance(error, dict):  # Graph API, and TikTok's other endpoints
        code = str(error.get("code", "") or error.get("type", ""))
        return ("" if code == "ok" else code or "error"), redact(str(error.get("message", "")))[:300]
    if "error_type" in body:  # api.instagram.com
        return str(body["error_type"]), redact(str(body.get("error_message", "")))[:300]
    return ("" if error in (None, "", "ok") else str(error)), redact(str(body.get("error_description", "")))[:300]


def text(answer: JsonObject, name: str, *, platform: Platform) -> str:
    """A text of the answer. Raises Transient when it is not there: such an answer must not replace a token."""
    value = answer.get(name)
    if not isinstance(value, str) or not value or value != value.strip() or not value.isprintable():
        raise malformed(platform, name)
    return value


def seconds(answer: JsonObject, name: str, *, platform: Platform) -> float:
    """A duration of the answer, more than 0. Raises Transient when it is not there."""
    value = answer.get(name)
    if isinstance(value, str) and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e10:
        raise malformed(platform, name)
    return float(value)


def malformed(platform: Platform, name: str) -> Transient:
    """The error for an answer that lacks something."""
    return Transient(
        f"{platform.title} answered without a usable {name}; the stored tokens stay", provider=str(platform), code="malformed"
    )
