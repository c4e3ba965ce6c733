"""The current token of each account: from the place named in `channels.yaml`, else from the platform's variable."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.wiring.endpoints import Endpoints, current_secret

PLACES_HOLD_SECONDS = 30.0

Places = Mapping[tuple[str, str], str]


class AccountTokens:
    """Implements `ports.Tokens`. `places` returns the places of accounts' own tokens, by platform and account name."""

    def __init__(self, endpoints: Endpoints, places: Callable[[], Awaitable[Places]]) -> None:
        self._endpoints = endpoints
        self._ask = places
        self._places: tuple[float, Places] | None = None

    async def token(self, platform: Platform, account: str) -> str:
        """See the port."""
        if self._endpoints.sandboxed(str(platform)):
            return await self._endpoints.token(platform, account)
        if self._places is None or time.monotonic() - self._places[0] > PLACES_HOLD_SECONDS:
            self._places = (time.monotonic(), await self._ask())
        place = self._places[1].get((str(platform), account))
        if place is None:
            return await self._endpoints.token(platform, account)
        return read(platform, account, place)


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
