"""The `<platform>/post` stages decide what is posted, with which words, on which account and when.

`publication` makes sure that it is posted exactly once. Each platform's adapter has its protocol.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from zoneinfo import ZoneInfo

from phantoms_dagster.domain.attempt_context import acquire_within
from phantoms_dagster.domain.claims import Ledgers, PostTime, PostTimes, StageResult, StageTask
from phantoms_dagster.domain.errors import NotYet, Permanent, WaitsForPerson
from phantoms_dagster.domain.models import (
    ApprovalOutput,
    Channel,
    MediaFile,
    Platform,
    PostOutput,
    PostWords,
    RenderedVideoOutput,
    ScriptOutput,
    VariantOutput,
    content_hash,
)
from phantoms_dagster.domain.ports import Clock, MediaStore, Publisher, PublishJob
from phantoms_dagster.domain.wording import DEFAULT_PRIVACY, words_with_settings
from phantoms_dagster.production import publication
from phantoms_dagster.registry.channel_keys import GATEWAY

# The first retry time for a busy account. Normally the post that holds the account wakes the waiting ones. If it cannot, the
# retries become less and less frequent.
BUSY_SECONDS = 5.0
OTHER_ROUTE_SECONDS = 600.0
# A platform fetches a file minutes after it was given the address, but a queue at the platform may be longer.
ADDRESS_LASTS = timedelta(hours=6)


class Publish:
    """Publishes within the channel's hours, one post at a time on each account."""

    def __init__(
        self,
        *,
        publishers: Mapping[Platform, Publisher],
        gateways: Mapping[Platform, Publisher] = MappingProxyType({}),
        media: MediaStore,
        ledgers: Ledgers,
        times: PostTimes,
        clock: Clock,
        privacy: Mapping[Platform, str] = DEFAULT_PRIVACY,
        max_wait_seconds: float = 120.0,
    ) -> None:
        self._max_wait_seconds = max_wait_seconds
        self._publishers = publishers
        self._gateways = gateways
        self._media = media
        self._ledgers = ledgers
        self._times = times
        self._clock = clock
        self._privacy = privacy
        self._one_at_a_time: defaultdict[tuple[Platform, str], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __call__(self, task: StageTask) -> StageResult:
        """Raises NotYet before the publish time, and the publisher's errors."""
        platform = task.claim.stage.platform
        assert platform is not None
        variant = task.claim.output(task.claim.stage.after[0], VariantOutput)
        words = self._words(task, variant)
        route = words.terms.way() if words.terms is not None else ""
        publisher = self._publisher(platform, route)
        account = await self._account(task, platform, sandbox=publisher.sandbox)
        time = await self._times.of(task.claim)
        if not time.begun:  # what has begun may be read at any time
            self._check_time(task, time)
        _check_approved(task, variant, words)
        marker = f"{task.video.key}-{platform}"
        journal = await self._ledgers.post(
            task.claim,
            account=account,
            marker=marker,
            video=variant.video,
            caption=words.caption,
            sandbox=publisher.sandbox,
            set_apart=words.terms.set_apart() if words.terms is not None else None,
            route=route,
            extras=words.terms.extras() if words.terms is not None else (),
        )
        publisher = self._begun_publisher(platform, journal.record.route, publisher)
        account = journal.record.account or account
        one_at_a_time = self._one_at_a_time[platform, account]
        if not await acquire_within(one_at_a_time, self._max_wait_seconds):
            raise NotYet(f"other videos are being published on {platform}:{account}", retry_after=BUSY_SECONDS, held=True)
        try:
            job = replace(await self._job(task, account, variant, words, marker), route=journal.record.route)
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

    def _publisher(self, platform: Platform, route: str) -> Publisher:
        return self._gateways[platform] if route == GATEWAY else self._publishers[platform]

    def _begun_publisher(self, platform: Platform, route: str, chosen: Publisher) -> Publisher:
        """The publisher for the route on which the post was begun. Raises NotYet if the sandbox would have to finish it."""
        found = self._publisher(platform, route)
        if found.sandbox != chosen.sandbox:
            message = (
                f"the post was begun on another route to {platform.title}, whose key or token is missing now: give it back "
                "(`phantoms doctor` says where it is missing)"
            )
            raise NotYet(message, retry_after=OTHER_ROUTE_SECONDS)
        return found

    async def _account(self, task: StageTask, platform: Platform, *, sandbox: bool) -> str:
        """The channel's account, or else the account on which this post was started. Raises Permanent when there is neither.

        A started post is finished on its account even if the channel no longer names it, because the post may already be public.
        """
        channel = task.video.channel
        account = channel.accounts.get(platform) or await self._ledgers.bound_account(task.claim, sandbox=sandbox)
        if account is None:
            message = f"channel {channel.name} has no {platform.title} account; add one to channels.yaml and replay"
            raise Permanent(message, provider=str(platform), code="no_account")
        return account

    async def _may_go(self, task: StageTask) -> None:
        """Raise NotYet before the post's time and outside the channel's hours, and WaitsForPerson when a person took it out.

        It is checked again right before each request that can publish, after any waits, so that a post can be moved until then.
        """
        self._check_time(task, await self._times.of(task.claim))

    def _check_time(self, task: StageTask, time: PostTime) -> None:
        if time.waits:
            raise WaitsForPerson(time.waits)
        now = self._clock.now()
        opens = _opens(task, time, now)
        if opens > now and (begins := opens - self._lead(task)) > now:
            raise NotYet(f"goes out at {opens:%Y-%m-%d %H:%M} UTC", retry_after=(begins - now).total_seconds(), until=begins)

    def _lead(self, task: StageTask) -> timedelta:
        """How long before its time the platform may get the post. See `PostTerms`."""
        terms = self._words(task, task.claim.output(task.claim.stage.after[0], VariantOutput)).terms
        return terms.lead() if terms is not None else timedelta(0)

    def _words(self, task: StageTask, variant: VariantOutput) -> PostWords:
        """The words to send: the variant's title and caption, and everything else as approved."""
        approval = task.claim.output("approval", ApprovalOutput)
        approved = next((post for post in approval.words if post.platform is variant.platform), None)
        if approved is None:  # approved in an older version; otherwise `_check_approved` refuses it
            return words_with_settings(
                task.video.channel, variant.platform, self._privacy, title=variant.title, caption=variant.caption
            )
        return approved.model_copy(update={"title": variant.title, "caption": variant.caption})

    async def _job(self, task: StageTask, account: str, variant: VariantOutput, words: PostWords, marker: str) -> PublishJob:
        file: MediaFile = variant.video

        async def may_go() -> None:
            _check_approved(task, variant, words)
            await self._may_go(task)

        async def release_at() -> datetime | None:
            if not self._lead(task):
                return None
            time = await self._times.of(task.claim)
            now = self._clock.now()
            opens = _opens(task, time, now)
            return opens if opens > now else None

        job = publish_job(variant, words, await self._media.local(file), key=task.video.key, account=account, marker=marker)
        return replace(job, may_go=may_go, address=lambda: self._media.public_url(file, ADDRESS_LASTS), release_at=release_at)


def publish_job(variant: VariantOutput, words: PostWords, file: Path, *, key: str, account: str, marker: str) -> PublishJob:
    """What a publisher gets for the post of that variant with those words. `file`: the variant's file on this machine."""
    return PublishJob(
        video_key=key,
        platform=variant.platform,
        account=account,
        marker=marker,
        file=file,
        size=variant.video.size,
        sha256=variant.video.sha256,
        probe=variant.probe,
        title=words.title,
        caption=words.caption,
        made_for_kids=words.made_for_kids,
        privacy=words.privacy,
        terms=words.terms,
    )


def _opens(task: StageTask, time: PostTime, now: datetime) -> datetime:
    """When the post goes out: `now`, or at its time within the channel's hours."""
    return next_opening(task.video.channel, max(now, time.at or now))


def _check_approved(task: StageTask, variant: VariantOutput, words: PostWords) -> None:
    """Raise Permanent unless exactly this master with exactly these words was approved."""
    approval = task.claim.output("approval", ApprovalOutput)
    script = task.claim.output("script", ScriptOutput).script
    master = task.claim.output("rendered_video", RenderedVideoOutput).video
    others = [post for post in approval.words if post.platform is not words.platform]
    content = content_hash(script, master, [*others, words] if approval.words else ())
    if not variant.content_sha256 == content == approval.content_sha256:
        raise Permanent("this is not what was approved: approve it again", provider="approval", code="content_changed")


def next_opening(channel: Channel, earliest: datetime) -> datetime:
    """The first time at or after `earliest` within the channel's posting hours, in UTC. It respects daylight saving time."""
    zone, hours = ZoneInfo(channel.timezone), channel.posting_hours
    local = earliest.astimezone(zone)
    if local.hour in hours:
        return earliest
    day = local if local.hour < hours.start else local + timedelta(days=1)
    return day.replace(hour=hours.start, minute=0, second=0, microsecond=0).astimezone(UTC)
