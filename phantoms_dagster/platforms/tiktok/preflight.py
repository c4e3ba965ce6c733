"""Asks TikTok ahead of a post whether the creator may post now, and whether this post is within the creator's options."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from phantoms_dagster.domain.errors import Permanent, Rejected
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PublishJob, Tokens
from phantoms_dagster.domain.preflight import PreflightCheck
from phantoms_dagster.platforms.tiktok.api import NO_SCOPE, TikTokCalls
from phantoms_dagster.platforms.tiktok.chunks import plan_chunks
from phantoms_dagster.platforms.tiktok.publisher import CREATOR_INFO_PATH
from phantoms_dagster.platforms.tiktok.requests import init_body
from phantoms_dagster.platforms.tiktok.routes import INBOX

EVERYONE = "PUBLIC_TO_EVERYONE"
_CHOOSE = "set `tiktok: {privacy: ...}` of the channel to one that is offered, then approve the video again"


class TikTokPreflight:
    """Implements `ports.PreflightReader` with `creator_info`, of which TikTok allows 20 calls a minute."""

    platform = Platform("tiktok")

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens) -> None:
        self._calls = TikTokCalls(client, base_url, tokens)

    async def checks(self, account: str, job: PublishJob | None) -> Sequence[PreflightCheck]:
        """See the port."""
        if job is not None and job.route == INBOX:
            return []  # the creator chooses in the TikTok app
        try:
            creator = await self._calls.post(account, CREATOR_INFO_PATH)
        except Permanent as error:
            if job is None and error.code in NO_SCOPE:
                said = "the token may not post directly, so only drafts for the inbox are possible"
                return [PreflightCheck("creator", "note", said)]
            raise
        name = f"@{creator.get('creator_username') or account}"
        if job is None:
            options = creator.get("privacy_level_options")
            offered = [str(option) for option in options] if isinstance(options, list) else []
            found = [PreflightCheck("creator", "ok", f"{name} may post now, as {', '.join(offered) or 'nothing'}")]
            if EVERYONE in offered:
                said = "TikTok does not say whether it has audited the app, and an app that is not audited may only post SELF_ONLY"
                found.append(PreflightCheck("audit", "note", said, "docs/accounts.md says what an audit needs"))
            return found
        try:
            init_body(job, creator, plan_chunks(job.size))
        except (Permanent, Rejected) as error:
            fix = _CHOOSE if error.code == "privacy_level_option_mismatch" else "make a shorter video"
            return [PreflightCheck("creator", "wrong", str(error), fix)]
        return [PreflightCheck("creator", "ok", f"{name} may post this video as {job.privacy}")]
