"""Which parts of a script are missing from its master, in words for the reviewer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LABELS = (
    ("script", "removed", "removed from the script"),
    ("voiceover", "unspoken", "shown but not spoken"),
    ("rendered_video", "not_shown", "left out of the picture, because no font has it"),
)


def left_out_of(outputs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The missing parts of one video. `outputs`: its stored stage outputs, by stage."""
    for stage, field, label in _LABELS:
        parts = outputs.get(stage, {}).get(field)
        if parts:
            yield f"{label}: {', '.join(map(str, parts))}"


def left_out(outputs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, tuple[str, ...]]:
    """The missing parts of several videos, by key."""
    return {key: tuple(left_out_of(of)) for key, of in outputs.items()}
