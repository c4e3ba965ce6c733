"""Reads the length of an MP4 or MOV from its movie header (`mvhd`), without decoding."""

from __future__ import annotations

import struct


def mp4_seconds(head: bytes) -> float | None:
    """The length in the movie header, in seconds; None if the header is not within `head`, the first bytes of the file."""
    at = head.find(b"mvhd")
    return None if at < 0 else movie_seconds(head[at + 4 : at + 36])


def movie_seconds(mvhd: bytes) -> float | None:
    """The length in the content of an `mvhd` box, in seconds; None if the content is truncated or has no time scale."""
    if len(mvhd) < 32:
        return None
    layout, at = (">IQ", 20) if mvhd[0] == 1 else (">II", 12)  # version 1 has 64-bit times
    scale, length = struct.unpack_from(layout, mvhd, at)
    return float(length) / scale if scale else None
