"""Log-in with an OpenID Connect provider: the protocol, without pages. Authlib and joserfc do the parts that are easy to get wrong.

It uses the authorization code flow with PKCE, state and nonce. An ID token is accepted only when a key of the configured issuer
signed it, and it was issued for this desk, for this log-in, and is valid now.
"""

from __future__ import annotations

import hmac
import json
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

from phantoms_dagster.domain.errors import InvalidInput, PhantomsError
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.users import ROLES, RoleName

SCOPES = "openid profile email"
# The clocks of two machines differ. A token may have expired, or become valid, this much before or after now.
LEEWAY_SECONDS = 60
# The time from the click on the log-in page to the return from the provider.
BEGUN_SECONDS = 600
_TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 1_000_000
_KEEP_SECONDS = 3600.0
# A token signed with an unknown key makes us fetch the provider's keys again, at most this often.
_KEYS_AGAIN_SECONDS = 10.0
# Asymmetric algorithms only. With HMAC a public key would be enough to forge a token, with `none` nothing at all.
_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
_LONGEST = 200


class ProviderAway(PhantomsError):
    """The provider does not answer, or its answer is unusable. The message says which."""


class NotLoggedIn(PhantomsError):
    """The log-in is refused. The message says why and what would help."""


@dataclass(frozen=True)
class StartedLogin:
    """A started log-in: the URL to redirect to, and the values that the browser keeps in a cookie until it returns."""

    address: str
    kept: Mapping[str, Any]


@dataclass(frozen=True)
class OidcPerson:
    """The user as the provider describes them. `subject` never changes; `name` may."""

    issuer: str
    subject: str
    name: str
    role: RoleName


@dataclass(frozen=True)
class FinishedLogin:
    """A finished log-in: the person, and the ID token, which the provider needs to end its session."""

    person: OidcPerson
    id_token: str


@dataclass(frozen=True)
class _Cached:
    document: Mapping[str, Any]
    at: float


class OidcProvider:
    """The configured provider."""

    def __init__(self, settings: Settings) -> None:
        """Read the settings. Raises InvalidInput when they are incomplete or invalid."""
        self.issuer = (settings.oidc.issuer or "").strip()
        self.client_id = (settings.oidc.client_id or "").strip()
        self._secret = settings.oidc.client_secret.get_secret_value() if settings.oidc.client_secret else ""
        self._role_claim = settings.oidc.role_claim.strip()
        self._name_claim = settings.oidc.name_claim.strip()
        self._roles = parse_roles(settings.oidc.roles)
        self._lock = threading.Lock()
        self._documents: dict[str, _Cached] = {}
        if not self.client_id:
            raise InvalidInput("PHANTOMS_OIDC_ISSUER also needs PHANTOMS_OIDC_CLIENT_ID, the desk's client ID at the provider")
        if not _safe(self.issuer, self.issuer):
            raise InvalidInput(
                f"PHANTOMS_OIDC_ISSUER is {self.issuer[:_LONGEST]!r}; it must be an address that begins with https://, "
                "such as https://login.example.org/realms/studio"
            )

    @property
    def host(self) -> str:
        """The provider's host name, for display."""
        return urlsplit(self.issuer).hostname or self.issuer

    def begin(self, back: str, wanted: str) -> StartedLogin:
        """Start a log-in. `back` is our redirect URL; `wanted` is the page to open after it. Raises ProviderAway."""
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri  # noqa: PLC0415 - few desks have a provider
        from authlib.oauth2.rfc7636 import create_s256_code_challenge  # noqa: PLC0415

        endpoint = self._endpoint(self._metadata(), "authorization_endpoint")
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        address = prepare_grant_uri(
            endpoint,
            client_id=self.client_id,
            response_type="code",
            redirect_uri=back,
            scope=SCOPES,
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        kept = {"state": state, "nonce": nonce, "verifier": verifier, "next": wanted, "issuer": self.issuer, "at": int(time.time())}
        return StartedLogin(address, kept)

    def returned(self, kept: object, answer: Mapping[str, str]) -> Mapping[str, Any]:
        """Check that this answer is for the log-in that this browser started, and return what it kept.

        Makes no request to the provider. Raises NotLoggedIn.
        """
        state = answer.get("state", "")
        if not isinstance(kept, dict) or not hmac.compare_digest(str(kept.get("state", "")).encode(), state.encode()) or not state:
            raise NotLoggedIn("That log-in was started in another browser, or was already used. Please start again.")
        if not 0 <= time.time() - int(kept["at"]) <= BEGUN_SECONDS or kept.get("issuer") != self.issuer:
            raise NotLoggedIn("That log-in took too long. Please start again.")
        # RFC 9207: an answer from another provider is refused even when it carries our state.
        if (named := answer.get("iss")) is not None and named != self.issuer:
            raise NotLoggedIn("The answer came from a different provider than the one we asked. You were not logged in.")
        return kept

    def finish(self, kept: Mapping[str, Any], answer: Mapping[str, str], back: str) -> FinishedLogin:
        """Exchange the code and return the user. `kept` is the result of `returned`. Raises NotLoggedIn and ProviderAway."""
        metadata = self._metadata()
        if metadata.get("authorization_response_iss_parameter_supported") is True and "iss" not in answer:
            raise NotLoggedIn(f"{self.host} did not identify itself in its answer. You were not logged in.")
        if "error" in answer:
            word = "".join(c for c in answer["error"][:60] if c.isascii() and (c.isalnum() or c in "_-. "))
            raise NotLoggedIn(f"{self.host} did not log you in ({word or 'it gave no reason'}).")
        code = answer.get("code", "")
        if not code:
            raise NotLoggedIn(f"{self.host} sent no code. Please start again.")
        tokens = self._exchange(metadata, code, str(kept["verifier"]), back)
        claims = self._claims(metadata, tokens, str(kept["nonce"]))
        wanting = [name for name in (self._role_claim, self._name_claim) if claim_at(claims, name) is None]
        if wanting and "userinfo_endpoint" in metadata:
            claims = {**self._userinfo(metadata, tokens, claims), **claims}
        return FinishedLogin(self._person(claims), str(tokens["id_token"]))

    def end(self, id_token: str, back: str, state: str) -> str | None:
        """Return the provider's log-out URL; None when it has none. Raises ProviderAway.

        `back` is our URL that the provider redirects to afterwards, with `state`. Without an ID token the provider may ask the
        user which session to end.
        """
        from authlib.common.urls import add_params_to_uri  # noqa: PLC0415

        metadata = self._metadata()
        if metadata.get("end_session_endpoint") is None:
            return None
        fields = {"client_id": self.client_id, "post_logout_redirect_uri": back, "state": state}
        if id_token:
            fields["id_token_hint"] = id_token
        address: str = add_params_to_uri(self._endpoint(metadata, "end_session_endpoint"), list(fields.items()))
        return address

    # --- the parts

    def _person(self, claims: Mapping[str, Any]) -> OidcPerson:
        given = claim_at(claims, self._role_claim)
        named = [given] if isinstance(given, str) else given if isinstance(given, list) else []
        roles = {self._roles[one] for one in named if isinstance(one, str) and one in self._roles}
        if not roles:
            raise NotLoggedIn(
                f"{self.host} knows you, but you have no role at this desk. Ask its administrator for one of "
                f"{', '.join(self._roles)} in `{self._role_claim}`."
            )
        name = claim_at(claims, self._name_claim)
        if not isinstance(name, str) or not name.strip():
            raise NotLoggedIn(f"{self.host} did not send your name: its answer has no `{self._name_claim}`.")
        if self._name_claim == "email" and claims.get("email_verified") is not True:
            raise NotLoggedIn(f"{self.host} has not verified your email address {name[:60]}.")
        return OidcPerson(self.issuer, str(claims["sub"]), name.strip(), max(roles, key=ROLES.index))

    def _exchange(self, metadata: Mapping[str, Any], code: str, verifier: str, back: str) -> Mapping[str, Any]:
        from authlib.oauth2.rfc6749.parameters import prepare_token_request  # noqa: PLC0415

        endpoint = self._endpoint(metadata, "token_endpoint")
        fields = {"code": code, "code_verifier": verifier}
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        in_body = not self._secret or "client_secret_basic" not in methods
        if in_body:
            fields |= {"client_id": self.client_id, "client_secret": self._secret}
        body = prepare_token_request("authorization_code", redirect_uri=back, **fields)
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        auth = None if in_body else (quote(self.client_id, safe=""), quote(self._secret, safe=""))
        status, answer = self._ask("POST", endpoint, content=body, headers=headers, auth=auth)
        if status >= 500:
            raise ProviderAway(f"{self.host} cannot log anyone in right now (it answered {status}). Try again in a moment.")
        if status != 200 or not isinstance(answer.get("id_token"), str):
            word = str(answer.get("error", status))[:60]
            raise NotLoggedIn(
                f"{self.host} refused this desk ({word}). Please start again. If it keeps failing, "
                "an operator should check PHANTOMS_OIDC_CLIENT_ID and PHANTOMS_OIDC_CLIENT_SECRET."
            )
        return answer

    def _claims(self, metadata: Mapping[str, Any], tokens: Mapping[str, Any], nonce: str) -> Mapping[str, Any]:
        """Return the claims of the ID token after checking signature, issuer, audience, nonce and time. Raises NotLoggedIn."""
        from authlib.oidc.core import CodeIDToken  # noqa: PLC0415
        from joserfc.errors import JoseError  # noqa: PLC0415

        refused = NotLoggedIn(f"The ID token from {self.host} is not valid. You were not logged in. Please start again.")
        try:
            token = self._verified(metadata, tokens["id_token"])
            options = {
                "iss": {"essential": True, "value": self.issuer},
                "aud": {"essential": True, "value": self.client_id},
                "sub": {"essential": True},
                "nonce": {"essential": True, "value": nonce},
            }
            params = {"nonce": nonce, "client_id": self.client_id, "access_token": tokens.get("access_token")}
            claims = CodeIDToken(token.claims, token.header, options, params)
            claims.validate(leeway=LEEWAY_SECONDS)
        except (JoseError, ValueError, TypeError, KeyError) as error:
            said = str(getattr(error, "error", "") or type(error).__name__)
            claim = str(getattr(error, "claim", "") or "")
            raise NotLoggedIn(f"{refused} ({said}{': ' + claim if claim else ''})") from error
        found: dict[str, Any] = dict(claims)
        if not isinstance(found["sub"], str) or not 0 < len(found["sub"]) <= 255:
            raise refused
        return found

    def _verified(self, metadata: Mapping[str, Any], id_token: str) -> Any:
        """Return the decoded token. For an unknown key, fetch the provider's keys again, once. Raises JoseError."""
        from joserfc import jwt  # noqa: PLC0415
        from joserfc.errors import BadSignatureError, InvalidKeyIdError  # noqa: PLC0415
        from joserfc.jwk import KeySet  # noqa: PLC0415

        offered = metadata.get("id_token_signing_alg_values_supported") or ["RS256"]
        algorithms = [name for name in _ALGORITHMS if name in offered]
        address = self._endpoint(metadata, "jwks_uri")
        for keep in (_KEEP_SECONDS, _KEYS_AGAIN_SECONDS):
            keys = [
                key
                for key in self._document(address, keep).get("keys", [])
                if isinstance(key, dict) and key.get("kty") in ("RSA", "EC", "OKP") and key.get("use", "sig") == "sig"
            ]
            try:
                return jwt.decode(id_token, KeySet.import_key_set({"keys": keys}), algorithms=algorithms)
            except (InvalidKeyIdError, BadSignatureError):
                if keep == _KEYS_AGAIN_SECONDS:
                    raise
        raise AssertionError("unreachable")

    def _userinfo(self, metadata: Mapping[str, Any], tokens: Mapping[str, Any], claims: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the provider's userinfo. Raises NotLoggedIn when it is about another person than the ID token."""
        headers = {"Authorization": f"Bearer {tokens.get('access_token', '')}"}
        status, found = self._ask("GET", self._endpoint(metadata, "userinfo_endpoint"), headers=headers)
        if status != 200 or found.get("sub") != claims["sub"]:
            raise NotLoggedIn(f"{self.host} sent contradictory answers about who you are. You were not logged in.")
        return found

    def _metadata(self) -> Mapping[str, Any]:
        address = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration"
        found = self._document(address, _KEEP_SECONDS)
        if found.get("issuer") != self.issuer:
            raise ProviderAway(
                f"{self.host} calls itself {str(found.get('issuer'))[:_LONGEST]}, not {self.issuer}. An operator should set "
                "PHANTOMS_OIDC_ISSUER to exactly that name, or find out which server answers there"
            )
        return found

    def _endpoint(self, metadata: Mapping[str, Any], name: str) -> str:
        address = metadata.get(name)
        if not isinstance(address, str) or not _safe(address, self.issuer):
            raise ProviderAway(f"{self.host} has no usable `{name}`: it must begin with https://, like the issuer")
        return address

    def _document(self, address: str, keep_seconds: float) -> Mapping[str, Any]:
        """Fetch a JSON document of the provider, from the cache when it is at most `keep_seconds` old. Raises ProviderAway."""
        with self._lock:
            known = self._documents.get(address)
        if known is not None and time.monotonic() - known.at < keep_seconds:
            return known.document
        status, found = self._ask("GET", address)
        if status != 200:
            raise ProviderAway(f"{self.host} answered {status} to a request for its log-in settings. Try again in a moment.")
        with self._lock:
            self._documents[address] = _Cached(found, time.monotonic())
        return found

    def _ask(self, method: str, address: str, **given: Any) -> tuple[int, Mapping[str, Any]]:
        """Send a request, without following redirects. Return the status and the JSON object. Raises ProviderAway."""
        import httpx  # noqa: PLC0415

        try:
            with httpx.Client(timeout=_TIMEOUT_SECONDS) as client, client.stream(method, address, **given) as answer:
                content = b""
                for part in answer.iter_bytes():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise ProviderAway(f"{self.host} sent more than {_MOST_BYTES} bytes")
                status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise ProviderAway(
                f"{self.host} does not answer ({type(error).__name__}). Try again in a moment, or log in with a password."
            ) from error
        try:
            found = json.loads(content)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            if status == 200:
                raise ProviderAway(f"{self.host} does not answer like an OpenID Connect provider")
            return status, {}
        return status, found


def parse_roles(given: str) -> dict[str, RoleName]:
    """Parse PHANTOMS_OIDC_ROLES: a map from the provider's role names to the desk's. Raises InvalidInput."""
    found: dict[str, RoleName] = {}
    for part in (one.strip() for one in given.split(",")):
        if not part:
            continue
        theirs, _, ours = (piece.strip() for piece in part.rpartition("="))
        role = next((name for name in ROLES if name == ours), None)
        if not theirs or role is None:
            raise InvalidInput(f"PHANTOMS_OIDC_ROLES: write {part[:60]!r} as THEIRS=OURS, where OURS is {', '.join(ROLES)}")
        found[theirs] = role
    if not found:
        raise InvalidInput("PHANTOMS_OIDC_ROLES is empty; write it like newsroom=reviewer,leads=operator")
    return found


def claim_at(claims: Mapping[str, Any], path: str) -> Any:
    """Return a claim by name, or by a dotted path such as `realm_access.roles`. None when it is missing."""
    if path in claims:
        return claims[path]
    found: Any = claims
    for part in path.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return found


def _safe(address: str, issuer: str) -> bool:
    """Whether secrets may be sent to this URL: it uses https, or both it and the issuer are on this machine, as in tests."""
    try:
        parts, home = urlsplit(address), urlsplit(issuer)
    except ValueError:
        return False
    if not parts.hostname or parts.fragment or parts.username:
        return False
    if parts.scheme == "https":
        return True
    return parts.scheme == "http" and home.scheme == "http" and _here(parts.hostname) and _here(home.hostname or "")


def _here(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
