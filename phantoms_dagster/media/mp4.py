"""Reads the boxes of an MP4 or MOV (ISO/IEC 14496-12) for facts that decoders do not report. It decodes and writes nothing."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

_INSIDE = (b"moov", b"trak", b"edts")


@dataclass(frozen=True)
class Boxes:
    """`brand`: the major brand (`isom`, `qt  `), None without one. `edited`: an edit list cuts, delays or repeats."""

    brand: str | None
    moov_first: bool
    edited: bool


def read_boxes(path: Path) -> Boxes:
    """Read the facts. A file that is not an MP4 has no brand, no moov and no edits; a truncated one gives what is there."""
    brand, order, edited = None, [], False
    with path.open("rb") as file:
        for kind, start, end in _boxes(file, 0, path.stat().st_size):
            order.append(kind)
            if kind == b"ftyp":
                file.seek(start)
                brand = file.read(4).decode("latin-1")
            elif kind == b"moov":
                edited = any(_edits(file, at, to) for at, to in _edit_lists(file, start, end))
    moov_first = b"moov" in order and (b"mdat" not in order or order.index(b"moov") < order.index(b"mdat"))
    return Boxes(brand, moov_first, edited)


def _boxes(file: BinaryIO, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The type of each box, and the start and end (exclusive) of its content."""
    while start + 8 <= end:
        file.seek(start)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        content = 8
        if size == 1 and len(head) == 16:
            size, content = struct.unpack(">Q", head[8:])[0], 16
        elif size == 0:
            size = end - start
        if size < content:
            return  # not a box
        yield kind, start + content, min(start + size, end)
        start += size


def _edit_lists(file: BinaryIO, start: int, end: int) -> Iterator[tuple[int, int]]:
    for kind, at, to in _boxes(file, start, end):
        if kind in _INSIDE:
            yield from _edit_lists(file, at, to)
        elif kind == b"elst":
            yield at, to


def _edits(file: BinaryIO, start: int, end: int) -> bool:
    """Whether the list has an effect: a single entry that starts at media time 0 has none. The speed is not checked."""
    file.seek(start)
    data = file.read(min(end - start, 64))
    if len(data) < 8:
        return False
    version, count = data[0], struct.unpack(">I", data[4:8])[0]
    layout = ">Qq" if version == 1 else ">Ii"
    if count == 0 or len(data) < 8 + struct.calcsize(layout):
        return False
    media_time: int = struct.unpack_from(layout, data, 8)[1]
    return count > 1 or media_time != 0
