"""The `<platform>/post` stages: what is posted, with which words, on which account and when.

How it is posted exactly once is in `publication`, each platform's protocol in its adapter.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from phantoms_dagster.domain.claims import Ledgers, StageResult, StageTask
from phantoms_dagster.domain.errors import NotYet, Permanent
from phantoms_dagster.domain.models import (
    ApprovalOutput,
    Channel,
    MediaFile,
    Platform,
    PostOutput,
    PostWords,
    RenderedVideoOutput,
    ScriptOutput,
    TikTokTerms,
    VariantOutput,
    content_hash,
)
from phantoms_dagster.domain.ports import Clock, MediaStore, Publisher, PublishJob
from phantoms_dagster.domain.trying import turn
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY, choices_of
from phantoms_dagster.production import publication

# A busy account wakes who waits for it; this is for when nobody does. It grows each time it was in vain.
BUSY_SECONDS = 5.0


class Publish:
    """Publishes within the channel's hours, one post at a time on each account."""

    def __init__(
        self,
        *,
        publishers: Mapping[Platform, Publisher],
        media: MediaStore,
        ledgers: Ledgers,
        clock: Clock,
        privacy: Mapping[Platform, str] = DEFAULT_PRIVACY,
        max_wait_seconds: float = 120.0,
    ) -> None:
        self._max_wait_seconds = max_wait_seconds
        self._publishers = publishers
        self._media = media
        self._ledgers = ledgers
        self._clock = clock
        self._privacy = privacy
        self._one_at_a_time: defaultdict[tuple[Platform, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __call__(self, task: StageTask) -> StageResult:
        """Raises NotYet before its time, and the publisher's errors."""
        platform = task.claim.stage.platform
        assert platform is not None
        publisher = self._publishers[platform]
        account = await self._account(task, platform, sandbox=publisher.sandbox)
        await self._may_go(task)
        variant = task.claim.output(task.claim.stage.after[0], VariantOutput)
        words = self._words(task, variant)
        _check_approved(task, variant, words)
        marker = f"{task.video.key}-{platform}"
        journal = await self._ledgers.post(
            task.claim,
            account=account,
            marker=marker,
            video=variant.video,
            caption=words.caption,
            sandbox=publisher.sandbox,
        )
        account = journal.record.account or account
        one_at_a_time = self._one_at_a_time[platform, account]
        if not await turn(one_at_a_time, self._max_wait_seconds):
            raise NotYet(f"other videos are being published on {platform}:{account}", retry_after=BUSY_SECONDS, held=True)
        try:
            job = await self._job(task, account, variant, words, marker)
            post = await publication.publish(publisher, job, journal)
        finally:
            one_at_a_time.release()
        output = PostOutput(
            platform=platform,
            account=account,
            remote_id=post.remote_id,
            url=post.url,
            published_at=post.published_at,
            sandbox=publisher.sandbox,
        )
        return StageResult(output, provider_ref=post.remote_id, provider=publisher.provider)

    async def _account(self, task: StageTask, platform: Platform, *, sandbox: bool) -> str:
        """The channel's account. A post that was begun is finished where it was begun, even if the channel no longer names that
        account: it may be out already. Raises Permanent when there is neither.
        """
        channel = task.video.channel
        account = channel.accounts.get(platform) or await self._ledgers.bound_account(task.claim, sandbox=sandbox)
        if account is None:
            message = f"channel {channel.name} has no {platform.title} account; add one to channels.yaml and replay"
            raise Permanent(message, provider=str(platform), code="no_account")
        return account

    async def _may_go(self, task: StageTask) -> None:
        """Raises NotYet outside the channel's hours. Asked again right before what can make a post public: waits may be long."""
        now = self._clock.now()
        opens = next_opening(task.video.channel, max(now, task.video.brief.publish_at or now))
        if opens > now:
            raise NotYet(f"goes out at {opens:%Y-%m-%d %H:%M} UTC", retry_after=(opens - now).total_seconds(), until=opens)

    def _words(self, task: StageTask, variant: VariantOutput) -> PostWords:
        """What will be sent: the variant's own title and caption, and whatever else was approved with them."""
        approval = task.claim.output("approval", ApprovalOutput)
        approved = next((post for post in approval.words if post.platform is variant.platform), None)
        if approved is None:  # by an older version; `_check_approved` refuses it when others are approved
            privacy = self._privacy.get(variant.platform, DEFAULT_PRIVACY[variant.platform])
            choices = choices_of(task.video.channel, variant.platform)
            return PostWords(
                platform=variant.platform,
                title=variant.title,
                caption=variant.caption,
                privacy=choices.privacy if choices else privacy,
                made_for_kids=task.video.channel.made_for_kids,
                tiktok=TikTokTerms.of(choices) if choices else None,
            )
        return approved.model_copy(update={"title": variant.title, "caption": variant.caption})

    async def _job(self, task: StageTask, account: str, variant: VariantOutput, words: PostWords, marker: str) -> PublishJob:
        file: MediaFile = variant.video

        async def may_go() -> None:
            _check_approved(task, variant, words)
            await self._may_go(task)

        return PublishJob(
            video_key=task.video.key,
            platform=variant.platform,
            account=account,
            marker=marker,
            file=await self._media.local(file),
            size=file.size,
            sha256=file.sha256,
            probe=variant.probe,
            title=words.title,
            caption=words.caption,
            made_for_kids=words.made_for_kids,
            privacy=words.privacy,
            tiktok=words.tiktok,
            may_go=may_go,
        )


def _check_approved(task: StageTask, variant: VariantOutput, words: PostWords) -> None:
    """Raises Permanent unless exactly this film with exactly these words was approved."""
    approval = task.claim.output("approval", ApprovalOutput)
    script = task.claim.output("script", ScriptOutput).script
    master = task.claim.output("rendered_video", RenderedVideoOutput).video
    others = [post for post in approval.words if post.platform is not words.platform]
    content = content_hash(script, master, [*others, words] if approval.words else ())
    if not variant.content_sha256 == content == approval.content_sha256:
        raise Permanent("this is not what was approved: approve it again", provider="approval", code="content_changed")


def next_opening(channel: Channel, earliest: datetime) -> datetime:
    """The first moment at or after `earliest` within the channel's posting hours, in UTC; local days keep DST right."""
    zone, hours = ZoneInfo(channel.timezone), channel.posting_hours
    local = earliest.astimezone(zone)
    if local.hour in hours:
        return earliest
    day = local if local.hour < hours.start else local + timedelta(days=1)
    return day.replace(hour=hours.start, minute=0, second=0, microsecond=0).astimezone(UTC)
