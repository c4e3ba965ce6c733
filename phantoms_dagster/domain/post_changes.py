"""What may happen to a post after it was published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

StateAfter: TypeAlias = Literal["public", "private", "blocked", "gone", "taken_down"]
STATES_AFTER: tuple[StateAfter, ...] = ("public", "private", "blocked", "gone", "taken_down")


@dataclass(frozen=True)
class PostChange:
    """A new state of a published post, and the platform's words for it.

    `private`, `blocked` and `gone`: see `ports.PostStanding`. `taken_down`: we deleted it. `public`: it is back.
    """

    state: StateAfter
    evidence: str
