"""Numbers with the thing that they count: `1 video`, `3 videos`. Everything that people read says it by this."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """`1 video`, `3 videos`; `many` is the plural where it is not `one` with an s, such as `replies` or `videos wait`."""
    return f"{number} {one if number == 1 else many or one + 's'}"
