"""The `<platform>/post` stages: carrying a variant to published, exactly once, through the ledger of posts.

Each platform's protocol belongs to its adapter.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from phantoms_dagster.domain.errors import NotYet, Permanent, Rejected
from phantoms_dagster.domain.models import ApprovalOutput, Channel, MediaFile, Platform, PostOutput, VariantOutput
from phantoms_dagster.domain.ports import Clock, MediaStore, PostJournal, PublishedPost, Publisher, PublishJob
from phantoms_dagster.domain.stages import BEFORE_COMMIT, PostState
from phantoms_dagster.domain.work import Ledgers, Made, Work


class Publish:
    """Publishes within the channel's hours, one post at a time on each account."""

    def __init__(
        self,
        *,
        publishers: Mapping[Platform, Publisher],
        media: MediaStore,
        ledgers: Ledgers,
        clock: Clock,
        privacy: Mapping[Platform, str],
    ) -> None:
        self._publishers = publishers
        self._media = media
        self._ledgers = ledgers
        self._clock = clock
        self._privacy = privacy
        self._one_at_a_time: defaultdict[tuple[Platform, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __call__(self, work: Work) -> Made:
        """Raises NotYet before its time, and the publisher's errors."""
        platform = work.claim.stage.platform
        assert platform is not None
        channel, brief = work.video.channel, work.video.brief
        account = channel.accounts.get(platform)
        if account is None:
            message = f"channel {channel.name} has no {platform.title} account; add one to channels.yaml and replay"
            raise Permanent(message, provider=str(platform), code="no_account")
        opens = next_opening(channel, max(self._clock.now(), brief.publish_at or self._clock.now()))
        if opens > self._clock.now():
            wait = (opens - self._clock.now()).total_seconds()
            raise NotYet(f"goes out at {opens:%Y-%m-%d %H:%M} UTC", retry_after=wait, until=opens)
        variant = work.claim.output(work.claim.stage.after[0], VariantOutput)
        approval = work.claim.output("approval", ApprovalOutput)
        if variant.content_sha256 != approval.content_sha256:
            raise Permanent("this is not what was approved: approve it again", provider="approval", code="content_changed")
        publisher = self._publishers[platform]
        async with self._one_at_a_time[platform, account]:
            marker = f"{work.video.key}-{platform}"
            journal = await self._ledgers.post(
                work.claim,
                account=account,
                marker=marker,
                video=variant.video,
                caption=variant.caption,
                sandbox=publisher.sandbox,
            )
            job = await self._job(work, account, variant, marker)
            post = await self._published(publisher, job, journal)
        output = PostOutput(
            platform=platform,
            account=account,
            remote_id=post.remote_id,
            url=post.url,
            published_at=post.published_at,
            sandbox=publisher.sandbox,
        )
        return Made(output, provider_ref=post.remote_id, provider=publisher.provider)

    async def _published(self, publisher: Publisher, job: PublishJob, journal: PostJournal) -> PublishedPost:
        if journal.record.state is PostState.FAILED:
            # The handle stays: what it names may still tell the adapter that an earlier try did take effect.
            await journal.save(PostState.INTENT)
        try:
            post = await publisher.publish(job, journal)
        except (Permanent, Rejected):
            # Before the commit point nothing took effect. From there on only the adapter can tell: what is open stays open,
            # and a replay reads it back first.
            if journal.record.state in BEFORE_COMMIT:
                await journal.save(PostState.FAILED)
            raise
        if journal.record.state not in (PostState.PUBLISHED, PostState.CONFIRMED):
            await journal.save(PostState.PUBLISHED, remote_id=post.remote_id, url=post.url)
        if journal.record.state is not PostState.CONFIRMED:
            await journal.save(PostState.CONFIRMED)
        return post

    async def _job(self, work: Work, account: str, variant: VariantOutput, marker: str) -> PublishJob:
        file: MediaFile = variant.video
        return PublishJob(
            video_key=work.video.key,
            platform=variant.platform,
            account=account,
            marker=marker,
            file=await self._media.local(file),
            size=file.size,
            sha256=file.sha256,
            probe=variant.probe,
            title=variant.title,
            caption=variant.caption,
            made_for_kids=work.video.channel.made_for_kids,
            privacy=self._privacy.get(variant.platform, "public"),
        )


def next_opening(channel: Channel, earliest: datetime) -> datetime:
    """The first moment at or after `earliest` within the channel's posting hours, in UTC; local days keep DST right."""
    zone, hours = ZoneInfo(channel.timezone), channel.posting_hours
    local = earliest.astimezone(zone)
    if hours.start <= local.hour < hours.end:
        return earliest
    day = local if local.hour < hours.start else local + timedelta(days=1)
    return day.replace(hour=hours.start, minute=0, second=0, microsecond=0).astimezone(UTC)
