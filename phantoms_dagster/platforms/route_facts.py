"""Which routes onto a platform an account can use, and why.

Only platforms with several routes tell (`route_facts` in `adapters`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class RouteFact:
    """One route. `name`: as `PostTerms.way` has it. `possible`: `perhaps` if only a post shows it.

    `fix`: what makes it possible.
    """

    name: str
    title: str
    possible: Literal["yes", "perhaps", "no"]
    why: str
    fix: str = ""
