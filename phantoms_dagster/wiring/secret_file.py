"""Files in the data directory that hold a secret of our own. Only their owner can read them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

from phantoms_dagster.domain.errors import InvalidInput


def kept_secret(path: Path, make: Callable[[], str], *, variable: str) -> str:
    """The secret in the file. The first call on this machine makes one and saves it. `variable`: what to set if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Two processes that start at once must share one secret. The link is atomic: the file appears complete, and only once.
        if not path.exists():
            fresh = _written(path, make())
            try:
                os.link(fresh, path)
            except FileExistsError:
                pass
            finally:
                fresh.unlink()
        return path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InvalidInput(f"cannot save a key in {path} ({error.strerror}); set {variable} instead") from error


def change_secret(path: Path, change: Callable[[], str]) -> None:
    """Replace the secret in the file by what `change` returns. It has either the old or the new one, whatever happens.

    Only one process changes the file at a time, so that `change` may read it. Raises OSError.
    """
    import fcntl  # noqa: PLC0415 - see `embedded.lock`

    # The lock is a file of its own, because the other one is replaced.
    # Other users must not open it either, because a process that has it open can hold the lock.
    with os.fdopen(os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o600), "w") as lock:
        os.fchmod(lock.fileno(), 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        _written(path, change()).replace(path)


def _written(path: Path, secret: str) -> Path:
    fresh = path.with_name(f"{path.name}.{secrets.token_hex(6)}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(secret)
        file.flush()
        os.fsync(file.fileno())
    return fresh
