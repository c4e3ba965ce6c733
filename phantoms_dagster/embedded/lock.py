"""The lock of a data directory: a file that is locked with flock and contains the launcher's process id.

The kernel releases the lock when the process ends, however it ends, so a lock is never stale.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from phantoms_dagster.domain.errors import InvalidInput

# fcntl is imported where it is used: this module must be importable on Windows, where EmbeddedServers gives a clear error.

TRIES = 20
PAUSE_SECONDS = 0.05


class AlreadyRunning(InvalidInput):
    """Another launcher runs servers in this data directory. `pid` is its process id, if it could be read."""

    def __init__(self, message: str, *, pid: int | None) -> None:
        super().__init__(message)
        self.pid = pid


class LauncherLock:
    """The lock of one data directory. The file is kept on release: if it were removed, two processes could hold the lock."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock. Raises AlreadyRunning with the process id of its holder."""
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
                    # Either a `launcher_is_ready` is checking the lock, or a launcher has not written its process id yet.
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
        """Tell other processes that the servers answer."""
        self._write(f"{os.getpid()} ready\n")

    def release(self) -> None:
        """Release the lock, if it is held."""
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
    """Whether a running launcher holds the lock and its servers are ready. May be called from any process, also the launcher."""
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
