"""How long the stand-ins take to process a video: almost no time, or as long as the real services.

After `POST /_sandbox/config` with `{"processing": "realistic"}`, each wait is drawn from the ranges below. It is always the same
for the same seed and video. A specific setting (`youtube.processing_seconds`: 30) takes precedence; `null` removes it.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from types import MappingProxyType

from phantoms_dagster.registry.integrations import INTEGRATIONS
from phantoms_dagster.sandbox.core import Sandbox

# The shortest and the longest wait in seconds. Short waits are more common, as with the real services.
REALISTIC: Mapping[str, tuple[float, float]] = MappingProxyType(
    {f"{spec.name}.{name}": pace[1] for spec in INTEGRATIONS.values() for name, pace in spec.paces.items()}
)
QUICK: Mapping[str, float] = MappingProxyType(
    {f"{spec.name}.{name}": pace[0] for spec in INTEGRATIONS.values() for name, pace in spec.paces.items()}
)


def wait_seconds(sandbox: Sandbox, name: str, key: str) -> float:
    """The length of a wait in seconds. `name`: which wait, one of those above. `key`: what is waited for."""
    given = sandbox.setting(name, None)
    if given is not None:
        return float(given)
    if sandbox.setting("processing", "quick") != "realistic":
        return QUICK[name]
    shortest, longest = REALISTIC[name]
    chance = random.Random(f"{sandbox.seed}:{name}:{key}").random()
    return shortest * math.pow(longest / shortest, chance)
