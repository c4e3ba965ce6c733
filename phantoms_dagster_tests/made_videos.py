"""Small real videos for the checks of platforms. One encoded picture repeats, so a long video costs no more than a short one."""

from __future__ import annotations

import functools
import tempfile
from fractions import Fraction
from pathlib import Path

import av

BASE = Fraction(1, 90_000)


@functools.cache
def video_bytes(
    *,
    seconds: float = 30.0,
    fps: float = 30,
    width: int = 360,
    height: int = 640,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    container: str = "mp4",
    moov_first: bool = True,
    delayed: float = 0.0,
    audio_hz: int | None = None,
) -> bytes:
    """The bytes of a video. `delayed`: seconds by which an edit list lets it begin later; `audio_hz`: with silent AAC sound."""
    options = {"use_editlist": "1" if delayed else "0"} | ({"movflags": "+faststart"} if moov_first else {})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"video.{container}"
        with av.open(str(path), "w", options=options if container in ("mp4", "mov") else {}) as made:
            rate = Fraction(fps).limit_denominator(1001)
            video = made.add_stream(codec, rate=rate, options={"preset": "ultrafast"} if codec == "libx264" else {})
            assert isinstance(video, av.VideoStream)
            video.width, video.height, video.pix_fmt, video.gop_size = width, height, pixel_format, 1
            video.time_base = video.codec_context.time_base = 1 / rate
            frame = av.VideoFrame(width, height, pixel_format)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.pts, frame.time_base = 0, 1 / rate
            pictures = [bytes(packet) for packet in [*video.encode(frame), *video.encode(None)]]
            sound = made.add_stream("aac", rate=audio_hz, layout="stereo") if audio_hz else None
            for number in range(max(1, round(seconds * fps))):
                packet = av.Packet(pictures[0])
                packet.stream, packet.is_keyframe = video, True
                packet.time_base = BASE
                packet.pts = packet.dts = round((number / rate + Fraction(delayed)) / BASE)
                packet.duration = round(1 / rate / BASE)
                made.mux(packet)
            if sound is not None:
                silence = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
                for part in silence.planes:
                    part.update(bytes(part.buffer_size))
                silence.sample_rate, silence.pts, silence.time_base = sound.rate, 0, Fraction(1, sound.rate)
                made.mux([*sound.encode(silence), *sound.encode(None)])
        return path.read_bytes()
