"""A lock file by which commands see that `phantoms up` is starting or stopping in a data directory.

The kernel releases the lock when the process ends, however it ends, so the lock is never stale.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import Settings

# fcntl is imported where it is used, because Windows has none.
FILE = "up.lock"
Phase = Literal["starting", "stopping"]


class UpLock:
    """The lock of this process's `phantoms up`. Does nothing if another `phantoms up` holds the lock."""

    def __init__(self, home: Path) -> None:
        import fcntl  # noqa: PLC0415

        self._fd: int | None = os.open(home / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()

    def say(self, phase: Phase) -> None:
        """Write the phase into the lock file."""
        if self._fd is not None:
            os.pwrite(self._fd, phase.encode(), 0)

    def close(self) -> None:
        """Release the lock, if it is held."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def up_phase(home: Path) -> Phase | None:
    """The phase of the `phantoms up` in that data directory; None if none holds the lock. "starting" also while it runs."""
    try:
        import fcntl  # noqa: PLC0415

        fd = os.open(home.expanduser() / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except (ImportError, OSError):
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return "stopping" if os.pread(fd, 64, 0) == b"stopping" else "starting"
    else:
        return None
    finally:
        os.close(fd)


def nothing_runs(settings: Settings, what: Literal["database", "Redis"]) -> InvalidInput:
    """The error for a command that needs a server that is not running, with the next step."""
    phase = up_phase(settings.paths.home)
    if phase == "starting":
        return InvalidInput("`phantoms up` is still starting here: try again when it shows its addresses")
    if phase == "stopping":
        return InvalidInput("`phantoms up` is stopping here: start it again when it has ended")
    variable = "PHANTOMS_DATABASE_URL" if what == "database" else "PHANTOMS_REDIS_URL"
    return InvalidInput(f"no {what} is running here: start `phantoms up`, or set {variable}")
