"""The media store in a bucket that all machines share, with a cache on each machine. `client` talks to the bucket."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import weakref
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path

from phantoms_dagster.domain.errors import NotFound, Permanent, Transient
from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.media.cache import Cache
from phantoms_dagster.media.object_store.client import PROVIDER, Bucket

# Concurrent transfers: each holds a part in memory, and they share the bandwidth.
TRANSFERS = 4
_SETTLE_SECONDS = 0.5
# An object younger than this need not be uploaded again: cleaning leaves objects alone for much longer.
FRESH_SECONDS = 900.0
# An older mark was left by a cleaning that died. Cleaning itself gives up well before that.
_MARK_SECONDS, _REMOVE_SECONDS = 300.0, 120.0

Guard = Callable[[], AbstractAsyncContextManager[object]]


class ObjectStore:
    """Implements `ports.MediaStore` with objects named `ab/cd....mp4` in `bucket`, for one event loop.

    `guard` wraps all access to the bucket and may raise NotYet. Files in the cache need no access.
    """

    def __init__(self, bucket: Bucket, cache: Cache, *, guard: Guard = contextlib.nullcontext) -> None:
        self._bucket = bucket
        self._cache = cache
        self._guard = guard
        self._transfers = asyncio.Semaphore(TRANSFERS)
        self._file_locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def add(self, path: Path) -> MediaFile:
        """Add the file to the cache (moved if it is in scratch, else copied) and upload it. On return the object is complete.

        A file that was uploaded in the last quarter of an hour is not uploaded again. Raises Permanent for an empty file or an
        invalid suffix, and the bucket's errors.
        """
        file = await self._cache.take(path)
        async with self._lock(file):
            held = self._cache.hold(file)
            if held is None:
                raise _dropped(file)
            try:
                async with self._transfers, self._guard():
                    await self._send(file, held)
            finally:
                self._cache.release(held)
        return file

    async def local(self, file: MediaFile) -> Path:
        """A path to read the file from, valid until this task ends. Raises NotFound when the object is missing or damaged."""
        async with self._lock(file):
            held = self._cache.hold(file)
            if held is None:
                async with self._transfers, self._guard():
                    await self._fetch(file)
                held = self._cache.hold(file)
        if held is None:
            raise _dropped(file)
        task, cache = asyncio.current_task(), self._cache
        assert task is not None
        task.add_done_callback(lambda _: cache.release(held))
        return held

    async def remove(self, file: MediaFile, *, unused_seconds: float = 0) -> bool:
        """Delete the object from the bucket and this cache, unless it was written in the last `unused_seconds`: then False.

        This writes a mark before it reads the object's time. If an `add` wrote the object before that read, the time shows it. An
        `add` that writes later sees the mark, waits until it is gone, and checks its object again. If deleting the object got no
        answer, the mark stays until it expires, because the store may still carry out the deletion.
        """
        async with self._guard():
            await self._bucket.mark(_mark(file))
            try:
                async with asyncio.timeout(_REMOVE_SECONDS):
                    found = await self._bucket.look(file.name)
                    young = found is not None and found[1] < unused_seconds
                    if not young:
                        await self._bucket.delete(file.name)
            except TimeoutError:
                message = f"{self.address(file)} was not deleted within {_REMOVE_SECONDS:g} s; the next night tries again"
                raise Transient(message, provider=PROVIDER, code="timeout") from None
            await self._bucket.delete(_mark(file))
        if young:
            return False
        await self._cache.drop(file)
        return True

    async def public_url(self, file: MediaFile, lasts: timedelta) -> str:
        """See the port."""
        return await self._bucket.sign(file.name, lasts)

    def scratch(self) -> Path:
        """A new directory on this machine, which the caller removes."""
        return self._cache.scratch()

    def scratch_file(self, suffix: str) -> Path:
        """An unused path on this machine. The caller removes what remains there."""
        return self._cache.scratch_file(suffix)

    def address(self, file: MediaFile) -> str:
        """The file's address in the bucket."""
        return self._bucket.address(file.name)

    async def _send(self, file: MediaFile, held: Path) -> None:
        try:
            found = await self._bucket.look(file.name)
        except Permanent:
            found = None  # a refused HEAD does not say why; the upload will
        # An old object is written again: its new time stops cleaning from deleting it before a row refers to it.
        if found is None or found[0] != file.size or found[1] > FRESH_SECONDS:
            await self._bucket.put(file.name, held)
        while await self._cleaning(file):  # noqa: ASYNC110 - another process ends it
            await asyncio.sleep(_SETTLE_SECONDS)
        there = await self._bucket.size(file.name)
        if there is None:  # while several processes write one name, some stores briefly do not list it
            await asyncio.sleep(_SETTLE_SECONDS)
            there = await self._bucket.size(file.name)
        if there is None:  # cleaning was faster
            await self._bucket.put(file.name, held)
            there = await self._bucket.size(file.name)
        if there != file.size:
            message = f"{self.address(file)} has {there or 'no'} bytes instead of {file.size} after its upload"
            raise Transient(message, provider=PROVIDER, code="bad upload")

    async def _cleaning(self, file: MediaFile) -> bool:
        try:
            mark = await self._bucket.look(_mark(file))
        except Permanent:  # without permission to list, S3 refuses a HEAD of an object that does not exist
            return False
        return mark is not None and mark[1] < _MARK_SECONDS

    async def _fetch(self, file: MediaFile) -> None:
        address = self.address(file)
        with self._scratch_folder() as folder:
            target = folder / f"fetched{file.suffix}"
            size = await self._bucket.get(file.name, target)
            if size is None:
                raise NotFound(f"there is no {address}; run the stage that wrote it again")
            found = await self._cache.take(target) if size == file.size else None
        if found is not None and found != file:
            await self._cache.drop(found)
        if found != file:
            told = f"{size} bytes instead of {file.size}" if size != file.size else "other bytes of the same size"
            raise NotFound(f"{address} is damaged: {told}; delete it and run the stage that wrote it again")

    @contextlib.contextmanager
    def _scratch_folder(self) -> Iterator[Path]:
        folder = self._cache.scratch()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _lock(self, file: MediaFile) -> asyncio.Lock:
        """One lock per file among concurrent callers, so that the second finds what the first one downloaded."""
        return self._file_locks.setdefault(file.name, asyncio.Lock())


def _mark(file: MediaFile) -> str:
    return f"going/{file.name}"


def _dropped(file: MediaFile) -> Transient:
    message = f"{file.name} was dropped from the cache as soon as it was there; raise PHANTOMS_MEDIA_CACHE_GB"
    return Transient(message, provider=PROVIDER, code="cache too small")
