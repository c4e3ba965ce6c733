"""Asks a platform who owns an account's token and what it permits, for `phantoms doctor`. It only reads."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity, IdentityReader
from phantoms_dagster.platforms.scopes import Grants, Scope
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.account_tools import account_tools
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.platforms import can


@dataclass(frozen=True)
class TokenFacts:
    """A platform's answer about a token. `missing`: needed permissions that it lacks; None if the platform does not report them.

    `owner` is None if only the permissions could be read; then `missing` explains why.
    """

    owner: AccountIdentity | None
    missing: Sequence[Scope] | None


async def check_token(
    settings: Settings,
    endpoints: Endpoints,
    platform: Platform,
    account: str,
    place: str | None,
    *,
    route: str = "",
    own: bool = False,
) -> TokenFacts:
    """Read the owner and the permissions of an account's token. Raises the errors in the platform's table.

    Posts by a gateway need no token. Then the gateway is asked for the owner, unless `own`: the account has a token, too.
    """
    async with account_tools(settings, endpoints, platform, account, place, route=route) as toolbox:
        if route == GATEWAY and not own:
            return TokenFacts(await cast(IdentityReader, toolbox.make(platform, "gateway")).read(account), ())
        reader = cast(IdentityReader, toolbox.make(platform, "identity"))
        if not can(platform, "grants"):
            return TokenFacts(await reader.read(account), None)
        grants = cast(Grants, toolbox.make(platform, "grants"))
        owner, missing = await asyncio.gather(reader.read(account), grants.missing(account), return_exceptions=True)
    if isinstance(owner, BaseException) and (isinstance(missing, BaseException) or not missing):
        raise owner
    if isinstance(missing, BaseException):
        raise missing
    return TokenFacts(None if isinstance(owner, BaseException) else owner, missing)
