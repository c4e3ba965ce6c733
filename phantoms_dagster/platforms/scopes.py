"""Which permissions (scopes) the owner of a token granted, and what each one is for. Asked by a person's check, never by a post."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Scope:
    """A permission that Phantoms needs. `instead`: wider ones that include it."""

    name: str
    purpose: str
    instead: frozenset[str] = frozenset()

    def in_(self, granted: Collection[str]) -> bool:
        """Whether what was granted includes it."""
        return self.name in granted or not self.instead.isdisjoint(granted)


class Grants(Protocol):
    """Asks one platform what an account's token may do."""

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """The needed permissions that were not granted; None when the platform does not tell. Raises ProviderError."""
