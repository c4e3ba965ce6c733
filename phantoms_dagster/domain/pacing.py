"""What people are told of waits for pools and breakers. Who waits and for how long is recorded with each attempt."""

from __future__ import annotations

from collections.abc import Mapping

# The sandbox has pools of its own; which one is meant does not matter to who reads what a video waited for.
_SANDBOX = "sandbox/"


def waited(paced: Mapping[str, float]) -> str:
    """The waits of an attempt, the longest first: `waited 41 s for publish_tiktok`; empty without any. In seconds, by name."""
    longest = sorted(paced.items(), key=lambda wait: -wait[1])
    return ", ".join(f"waited {_span(float(seconds))} for {name.removeprefix(_SANDBOX)}" for name, seconds in longest)


def _span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"
