"""Whether `phantoms up` is starting or stopping in a data directory, so that commands can say so instead of "nothing runs".

The mark is a file with a lock. The kernel gives the lock up with the process, however it ends, so a mark is never stale.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import Settings

# fcntl is imported where it is used: there is none on Windows.
FILE = "up.lock"
Phase = Literal["starting", "stopping"]


class OnTheWay:
    """The mark of the `phantoms up` of this process. Another one that runs here already keeps its own."""

    def __init__(self, home: Path) -> None:
        import fcntl  # noqa: PLC0415

        self._fd: int | None = os.open(home / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()

    def say(self, phase: Phase) -> None:
        """Tell which."""
        if self._fd is not None:
            os.pwrite(self._fd, phase.encode(), 0)

    def close(self) -> None:
        """Take the mark away; harmless when there is none."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def on_the_way(home: Path) -> Phase | None:
    """What a `phantoms up` is doing in that data directory. A running one counts as starting: its addresses are not told yet."""
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
    """The error of a command that has no such server to ask, with the next step."""
    phase = on_the_way(settings.home)
    if phase == "starting":
        return InvalidInput("`phantoms up` is still starting here: try again when it shows its addresses")
    if phase == "stopping":
        return InvalidInput("`phantoms up` is stopping here: start it again when it has ended")
    variable = "PHANTOMS_DATABASE_URL" if what == "database" else "PHANTOMS_REDIS_URL"
    return InvalidInput(f"no {what} is running here: start `phantoms up`, or set {variable}")
