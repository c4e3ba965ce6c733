"""Asks Instagram ahead of a post how many posts the account has left, whether it is large enough for a trial reel, and how long a
token that nobody can renew still lives. Also says whether Instagram can get the video at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from phantoms_dagster.domain.accounts import EXPIRING_WITHIN
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PublishJob
from phantoms_dagster.domain.preflight import PreflightCheck
from phantoms_dagster.platforms.instagram.api import Graph, path
from phantoms_dagster.platforms.instagram.container import quota_of
from phantoms_dagster.platforms.instagram.grants import inspected
from phantoms_dagster.platforms.instagram.reel import terms_of
from phantoms_dagster.platforms.instagram.source import Way, address_of

# The number that gateways name. Instagram's own pages no longer do, so fewer followers are only worth a note.
TRIAL_FOLLOWERS = 1_000
# When a token of Facebook Login ends, and when the person's consent to the use of their data ends (after 90 days).
_ENDS = ("expires_at", "data_access_expires_at")


class InstagramPreflight:
    """Implements `ports.PreflightReader` with `content_publishing_limit`, whose total is obeyed as returned."""

    platform = Platform("instagram")

    def __init__(self, graph: Graph, clock: Clock, *, upload: Way = "auto", sandbox: bool = False) -> None:
        self._graph = graph
        self._clock = clock
        self._upload: Way = upload
        self._sandbox = sandbox

    async def checks(self, account: str, job: PublishJob | None) -> Sequence[PreflightCheck]:
        """See the port. The quota is the account's, so a post adds nothing to it."""
        if job is not None:
            trial = [await self._trial(account)] if terms_of(job).trial is not None else []
            return [*await self._way(job), *trial]
        return [await self._quota(account), *await self._life(account)]

    async def _quota(self, account: str) -> PreflightCheck:
        quota = await quota_of(self._graph, account)
        if quota is None:
            return PreflightCheck("quota", "note", "Instagram does not say how many posts are left")
        if quota.used >= quota.total:
            found = f"all {quota.total} posts of 24 hours are used"
            fix = "the post waits until one is free: move it, or post less on this account"
            return PreflightCheck("quota", "wrong", found, fix)
        return PreflightCheck("quota", "ok", f"{quota.used} of {quota.total} posts of 24 hours are used")

    async def _life(self, account: str) -> list[PreflightCheck]:
        """When the token ends, if a person has to replace it. Tokens of Instagram Login are renewed.

        Meta renews no token of Facebook Login for a server.
        """
        if self._graph.instagram_login:
            return []
        said = await inspected(self._graph, account)
        given = [value for name in _ENDS if isinstance(value := said.get(name), int) and value > 0]  # 0: never
        if not given:
            return []
        end = datetime.fromtimestamp(min(given), UTC)
        found = f"the token works until {end:%Y-%m-%d %H:%M} UTC"
        if end - self._clock.now() >= EXPIRING_WITHIN:
            return [PreflightCheck("token life", "ok", found)]
        fix = "replace it: Meta renews no tokens of Facebook Login. The token of a system user need not end (docs/accounts.md)"
        return [PreflightCheck("token life", "wrong", found, fix)]

    async def _way(self, job: PublishJob) -> list[PreflightCheck]:
        """Whether Instagram may refuse to take the video's bytes. Raises Permanent if it must fetch the video and cannot."""
        address = await address_of(job, self._upload, self._graph, sandbox=self._sandbox)
        if address is not None or self._upload != "auto" or not self._graph.instagram_login:
            return []
        found = "Instagram may refuse the upload: with Instagram Login only some apps may upload, and it cannot fetch the video"
        fix = "keep the media in an object store with an https address (PHANTOMS_MEDIA_URL), or connect with Facebook Login"
        return [PreflightCheck("upload", "note", found, fix)]

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
