"""A container of Instagram: how the journal keeps it, how it is doing, and whether the account may publish another.

When it is made, published or given up belongs in `instagram`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from phantoms_dagster.domain.errors import Permanent, ProviderError, Rejected, Throttled, Transient
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.domain.publication import PostRecord
from phantoms_dagster.domain.values import Value
from phantoms_dagster.platforms.instagram.api import GONE, PROVIDER, Graph, path, subcode_class
from phantoms_dagster.providers.redaction import redact

QUOTA_HOLDS = timedelta(seconds=60)
MISSING = "MISSING"  # our word for a container that the API no longer shows


class Container(Value):
    """The handle of a post. `since` is when it was opened, by the platform's own clock; the rest by ours.

    `sent_at`: the upload began. `published_at`: `media_publish` was sent at least once. `doubt`, `doubt_at`: the status that
    was read first after its answer was lost.
    """

    id: str
    upload_url: str
    since: datetime
    sent_at: datetime | None = None
    published_at: datetime | None = None
    doubt: str | None = None
    doubt_at: datetime | None = None

    def but(self, **changes: Any) -> Container:
        """The same container with these fields changed."""
        return self.model_copy(update=changes)


def container_of(record: PostRecord) -> Container:
    """The container that the journal names. Raises Permanent when it names none."""
    if not record.handle:
        raise Permanent("the ledger names no container for this post: look at the account", provider=PROVIDER, code="no_handle")
    return Container.model_validate(record.handle)


async def read_status(graph: Graph, account: str, container_id: str) -> tuple[str, str]:
    """The container's status_code, or MISSING, and the text that goes with it."""
    try:
        answer = await graph.get(account, path(container_id), fields="status_code,status")
    except ProviderError as error:
        if error.code in GONE:
            return MISSING, str(error)
        raise
    return str(answer.get("status_code", "IN_PROGRESS")), str(answer.get("status", ""))


def failed(status: str, text: str, account: str) -> ProviderError:
    """The error for a container of which nothing can come."""
    subcode = re.search(r"\b22070\d\d\b", text)
    kind = subcode_class(int(subcode.group())) if subcode else None
    message = redact(f"Instagram, account {account}: the container is {status}. {text}")
    code = subcode.group() if subcode else status.lower()
    if kind is Permanent or kind is Rejected:
        return kind(message, provider=PROVIDER, code=code)
    return Transient(message, provider=PROVIDER, code=code)


@dataclass
class _Room:
    """How many posts an account had left when it was asked, less those that were sent since."""

    asked_at: datetime
    left: float


class Quotas:
    """How many posts the accounts have left: a courtesy, since Instagram itself refuses the post that is too many.

    So an answer that leaves room holds for a minute, less what is sent meanwhile. Only a fresh one says that none is left.
    """

    def __init__(self, graph: Graph, clock: Clock) -> None:
        self._graph = graph
        self._clock = clock
        self._rooms: dict[str, _Room] = {}

    async def check(self, account: str) -> None:
        """Raise Throttled when the account's quota is used up. The total is obeyed as told: pages disagree about it."""
        room = self._rooms.get(account)
        if room is not None and room.left > 0 and self._clock.now() - room.asked_at < QUOTA_HOLDS:
            return
        asked_at = self._clock.now()
        place = path(await self._graph.user(account), "content_publishing_limit")
        answer = await self._graph.get(account, place, fields="quota_usage,config")
        rows: Any = answer.get("data")
        row = rows[0] if isinstance(rows, list) and rows else {}
        used, total = row.get("quota_usage"), row.get("config", {}).get("quota_total")
        told = isinstance(used, int) and isinstance(total, int)
        self._rooms[account] = _Room(asked_at, total - used if told else math.inf)
        if not told or used < total:
            return
        # The window slides, so a place comes free every so often; when exactly, the API does not say.
        wait = row["config"].get("quota_duration", 86_400) / max(total, 1)
        raise Throttled(
            f"account {account} has used {used} of {total} posts in 24 hours", provider=PROVIDER, code="quota", retry_after=wait
        )

    def sent(self, account: str) -> None:
        """A post of ours goes out: one less is left."""
        if (room := self._rooms.get(account)) is not None:
            room.left -= 1
