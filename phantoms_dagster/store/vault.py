"""Encrypts the tokens of accounts. `wiring.token_keys` says where the keys are.

Tokens are encrypted with the first key. Each key decrypts what it encrypted, so a key can be replaced without losing a token.
`cryptography` takes 6 MB and is imported with the first token, because most processes read none.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from phantoms_dagster.domain.errors import InvalidInput

if TYPE_CHECKING:
    from cryptography.fernet import MultiFernet

KEY_BYTES = 32


class WrongKey(InvalidInput):
    """No key decrypts a stored token. The token is still there."""


class Vault:
    """Encrypts and decrypts. `keys` returns the current keys, newest first; `where` says where they are, for messages.

    The keys are read again when none of them fits, because another process may have added one.
    """

    def __init__(self, keys: Callable[[], Sequence[str]], where: str) -> None:
        self._read = keys
        self._where = where
        self._keys: MultiFernet | None = None

    def check(self) -> None:
        """Raise InvalidInput without a usable key."""
        self._current()

    def encrypt(self, token: str) -> bytes:
        """The encrypted token. Raises InvalidInput without a usable key."""
        return self._current().encrypt(token.encode())

    def decrypt(self, sealed: bytes) -> str:
        """The token. Raises WrongKey."""
        return self._tried(lambda keys: keys.decrypt(sealed)).decode()

    def renew(self, sealed: bytes) -> bytes:
        """The same token, encrypted with the first key. Raises WrongKey."""
        return self._tried(lambda keys: keys.rotate(sealed))

    def _current(self, *, again: bool = False) -> MultiFernet:
        if self._keys is None or again:
            self._keys = _fernet(self._read(), self._where)
        return self._keys

    def _tried(self, work: Callable[[MultiFernet], bytes]) -> bytes:
        from cryptography.fernet import InvalidToken  # noqa: PLC0415

        try:
            return work(self._current())
        except InvalidToken:
            pass
        try:
            return work(self._current(again=True))
        except InvalidToken:
            message = (
                f"no key in {self._where} decrypts the stored tokens. They are not lost: put the key that encrypted them after the "
                "others, separated by a comma. If that key is gone, connect the accounts again"
            )
            raise WrongKey(message) from None


def new_key() -> str:
    """A new key, in the form of `Fernet.generate_key`."""
    return base64.urlsafe_b64encode(secrets.token_bytes(KEY_BYTES)).decode()


def _fernet(keys: Sequence[str], where: str) -> MultiFernet:
    from cryptography.fernet import Fernet, MultiFernet  # noqa: PLC0415

    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        # The message of the library may not repeat a key, and ours does not either.
        message = f"{where} must have keys of 32 bytes in URL-safe base64; `openssl rand -base64 32 | tr '+/' '-_'` makes one"
        raise InvalidInput(message) from None
