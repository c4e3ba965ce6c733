"""Uploaded videos: receives their bytes and reads their properties, once for each content, without decoding.

For the stand-ins of platforms that check media. Each stand-in decides what it refuses.
"""

from __future__ import annotations

import hashlib
import struct
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, BinaryIO, cast

from phantoms_dagster.sandbox.core import Sandbox

IN_MEMORY_BYTES = 8 << 20
HASH_BLOCK_BYTES = 1 << 20
_INSIDE = (b"moov", b"trak", b"edts")


@dataclass(frozen=True)
class VideoFacts:
    """A video's properties. `container`: `mp4`, `mov`, `webm` or ffmpeg's name; `audio_*` are None without sound.

    `moov_first`: the index comes before the media. `edited`: an edit list cuts, delays or repeats.
    """

    container: str
    seconds: float
    size: int
    width: int
    height: int
    fps: float
    video_codec: str
    pixel_format: str | None
    audio_codec: str | None
    audio_hz: int | None
    audio_channels: int | None
    moov_first: bool
    edited: bool


class Intake:
    """The bytes of one upload: in memory while they are few, else in a temporary file that is deleted with this object.

    With a `path` they are in that file from the first block on, until `discard`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        # The file must outlive this method. The finalizer closes it when this object is garbage-collected.
        if path is None:
            self._file: IO[bytes] = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY_BYTES)  # noqa: SIM115
        else:
            path.touch(mode=0o600)
            self._file = path.open("r+b", buffering=0)  # unbuffered, so that a kill loses nothing that was written
        self.size = 0 if path is None else path.stat().st_size
        self.close = weakref.finalize(self, self._file.close)

    def discard(self) -> None:
        """Close, and remove the file."""
        self.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def digest(self, size: int) -> Any:
        """A SHA-256 object fed with the first `size` bytes. Raises ValueError when there are fewer."""
        digest, left = hashlib.sha256(), size
        self._file.seek(0)
        while left and (block := self._file.read(min(left, HASH_BLOCK_BYTES))):
            digest.update(block)
            left -= len(block)
        if left:
            raise ValueError(f"{left} bytes of the upload are missing")
        return digest

    def write(self, at: int, block: bytes) -> None:
        """Store a block at offset `at`."""
        self._file.seek(at)
        self._file.write(block)
        self.size = max(self.size, at + len(block))

    def video(self, sandbox: Sandbox, sha256: str) -> VideoFacts | None:
        """The upload's properties; None if it is not a video. Content that any platform received before is not read again."""
        known: dict[str, VideoFacts | None] = sandbox.state.setdefault("videos", {})
        if sha256 not in known:
            known[sha256] = read_video(cast(BinaryIO, self._file), self.size)
        return known[sha256]


def intake(sandbox: Sandbox, name: str) -> Intake:
    """The receiver for an upload of several requests. With a store, its file outlives the process."""
    return Intake(None if sandbox.store is None else sandbox.store.upload(name))


def read_video(file: BinaryIO, size: int) -> VideoFacts | None:
    """The properties of a seekable file of `size` bytes; None if ffmpeg finds no video in it."""
    brand, order, edited = _boxes_of(file, size)
    # PyAV takes 16 MB, and a sandbox that gets no video does without it.
    import av  # noqa: PLC0415
    from av.error import FFmpegError  # noqa: PLC0415

    file.seek(0)
    try:
        # A wrapper without `name`, which PyAV would use as a path.
        with av.open(_Nameless(file), "r") as opened:
            if not opened.streams.video:
                return None
            video, sound = opened.streams.video[0], next(iter(opened.streams.audio), None)
            length = video.duration * video.time_base if video.duration and video.time_base else None
            seconds = opened.duration / av.time_base if opened.duration else float(length or 0)
            rate = video.frames / length if video.frames and length else video.average_rate or 0
            return VideoFacts(
                container=_container(opened.format.name, brand, file),
                seconds=float(seconds),
                size=size,
                width=video.codec_context.width,
                height=video.codec_context.height,
                fps=float(rate),
                video_codec=video.codec_context.name,
                pixel_format=video.codec_context.pix_fmt,
                audio_codec=sound.codec_context.name if sound else None,
                audio_hz=sound.codec_context.sample_rate if sound else None,
                audio_channels=sound.codec_context.channels if sound else None,
                moov_first=b"moov" in order and (b"mdat" not in order or order.index(b"moov") < order.index(b"mdat")),
                edited=edited,
            )
    except FFmpegError:
        return None


class _Nameless:
    def __init__(self, file: BinaryIO) -> None:
        self.read, self.seek, self.tell = file.read, file.seek, file.tell


def _container(name: str, brand: bytes, file: BinaryIO) -> str:
    if name.startswith("mov,"):
        return "mov" if brand == b"qt  " else "mp4"
    if name.startswith("matroska"):
        file.seek(0)
        return "webm" if b"webm" in file.read(64) else "matroska"
    return name


def _boxes_of(file: BinaryIO, size: int) -> tuple[bytes, list[bytes], bool]:
    """The major brand of an MP4 or MOV, the kinds of its boxes in order, and whether an edit list has an effect."""
    brand, order, edited = b"", [], False
    for kind, start, end in _boxes(file, 0, size):
        order.append(kind)
        if kind == b"ftyp":
            file.seek(start)
            brand = file.read(4)
        elif kind == b"moov":
            edited = any(_edits(file, at) for at in _edit_lists(file, start, end))
    return brand, order, edited


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box, and the start and end of its content."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack_from(">I4s", head)
        header = 8
        if size == 1 and len(head) == 16:
            (size,), header = struct.unpack_from(">Q", head, 8), 16
        elif size == 0:
            size = end - start
        if size < header:
            return
        yield kind, start + header, min(start + size, end)
        start += size


def _edit_lists(file: BinaryIO, start: int, end: int) -> Iterator[int]:
    for kind, at, to in _boxes(file, start, end):
        if kind in _INSIDE:
            yield from _edit_lists(file, at, to)
        elif kind == b"elst":
            yield at


def _edits(file: BinaryIO, at: int) -> bool:
    """Whether the list has an effect: a single entry that starts at media time 0 has none."""
    file.seek(at)
    data = file.read(28).ljust(28, b"\0")
    count = struct.unpack_from(">I", data, 4)[0]
    media_time: int = struct.unpack_from(">Qq" if data[0] == 1 else ">Ii", data, 8)[1]
    return count > 1 or (count == 1 and media_time != 0)
