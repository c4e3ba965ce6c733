"""Encrypts the tokens of accounts. `wiring.token_keys` says where the keys are.

Tokens are encrypted with the first key. Each key decrypts what it encrypted, so a key can be replaced without losing a token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from phantoms_dagster.domain.errors import InvalidInput


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
    """A new key."""
    return Fernet.generate_key().decode()


def _fernet(keys: Sequence[str], where: str) -> MultiFernet:
    try:
        return MultiFernet([Fernet(key) for key in keys])
    except ValueError:
        # The message of the library may not repeat a key, and ours does not either.
        message = f"{where} must have keys of 32 bytes in URL-safe base64; `openssl rand -base64 32 | tr '+/' '-_'` makes one"
        raise InvalidInput(message) from None
