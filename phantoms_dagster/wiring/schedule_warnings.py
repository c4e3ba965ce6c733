"""Warnings about a time chosen for a video, for the calendar, the API and the command line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.production.rescheduling import Neighbour, warnings
from phantoms_dagster.production.stages.post import next_opening
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.calendar import Calendar, Scheduled
from phantoms_dagster.wiring.pool_limits import post_limits

_AROUND = timedelta(days=2)


def schedule_warnings(plan: Calendar, settings: Settings, video: Scheduled, channel: Channel, at: datetime) -> list[str]:
    """Sentences about a time that is past or outside the posting hours, a slot that is taken, or a day's quota that is used up."""
    channels = plan.channels()
    now = datetime.now(UTC)
    neighbours = [
        one
        for other in plan.between(max(at, now) - _AROUND, max(at, now) + _AROUND)
        if other.key != video.key and other.channel in channels
        for one in _outings(other, channels[other.channel])
    ]
    return warnings(channel, video.waits, at, now=now, neighbours=neighbours, limits=post_limits(settings))


def _outings(video: Scheduled, channel: Channel) -> list[Neighbour]:
    """Each post of a video with the time at which it is or was published. Failed posts take no slot."""
    found = []
    for one in video.outings:
        time = one.booked_at or video.publish_at
        planned = next_opening(channel, time) if time is not None and one.waits in ("", "repeat") else None
        at, account = one.at or planned, one.account or channel.accounts.get(one.platform)
        if at is not None and account is not None and (one.at is not None or one.state not in ("failed", "rejected")):
            found.append(Neighbour(video.key, video.title, Platform(one.platform), account, at))
    return found
