"""The Instagram stand-in's checks of an uploaded video: container, codecs, picture and length.

`films` reads the video. The setting `instagram.check_media` = false switches the checks off.
"""

from __future__ import annotations

import hashlib

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.films import FilmFacts, Intake

UNSUPPORTED_FORMAT = 2_207_026
MIN_SECONDS, MAX_SECONDS = 3.0, 900.0
MIN_FPS, MAX_FPS = 23.0, 60.0
MIN_RATIO, MAX_RATIO = 0.01, 10.0
MAX_WIDTH = 1920
MAX_BIT_RATE = 25_000_000
MAX_AUDIO_HZ = 48_000


class IncomingUpload:
    """An upload in progress: its size, its hash, and its bytes until the video was checked."""

    def __init__(self) -> None:
        self.size = 0
        self._hash = hashlib.sha256()
        self._kept = Intake()

    def feed(self, chunk: bytes) -> None:
        """Add the next bytes."""
        self._kept.write(self.size, chunk)
        self.size += len(chunk)
        self._hash.update(chunk)

    def film(self, sandbox: Sandbox) -> FilmFacts | None:
        """The properties of the upload; None if it is not a video."""
        return self._kept.film(sandbox, self.sha256)

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes so far, in hex."""
        return self._hash.hexdigest()


def fault(film: FilmFacts | None) -> int | None:
    """The error subcode for a video that violates the media rules; None if it meets them."""
    if film is None or film.container not in ("mp4", "mov") or film.edited or not film.moov_first:
        return UNSUPPORTED_FORMAT
    silent = film.audio_codec is None
    rules = (
        film.video_codec in ("h264", "hevc"),
        film.pixel_format in (None, "yuv420p", "yuvj420p", "yuv420p10le"),
        MIN_SECONDS <= film.seconds <= MAX_SECONDS,
        MIN_FPS <= film.fps <= MAX_FPS + 0.01,
        0 < film.width <= MAX_WIDTH,
        film.height > 0 and MIN_RATIO <= film.width / film.height <= MAX_RATIO,
        film.seconds > 0 and film.size * 8 / film.seconds <= MAX_BIT_RATE,
        silent or film.audio_codec == "aac",
        silent or (film.audio_hz or 0) <= MAX_AUDIO_HZ,
        silent or 1 <= (film.audio_channels or 0) <= 2,
    )
    return None if all(rules) else UNSUPPORTED_FORMAT
