"""What of a script is not in its film as it was written, in words for the person who decides."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LABELS = (
    ("script", "removed", "removed from the script"),
    ("voiceover", "unspoken", "shown but not spoken"),
    ("rendered_video", "not_shown", "left out of the picture, because no font has it"),
)


def left_out_of(outputs: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """Of one video. `outputs`: what its stages made, as stored, by stage."""
    for stage, field, label in _LABELS:
        parts = outputs.get(stage, {}).get(field)
        if parts:
            yield f"{label}: {', '.join(map(str, parts))}"


def left_out(outputs: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, tuple[str, ...]]:
    """The same of several videos, by key."""
    return {key: tuple(left_out_of(of)) for key, of in outputs.items()}
