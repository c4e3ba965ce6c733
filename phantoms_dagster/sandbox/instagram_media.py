"""What the Instagram stand-in finds wrong with an uploaded file: its size, its container and its length.

Only the MP4 boxes at the top of the file are read; pictures and sound are not decoded. The setting
`instagram.check_media` = false switches the look into the boxes off.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator

from phantoms_dagster.sandbox.mp4 import movie_seconds

UNSUPPORTED_FORMAT = 2_207_026
HEAD_BYTES = 4 << 20
MIN_SECONDS, MAX_SECONDS = 3.0, 900.0


class Upload:
    """An upload as it streams in: its size, its hash, and its first bytes for `fault`."""

    def __init__(self) -> None:
        self.size = 0
        self.head = bytearray()
        self._hash = hashlib.sha256()

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes."""
        self.size += len(chunk)
        self._hash.update(chunk)
        self.head += chunk[: HEAD_BYTES - len(self.head)]

    @property
    def sha256(self) -> str:
        """The hash of everything fed so far, in hex."""
        return self._hash.hexdigest()


def fault(head: bytes) -> int | None:
    """The subcode of what is wrong with the file that begins with `head`, or None: MP4/MOV, moov before mdat, 3 s .. 15 min."""
    boxes = list(_boxes(head))
    kinds = [kind for kind, _ in boxes]
    if not kinds or kinds[0] != b"ftyp" or b"moov" not in kinds:
        return UNSUPPORTED_FORMAT
    if b"mdat" in kinds and kinds.index(b"mdat") < kinds.index(b"moov"):
        return UNSUPPORTED_FORMAT
    seconds = _seconds(boxes[kinds.index(b"moov")][1])
    if seconds is None or not MIN_SECONDS <= seconds <= MAX_SECONDS:
        return UNSUPPORTED_FORMAT
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The kinds and contents of the boxes in `data`, as far as it reaches; the last one's content may be cut."""
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        header = 8
        if size == 1 and at + 16 <= len(data):
            (size,), header = struct.unpack_from(">Q", data, at + 8), 16
        end = len(data) if size == 0 else at + size
        if end < at + header:
            return
        yield kind, data[at + header : end]
        at = end


def _seconds(moov: bytes) -> float | None:
    """The length that the movie header states."""
    for kind, content in _boxes(moov):
        if kind == b"mvhd":
            return movie_seconds(content)
    return None
