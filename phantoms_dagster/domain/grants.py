"""Grants: what an account's owner has given us (tokens and permissions), and the port to a platform's token endpoints.

`production.token_refresh` decides when a token is renewed. A platform's `oauth` module sends the requests. `store.grants` keeps the
answers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from phantoms_dagster.domain.errors import Disconnected, Permanent

# The source of a token that `phantoms accounts connect` stored, in addition to `env:NAME` and `file:/path`.
STORED = "stored"


class GrantDead(Disconnected):
    """The platform says that the grant itself is no longer valid. Only connecting the account again helps."""


class AppRefused(Permanent):
    """The platform does not accept our app, or its id or secret is not set here. Connecting the account again does not help."""


@dataclass(frozen=True)
class Grant:
    """An answer of a token endpoint. Times are durations from that answer, because the platform's clock may be wrong.

    `refresh_token`: None if the platform sent none; then the stored one stays valid. `refresh_life_seconds`: None if its end is not
    known. `scopes`: None if the answer does not list them. `subject`: the owner, if the answer names it.
    """

    access_token: str = field(repr=False)
    life_seconds: float
    refresh_token: str | None = field(default=None, repr=False)
    refresh_life_seconds: float | None = None
    scopes: tuple[str, ...] | None = None
    subject: str | None = None


@dataclass(frozen=True)
class StoredGrant:
    """The stored tokens of an account. All ages are measured with the database's clock alone.

    `age_seconds`, `left_seconds`: since the access token was received, and until it expires. `connected_seconds`: since a person
    connected the account. `tried_seconds`: since the last refresh began; None if there was none. `held`: a refresh is under way.
    `interrupted`: a refresh with this refresh token began, and its answer was never stored. `dead`: the platform has refused it.
    """

    generation: int
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    subject: str | None
    age_seconds: float
    left_seconds: float
    connected_seconds: float
    tried_seconds: float | None = None
    held: bool = False
    interrupted: bool = False
    dead: bool = False
    reason: str | None = None

    @property
    def credential(self) -> str:
        """The token that gets new ones."""
        return self.refresh_token or self.access_token


@dataclass(frozen=True)
class Consent:
    """Where the owner grants access, and the PKCE verifier that the exchange of the code needs (empty: none)."""

    url: str
    verifier: str = field(default="", repr=False)


class OAuth(Protocol):
    """A platform's authorization and token endpoints."""

    def missing(self, granted: Collection[str]) -> Sequence[str]:
        """The needed permissions that the owner did not grant, each with its purpose."""
        ...

    def consent(self, *, redirect_uri: str, state: str) -> Consent:
        """The page where the owner grants access. Raises InvalidInput when a setting is missing or cannot work."""
        ...

    async def exchange(self, code: str, *, redirect_uri: str, verifier: str) -> Grant:
        """Exchange the code of that page for tokens. Raises ProviderError."""
        ...

    async def renew(self, stored: StoredGrant) -> Grant:
        """Get a new access token. Raises GrantDead when the platform says that the grant is dead, else another ProviderError."""
        ...

    async def revoke(self, stored: StoredGrant) -> bool:
        """Tell the platform that the grant is not used any more. False if it has no way to do that. Raises ProviderError."""
        ...

    def renew_after(self, life_seconds: float) -> float:
        """The age at which an access token with that life is renewed."""
        ...

    def warning(self, grant: Grant) -> str:
        """What a person must know about a new connection; empty if there is nothing."""
        ...

    def why_dead(self, stored: StoredGrant) -> str:
        """A hint about the usual reason for such a death; empty if there is none."""
        ...


def early(life_seconds: float) -> float:
    """Most platforms: renew a token after four fifths of its life."""
    return 0.8 * life_seconds
