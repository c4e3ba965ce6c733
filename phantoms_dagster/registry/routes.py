"""Routes: which pool a request of a platform counts against."""

from __future__ import annotations

from typing import NamedTuple


class Route(NamedTuple):
    """Requests with this method (None: any) whose URL, without its query, matches the pattern `url`.

    `cost` is in units of the pool's daily quota. `integration` names a separate breaker, for a part of a service that can fail on
    its own. The first matching route decides, so the last route of a platform must match every request.
    """

    method: str | None
    url: str
    pool: str
    cost: int = 1
    integration: str | None = None
