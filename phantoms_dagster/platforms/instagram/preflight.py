"""Asks Instagram ahead of a post how many posts the account has left, and whether it is large enough for a trial reel."""

from __future__ import annotations

from collections.abc import Sequence

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PublishJob
from phantoms_dagster.domain.preflight import PreflightCheck
from phantoms_dagster.platforms.instagram.api import Graph, path
from phantoms_dagster.platforms.instagram.container import quota_of
from phantoms_dagster.platforms.instagram.reel import terms_of

# The number that gateways name. Instagram's own pages no longer do, so fewer followers are only worth a note.
TRIAL_FOLLOWERS = 1_000


class InstagramPreflight:
    """Implements `ports.PreflightReader` with `content_publishing_limit`, whose total is obeyed as returned."""

    platform = Platform("instagram")

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def checks(self, account: str, job: PublishJob | None) -> Sequence[PreflightCheck]:
        """See the port. The quota is the account's, so a post adds nothing to it."""
        if job is not None:
            return [await self._trial(account)] if terms_of(job).trial is not None else []
        quota = await quota_of(self._graph, account)
        if quota is None:
            return [PreflightCheck("quota", "note", "Instagram does not say how many posts are left")]
        if quota.used >= quota.total:
            found = f"all {quota.total} posts of 24 hours are used"
            fix = "the post waits until one is free: move it, or post less on this account"
            return [PreflightCheck("quota", "wrong", found, fix)]
        return [PreflightCheck("quota", "ok", f"{quota.used} of {quota.total} posts of 24 hours are used")]

    async def _trial(self, account: str) -> PreflightCheck:
        """Whether the account may post trial reels, as far as its followers tell."""
        answer = await self._graph.get(account, path(await self._graph.user(account)), fields="followers_count")
        count = answer.get("followers_count")
        if not isinstance(count, int):
            return PreflightCheck("trial reel", "note", "Instagram does not say how many followers the account has")
        if count >= TRIAL_FOLLOWERS:
            return PreflightCheck("trial reel", "ok", f"the account has {count:,} followers")
        found = f"the account has {count:,} followers; trial reels are known for accounts with {TRIAL_FOLLOWERS:,} or more"
        return PreflightCheck(
            "trial reel", "note", found, "if Instagram refuses it, leave `trial` out of the channel's `instagram`"
        )
