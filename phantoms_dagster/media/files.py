"""The media store in a local folder. A file's name is the hash of its bytes, so the content under a name never changes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
import time
import uuid
from datetime import timedelta
from pathlib import Path

from phantoms_dagster.domain.errors import NotFound, Permanent
from phantoms_dagster.domain.models import MediaFile

_SUFFIX = re.compile(r"\.[a-z0-9]{1,8}")
_BLOCK = 1 << 20
_SCRATCH_KEPT_SECONDS = 2 * 86_400
# How long to wait for a file that cleaning has renamed for its second check and may put back.
_BACK_SECONDS = 0.1


class FolderStore:
    """Implements `ports.MediaStore`: files as `root/ab/cd....mp4`, work in progress in `root/scratch/`.

    Any number of processes may add to one folder. A file appears under its name completely or not at all.
    """

    def __init__(self, root: Path) -> None:
        self._root = root.absolute()
        self._scratch = self._root / "scratch"
        self._swept = False

    async def add(self, path: Path) -> MediaFile:
        """Add a file: moved if it is in this store's scratch, else copied. On return it is flushed to the disk.

        Raises Permanent for an empty file or an invalid suffix.
        """
        return await asyncio.to_thread(self._add, path)

    async def local(self, file: MediaFile) -> Path:
        """The path to read from. Raises NotFound when the file is missing or has the wrong size."""
        path = self._root / file.name
        size = _size(path)
        if size is None:  # cleaning may have renamed it, and may put it back
            await asyncio.sleep(_BACK_SECONDS)
            size = _size(path)
        if size is None:
            raise NotFound(f"the media store has no {file.name}; its folder is {self._root}")
        if size != file.size:
            raise NotFound(f"{path} is damaged: {size} bytes instead of {file.size}; run the stage that wrote it again")
        return path

    async def remove(self, file: MediaFile, *, unused_seconds: float = 0) -> bool:
        """Delete the file, unless it was added in the last `unused_seconds`: then False. True also if it did not exist."""
        return await asyncio.to_thread(self._remove, self._root / file.name, unused_seconds)

    def address(self, file: MediaFile) -> str:
        """The file's path, for people."""
        return str(self._root / file.name)

    async def public_url(self, file: MediaFile, lasts: timedelta) -> None:
        """None: other machines cannot read this folder."""

    def scratch(self) -> Path:
        """A new directory, which the caller removes. What a killed process left behind is deleted after two days."""
        self._make_scratch()
        return Path(tempfile.mkdtemp(dir=self._scratch))

    def scratch_file(self, suffix: str) -> Path:
        """An unused path for one file. For a small file, creating a directory would cost more than all other work."""
        self._make_scratch()
        return self._scratch / f"{uuid.uuid4().hex}{suffix}"

    def _make_scratch(self) -> None:
        self._scratch.mkdir(parents=True, exist_ok=True)
        if not self._swept:
            self._swept = True
            self._sweep()

    def _remove(self, path: Path, unused_seconds: float) -> bool:
        if _added_within(path, unused_seconds):
            return False
        # The file is renamed first. An `add` after that finds nothing and stores its bytes again. An `add` before that set the
        # file's time, and the second check sees it. An empty folder stays, because another process may be about to use it.
        self._scratch.mkdir(parents=True, exist_ok=True)
        going = self._scratch / f"{uuid.uuid4().hex}.going"
        try:
            path.replace(going)
        except FileNotFoundError:
            return True
        if _added_within(going, unused_seconds):
            going.replace(path)
            return False
        going.unlink(missing_ok=True)
        return True

    def _add(self, path: Path) -> MediaFile:
        suffix = path.suffix.lower()
        if not _SUFFIX.fullmatch(suffix):
            raise Permanent(f"{path.name} needs a plain suffix, such as .mp4", provider="media", code="bad suffix")
        ours = self._scratch in path.absolute().parents
        if not ours:
            self._scratch.mkdir(parents=True, exist_ok=True)
        # A copy is hashed while it is written, so the stored bytes are exactly the hashed ones.
        whole = path if ours else self._scratch / f"{uuid.uuid4().hex}{suffix}"
        try:
            digest, size = _hash(path) if ours else _copy(path, whole)
            if size == 0:
                raise Permanent(f"{path.name} is empty", provider="media", code="empty file")
            file = MediaFile(sha256=digest, size=size, suffix=suffix)
            target = self._root / file.name
            if _size(target) == size and _touch(target):
                whole.unlink()
                return file
            target.parent.mkdir(exist_ok=True)
            _sync(whole)
            _touch(whole)  # a file that was moved here may be old
            whole.replace(target)
            _sync(target.parent)
            return file
        finally:
            if not ours:
                whole.unlink(missing_ok=True)

    def _sweep(self) -> None:
        oldest = time.time() - _SCRATCH_KEPT_SECONDS
        for path in self._scratch.iterdir():
            try:
                if path.stat().st_mtime < oldest:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            except FileNotFoundError:
                continue  # another process was faster


def _size(path: Path) -> int | None:
    """The file's size, None if it does not exist. One call, because another process may remove the file at any time."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _touch(path: Path) -> bool:
    """Set the file's time to now. False if it was removed meanwhile or belongs to another user; then it must be stored again."""
    try:
        os.utime(path)
    except (FileNotFoundError, PermissionError):
        return False
    return True


def _added_within(path: Path, seconds: float) -> bool:
    try:
        return seconds > 0 and path.stat().st_mtime > time.time() - seconds
    except FileNotFoundError:
        return False


def _hash(path: Path) -> tuple[str, int]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
        return digest.hexdigest(), file.tell()


def _copy(source: Path, target: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reader, target.open("xb") as writer:
        while block := reader.read(_BLOCK):
            digest.update(block)
            writer.write(block)
            size += len(block)
    return digest.hexdigest(), size


def _sync(path: Path) -> None:
    """Flush a file or, except on Windows, a directory's entries to the disk."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
