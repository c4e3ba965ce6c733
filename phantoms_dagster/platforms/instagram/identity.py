"""Reads the owner of an Instagram token."""

from __future__ import annotations

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import AccountIdentity
from phantoms_dagster.platforms.instagram.api import Graph


class InstagramIdentity:
    """Implements `ports.IdentityReader`: the Instagram user of a token."""

    platform = Platform("instagram")

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def read(self, account: str) -> AccountIdentity:
        """See `ports.IdentityReader`."""
        return await self._graph.identity(account, fresh=True)
