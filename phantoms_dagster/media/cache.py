"""One machine's cache of an object store: whole files in a folder of limited size. `object_store` downloads them.

A file in use has a second hard link, in the folder of the process that uses it. So any process may drop any file from the cache at
any time: its reader keeps it, and the link count tells other processes that dropping it would free no space.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import itertools
import os
import shutil
import weakref
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.media.files import FolderStore

# A scan reads the size of every file, so it runs only after this share of the limit was added.
_SCAN_EVERY = 0.02
_LOCK = "lock"


class Cache:
    """A folder of files named by their hash, shared by the processes of one machine, of at most `most_bytes`.

    Files in use may exceed that limit. The folder must be on one local file system with hard links.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root = root.absolute()
        self._files = FolderStore(self._root)
        self._most_bytes = most_bytes
        self._names = itertools.count()
        self._unscanned: float = most_bytes  # what other processes added is unknown, so the first file triggers a scan

    def scratch(self) -> Path:
        """A new directory on the same file system."""
        return self._files.scratch()

    def scratch_file(self, suffix: str) -> Path:
        """An unused path on the same file system."""
        return self._files.scratch_file(suffix)

    async def take(self, path: Path) -> MediaFile:
        """Add a file under its hash: moved if it is in scratch, else copied. Raises what `FolderStore.add` raises."""
        file = await self._files.add(path)
        self._unscanned += file.size
        if self._unscanned > self._most_bytes * _SCAN_EVERY:
            self._unscanned = 0
            await asyncio.to_thread(self._make_room, spared=self._root / file.name)
        return file

    def hold(self, file: MediaFile) -> Path | None:
        """A path that stays valid until `release` or the end of this process. None if the file is not in the cache."""
        kept = self._root / file.name
        held = self._held_here / f"{next(self._names)}{file.suffix}"
        try:
            os.link(kept, held)
        except FileNotFoundError:
            return None
        if held.stat().st_size != file.size:
            held.unlink()
            kept.unlink(missing_ok=True)
            return None
        os.utime(held)  # both links share the time, so the file becomes the most recently used
        return held

    def release(self, held: Path) -> None:
        """Give back a path from `hold`."""
        held.unlink(missing_ok=True)

    async def drop(self, file: MediaFile) -> None:
        """Remove the file from the cache. Processes that hold it keep it."""
        await self._files.remove(file)

    @cached_property
    def _held_here(self) -> Path:
        """This process's folder of held files. The system releases its lock when the process ends, however it ends."""
        held = self._root / "held"
        held.mkdir(parents=True, exist_ok=True)
        _sweep(held)
        # Locked before other processes can see it, because they remove unlocked folders.
        folder = self.scratch()
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        named = held / folder.name
        folder.rename(named)
        weakref.finalize(self, _remove_held_folder, named, lock, os.getpid())
        return named

    def _make_room(self, *, spared: Path) -> None:
        """Drop the least recently used files, never one in use."""
        found = list(_stats(self._root))
        too_much = sum(stat.st_size for _, stat in found) - self._most_bytes
        for path, stat in sorted(found, key=lambda pair: pair[1].st_mtime):
            if too_much <= 0:
                return
            if stat.st_nlink == 1 and path != spared:
                path.unlink(missing_ok=True)
                too_much -= stat.st_size


def _stats(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The cached files with their status. `??` matches the folders of hashes but not `scratch` and `held`."""
    for folder in root.glob("??"):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process dropped it meanwhile
                yield path, path.stat()


def _sweep(held: Path) -> None:
    """Remove the folders of processes that have ended."""
    for folder in held.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                continue
            finally:
                os.close(lock)


def _remove_held_folder(folder: Path, lock: int, process: int) -> None:
    if os.getpid() == process:  # a forked child shares the lock, but the folder is its parent's
        shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
