"""What one machine keeps of an object store: whole files in a folder of bounded size. Fetching them belongs in `object_store`.

A file in use has a second name, in the folder of the process that uses it. So any process may drop any file from the cache at
any time: whoever reads it has it until the end, and its link count tells the others not to count on its bytes.
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

# A scan reads the size of every file: it is worth while only when enough has come in since the last one.
_SCAN_EVERY = 0.02
_LOCK = "lock"


class Cache:
    """A folder of files by the hash of their bytes, shared by the processes of one machine, at most `most_bytes` large.

    Beyond that it keeps what is in use. It must lie on one local file system that has hard links.
    """

    def __init__(self, root: Path, most_bytes: int) -> None:
        self._root = root.absolute()
        self._files = FolderStore(self._root)
        self._most_bytes = most_bytes
        self._names = itertools.count()
        self._unscanned: float = most_bytes  # by others: nobody knows, so the first file is reason enough

    def scratch(self) -> Path:
        """A fresh directory on the same file system."""
        return self._files.scratch()

    def scratch_file(self, suffix: str) -> Path:
        """A free path on the same file system."""
        return self._files.scratch_file(suffix)

    async def take(self, path: Path) -> MediaFile:
        """Take a file in, under the name of its hash: moved out of scratch, else copied. Raises what `FolderStore.add` does."""
        file = await self._files.add(path)
        self._unscanned += file.size
        if self._unscanned > self._most_bytes * _SCAN_EVERY:
            self._unscanned = 0
            await asyncio.to_thread(self._make_room, spared=self._root / file.name)
        return file

    def hold(self, file: MediaFile) -> Path | None:
        """A path that stays until `let_go`, or until this process ends, whatever happens to the cache. None: it is not here."""
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
        os.utime(held)  # both names share it: now the file is the last that anybody would drop
        return held

    def let_go(self, held: Path) -> None:
        """The path is no longer used."""
        held.unlink(missing_ok=True)

    async def drop(self, file: MediaFile) -> None:
        """Forget the file; who holds it keeps it."""
        await self._files.remove(file)

    @cached_property
    def _held_here(self) -> Path:
        """This process's folder of held files. Its lock goes with the process, however that ends."""
        held = self._root / "held"
        held.mkdir(parents=True, exist_ok=True)
        _sweep(held)
        # Locked before it can be seen: an unlocked folder is swept away.
        folder = self.scratch()
        lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
        fcntl.flock(lock, fcntl.LOCK_EX)
        named = held / folder.name
        folder.rename(named)
        weakref.finalize(self, _give_up, named, lock, os.getpid())
        return named

    def _make_room(self, *, spared: Path) -> None:
        """Drop the files that were not asked for the longest, never one in use."""
        found = list(_stats(self._root))
        too_much = sum(stat.st_size for _, stat in found) - self._most_bytes
        for path, stat in sorted(found, key=lambda pair: pair[1].st_mtime):
            if too_much <= 0:
                return
            if stat.st_nlink == 1 and path != spared:
                path.unlink(missing_ok=True)
                too_much -= stat.st_size


def _stats(root: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """The kept files. What lies in `scratch` and `held` has longer names than the folders of hashes."""
    for folder in root.glob("??"):
        for path in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):  # another process dropped it meanwhile
                yield path, path.stat()


def _sweep(held: Path) -> None:
    """Remove the folders of processes that are gone."""
    for folder in held.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process was quicker
            lock = os.open(folder / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            except BlockingIOError:
                continue
            finally:
                os.close(lock)


def _give_up(folder: Path, lock: int, process: int) -> None:
    if os.getpid() == process:  # a forked child shares the lock, and the folder is its parent's
        shutil.rmtree(folder, ignore_errors=True)
    os.close(lock)
