"""A real OpenID Connect provider on loopback (`oidc-provider-mock`), and what goes wrong with one: the tests' attacks.

In between sits a middleware that notes what the desk sends, and that can exchange parts of the answers. Tokens that it exchanges
are signed by a key of its own, which it then publishes, so that only what they say is wrong.
"""

from __future__ import annotations

import hashlib
import hmac
import io
import json
import logging
import threading
import time
import warnings
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

import httpx
import werkzeug.serving
from joserfc import jwt
from joserfc.jwk import RSAKey

Claims = dict[str, Any]


@dataclass
class Provider:
    """A provider that runs. `claims`: changes the claims of ID tokens; `sign`: makes the token; `metadata`: changes discovery.

    `asked`: the forms that the token endpoint was sent, with `authorization` as its header was.
    """

    url: str = ""
    claims: Callable[[Claims], Claims] | None = None
    sign: Callable[[Claims], str] | None = None
    metadata: dict[str, Any] = field(default_factory=dict)
    jwks: dict[str, Any] | None = None
    status: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)
    key: RSAKey = field(default_factory=lambda: RSAKey.generate_key(2048, {"kid": "own", "use": "sig", "alg": "RS256"}))

    def signed(self, claims: Claims) -> str:
        """A token of these claims, signed as providers sign."""
        return jwt.encode({"alg": "RS256", "kid": "own"}, claims, self.key)

    def signed_by_nobody(self, claims: Claims) -> str:
        """The same token with `alg: none`."""
        _, body, _ = self.signed(claims).split(".")
        return f"{_encoded({'alg': 'none'})}.{body}."

    def signed_with_the_public_key(self, claims: Claims) -> str:
        """As if the public key were a shared secret: who confuses algorithms believes it."""
        body = self.signed(claims).split(".")[1]
        said = f"{_encoded({'alg': 'HS256', 'kid': 'own'})}.{body}"
        signature = hmac.new(self.key.as_pem(private=False), said.encode(), hashlib.sha256).digest()
        return f"{said}.{urlsafe_b64encode(signature).rstrip(b'=').decode()}"

    def person(self, subject: str, **claims: Any) -> None:
        """A user whom the provider logs in without asking for a password."""
        httpx.put(f"{self.url}/users/{subject}", json=claims, timeout=10).raise_for_status()

    def agree(self, address: str, subject: str) -> str:
        """What the person does at the provider: choose who they are, and agree. The address that they are sent back to."""
        answer = httpx.post(address, data={"sub": subject}, timeout=10)
        assert answer.status_code in (302, 303), answer.text
        return answer.headers["location"]

    def refuse(self, address: str) -> str:
        """The person does not agree."""
        return httpx.post(address, data={"action": "deny"}, timeout=10).headers["location"]


def _encoded(value: Mapping[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


@contextmanager
def oidc_provider() -> Iterator[Provider]:
    """Run one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses parts of Authlib that will move
        from oidc_provider_mock import app  # noqa: PLC0415

        inner = app(require_nonce=True)
    provider = Provider()

    def outer(environ: Any, start_response: Any) -> Any:
        path, body = environ["PATH_INFO"], b""
        if path == "/oauth2/token":
            body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            environ["wsgi.input"] = io.BytesIO(body)
            form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            provider.asked.append({**form, "authorization": environ.get("HTTP_AUTHORIZATION", "")})
        if provider.status:
            start_response(f"{provider.status} Broken", [("Content-Type", "text/plain")])
            return [b"broken"]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            status, headers, content = _called(inner, environ)
        changed = _changed(provider, path, content) if status.startswith("200") else None
        if changed is not None:
            content = json.dumps(changed).encode()
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
        start_response(status, headers)
        return [content]

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = werkzeug.serving.make_server("127.0.0.1", 0, outer, threaded=True)
    provider.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield provider
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


def _called(inner: Any, environ: Any) -> tuple[str, list[tuple[str, str]], bytes]:
    said: list[Any] = []
    parts = inner(environ, lambda status, headers, _=None: said.extend((status, headers)))
    try:
        content = b"".join(parts)
    finally:
        if hasattr(parts, "close"):
            parts.close()
    return said[0], said[1], content


def _changed(provider: Provider, path: str, content: bytes) -> Any:
    if path == "/.well-known/openid-configuration" and provider.metadata:
        return {**json.loads(content), **provider.metadata}
    if path == "/jwks" and provider.jwks is not None:
        return provider.jwks
    if path == "/jwks" and (provider.claims or provider.sign):
        return {"keys": [*json.loads(content)["keys"], provider.key.as_dict(private=False)]}
    if path == "/oauth2/token" and (provider.claims or provider.sign):
        answer = json.loads(content)
        claims = _payload(answer["id_token"])
        claims = provider.claims(claims) if provider.claims else claims
        return {**answer, "id_token": (provider.sign or provider.signed)(claims)}
    return None


def _payload(token: str) -> Claims:
    body = token.split(".")[1]
    found: Claims = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return found


def now() -> int:
    """Now, as tokens write it."""
    return int(time.time())
