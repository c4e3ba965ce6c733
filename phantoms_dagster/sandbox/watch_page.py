"""The video on a watch page. The stand-ins keep no videos: the page plays the file with the same bytes from a media folder.

Without that folder or file the page says so. The route `sandbox.videos` supports range requests, so that a browser can seek.
"""

from __future__ import annotations

import re
from pathlib import Path

from aiohttp import web

from phantoms_dagster.sandbox.core import Sandbox

_FOLDER = "media_folder"
_SHA256 = re.compile(r"[0-9a-f]{64}")


def play_from(sandbox: Sandbox, folder: Path | None) -> None:
    """Set the media folder: its files are named `ab/cd....mp4` by the SHA-256 of their bytes."""
    sandbox.state[_FOLDER] = folder


def player(sandbox: Sandbox, sha256: str) -> str:
    """HTML that plays the video with that hash, or says that it is not available."""
    if _file(sandbox, sha256) is None:
        return "<p>This sandbox keeps no videos, and the media folder of this machine does not have this one.</p>"
    source = f"/_sandbox/videos/{sha256}.mp4"
    return f'<p><video controls playsinline preload="metadata" style="max-height:80vh" src="{source}"></video></p>'


def routes(sandbox: Sandbox) -> list[web.RouteDef]:
    """The route of the videos, `sandbox.videos`. No fault affects it."""

    async def video(request: web.Request) -> web.StreamResponse:
        path = _file(sandbox, request.match_info["sha256"])
        if path is None:
            raise web.HTTPNotFound(text="There is no such video.")
        return web.FileResponse(path, headers={"Content-Type": "video/mp4"})

    return [web.get("/_sandbox/videos/{sha256}.mp4", video, name="sandbox.videos")]


def _file(sandbox: Sandbox, sha256: str) -> Path | None:
    folder: Path | None = sandbox.state.get(_FOLDER)
    if folder is None or not _SHA256.fullmatch(sha256):
        return None
    path = folder / sha256[:2] / f"{sha256[2:]}.mp4"
    return path if path.is_file() else None
