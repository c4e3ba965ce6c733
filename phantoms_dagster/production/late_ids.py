"""Public ids that come late: asking for those that are due, and writing them down. When they are due: `domain.late_ids`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.late_ids import LatePost, next_ask
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, FoundPost, LateIds

# A third of the 30 status calls a minute of one token: the rest is for posts that are on their way.
MOST_AT_ONCE = 10
AFTER_A_FAILURE = timedelta(minutes=15)


class LatePosts(Protocol):
    """The ledger, as far as late ids go."""

    def due(self, *, sandbox: bool, most: int) -> Sequence[LatePost]:
        """Posts to be asked for now; at most so many of each account, those that wait longest first."""
        ...

    def found(self, post: LatePost, public: FoundPost) -> None:
        """Write the id and the address down, wherever the post's are kept."""
        ...

    def ask_again(self, post: LatePost, at: datetime | None) -> None:
        """Ask again then; None: never again."""
        ...


@dataclass
class Round:
    """What one round found. `failures`: why an account could not be asked, by `platform:account`."""

    found: list[LatePost] = field(default_factory=list)
    waiting: int = 0
    given_up: list[LatePost] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)


async def find_late_ids(posts: LatePosts, finders: Mapping[Platform, LateIds], clock: Clock, *, sandbox: bool) -> Round:
    """Ask for every post that is due, all accounts at once; one account's trouble does not hold up the others."""
    groups: defaultdict[tuple[Platform, str], list[LatePost]] = defaultdict(list)
    for post in posts.due(sandbox=sandbox, most=MOST_AT_ONCE):
        groups[post.platform, post.account].append(post)
    done = Round()
    async with asyncio.TaskGroup() as tasks:
        for (platform, _), group in groups.items():
            tasks.create_task(_ask(posts, finders[platform], clock, group, done))
    return done


async def _ask(posts: LatePosts, finder: LateIds, clock: Clock, group: Sequence[LatePost], done: Round) -> None:
    for post in group:
        again = next_ask(post.published_at, clock.now())
        try:
            public = await finder.public_id(post.account, post.handle, last=again is None)
        except PhantomsError as error:
            # Nothing was learned, so nothing is given up: an account that is away for a week is asked when it is back.
            posts.ask_again(post, clock.now() + AFTER_A_FAILURE)
            done.failures[f"{post.platform}:{post.account}"] = str(error)
            return
        if public is not None:
            posts.found(post, public)
            done.found.append(post)
        elif again is None:
            posts.ask_again(post, None)
            done.given_up.append(post)
        else:
            posts.ask_again(post, again)
            done.waiting += 1
