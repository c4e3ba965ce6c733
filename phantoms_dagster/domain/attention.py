"""What waits for a person, as values. The one list that `phantoms status`, alerts and the daily summary show."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Attention:
    """Something that goes on only when a person acts.

    `id` is the same as long as it is the same thing (`review`, `account:tiktok:main`); `what` is one line; `next_step` a command or
    a place; `since` the time from which the oldest of `count` waits; `keys` some of the videos. `alert` says whether it has waited
    long enough for somebody to be told.
    """

    id: str
    what: str
    next_step: str
    since: datetime
    count: int = 1
    keys: tuple[str, ...] = ()
    alert: bool = True


@dataclass(frozen=True)
class Notice:
    """Something that only Dagster knows: a scheduled run that failed, a sensor whose ticks fail."""

    id: str
    what: str
    next_step: str
    since: datetime
