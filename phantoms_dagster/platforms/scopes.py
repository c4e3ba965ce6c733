"""The permissions (scopes) that Phantoms needs and what each is for. Checked by `phantoms doctor`, never while posting."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Scope:
    """A permission that Phantoms needs. `instead`: wider permissions that include it."""

    name: str
    purpose: str
    instead: frozenset[str] = frozenset()

    def covered_by(self, granted: Collection[str]) -> bool:
        """Whether the granted permissions include it."""
        return self.name in granted or not self.instead.isdisjoint(granted)


class Grants(Protocol):
    """Reads which permissions an account's token lacks on one platform."""

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """The needed permissions that were not granted; None if the platform does not report them. Raises ProviderError."""
