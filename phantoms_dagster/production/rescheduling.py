"""Warnings for a person who moves a video to another publish time. Pure, so that the page and the command show the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.models import Channel, Platform
from phantoms_dagster.domain.posting_slots import DayLimit, PlannedPost, Quota
from phantoms_dagster.production.stages.post import next_opening


@dataclass(frozen=True)
class Neighbour:
    """Another video's post around that time, published or scheduled."""

    key: str
    title: str
    platform: Platform
    account: str
    at: datetime


def warnings(
    channel: Channel,
    platforms: Sequence[Platform],
    at: datetime,
    *,
    now: datetime,
    neighbours: Sequence[Neighbour],
    limits: Mapping[Platform, Sequence[DayLimit]],
) -> list[str]:
    """What a person should know about publishing on these platforms at `at`. Warnings forbid nothing.

    `neighbours`: posts of other videos. `limits`: by platform.
    """
    zone = ZoneInfo(channel.timezone)
    # Two posts of one account that are closer than this compete for the same viewers.
    distance = timedelta(minutes=channel.min_distance_minutes)
    found = []
    if at <= now:
        found.append("That time is past: it goes out as soon as it is approved, within the channel's posting hours.")
    goes = next_opening(channel, max(now, at))
    if goes > max(now, at):
        hours = channel.posting_hours
        local = goes.astimezone(zone)
        found.append(
            f"The channel posts from {hours.start}:00 to {hours.end}:00: "
            f"it goes out on {local:%a} {local.day} {local:%b} at {local:%H:%M}."
        )
    for platform in platforms:
        account = channel.accounts.get(platform)
        same = [one for one in neighbours if one.platform is platform and one.account == account]
        taken = min((one for one in same if abs(one.at - goes) < distance), key=lambda one: abs(one.at - goes), default=None)
        if taken is not None:
            minutes = round(abs(taken.at - goes) / timedelta(minutes=1))
            found.append(
                f"On {platform.title} that is {counted(minutes, 'minute')} from “{taken.title}”, which goes out at "
                f"{taken.at.astimezone(zone):%H:%M}. The channel wants {channel.min_distance_minutes} between two posts."
            )
        planned = [PlannedPost(one.account, one.at) for one in neighbours if one.platform is platform]
        found += _over(platform, goes, account or "", planned, limits.get(platform, ()))
    return found


def _over(
    platform: Platform, goes: datetime, account: str, planned: Sequence[PlannedPost], limits: Sequence[DayLimit]
) -> list[str]:
    """A warning for each limit that one more post would break."""
    found = []
    for limit in limits:
        count = Quota(limit, account, planned).used_at(goes)
        where = "in 24 hours of this account"
        if limit.zone is not None:
            day = goes.astimezone(ZoneInfo(limit.zone)).date()
            where = f"on {day:%a} {day.day} {day:%b} ({limit.zone})"
        if count >= limit.posts:
            found.append(
                f"{platform.title}'s quota is used up {where}: {count} of {limit.posts} posts. It would wait for the next day."
            )
    return found
