"""Requests with an account's token: one that the platform refuses is replaced once, and the request is sent again.

A refusal of the token means that nothing was done, so even a request that commits may be sent again after it. This is how an
expired token is noticed for certain, because clocks may lie.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import httpx

from phantoms_dagster.domain.errors import Disconnected, Transient
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Tokens
from phantoms_dagster.providers import http


async def authorised(
    tokens: Tokens,
    platform: Platform,
    account: str,
    send: Callable[[str], Awaitable[httpx.Response]],
    refused: Callable[[httpx.Response], bool],
    *,
    repeatable: bool = True,
) -> httpx.Response:
    """The answer to `send(token)`. `refused`: whether the answer says that the token is not accepted.

    `repeatable`: the request's body can be sent again. If not, a refused token is replaced, and Transient makes the caller start
    over.
    An answer that says so is returned as it is when there is no other token. Raises Disconnected when a new token is refused, too.
    """
    token = await tokens.token(platform, account)
    response = await send(token)
    if not refused(response):
        return response
    newer = await tokens.renewed(platform, account, token)
    if newer is None:
        return response
    if not repeatable:
        message = f"the token of {platform.title} account {account} expired during the upload and was replaced"
        raise Transient(message, provider=str(platform), code="token_replaced", evidence=http.evidence(response), retry_after=0.0)
    response = await send(newer)
    if refused(response):
        message = f"{platform.title} does not accept a new token of account {account} either"
        raise Disconnected(message, provider=str(platform), code="new_token_refused", evidence=http.evidence(response))
    return response
