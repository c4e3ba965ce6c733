"""Checks a post that a person has found at the platform, before the ledger believes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import IdentityReader, PostReader, PostStanding

# Between the platform's clock and ours.
CLOCK_MARGIN = timedelta(hours=1)


@dataclass(frozen=True)
class ClaimedPost:
    """A post that a person says is there. `reference`: see `domain.reconciliation.post_reference`."""

    key: str
    platform: Platform
    account: str
    reference: str
    attempted_at: datetime | None


async def check_claim(
    claimed: ClaimedPost, readers: Mapping[Platform, PostReader], identities: Mapping[Platform, IdentityReader], now: datetime
) -> PostStanding | None:
    """Read the post: it must be public, on the right account, and from the right time. None when the platform cannot be read.

    Raises InvalidInput when the platform shows something else, and the platform's errors.
    """
    if claimed.platform not in readers:
        return None
    title = claimed.platform.title
    [standing] = await readers[claimed.platform].look(claimed.account, [claimed.reference])
    if standing.state != "public":
        raise InvalidInput(
            f"{title} does not show {claimed.reference} as a public post of account {claimed.account}: it is {standing.state} "
            f"({standing.evidence}). If you have seen it there yourself, say so: with --unread, or with the box of the form"
        )
    if standing.owner is not None and claimed.platform in identities:
        owner = await identities[claimed.platform].read(claimed.account)
        if owner.subject != standing.owner:
            raise InvalidInput(f"{claimed.reference} belongs to {standing.owner}, but account {claimed.account} is {owner.subject}")
    at, sent = standing.published_at, claimed.attempted_at
    if at is not None and sent is not None and not sent - CLOCK_MARGIN <= at <= now + CLOCK_MARGIN:
        raise InvalidInput(
            f"{claimed.reference} is from {at:%Y-%m-%d %H:%M} UTC, but {claimed.key} was first sent at {sent:%Y-%m-%d %H:%M} UTC"
        )
    return standing
