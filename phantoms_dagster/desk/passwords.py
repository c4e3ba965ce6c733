"""Password hashing: argon2id with the OWASP parameters for servers of this size (19 MiB, two passes)."""

from __future__ import annotations

import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from phantoms_dagster.domain.errors import InvalidInput

SHORTEST, LONGEST = 10, 1024
# Each check takes 19 MiB. More than two at once would only be slower.
_AT_ONCE = threading.Semaphore(2)


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


@cache
def _nobody() -> str:
    return _hasher().hash("nobody has this password")


def hash_password(password: str) -> str:
    """Return the hash to store. Raises InvalidInput for a password that is too short or too long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidInput(f"a password must have at least {SHORTEST} characters, and at most {LONGEST}")
    with _AT_ONCE:
        return _hasher().hash(password)


def verify_password(stored: str | None, password: str) -> bool:
    """Whether the password matches the stored hash.

    With no stored hash the result is False and takes the same time, so response times do not reveal which names exist.
    """
    if len(password) > LONGEST:
        return False
    with _AT_ONCE:
        try:
            return _hasher().verify(stored or _nobody(), password) and stored is not None
        except (VerificationError, InvalidHashError):
            return False


def needs_rehash(stored: str) -> bool:
    """Whether the hash was made with parameters other than the current ones."""
    return _hasher().check_needs_rehash(stored)
