"""Encrypts the URLs in the handles of posts. Such a URL lets anybody who has it upload to the account.

The keys are those of the accounts' tokens (`vault`). Where there is no key, because no account is connected, URLs stay as they are.
"""

from __future__ import annotations

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.store.vault import Vault

SEALED = "sealed:"
_URLS = ("https://", "http://")


class SealedUrls:
    """Encrypts and decrypts the URLs of a handle. A handle from before URLs were encrypted is read as it is."""

    def __init__(self, vault: Vault) -> None:
        self._vault = vault

    def seal(self, handle: JsonObject) -> JsonObject:
        """The handle with encrypted URLs. Every other value stays readable, because statements look for some of them."""
        return {name: self._sealed(v) if isinstance(v, str) and v.startswith(_URLS) else v for name, v in handle.items()}

    def open(self, handle: JsonObject) -> JsonObject:
        """The handle with its URLs. Raises InvalidInput when no key decrypts them."""
        return {name: self._opened(v) if isinstance(v, str) and v.startswith(SEALED) else v for name, v in handle.items()}

    def _sealed(self, url: str) -> str:
        try:
            return SEALED + self._vault.encrypt(url).decode()
        except InvalidInput:  # without a usable key no account is connected, and a token from elsewhere may post all the same
            return url

    def _opened(self, text: str) -> str:
        return self._vault.decrypt(text.removeprefix(SEALED).encode())
