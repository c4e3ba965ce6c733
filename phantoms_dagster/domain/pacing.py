"""How waits for pools and breakers are described to people. Each attempt records its own waits."""

from __future__ import annotations

from collections.abc import Mapping

# The sandbox has its own pools. A reader does not need the prefix.
_SANDBOX = "sandbox/"


def describe_waits(paced: Mapping[str, float]) -> str:
    """Describe an attempt's waits, the longest first: `waited 41 s for publish_tiktok`. Empty without waits.

    `paced`: seconds by the name of the pool or breaker.
    """
    longest = sorted(paced.items(), key=lambda wait: -wait[1])
    return ", ".join(f"waited {_span(float(seconds))} for {name.removeprefix(_SANDBOX)}" for name, seconds in longest)


def _span(seconds: float) -> str:
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7_200 else f"{seconds / 3_600:.1f} h"
