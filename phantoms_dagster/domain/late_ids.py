"""Posts that were published before the platform gave them a public id, and when to look that id up.

TikTok assigns a post's id only after moderation. Until then the post has no URL and no metrics. The look-ups are spread over a week
with growing gaps. After that the post stays published but never gets metrics.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.values import JsonObject

# Ages of a post at which its id is looked up: 1, 5 and 15 minutes, every hour for two days, then every day up to a week.
_MINUTES = (1, 5, 15)
_HOURS = range(1, 49)
_DAYS = range(3, 8)
LOOKUP_AGES: tuple[timedelta, ...] = (
    *(timedelta(minutes=n) for n in _MINUTES),
    *(timedelta(hours=n) for n in _HOURS),
    *(timedelta(days=n) for n in _DAYS),
)


@dataclass(frozen=True)
class LatePost:
    """A public post without a public id."""

    post_id: int
    video_key: str
    platform: Platform
    account: str
    handle: JsonObject
    published_at: datetime


def next_lookup(published_at: datetime, now: datetime) -> datetime | None:
    """The time of the next look-up; None when the post is too old.

    It depends only on the post's age: an outage leaves no backlog.
    """
    return next((published_at + age for age in LOOKUP_AGES if published_at + age > now), None)
