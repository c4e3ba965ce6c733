"""Looks up public ids that platforms assign late, and saves them. `domain.late_ids` decides when a look-up is due."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.late_ids import LatePost, next_lookup
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, FoundPost, LateIds

# A third of the 30 status calls a minute that one token has. The rest is for posts in progress.
MOST_AT_ONCE = 10
AFTER_A_FAILURE = timedelta(minutes=15)


class LatePosts(Protocol):
    """The ledger, as late ids use it."""

    def due(self, *, sandbox: bool, most: int) -> Sequence[LatePost]:
        """Posts whose id must be looked up now, at most `most` per account, the longest waiting first."""
        ...

    def save(self, post: LatePost, public: FoundPost) -> None:
        """Save the id and the URL everywhere the post's are stored."""
        ...

    def schedule(self, post: LatePost, at: datetime | None) -> None:
        """Set the time of the next look-up; None: no more look-ups."""
        ...


@dataclass
class LookupRound:
    """The result of one round of look-ups. `failures`: why an account could not be asked, by `platform:account`."""

    found: list[LatePost] = field(default_factory=list)
    waiting: int = 0
    given_up: list[LatePost] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


async def find_late_ids(
    posts: LatePosts, finders: Mapping[Platform, LateIds], clock: Clock, done: LookupRound, *, sandbox: bool
) -> None:
    """Look up every post that is due and add the results to `done`.

    Accounts run concurrently, and a failing account does not hold up the others.
    """
    groups: defaultdict[tuple[Platform, str], list[LatePost]] = defaultdict(list)
    for post in posts.due(sandbox=sandbox, most=MOST_AT_ONCE):
        groups[post.platform, post.account].append(post)
    async with asyncio.TaskGroup() as tasks:
        for (platform, _), group in groups.items():
            tasks.create_task(_ask(posts, finders[platform], clock, group, done))


async def _ask(posts: LatePosts, finder: LateIds, clock: Clock, group: Sequence[LatePost], done: LookupRound) -> None:
    for post in group:
        again = next_lookup(post.published_at, clock.now())
        try:
            public = await finder.public_id(post.account, post.handle, last=again is None)
        except PhantomsError as error:
            # The look-up failed, so it does not count as the last one. Even after a week of failures, another one follows.
            posts.schedule(post, clock.now() + AFTER_A_FAILURE)
            done.failures[f"{post.platform}:{post.account}"] = str(error)
            return
        if public is not None:
            posts.save(post, public)
            done.found.append(post)
        elif again is None:
            posts.schedule(post, None)
            done.given_up.append(post)
        else:
            posts.schedule(post, again)
            done.waiting += 1
