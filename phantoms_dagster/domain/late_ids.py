"""Posts that were published before the platform gave them a public id, and when they are asked for.

TikTok names the number of a post only after moderation. Until it is known, the post has no address of its own and no metrics.
Asking is spread over a week with growing gaps; after that the post stays as it is, published and without numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.values import JsonObject

# Ages of a post at which it is asked for: 1, 5 and 15 minutes, each hour for two days, then each day for a week.
_MINUTES = (1, 5, 15)
_HOURS = range(1, 49)
_DAYS = range(3, 8)
AGES: tuple[timedelta, ...] = (
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


def next_ask(published_at: datetime, now: datetime) -> datetime | None:
    """When to ask next; None when the post is too old to go on asking. Only its age counts: an outage makes no backlog."""
    return next((published_at + age for age in AGES if published_at + age > now), None)
