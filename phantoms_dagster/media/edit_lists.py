"""Removes the edit lists from an MP4 (ISO/IEC 14496-12) without touching its media: only the index changes, in place.

The result plays like a copy made by ffmpeg with `-use_editlist 0`. `mp4` reads the other boxes.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

# Seconds that an edit list may remove at a sound's start (the codec's priming samples) or at an end. More than that is a real cut.
_CUTS_NOTHING = Fraction(1, 10)
_LARGEST_INDEX = 16 << 20

_Box = tuple[bytes, bytes]  # type and content


class _NotSimple(Exception):
    """The file is not an MP4 with one picture and at most one sound track, or its edit lists do more than align the two."""


@dataclass(frozen=True)
class _Track:
    """`content` is the content of its `trak` box. `lead`: seconds of its media before the beginning of the movie."""

    content: bytes
    timescale: int
    lead: Fraction


def without_edit_lists(path: Path, destination: Path) -> bool:
    """Copy the file without its edit lists. False, with nothing written, when that is not possible. Raises OSError."""
    try:
        start, content = _index(path)
        changed = _unedited(content)
    except (_NotSimple, struct.error, IndexError):
        return False
    shutil.copyfile(path, destination)
    with destination.open("r+b") as file:
        file.seek(start)
        file.write(changed)
    return True


def _index(path: Path) -> tuple[int, bytes]:
    """The position and the content of the file's only `moov`."""
    found = []
    with path.open("rb") as file:
        at, end = 0, path.stat().st_size
        while at + 8 <= end:
            file.seek(at)
            size, kind = struct.unpack(">I4s", file.read(8))
            if size == 1:
                size = struct.unpack(">Q", file.read(8))[0]
            elif kind == b"moov" and 8 <= size <= _LARGEST_INDEX:
                found.append((at + 8, file.read(size - 8)))
            if size < 8:  # 0: to the end of the file
                break
            at += size
    if len(found) != 1:
        raise _NotSimple
    return found[0]


def _unedited(moov: bytes) -> bytes:
    """The content of a `moov` that needs no edit list, of the same size, so that the media stays at its position in the file.

    Without a list a track plays from its first sample. A track that must start later gets a longer first sample.
    """
    boxes = list(_boxes(moov))
    scale = _timescale(_one(moov, b"mvhd"))
    tracks = {n: _track(content, scale) for n, (kind, content) in enumerate(boxes) if kind == b"trak"}
    kinds = sorted(_one(track.content, b"mdia", b"hdlr")[8:12] for track in tracks.values())
    if kinds not in ([b"vide"], [b"soun", b"vide"]) or any(kind == b"mvex" for kind, _ in boxes):
        raise _NotSimple
    longest = max(track.lead for track in tracks.values())
    durations = []
    for n, track in tracks.items():
        held_back = round((longest - track.lead) * track.timescale)
        content, seconds = _without_list(track, held_back, scale)
        boxes[n] = (b"trak", content)
        durations.append(seconds)
    duration = round(max(durations) * scale)
    made = b"".join(_box(kind, _with_duration(content, 16, duration) if kind == b"mvhd" else content) for kind, content in boxes)
    left = len(moov) - len(made)
    if left and left < 8:
        raise _NotSimple
    return made + (_box(b"free", bytes(left - 8)) if left else b"")


def _track(trak: bytes, movie_scale: int) -> _Track:
    scale = _timescale(_one(trak, b"mdia", b"mdhd"))
    edits = _edits(trak)
    if not edits:
        return _Track(trak, scale, Fraction(0))
    pause = Fraction(edits[0][0], movie_scale) if edits[0][1] == -1 else Fraction(0)
    if len(edits) != (2 if pause else 1):
        raise _NotSimple
    shown, first = edits[-1]
    media = _duration(_one(trak, b"mdia", b"mdhd"), 16)
    begin, end = Fraction(first, scale), Fraction(media, scale)
    if first < 0 or (shown and abs(begin + Fraction(shown, movie_scale) - end) > _CUTS_NOTHING):
        raise _NotSimple
    # A picture's first frame may be shown some time after it is decoded. The list may undo that delay, and nothing else.
    if first != _first_offset(trak) and begin > (_CUTS_NOTHING if _one(trak, b"mdia", b"hdlr")[8:12] == b"soun" else 0):
        raise _NotSimple
    return _Track(trak, scale, begin - pause)


def _edits(trak: bytes) -> list[tuple[int, int]]:
    """For each entry of the track's list: its duration in movie time and its start in media time (-1: a pause)."""
    lists = [content for kind, edts in _boxes(trak) if kind == b"edts" for inner, content in _boxes(edts) if inner == b"elst"]
    if not lists:
        return []
    layout = ">Qqhh" if lists[0][0] == 1 else ">Iihh"
    count = struct.unpack_from(">I", lists[0], 4)[0]
    entries = [struct.unpack_from(layout, lists[0], 8 + n * struct.calcsize(layout)) for n in range(min(count, 3))]
    if len(lists) != 1 or any((whole, part) != (1, 0) for _, _, whole, part in entries):
        raise _NotSimple
    return [(duration, at) for duration, at, _, _ in entries]


def _first_offset(trak: bytes) -> int:
    """The delay between decoding and showing the first sample, in media time."""
    table = _one(trak, b"mdia", b"minf", b"stbl")
    offsets = next((content for kind, content in _boxes(table) if kind == b"ctts"), None)
    return 0 if offsets is None else int(struct.unpack_from(">i", offsets, 12)[0])


def _without_list(track: _Track, held_back: int, movie_scale: int) -> tuple[bytes, Fraction]:
    """The content of the `trak` without its edit list, and its length in seconds."""
    length = _duration(_one(track.content, b"mdia", b"mdhd"), 16) + held_back
    seconds = Fraction(length, track.timescale)

    def held(stts: bytes) -> bytes:
        count, samples, each = struct.unpack_from(">III", stts, 4)
        if not held_back:
            return stts
        first = struct.pack(">II", 1, each + held_back)
        rest = struct.pack(">II", samples - 1, each) if samples > 1 else b""
        return stts[:4] + struct.pack(">I", count + (1 if rest else 0)) + first + rest + stts[16:]

    content = b"".join(_box(kind, inner) for kind, inner in _boxes(track.content) if kind != b"edts")
    content = _changed(content, (b"tkhd",), lambda tkhd: _with_duration(tkhd, 20, round(seconds * movie_scale)))
    content = _changed(content, (b"mdia", b"mdhd"), lambda mdhd: _with_duration(mdhd, 16, length))
    return _changed(content, (b"mdia", b"minf", b"stbl", b"stts"), held), seconds


# --- boxes


def _boxes(content: bytes) -> Iterator[_Box]:
    at = 0
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        if size < 8 or at + size > len(content):
            raise _NotSimple
        yield kind, content[at + 8 : at + size]
        at += size


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", len(content) + 8, kind) + content


def _one(content: bytes, *path: bytes) -> bytes:
    """The content of the only box at that path."""
    for name in path:
        found = [inner for kind, inner in _boxes(content) if kind == name]
        if len(found) != 1:
            raise _NotSimple
        content = found[0]
    return content


def _changed(content: bytes, path: tuple[bytes, ...], change: Callable[[bytes], bytes]) -> bytes:
    """The content with the box at that path changed."""
    if not path:
        return change(content)
    name, deeper = path[0], path[1:]
    return b"".join(_box(kind, _changed(inner, deeper, change) if kind == name else inner) for kind, inner in _boxes(content))


# --- times: `mvhd`, `mdhd` and `tkhd` store them in 32 bits, in version 1 in 64; `at` is the duration's offset in version 0


def _timescale(head: bytes) -> int:
    scale: int = struct.unpack_from(">I", head, 20 if head[0] == 1 else 12)[0]
    if scale == 0:
        raise _NotSimple
    return scale


def _duration(head: bytes, at: int) -> int:
    return int(struct.unpack_from(">Q", head, at + 8)[0] if head[0] == 1 else struct.unpack_from(">I", head, at)[0])


def _with_duration(head: bytes, at: int, duration: int) -> bytes:
    layout, at = (">Q", at + 8) if head[0] == 1 else (">I", at)
    return head[:at] + struct.pack(layout, duration) + head[at + struct.calcsize(layout) :]
