"""Reads the current token of each account, from one of three places.

`phantoms accounts connect` stored it, `channels.yaml` names its place, or it is in the platform's variable.
"""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.grants import STORED
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.production.token_refresh import TokenRefresher
from phantoms_dagster.wiring.endpoints import Endpoints, current_secret, variable_of_key

PLACES_HOLD_SECONDS = 30.0

Places = Mapping[tuple[str, str], str]


class AccountTokens:
    """Implements `ports.Tokens`. `places` returns where the tokens of accounts are, by platform and account name.

    `refresher` has the tokens of connected accounts.
    """

    def __init__(
        self, endpoints: Endpoints, places: Callable[[], Awaitable[Places]], refresher: Callable[[], TokenRefresher]
    ) -> None:
        self._endpoints = endpoints
        self._refresher = refresher
        self._ask = places
        self._places: tuple[float, Places] | None = None

    async def token(self, platform: Platform, account: str) -> str:
        """See the port."""
        if self._endpoints.sandboxed(str(platform)):
            return await self._endpoints.token(platform, account)
        place = await self._place(platform, account)
        if place is None:
            return await self._endpoints.token(platform, account)
        return await self._refresher().token(platform, account) if place == STORED else read(platform, account, place)

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        """See the port. A variable or a file may have another token by now, too."""
        if self._endpoints.sandboxed(str(platform)):
            return None
        self._places = None
        if await self._place(platform, account) == STORED:
            return await self._refresher().renewed(platform, account, refused)
        current = await self.token(platform, account)
        return current if current != refused else None

    async def _place(self, platform: Platform, account: str) -> str | None:
        if self._places is None or time.monotonic() - self._places[0] > PLACES_HOLD_SECONDS:
            self._places = (time.monotonic(), await self._ask())
        return self._places[1].get((str(platform), account))


class KeyTokens:
    """Implements `ports.Tokens` with the key of a gateway, which is the same for all accounts."""

    def __init__(self, gateway: str, endpoints: Endpoints) -> None:
        self._gateway = gateway
        self._endpoints = endpoints

    async def token(self, platform: Platform, account: str) -> str:
        """See the port."""
        if found := self._endpoints.key(self._gateway):
            return found
        message = f"{platform.title} account {account} cannot post: {variable_of_key(self._gateway)} is not set"
        raise Permanent(message, provider=self._gateway, code="not_connected")

    async def renewed(self, platform: Platform, account: str, refused: str) -> str | None:
        """See the port. The file of the key may have another one by now."""
        current = await self.token(platform, account)
        return current if current != refused else None


def read(platform: Platform, account: str, place: str) -> str:
    """Read the token at `env:NAME` or `file:/path`. Raises Permanent, whose message never contains the value."""
    kind, _, name = place.partition(":")
    try:
        token = (os.environ.get(name) or "") if kind == "env" else current_secret(Path(name).expanduser())
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not one line of text"
        raise _missing(platform, account, f"the file {name} that channels.yaml names cannot be read: {reason}") from None
    if not token.strip():
        what = f"the variable {name}" if kind == "env" else f"the file {name}"
        raise _missing(platform, account, f"{what} that channels.yaml names is empty or not set")
    return token.strip()


def _missing(platform: Platform, account: str, why: str) -> Permanent:
    message = f"{platform.title} account {account} is not connected: {why}; put the account's token there"
    return Permanent(message, provider=str(platform), code="not_connected")
