"""Review notices: messages about videos that wait for approval. Decides when one is due and what it says. Pure functions.

Videos that become ready within a short time share one message. Videos that still wait after a set time get one reminder.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from phantoms_dagster.domain.counting import counted
from phantoms_dagster.production.alerts import Message, one_line

SHOWN_VIDEOS = 20


@dataclass(frozen=True)
class WaitingVideo:
    """A video that has waited for a decision since `ready_at`.

    `told_at`: this destination's last message about it; None: none yet.
    """

    id: int
    key: str
    title: str
    channel: str
    publish_at: datetime | None
    ready_at: datetime
    told_at: datetime | None


@dataclass(frozen=True)
class DueNotice:
    """The notice that a destination gets now: videos that are new to it, or a reminder of those that still wait."""

    videos: tuple[WaitingVideo, ...]
    reminder: bool = False


def due(videos: Sequence[WaitingVideo], now: datetime, *, group_for: timedelta, remind: timedelta) -> DueNotice | None:
    """The notice that is due now, or None. `group_for`: how long the first video waits for others.

    `remind` of zero: no reminders.
    """
    new = tuple(video for video in videos if video.told_at is None)
    if new and min(video.ready_at for video in new) <= now - group_for:
        return DueNotice(new)
    told = [(video, video.told_at) for video in videos if video.told_at is not None]
    if remind and told and min(at for _, at in told) <= now - remind:
        return DueNotice(tuple(video for video, _ in told), reminder=True)
    return None


def message(found: DueNotice, desk_url: str) -> Message:
    """The message, with a link to each video's review page at the desk."""
    desk, count = desk_url.rstrip("/"), len(found.videos)
    videos = counted(count, "video")
    if found.reminder:
        title = f"Phantoms: reminder, {videos} still {'waits' if count == 1 else 'wait'} for approval"
        oldest = min(video.ready_at for video in found.videos)
        lines = [f"The oldest has waited since {_time(oldest)}."]
    else:
        title, lines = f"Phantoms: {videos} {'waits' if count == 1 else 'wait'} for approval", []
    for video in found.videos[:SHOWN_VIDEOS]:
        slot = f", goes out {_time(video.publish_at)}" if video.publish_at else ""
        lines += [f"{one_line(video.title)} ({video.channel}){slot}", f"  {desk}/review/{video.key}"]
    if count > SHOWN_VIDEOS:
        lines.append(f"... and {count - SHOWN_VIDEOS} more")
    lines += ["", f"All: {desk}/review"]
    return Message(title, "\n".join(lines), urgent=found.reminder)


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
