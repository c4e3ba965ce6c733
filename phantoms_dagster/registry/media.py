"""Which video files a platform accepts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MediaLimits:
    """The limits of a video file. Ranges are (lowest, highest).

    `seconds` is the duration, `size` is in bytes, `sides` and `widest` are in pixels, `ratios` are width / height, and `bit_rate`
    is in bits a second (None: no limit). `moov_first`: the index must come before the media data. `edit_lists`: they are allowed.
    """

    containers: frozenset[str]
    video_codecs: frozenset[str]
    audio_codecs: frozenset[str]
    seconds: tuple[float, float]
    size: int
    fps: tuple[float, float] = (1, 60)
    sides: tuple[int, int] = (2, 4096)
    widest: int = 4096
    ratios: tuple[float, float] = (0.01, 10.0)
    bit_rate: int | None = None
    audio_hz: int = 96_000
    moov_first: bool = False
    edit_lists: bool = True
