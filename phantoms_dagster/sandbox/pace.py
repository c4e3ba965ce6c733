"""How long the stand-ins take over a video: at once, or as long as the real services.

`POST /_sandbox/config` with `{"processing": "realistic"}` draws each wait from the range below. It is always the same for one seed
and one video. A setting of its own (`youtube.processing_seconds`: 30) goes before both; `null` takes it back.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from types import MappingProxyType

from phantoms_dagster.registry.integrations import INTEGRATIONS
from phantoms_dagster.sandbox.core import Sandbox

# Seconds, shortest and longest. Short waits are the common ones, as with the real services.
REALISTIC: Mapping[str, tuple[float, float]] = MappingProxyType(
    {f"{spec.name}.{name}": pace[1] for spec in INTEGRATIONS.values() for name, pace in spec.paces.items()}
)
QUICK: Mapping[str, float] = MappingProxyType(
    {f"{spec.name}.{name}": pace[0] for spec in INTEGRATIONS.values() for name, pace in spec.paces.items()}
)


def wait_seconds(sandbox: Sandbox, name: str, key: str) -> float:
    """How long that wait lasts for the thing `key`. `name` is one of those above."""
    given = sandbox.setting(name, None)
    if given is not None:
        return float(given)
    if sandbox.setting("processing", "quick") != "realistic":
        return QUICK[name]
    shortest, longest = REALISTIC[name]
    chance = random.Random(f"{sandbox.seed}:{name}:{key}").random()
    return shortest * math.pow(longest / shortest, chance)
