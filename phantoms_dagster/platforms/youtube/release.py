"""Videos that YouTube makes public by its own clock (`publishAt`), and videos that do not become public although they should."""

from __future__ import annotations

from datetime import datetime, timedelta

from phantoms_dagster.domain.errors import NotYet, Rejected
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.youtube.api import PROVIDER, part, text

LOOK_AFTER = timedelta(seconds=30)  # between YouTube's time and our look at the video
RELEASE_LATE = timedelta(minutes=30)  # then a person must find out why YouTube did not make it public
STUCK = timedelta(days=1)  # the longest processing that is waited for without telling a person


def scheduled_for(video: JsonObject) -> datetime | None:
    """When YouTube will make the private video public; None if it will not."""
    at = text(part(video, "status"), "publishAt")
    return None if at is None else datetime.fromisoformat(at)


def waits(video_id: str, at: datetime, now: datetime) -> NotYet:
    """The wait for YouTube's clock. The video is never made public by us meanwhile."""
    look = max(at, now) + LOOK_AFTER
    message = f"YouTube makes video {video_id} public at {at:%Y-%m-%d %H:%M} UTC"
    return NotYet(message, retry_after=(look - now).total_seconds(), until=look)


def not_released(video_id: str, at: datetime) -> Rejected:
    """The error for a video that is still private long after its time."""
    message = (
        f"YouTube has not made video {video_id} public at its time, {at:%Y-%m-%d %H:%M} UTC. Check it in YouTube Studio and make "
        "it public there, then replay; the video is not uploaded again"
    )
    return Rejected(message, provider=PROVIDER, code="notReleased")


def stuck(video_id: str) -> Rejected:
    """The error for a video that YouTube has been processing for more than a day."""
    message = (
        f"YouTube has not finished processing video {video_id} in a day. Check it in YouTube Studio, then replay; the video is not "
        "uploaded again"
    )
    return Rejected(message, provider=PROVIDER, code="processingStuck")


def locked(video_id: str, wanted: str, shown: str | None) -> Rejected:
    """The error for a video that has another privacy than was requested."""
    message = (
        f"YouTube keeps video {video_id} {shown or 'hidden'} although {wanted} was requested. Check it in YouTube Studio: "
        "the account or a policy may restrict it, and so may the lock of uploads made before 2026-11-02. Set it to "
        f"{wanted} there, or lift the restriction, then replay; the video is not uploaded again"
    )
    return Rejected(message, provider=PROVIDER, code="lockedPrivate")
