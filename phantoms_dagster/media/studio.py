"""Probes files, makes thumbnails, and converts files to fit platforms. `limits` decides what to convert, `graph` how to encode."""

from __future__ import annotations

import asyncio
import functools
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import av.error

from phantoms_dagster.domain.errors import Evidence, Permanent
from phantoms_dagster.domain.models import Platform, Probe
from phantoms_dagster.domain.ports import FitResult
from phantoms_dagster.media import ass, coverage, ffmpeg, graph
from phantoms_dagster.media.edit_lists import without_edit_lists
from phantoms_dagster.media.limits import EDIT_LIST, Conversion, FitVerdict, judge_fit
from phantoms_dagster.media.mp4 import read_boxes

THUMBNAIL = (270, 480)
_THUMBNAIL_SECOND = 1.5  # by then the title card has moved in
_BITEXACT = 0x0400  # libavformat: AVFMT_FLAG_BITEXACT
_SAME_LENGTH_SECONDS = 0.1
# Arguments with which `av.open` decodes nothing. The stream options are for up to 16 streams.
_INDEX_ALONE: Mapping[str, Any] = {"container_options": {"probesize": "32"}, "stream_options": [{"skip_frame": "all"}] * 16}
_PROGRESSIVE = (0, 1)  # AV_FIELD_UNKNOWN, AV_FIELD_PROGRESSIVE
_MP4_CODECS = frozenset({"h264", "hevc", "av1", "vp9"})
_MP4_SOUND = frozenset({"aac", "mp3", "opus"})


_Copy = Callable[[Path, Path], bool]
_Answer = TypeVar("_Answer")


@dataclass(frozen=True)
class _Facts:
    probe: Probe
    edited: bool
    interlaced: bool

    @property
    def plain(self) -> bool:
        """Whether a remux may be a mere copy of the packets."""
        return self.probe.container in ("mp4", "mov")


class FfmpegStudio:
    """Implements `ports.Studio` with PyAV for reading and ffmpeg for writing."""

    async def probe(self, path: Path, *, loudness: bool = False) -> Probe:
        """Read a file's properties. `container` is `mp4`, `mov`, `webm` or ffmpeg's name. `loudness` requires decoding the sound.

        Raises Permanent when the file cannot be read or has no picture.
        """
        probe = (await _in_thread(_read, path)).probe
        if loudness and probe.audio_codec is not None:
            return probe.model_copy(update={"loudness_lufs": await ffmpeg.loudness(path)})
        return probe

    async def missing_glyphs(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The graphemes in `texts` that our fonts lack, without duplicates."""
        if all(text.isascii() for text in texts):
            return ()
        return await _in_thread(coverage.missing, texts)

    async def thumbnail(self, path: Path, destination: Path) -> None:
        """Write a JPEG of a frame of the title card, cropped to fill 270x480."""
        seconds = (await _in_thread(_read, path)).probe.seconds
        width, height = THUMBNAIL
        shape = f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=lanczos,crop={width}:{height},setsar=1"
        picture = f"{shape},scale=in_range=auto:out_range=pc:out_color_matrix=bt601,format=yuvj420p"
        at = min(_THUMBNAIL_SECOND, seconds * 0.3)
        # Without `-update` the path is a pattern, in which `%03d` is a number.
        jpeg = ("-frames:v", "1", "-vf", picture, "-c:v", "mjpeg", "-q:v", "3", "-f", "image2", "-update", "1")
        await _write(destination, ["-ss", f"{at:.3f}", "-i", str(path), *jpeg])

    async def fit(
        self, path: Path, platform: Platform, destination: Callable[[], Path], *, known: Probe | None = None
    ) -> FitResult:
        """Convert a file for a platform with the least work: `kept` (then `destination` is not called), `remuxed` or `transcoded`.

        Raises Permanent when no conversion helps: too long, too short, no picture, or still too large.
        """
        found = await _in_thread(_kept_or_copied, path, platform, destination, known)
        if isinstance(found, FitResult):
            return found
        with _atomic_path(destination()) as temporary:
            await ffmpeg.run(["-i", str(path), *_arguments(found.facts, platform, found.conversion), str(temporary)])
            made = await _in_thread(_read, temporary)
            left = _verdict(made, platform)
            if left.conversion is not Conversion.KEEP or left.impossible:
                reasons = left.impossible or ", ".join(left.reasons)
                raise Permanent(f"cannot be made to fit {platform.title}: {reasons}", provider=ffmpeg.PROVIDER, code="does not fit")
        return FitResult("remuxed" if found.conversion is Conversion.REMUX else "transcoded", made.probe)


@dataclass(frozen=True)
class _NeedsFfmpeg:
    """The conversion that ffmpeg must do."""

    facts: _Facts
    conversion: Conversion


def _kept_or_copied(
    path: Path, platform: Platform, destination: Callable[[], Path], known: Probe | None = None
) -> FitResult | _NeedsFfmpeg:
    """Everything of a fit that needs no ffmpeg process, in one call for a thread. Starting ffmpeg costs 50 ms."""
    facts = _read(path, known=known if known is not None and known.container == "mp4" else None)
    verdict = _verdict(facts, platform)
    if verdict.impossible:
        raise Permanent(verdict.impossible, provider=ffmpeg.PROVIDER, code="does not fit")
    if verdict.conversion is Conversion.KEEP:
        return FitResult("kept", facts.probe)
    conversion = verdict.conversion
    if facts.probe.video_codec not in _MP4_CODECS:
        conversion = Conversion.TRANSCODE  # what we write is an MP4
    elif facts.probe.audio_codec not in (_MP4_SOUND | {None}):
        conversion = max(conversion, Conversion.TRANSCODE_AUDIO)
    if conversion is Conversion.REMUX and facts.plain:
        edits_alone = verdict.reasons == (EDIT_LIST,) and facts.probe.container == "mp4"
        for copy in (without_edit_lists, _remux) if edits_alone else (_remux,):
            if (made := _copied(copy, path, destination(), facts, platform)) is not None:
                return FitResult("remuxed", made)
    return _NeedsFfmpeg(facts, conversion)


def _copied(copy: _Copy, path: Path, destination: Path, facts: _Facts, platform: Platform) -> Probe | None:
    """The probe of `destination` if a copy is enough; else None, and nothing is written.

    A copy is not enough if its length differs: then an edit list cut more than priming samples. If the file or its copy cannot be
    read, ffmpeg must repair or refuse it.
    """
    temporary = _beside(destination)
    try:
        with _media_errors(path):
            made = _read(temporary, known=facts.probe) if copy(path, temporary) else None
        if made is None or _verdict(made, platform).conversion is not Conversion.KEEP:
            return None
        if abs(made.probe.seconds - facts.probe.seconds) >= _SAME_LENGTH_SECONDS:
            return None
        temporary.replace(destination)
        return made.probe
    except Permanent:
        return None
    finally:
        temporary.unlink(missing_ok=True)


def _remux(path: Path, destination: Path) -> bool:
    """Copy the packets of the first picture and sound into a streamable MP4. Returns True, or raises an error of PyAV."""
    # The same as `graph.MP4` for ffmpeg.
    options = {"movflags": "+faststart", "use_editlist": "0"}
    with av.open(str(path)) as given, av.open(str(destination), "w", format="mp4", options=options) as made:
        made.flags |= _BITEXACT
        wanted = [*given.streams.video[:1], *given.streams.audio[:1]]
        copies = {stream.index: made.add_stream_from_template(stream) for stream in wanted}
        for packet in given.demux(wanted):
            if packet.dts is not None:  # the last one of a stream is empty
                packet.stream = copies[packet.stream.index]
                made.mux(packet)
    return True


def _verdict(facts: _Facts, platform: Platform) -> FitVerdict:
    return judge_fit(facts.probe, platform, edited=facts.edited, interlaced=facts.interlaced)


def _arguments(facts: _Facts, platform: Platform, conversion: Conversion) -> list[str]:
    streams = ["-map", "0:v:0", "-map", "0:a:0?", "-dn", "-sn"]
    copied = conversion < Conversion.TRANSCODE_AUDIO or facts.probe.audio_codec is None
    sound = ["-c:a", "copy"] if copied else ["-af", f"aresample=48000,{graph.AAC_HEAD}", *graph.AUDIO_CODEC]
    if conversion < Conversion.TRANSCODE:
        return [*streams, "-c:v", "copy", *sound, *graph.MP4]
    arguments = [*streams, "-threads", str(ffmpeg.THREADS), "-vf", _scale_filters(facts), *graph.VIDEO_CODEC, *sound, *graph.MP4]
    # A size limit becomes a bit rate with a margin of a tenth. x264 obeys the last of two equal options.
    most = platform.spec.media.size * 8 * 0.9 / facts.probe.seconds - 192_000
    if most < 16_000_000:
        arguments[-2:-2] = ["-maxrate", f"{int(most)}", "-bufsize", f"{int(most)}"]
    return arguments


def _scale_filters(facts: _Facts) -> str:
    """The filters that scale to 1080x1920 with black bars where the shape differs, and to 30 fps if below 23 or above 60."""
    size = f"{ass.WIDTH}:{ass.HEIGHT}"
    rate = f"fps={ass.FPS}" if not 23 <= facts.probe.fps <= 60 else "null"
    return ",".join(
        [
            "bwdif=mode=send_frame" if facts.interlaced else "null",
            rate,
            f"scale={size}:force_original_aspect_ratio=decrease:force_divisible_by=2:out_color_matrix=bt709:out_range=tv",
            f"pad={size}:-1:-1,setsar=1,format=yuv420p",
        ]
    )


def _read(path: Path, *, known: Probe | None = None) -> _Facts:
    """Read a file's properties. `known`: the probe of an MP4 with the same packets.

    With `known` no packet is decoded, which halves the cost: the index and a parse of the first packet give everything except the
    pixel format.
    """
    index = {} if known is None else _INDEX_ALONE
    with _media_errors(path), av.open(str(path), **index) as container:
        if not container.streams.video or container.format.name in ("image2", "png_pipe", "jpeg_pipe", "mjpeg", "gif"):
            raise Permanent(f"{path.name} has no moving picture", provider=ffmpeg.PROVIDER, code="no picture")
        found = _facts(container, path)
    if known is None or found.probe.pixel_format == known.pixel_format:
        return found
    return replace(found, probe=found.probe.model_copy(update={"pixel_format": known.pixel_format}))


@contextmanager
def _media_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except (av.error.FFmpegError, OSError) as error:
        raise Permanent(
            f"unreadable media: {path.name}: {error}",
            provider=ffmpeg.PROVIDER,
            code="unreadable media",
            evidence=Evidence(body=str(error)[:500]),
        ) from error


def _facts(container: av.container.InputContainer, path: Path) -> _Facts:
    video = container.streams.video[0]
    sound = container.streams.audio[0] if container.streams.audio else None
    context, boxes, size = video.codec_context, read_boxes(path), path.stat().st_size
    seconds = _seconds(container, video)
    if not context.width or not context.height or seconds <= 0:
        raise Permanent(f"unreadable media: {path.name} tells no size or length", provider=ffmpeg.PROVIDER, code="unreadable media")
    probe = Probe(
        container=_container(container.format.name, boxes.brand, path),
        seconds=seconds,
        size=size,
        width=context.width,
        height=context.height,
        fps=round(float(video.average_rate or video.guessed_rate or Fraction(0)), 3),
        video_codec=context.codec.canonical_name,
        video_profile=context.profile,
        pixel_format=context.pix_fmt or "unknown",
        audio_codec=sound.codec_context.codec.canonical_name if sound else None,
        audio_hz=sound.codec_context.sample_rate if sound else None,
        audio_channels=sound.codec_context.channels if sound else None,
        bit_rate=container.bit_rate or round(size * 8 / seconds),
        moov_first=boxes.moov_first,
    )
    return _Facts(probe, edited=boxes.edited, interlaced=context.field_order not in _PROGRESSIVE)


def _seconds(container: av.container.InputContainer, video: av.video.stream.VideoStream) -> float:
    """The length of the picture in seconds; of the whole file if the picture has none."""
    if video.duration is not None and video.time_base is not None:
        return round(float(video.duration * video.time_base), 3)
    return round((container.duration or 0) / av.time_base, 3)


def _container(name: str, brand: str | None, path: Path) -> str:
    if "mp4" in name.split(","):
        return "mov" if brand in ("qt  ", None) else "mp4"
    if name == "matroska,webm":
        with path.open("rb") as file:
            return "webm" if b"webm" in file.read(64) else "matroska"
    return name.split(",", maxsplit=1)[0]


async def _write(destination: Path, arguments: Sequence[str]) -> None:
    with _atomic_path(destination) as temporary:
        await ffmpeg.run([*arguments, str(temporary)])


@contextmanager
def _atomic_path(destination: Path) -> Iterator[Path]:
    """A temporary path that is renamed to `destination` on success and removed on failure."""
    temporary = _beside(destination)
    try:
        yield temporary
        temporary.replace(destination)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(destination: Path) -> Path:
    return destination.with_name(f".{uuid.uuid4().hex[:8]}-{destination.name}")


async def _in_thread(work: Callable[..., _Answer], *arguments: object) -> _Answer:
    return await asyncio.get_running_loop().run_in_executor(_thread(os.getpid()), work, *arguments)


# One thread per process: probing a video holds the interpreter's lock for a millisecond; more threads would only compete for it.
# The process id is the key because a thread does not survive a fork.
@functools.lru_cache(maxsize=1)
def _thread(_process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="studio")
