"""The media store from the settings: a folder or an object store. `object_store_guard` puts the latter behind a breaker."""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from phantoms_dagster.domain.errors import InvalidInput, NotFound, PhantomsError
from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.settings import Settings

if TYPE_CHECKING:
    from phantoms_dagster.media.object_store.store import ObjectStore

INTEGRATION = "media"
_log = logging.getLogger(__name__)


def media_store(
    settings: Settings,
    *,
    cache: Path | None = None,
    guard: Callable[[], AbstractAsyncContextManager[object]] = nullcontext,
) -> FolderStore | ObjectStore:
    """The store for one event loop, without a breaker unless `guard` is given. `cache` replaces the usual cache folder.

    Raises InvalidInput for an object store that cannot be set up. It is contacted with the first call.
    """
    if settings.media.url is None:
        return FolderStore(settings.media_path)
    # obstore takes 15 MB of memory, which a folder does not need.
    from phantoms_dagster.media.cache import Cache  # noqa: PLC0415
    from phantoms_dagster.media.object_store.client import Bucket  # noqa: PLC0415
    from phantoms_dagster.media.object_store.store import ObjectStore  # noqa: PLC0415

    key, secret = settings.media.access_key_id, settings.media.secret_access_key
    if bool(key) != bool(secret):
        raise InvalidInput("set both PHANTOMS_MEDIA_ACCESS_KEY_ID and PHANTOMS_MEDIA_SECRET_ACCESS_KEY, or neither")
    bucket = Bucket(
        settings.media.url,
        endpoint_url=settings.media.endpoint_url,
        region=settings.media.region,
        access_key_id=key.get_secret_value() if key else None,
        secret_access_key=secret.get_secret_value() if secret else None,
        call_seconds=settings.pacing.call_seconds,
    )
    kept = Cache(cache or settings.media_path / "cache", int(settings.media.cache_gb * 1e9))
    return ObjectStore(bucket, kept, guard=guard)


async def probe(settings: Settings) -> str:
    """Write, read and delete a small file, as two machines that share only the store would. Returns the store's address.

    Raises the store's errors.
    """
    content = secrets.token_bytes(32)
    with tempfile.TemporaryDirectory(prefix="phantoms-probe-") as folder:
        writer, reader = (media_store(settings, cache=Path(folder) / name) for name in ("one", "other"))
        source = Path(folder) / "probe.bin"
        source.write_bytes(content)
        file = await writer.add(source)
        try:
            if (await reader.local(file)).read_bytes() != content:
                raise NotFound(f"{writer.address(file)} is not what was written")
        except BaseException:
            with suppress(PhantomsError):
                await writer.remove(file)
            raise
        await writer.remove(file)
    return writer.address(file).removesuffix(f"/{file.name}")


class MediaFiles:
    """Synchronous, read-only access to the media store, for commands and the UI."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store = media_store(settings)
        self._away = False

    def address(self, file: MediaFile) -> str:
        """The file's path on this machine or its URL in the object store."""
        return self._store.address(file)

    def local(self, file: MediaFile) -> Path:
        """The file's path on this machine, downloaded from an object store. Raises NotFound and the store's errors."""
        return asyncio.run(self._local(file))

    def bytes_of(self, file: MediaFile) -> bytes | None:
        """The bytes of a small file. None if they cannot be read; after an error of the store it is not asked again."""
        if self._away:
            return None
        try:
            return asyncio.run(self._read(file))
        except NotFound:
            return None
        except (PhantomsError, OSError) as error:
            self._away = True
            _log.warning("%s cannot be shown: %s", self.address(file), error)
            return None

    async def _read(self, file: MediaFile) -> bytes:
        return (await self._local(file)).read_bytes()

    async def _local(self, file: MediaFile) -> Path:
        # A store belongs to one event loop.
        return await media_store(self._settings).local(file)
