"""The folder in which the tests' servers keep their data: in memory where there is room, on a disk elsewhere."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 2 << 30
PREFIX = "phantoms-tests-"
# A session makes its folder and locks it right afterwards.
LOCKED_WITHIN_SECONDS = 60


@contextmanager
def server_home(on_disk: Callable[[], Path], *, memory: Path = MEMORY, enough: int = ENOUGH_BYTES) -> Iterator[Path]:
    """A folder that is removed at the end; `on_disk` makes it when memory has no room.

    Each test has a database of its own, which is 600 files: to make those on a disk costs more than most tests do.
    """
    if not os.access(memory, os.W_OK) or shutil.disk_usage(memory).free < enough:
        home = on_disk()
        try:
            yield home
        finally:
            shutil.rmtree(home, ignore_errors=True)
        return
    # A session that was killed has left its folder, and there is less memory than disk.
    for left in memory.glob(f"{PREFIX}*"):
        _remove_left(left)
    home = Path(tempfile.mkdtemp(prefix=PREFIX, dir=memory))
    held = os.open(home, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)
        os.close(held)


def _remove_left(home: Path) -> None:
    """Remove the folder unless its session lives, which then holds the lock, or has only just made it."""
    try:
        if time.time() - home.stat().st_mtime < LOCKED_WITHIN_SECONDS:
            return
        held = os.open(home, os.O_RDONLY)
    except OSError:
        return  # another session has just removed it, or it is another user's
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(home, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(held)
