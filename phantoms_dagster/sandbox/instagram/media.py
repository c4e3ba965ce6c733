"""The Instagram stand-in's checks of an uploaded video: container, codecs, picture and length.

`uploaded_videos` reads the video. The setting `instagram.check_media` = false switches the checks off.
"""

from __future__ import annotations

import hashlib

from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.uploaded_videos import Intake, VideoFacts

UNSUPPORTED_FORMAT = 2_207_026
NO_SUCH_FRAME = 2_207_057  # thumb_offset is out of range
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

    def video(self, sandbox: Sandbox) -> VideoFacts | None:
        """The properties of the upload; None if it is not a video."""
        return self._kept.video(sandbox, self.sha256)

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes so far, in hex."""
        return self._hash.hexdigest()


def fault(video: VideoFacts | None) -> int | None:
    """The error subcode for a video that violates the media rules; None if it meets them."""
    if video is None or video.container not in ("mp4", "mov") or video.edited or not video.moov_first:
        return UNSUPPORTED_FORMAT
    silent = video.audio_codec is None
    rules = (
        video.video_codec in ("h264", "hevc"),
        video.pixel_format in (None, "yuv420p", "yuvj420p", "yuv420p10le"),
        MIN_SECONDS <= video.seconds <= MAX_SECONDS,
        MIN_FPS <= video.fps <= MAX_FPS + 0.01,
        0 < video.width <= MAX_WIDTH,
        video.height > 0 and MIN_RATIO <= video.width / video.height <= MAX_RATIO,
        video.seconds > 0 and video.size * 8 / video.seconds <= MAX_BIT_RATE,
        silent or video.audio_codec == "aac",
        silent or (video.audio_hz or 0) <= MAX_AUDIO_HZ,
        silent or 1 <= (video.audio_channels or 0) <= 2,
    )
    return None if all(rules) else UNSUPPORTED_FORMAT
