"""Whose servers run in a data directory: a lock file, held with flock and naming the launcher. Nothing about the servers.

The kernel gives the lock up with the process, however it ends, so there is no stale lock to break.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from phantoms_dagster.domain.errors import InvalidInput

# fcntl is imported where it is used: the module must import on Windows, where EmbeddedServers gives a clear error.

TRIES = 20
PAUSE_SECONDS = 0.05


class AlreadyRunning(InvalidInput):
    """Another launcher runs servers in this data directory. `pid` is its process id, when it could be read."""

    def __init__(self, message: str, *, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class LauncherLock:
    """The lock of one data directory. The file stays when the lock is released: removing it would let two hold it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises AlreadyRunning, with the pid of who has it."""
        import fcntl  # noqa: PLC0415

        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            for _ in range(TRIES):
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    pid = _read(fd)[0]
                    if pid is not None and _alive(pid):
                        raise _refusal(self._path, pid) from None
                    # A `launcher_is_ready` that looks just now, or a launcher that is about to write its pid.
                    time.sleep(PAUSE_SECONDS)
                else:
                    break
            else:
                raise _refusal(self._path, _read(fd)[0])
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        self._write(f"{os.getpid()} starting\n")

    def mark_ready(self) -> None:
        """Let other processes know that the servers answer."""
        self._write(f"{os.getpid()} ready\n")

    def release(self) -> None:
        """Give the lock up; harmless when it is not held."""
        if self._fd is not None:
            self._write("")
            os.close(self._fd)
            self._fd = None

    def _write(self, line: str) -> None:
        if self._fd is None:
            raise RuntimeError("the lock is not held")
        os.pwrite(self._fd, line.encode(), 0)
        os.ftruncate(self._fd, len(line))


def launcher_is_ready(path: Path) -> bool:
    """Whether a living launcher holds the lock and its servers are ready. Safe to ask from any process, also its own."""
    import fcntl  # noqa: PLC0415

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError as error:
        raise InvalidInput(f"{path} belongs to another user: run this as the user who started Phantoms.") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(fd)[1] == "ready"
    else:
        return False
    finally:
        os.close(fd)


def _read(fd: int) -> tuple[int | None, str]:
    pid, _, state = os.pread(fd, 64, 0).decode("ascii", "replace").strip().partition(" ")
    return (int(pid) if pid.isdecimal() else None), state


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _refusal(path: Path, pid: int | None) -> AlreadyRunning:
    home = path.parent.parent
    who = "another process" if pid is None else f"process {pid}"
    return AlreadyRunning(
        f"Phantoms already runs in {home} ({who}). Stop it first{'' if pid is None else f' (`kill {pid}`)'}, "
        "or set PHANTOMS_HOME to another folder.",
        pid=pid,
    )
