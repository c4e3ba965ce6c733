"""The desk's secret. It signs cookies, CSRF tokens, media URLs and guest links."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode

from itsdangerous import BadSignature, URLSafeSerializer

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.secret_file import kept_secret

FILE = "desk.key"
SHORTEST = 32


class Keys:
    """Signs with one secret. Each purpose has its own key, so a signature for one purpose is invalid for another."""

    def __init__(self, secret: str) -> None:
        if len(secret) < SHORTEST:
            raise InvalidInput(f"PHANTOMS_DESK_SECRET needs at least {SHORTEST} characters; make one with `openssl rand -hex 32`")
        self._secret = secret

    def mac(self, purpose: str, value: str) -> str:
        """Return the signature of `value`: 43 URL-safe characters."""
        found = hmac.new(f"{purpose}:{self._secret}".encode(), value.encode(), hashlib.sha256).digest()
        return _text(found)

    def verify(self, purpose: str, value: str, given: str) -> bool:
        """Whether `given` is the signature of `value`."""
        return hmac.compare_digest(self.mac(purpose, value).encode(), given.encode())

    def seal(self, purpose: str, value: object) -> str:
        """Return a signed cookie value. It is signed but not encrypted."""
        return self._serializer(purpose).dumps(value)

    def unseal(self, purpose: str, given: str) -> object | None:
        """Return the value of a signed cookie; None when the signature is wrong."""
        try:
            found: object = self._serializer(purpose).loads(given)
        except BadSignature:
            return None
        return found

    def _serializer(self, purpose: str) -> URLSafeSerializer:
        return URLSafeSerializer(self._secret, salt=f"phantoms.desk.{purpose}", signer_kwargs={"digest_method": hashlib.sha256})


def load_keys(settings: Settings) -> Keys:
    """Return the keys: from PHANTOMS_DESK_SECRET, else from a file in the data directory, which the first start creates."""
    if settings.desk.secret is not None:
        return Keys(settings.desk.secret.get_secret_value())
    path = settings.paths.home.expanduser() / FILE
    return Keys(kept_secret(path, lambda: secrets.token_urlsafe(48), variable="PHANTOMS_DESK_SECRET"))


def _text(value: bytes) -> str:
    return urlsafe_b64encode(value).rstrip(b"=").decode()
