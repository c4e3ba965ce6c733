"""Picks the best frame of a video and returns it as a JPEG, for the cover."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from numpy.typing import NDArray

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import Sentence
from phantoms_dagster.media.ffmpeg import PROVIDER

# Seconds after its part begins by which a headline has moved in (the first is there from the start), and seconds before its part's
# last word ends at which none has begun to fade.
MOVED_IN_SECONDS, LEAVES_SECONDS = 0.6, 0.3
# A picture whose brightness (0..255) has a smaller standard deviation counts as empty.
BLANK_DEVIATION = 6.0
_SMALL = (270, 480)
# Quality on mjpeg's scale from 2 (best) to 31.
_QUALITY = 3


@dataclass(frozen=True)
class Frame:
    """A frame: its time in the video in seconds, its sharpness, and the picture as a JPEG."""

    second: float
    sharpness: float
    jpeg: bytes


def headlines(sentences: Sequence[Sentence], titles: int) -> list[tuple[float, float]]:
    """When each headline is fully shown, as (from, to) in seconds: the hook's title, then those of the first `titles` scenes."""
    stretches: dict[int, tuple[float, float]] = {}
    for sentence in sentences:
        if sentence.scene < titles:
            begin, _ = stretches.get(sentence.scene, (sentence.start, 0.0))
            stretches[sentence.scene] = begin, sentence.end
    first = min((begin for begin, _ in stretches.values()), default=0.0)
    return [(0.0 if begin == first else begin + MOVED_IN_SECONDS, end - LEAVES_SECONDS) for begin, end in stretches.values()]


def sharpness(picture: NDArray[np.uint8]) -> float:
    """The variance of the brightness' Laplacian: high for many sharp edges, 0 for a single colour."""
    grey = picture.astype(np.float32)
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float(np.var(around - 4 * grey[1:-1, 1:-1]))


def best_frame(video: Path, stretches: Sequence[tuple[float, float]]) -> Frame:
    """The sharpest non-empty key frame within `stretches`, or of the whole video if none is within them.

    Raises Permanent when the file cannot be read or has only empty pictures.
    """
    try:
        return _best(video, stretches)
    except (av.error.FFmpegError, OSError) as error:
        raise Permanent(f"{video.name} cannot be read: {error}", provider=PROVIDER, code="unreadable media") from error


def _best(video: Path, stretches: Sequence[tuple[float, float]]) -> Frame:
    found: dict[tuple[bool, float], float] = {}
    with av.open(str(video)) as opened:
        for frame in _key_frames(opened):
            second = float(frame.time or 0.0)
            small = frame.reformat(*_SMALL, format="gray").to_ndarray()
            if float(small.std()) >= BLANK_DEVIATION:
                found[any(begin <= second <= end for begin, end in stretches), sharpness(np.asarray(small, np.uint8))] = second
    if not found:
        raise Permanent(f"{video.name} has only empty pictures", provider=PROVIDER, code="blank")
    best = max(found)
    with av.open(str(video)) as opened:
        opened.seek(round(found[best] * av.time_base))
        frame = next(frame for frame in _key_frames(opened) if float(frame.time or 0.0) >= found[best] - 1e-3)
        return Frame(found[best], best[1], _jpeg(frame))


def _key_frames(opened: av.container.InputContainer) -> Iterator[av.VideoFrame]:
    """Decode key frames only. That takes a sixtieth of the time: our videos have a key frame every two seconds."""
    stream = opened.streams.video[0]
    stream.codec_context.skip_frame = "NONKEY"
    frames: Iterable[av.VideoFrame] = opened.decode(stream)
    yield from frames


def _jpeg(frame: av.VideoFrame) -> bytes:
    picture = frame.reformat(format="yuvj420p", dst_colorspace="ITU601", dst_color_range="JPEG")
    encoder = av.CodecContext.create("mjpeg", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = picture.width, picture.height, "yuvj420p", Fraction(1, 30)
    encoder.qmin = encoder.qmax = _QUALITY
    picture.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(picture), *encoder.encode(None)])
