"""Serves videos and pictures at signed URLs that expire within minutes. Range requests let a player seek."""

from __future__ import annotations

import mimetypes
import re
import time
from functools import lru_cache

from fastapi import FastAPI
from starlette.responses import FileResponse, Response

from phantoms_dagster.desk.context import Desk
from phantoms_dagster.desk.keys import Keys
from phantoms_dagster.desk.visits import CurrentVisit, NotAllowed
from phantoms_dagster.domain.errors import NotFound
from phantoms_dagster.domain.models import MediaFile
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.wiring.media import media_store

# A URL is valid for this long to twice as long. It stays the same for this long, so browsers can cache the file.
GOOD_SECONDS = 900
_NAME = re.compile(r"([0-9a-f]{64})(\.[a-z0-9]{1,8})")
_STORE = "media store"


def register(app: FastAPI) -> None:
    """Add the routes."""
    app.get("/media/{name}", include_in_schema=False)(media)


def address(desk: Desk, file: MediaFile) -> str:
    """Return a signed URL path of the file, valid for 15 to 30 minutes."""
    until = (int(time.time()) // GOOD_SECONDS + 2) * GOOD_SECONDS
    return _signed(desk.keys, f"{file.sha256}{file.suffix}", file.size, until)


@lru_cache(maxsize=2_048)
def _signed(keys: Keys, name: str, size: int, until: int) -> str:
    return f"/media/{name}?size={size}&until={until}&key={keys.mac('media', f'{name}:{size}:{until}')}"


async def media(visit: CurrentVisit, name: str, size: int = 0, until: int = 0, key: str = "") -> Response:
    """Serve the file, or the requested range of it (206, 416, If-Range)."""
    desk = visit.desk
    found = _NAME.fullmatch(name)
    if found is None or not desk.keys.verify("media", f"{name}:{size}:{until}", key):
        raise NotAllowed("This video address is not valid. Open the video's page to get a new one.")
    if until < time.time():
        raise NotAllowed("This video address has expired. Load the video's page again.")
    path = await _store(desk).local(MediaFile(sha256=found[1], size=size, suffix=found[2]))
    kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
    headers = {
        "Cache-Control": f"private, max-age={max(0, until - int(time.time()))}, immutable",
        "ETag": f'"{found[1]}"',
        "Content-Disposition": "inline",
    }
    try:
        return FileResponse(path, media_type=kind, headers=headers)
    except FileNotFoundError as error:
        raise NotFound("that file has just been cleaned up") from error


def _store(desk: Desk) -> FolderStore:
    """Return the media store for the desk's event loop: a folder, or an object store with its cache."""
    if _STORE not in desk.extras:
        desk.extras[_STORE] = media_store(desk.settings)
    return desk.extras[_STORE]  # type: ignore[return-value]
