"""Notices what happened to posts after they were published. It runs after each readback of metrics.

One read that does not show a post is no proof that it is gone. Platforms sometimes forget a post for a while, and a broken token
can look the same. A post is gone only when two reads at least an hour apart did not show it, when a look at this post alone does
not show it either, and when the platform still answers who owns the account. What a platform says in words (private, blocked)
counts at once.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import IdentityReader, PostReader, PostStanding
from phantoms_dagster.domain.post_changes import PostChange, StateAfter
from phantoms_dagster.domain.readback import PostReading, PublishedRow

_log = logging.getLogger(__name__)

# The shortest time between the first read that did not show a post and the one that counts.
GONE_FOR = timedelta(hours=1)


@dataclass(frozen=True)
class NoticedChange:
    """A post and its new state."""

    post: PublishedRow
    change: PostChange


@dataclass
class ChangeRound:
    """The result of one round. `problems`: why an account could not be asked, by `platform:account`."""

    changes: list[NoticedChange] = field(default_factory=list)
    problems: dict[str, str] = field(default_factory=dict)

    def add(self, other: ChangeRound) -> None:
        """Add what another round found."""
        self.changes += other.changes
        self.problems |= other.problems


async def notice_changes(
    posts: Sequence[PublishedRow],
    readings: Sequence[PostReading],
    known: Mapping[int, StateAfter],
    readers: Mapping[Platform, PostReader],
    identities: Mapping[Platform, IdentityReader],
) -> ChangeRound:
    """Compare what the platforms say with what is known.

    `posts`: the posts that were due, as they were before the readback. `readings`: what it showed. `known`: the last recorded state
    of each post, by its id; a post without one is public. An account that fails is skipped and asked again in the next round.
    """
    result = ChangeRound()
    read = {reading.post_id: reading for reading in readings if reading.problem is None}
    groups: defaultdict[tuple[Platform, str], list[PublishedRow]] = defaultdict(list)
    for post in posts:
        if post.post_id in read and post.platform in readers:
            groups[post.platform, post.account].append(post)
    for (platform, account), group in groups.items():
        try:
            result.changes += await _of_account(group, read, known, readers[platform], identities.get(platform))
        except Exception as error:  # noqa: BLE001 - whatever happens here, the other accounts must still be asked
            name = f"{platform}:{account}"
            if not isinstance(error, PhantomsError):
                _log.error("what happened to the posts of %s cannot be read", name, exc_info=error)
            result.problems[name] = str(error) if isinstance(error, PhantomsError) else f"internal {type(error).__name__}"
    return result


async def _of_account(
    posts: Sequence[PublishedRow],
    read: Mapping[int, PostReading],
    known: Mapping[int, StateAfter],
    reader: PostReader,
    identity: IdentityReader | None,
) -> list[NoticedChange]:
    account = posts[0].account
    # Where metrics say nothing about privacy and blocks, all posts are asked about. Elsewhere only those that are missing.
    asked = [post for post in posts if reader.tells_more_than_metrics or _missing_for_long(post, read[post.post_id])]
    standings = await reader.look(account, [post.remote_id for post in asked]) if asked else ()
    found = dict(zip((post.post_id for post in asked), standings, strict=True))
    changes = []
    for post in posts:
        change = _change(post, read[post.post_id], found.get(post.post_id))
        if change is not None and change.state != known.get(post.post_id, "public"):
            changes.append(NoticedChange(post, change))
    if identity is not None and any(one.change.state == "gone" for one in changes):
        await identity.read(account)  # raises when the account itself does not answer
    return changes


def _missing_for_long(post: PublishedRow, reading: PostReading) -> bool:
    return reading.gone and post.gone_for is not None and post.gone_for >= GONE_FOR


def _change(post: PublishedRow, reading: PostReading, standing: PostStanding | None) -> PostChange | None:
    """What the reads say about a post; None when they decide nothing."""
    if standing is None:
        return None if reading.gone else PostChange("public", "its metrics were read")
    if standing.state == "gone" and not _missing_for_long(post, reading):
        return None
    return PostChange(standing.state, standing.evidence)
