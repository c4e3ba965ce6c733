"""What waits for a person, as values. `phantoms status`, alerts and the daily summary all show this list."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Attention:
    """Something that continues only when a person acts.

    - `id` identifies it for as long as it lasts (`review`, `account:tiktok:main`).
    - `what`: one line for people. `next_step`: a command, or where to go.
    - `since`: when the oldest of the `count` items began to wait. `keys`: some of the videos.
    - `alert`: it has waited long enough to send an alert.
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
    """A problem that only Dagster knows about: a scheduled run that failed, or a sensor whose ticks fail."""

    id: str
    what: str
    next_step: str
    since: datetime
