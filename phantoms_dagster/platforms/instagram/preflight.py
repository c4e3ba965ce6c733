"""Asks Instagram ahead of a post how many posts the account has left."""

from __future__ import annotations

from collections.abc import Sequence

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.preflight import PreflightCheck
from phantoms_dagster.platforms.instagram.api import Graph
from phantoms_dagster.platforms.instagram.container import quota_of


class InstagramPreflight:
    """Implements `ports.PreflightReader` with `content_publishing_limit`, whose total is obeyed as returned."""

    platform = Platform("instagram")

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def checks(self, account: str, job: PublishJob | None) -> Sequence[PreflightCheck]:
        """See the port. The quota is the account's, so a post adds nothing to it."""
        if job is not None:
            return []
        quota = await quota_of(self._graph, account)
        if quota is None:
            return [PreflightCheck("quota", "note", "Instagram does not say how many posts are left")]
        if quota.used >= quota.total:
            found = f"all {quota.total} posts of 24 hours are used"
            fix = "the post waits until one is free: move it, or post less on this account"
            return [PreflightCheck("quota", "wrong", found, fix)]
        return [PreflightCheck("quota", "ok", f"{quota.used} of {quota.total} posts of 24 hours are used")]
