"""Routes: which pool a request counts against."""

from __future__ import annotations

from typing import NamedTuple


class Route(NamedTuple):
    """Matches requests by method (None: any) and by URL without the query, against the pattern `url`.

    `cost` is in units of the pool's daily quota. `integration` names a separate breaker, for a part of a service that can fail on
    its own. The first route that matches decides, so the last route of a service must match every request.
    """

    method: str | None
    url: str
    pool: str
    cost: int = 1
    integration: str | None = None
