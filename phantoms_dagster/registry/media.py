"""What a platform takes as a video."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MediaLimits:
    """Seconds, bytes, pixels, frames a second, bits a second. `None`: no limit. `ratios`: width by height."""

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
