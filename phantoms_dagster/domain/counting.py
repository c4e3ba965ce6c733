"""Counts with a noun: `1 video`, `3 videos`. All texts for people use it."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """Return `1 video` or `3 videos`. `many` is the plural when it is not `one` plus s, such as `replies` or `videos wait`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
