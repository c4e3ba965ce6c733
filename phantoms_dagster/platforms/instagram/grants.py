"""Reads the permissions of a Meta token (documented under `user/permissions` and `debug_token` of the Graph API)."""

from __future__ import annotations

from collections.abc import Sequence

from phantoms_dagster.domain.errors import Permanent
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.instagram.api import Graph, path
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.providers import http

# Codes by which the Graph API says that a request is not supported for this kind of token, or not permitted.
_NOT_TOLD = frozenset({"10", "100", "200", "803", "2500", "404", "400"})

SCOPES = (
    Scope("instagram_basic", "finds the Instagram account and its posts"),
    Scope("instagram_content_publish", "posts reels"),
    Scope("instagram_manage_insights", "reads the numbers of posts"),
    Scope("pages_show_list", "finds the Page that the Instagram account is linked to"),
    Scope("pages_read_engagement", "reads the Page that the Instagram account is linked to"),
)
INSTAGRAM_LOGIN = (
    Scope("instagram_business_basic", "finds the Instagram account and its posts"),
    Scope("instagram_business_content_publish", "posts reels"),
    Scope("instagram_business_manage_insights", "reads the numbers of posts"),
)


class InstagramGrants:
    """Asks `/me/permissions` for a person's token, else `/debug_token`, which also supports Page and Instagram Login tokens."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """See the port."""
        rows = await asked(self._graph, account, path("me", "permissions"))
        if rows is not None:
            granted = {str(row.get("permission")) for row in http.objects(rows, "data") if row.get("status") == "granted"}
        else:
            scopes = (await inspected(self._graph, account)).get("scopes")
            if not isinstance(scopes, list):
                return None
            granted = {str(scope) for scope in scopes}
        needed = INSTAGRAM_LOGIN if any(name.startswith("instagram_business_") for name in granted) else SCOPES
        return [scope for scope in needed if not scope.covered_by(granted)]


async def inspected(graph: Graph, account: str) -> JsonObject:
    """What `debug_token` says about the account's token. Empty if it says nothing.

    Only the token of one of the app's developers may inspect itself.
    """
    told = await asked(graph, account, path("debug_token"), input_token=await graph.token(account))
    data = told.get("data") if told is not None else None
    return data if isinstance(data, dict) else {}


async def asked(graph: Graph, account: str, place: str, **params: str) -> JsonObject | None:
    """The answer to a read; None if it is not supported for this kind of token, or not permitted."""
    try:
        return await graph.get(account, place, **params)
    except Permanent as error:
        if error.code is None or error.code.split("/")[0] not in _NOT_TOLD or "appsecret_proof" in str(error):
            raise
        return None
