"""Finds a post among the account's public videos, when TikTok does not say by the publish_id how it ended."""

from __future__ import annotations

from datetime import datetime, timedelta

from phantoms_dagster.domain.errors import Barred
from phantoms_dagster.platforms.tiktok.api import NO_SCOPE, TikTokCalls, listed_since, same_video
from phantoms_dagster.platforms.tiktok.chunks import UploadSlot

CLOCK_SKEW = timedelta(minutes=2)


async def only_match(calls: TikTokCalls, account: str, slot: UploadSlot, since: datetime) -> str | None:
    """The id of the only public video since then that has the post's caption and length; None if none or several have."""
    since -= CLOCK_SKEW
    listed = await listed_since(calls, account, since)
    found = [video for video in listed if slot.caption and same_video(video, slot.caption, slot.seconds, since)]
    return str(found[0]["id"]) if len(found) == 1 else None


async def posted_draft(calls: TikTokCalls, account: str, slot: UploadSlot, since: datetime) -> str | None:
    """The id of the video that a draft became, if its creator pasted the caption. `since`: when the creator got it.

    None also for a token that may not list videos, because drafts do not need that permission.
    """
    try:
        return await only_match(calls, account, slot, since)
    except Barred as error:
        if error.code not in NO_SCOPE:
            raise
        return None
