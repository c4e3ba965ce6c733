"""Passwords: argon2id, with the memory and time that OWASP recommends for servers of this size (19 MiB, two passes)."""

from __future__ import annotations

import threading
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from phantoms_dagster.domain.errors import InvalidInput

SHORTEST, LONGEST = 10, 1024
# Each check takes 19 MiB: more at once would only be slower.
_AT_ONCE = threading.Semaphore(2)


@cache
def _hasher() -> PasswordHasher:
    return PasswordHasher(time_cost=2, memory_cost=19_456, parallelism=1)


@cache
def _nobody() -> str:
    return _hasher().hash("nobody has this password")


def hashed(password: str) -> str:
    """The hash to store. Raises InvalidInput for a password that is too short."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidInput(f"a password has {SHORTEST} characters or more")
    with _AT_ONCE:
        return _hasher().hash(password)


def right(stored: str | None, password: str) -> bool:
    """Whether that is the password. Without a hash it takes as long and is False, so that names cannot be guessed by time."""
    if len(password) > LONGEST:
        return False
    with _AT_ONCE:
        try:
            return _hasher().verify(stored or _nobody(), password) and stored is not None
        except (VerificationError, InvalidHashError):
            return False


def outdated(stored: str) -> bool:
    """Whether the hash was made with weaker parameters than today's."""
    return _hasher().check_needs_rehash(stored)
