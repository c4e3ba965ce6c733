"""A container of Instagram: its form in the journal, its status, and the account's quota of posts.

`publisher` creates, publishes and gives up containers.
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
MISSING = "MISSING"  # our own status for a container that the API no longer shows


class Container(Value):
    """The handle of a post. `since`: when the container was created, on the platform's clock. The other times are on ours.

    `upload_url`: empty if Instagram fetches the file itself. `sent_at`: when the upload began, or the file's address was sent.
    `published_at`: when `media_publish` was last about to be sent. `doubt`, `doubt_at`: the first status that was read after its
    answer was lost, and when.
    """

    id: str
    upload_url: str
    since: datetime
    sent_at: datetime | None = None
    published_at: datetime | None = None
    doubt: str | None = None
    doubt_at: datetime | None = None

    @property
    def fetched(self) -> bool:
        """Whether Instagram fetches the file itself."""
        return not self.upload_url

    def changed(self, **changes: Any) -> Container:
        """A copy with these fields changed."""
        return self.model_copy(update=changes)


def container_of(record: PostRecord) -> Container:
    """The container in the journal. Raises Permanent when there is none."""
    if not record.handle:
        raise Permanent("the ledger has no container for this post: check the account by hand", provider=PROVIDER, code="no_handle")
    return Container.model_validate(record.handle)


async def read_status(graph: Graph, account: str, container_id: str) -> tuple[str, str]:
    """The container's status_code, or MISSING, and its status text."""
    try:
        answer = await graph.get(account, path(container_id), fields="status_code,status")
    except ProviderError as error:
        if error.code in GONE:
            return MISSING, str(error)
        raise
    return str(answer.get("status_code", "IN_PROGRESS")), str(answer.get("status", ""))


def failed(status: str, text: str, account: str) -> ProviderError:
    """The error for a container that can no longer be published."""
    subcode = re.search(r"\b22070\d\d\b", text)
    kind = subcode_class(int(subcode.group())) if subcode else None
    message = redact(f"Instagram, account {account}: the container is {status}. {text}")
    code = subcode.group() if subcode else status.lower()
    # A restricted account is Barred: another container would not help it.
    if kind is not None and issubclass(kind, Permanent | Rejected):
        return kind(message, provider=PROVIDER, code=code)
    return Transient(message, provider=PROVIDER, code=code)


@dataclass
class _Room:
    """The posts that an account had left when it was asked, minus those sent since."""

    asked_at: datetime
    left: float


@dataclass(frozen=True)
class PostQuota:
    """How many posts the account has used of its `total`, in a window of that many seconds."""

    used: int
    total: int
    seconds: float


async def quota_of(graph: Graph, account: str) -> PostQuota | None:
    """The account's quota of posts; None when Instagram does not say."""
    place = path(await graph.user(account), "content_publishing_limit")
    answer = await graph.get(account, place, fields="quota_usage,config")
    rows: Any = answer.get("data")
    row = rows[0] if isinstance(rows, list) and rows else {}
    used, total = row.get("quota_usage"), row.get("config", {}).get("quota_total")
    if not isinstance(used, int) or not isinstance(total, int):
        return None
    return PostQuota(used, total, row["config"].get("quota_duration", 86_400))


class Quotas:
    """The accounts' quotas of posts. Checking them is optional, because Instagram itself refuses a post beyond the quota.

    So an answer with posts left is reused for a minute, minus the posts sent meanwhile. Only a new answer says that none is left.
    """

    def __init__(self, graph: Graph, clock: Clock) -> None:
        self._graph = graph
        self._clock = clock
        self._rooms: dict[str, _Room] = {}

    async def check(self, account: str) -> None:
        """Raise Throttled when the account's quota is used up.

        The total comes from the API, because its documentation disagrees.
        """
        room = self._rooms.get(account)
        if room is not None and room.left > 0 and self._clock.now() - room.asked_at < QUOTA_HOLDS:
            return
        asked_at = self._clock.now()
        quota = await quota_of(self._graph, account)
        self._rooms[account] = _Room(asked_at, quota.total - quota.used if quota is not None else math.inf)
        if quota is None or quota.used < quota.total:
            return
        # The window slides, so posts become free one by one. The API does not say when.
        wait = quota.seconds / max(quota.total, 1)
        message = f"account {account} has used {quota.used} of {quota.total} posts in 24 hours"
        raise Throttled(message, provider=PROVIDER, code="quota", retry_after=wait)

    def sent(self, account: str) -> None:
        """Count a post that is about to be sent."""
        if (room := self._rooms.get(account)) is not None:
            room.left -= 1
