"""What a platform's adapters are made with.

A platform's module `adapters` has the functions `publisher(tools)` and, as far as the platform can do it, `metrics(tools)`,
`identity(tools)`, `grants(tools)` and `late_ids(tools)`: the ports of the same names. They make objects and send nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from phantoms_dagster.domain.ports import Clock, Tokens


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What adapters work with.

    `client` is behind the fleet's breakers and pools. `sandbox`: the stand-in answers at `base_url`. `setting`: the value of one of
    the platform's settings, by its short name. `secret`: the same for a secret, as its file has it at that moment; None in the
    sandbox. `max_wait`: the longest wait inside a call, in seconds. `folder`: the data directory.
    """

    client: httpx.AsyncClient
    base_url: str
    tokens: Tokens
    clock: Clock
    sandbox: bool
    max_wait: float
    setting: Callable[[str], Any]
    secret: Callable[[str], str | None]
    folder: Path
