"""Which pool a request of a platform falls under, as a platform's rules say it."""

from __future__ import annotations

from typing import NamedTuple


class Route(NamedTuple):
    """Requests of this method (None: any) whose URL, without its query, matches the pattern `url`.

    `cost` counts against daily quotas. `integration` names another breaker, where a part of a service fails by itself. The first
    route that matches decides, so the last one of a platform matches all.
    """

    method: str | None
    url: str
    pool: str
    cost: int = 1
    integration: str | None = None
