"""Reads metrics back: all accounts concurrently, each page stored at once, and one result per account."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import NotYet, PhantomsError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import MetricsPage, MetricsReader
from phantoms_dagster.domain.readback import FAILED, GONE_AGAIN, GONE_ONCE, AccountRead, PostReading, PublishedRow, pause_after

log = logging.getLogger(__name__)

Keep = Callable[[Sequence[PostReading]], Awaitable[None]]
Account = tuple[Platform, str]


@dataclass(frozen=True)
class ReadbackResult:
    """The result of one readback, by account."""

    accounts: tuple[AccountRead, ...]

    @property
    def problems(self) -> Mapping[str, str]:
        """The accounts that could not be read, and why."""
        return {a.name: a.problem for a in self.accounts if a.problem is not None}

    @property
    def waits(self) -> Mapping[str, str]:
        """The accounts that were read only in part, and what the rest waits for."""
        return {a.name: a.waits for a in self.accounts if a.waits is not None}

    def joined(self, other: ReadbackResult) -> ReadbackResult:
        """Both results. An account that is in both is one that was read in two ways."""
        by_name = {account.name: account for account in self.accounts}
        for account in other.accounts:
            first = by_name.get(account.name)
            by_name[account.name] = account if first is None else first.joined(account)
        return ReadbackResult(tuple(sorted(by_name.values(), key=lambda a: a.name)))


async def read_back(
    posts: Sequence[PublishedRow],
    readers: Mapping[Platform, MetricsReader],
    keep: Keep,
    unsupported: Mapping[Account, frozenset[str]],
) -> ReadbackResult:
    """Read the metrics of all these posts, all accounts concurrently.

    Each page is passed to `keep` before the next one is requested. An error in one account, even a bug of ours, ends the reading of
    that account only. `unsupported`: the metrics that an account is known not to have. Raises what `keep` raises.
    """
    groups: defaultdict[Account, list[PublishedRow]] = defaultdict(list)
    for post in posts:
        groups[post.platform, post.account].append(post)
    async with asyncio.TaskGroup() as tasks:
        turns = [
            tasks.create_task(_turn(group, readers, keep, unsupported.get(account, frozenset())))
            for account, group in groups.items()
        ]
    return ReadbackResult(tuple(sorted((turn.result() for turn in turns), key=lambda a: a.name)))


async def _turn(
    posts: Sequence[PublishedRow], readers: Mapping[Platform, MetricsReader], keep: Keep, without: frozenset[str]
) -> AccountRead:
    platform, account = posts[0].platform, posts[0].account
    by_id: defaultdict[str, list[PublishedRow]] = defaultdict(list)
    for post in posts:
        by_id[post.remote_id].append(post)
    result = AccountRead(platform, account, asked=len(posts), unsupported=without)
    pages = None
    while True:
        try:
            pages = pages or readers[platform].pages(account, list(by_id), without=without)
            page = await anext(pages)
        except StopAsyncIteration:
            break
        except Exception as error:  # noqa: BLE001 - whatever happens here, the other accounts must still be read
            return _stopped(result, error)
        await keep(_readings(page, by_id))
        result = _counted(result, page)
    if result.failed and not (result.read or result.gone):
        return replace(
            result, problem=f"{counted(len(result.failed), 'post')} failed, the first: {next(iter(result.failed.values()))}"
        )
    return result


def _stopped(result: AccountRead, error: Exception) -> AccountRead:
    """The result of an account whose reading stopped early. A full pool only delays it, unless nothing at all was read."""
    if isinstance(error, NotYet) and result.read:
        return replace(result, waits=str(error))
    if isinstance(error, PhantomsError):
        return replace(result, problem=str(error))
    log.error("the results of %s cannot be read", result.name, exc_info=error)
    return replace(result, problem=f"internal {type(error).__name__}; the log has the trace")


def _readings(page: MetricsPage, by_id: Mapping[str, Sequence[PublishedRow]]) -> list[PostReading]:
    def posts(remote_id: str) -> Sequence[PublishedRow]:
        return by_id.get(remote_id, ())

    found = [PostReading(p.post_id, pause_after(p.age), metrics=m) for m in page.metrics for p in posts(m.remote_id)]
    found += [PostReading(p.post_id, GONE_AGAIN if p.gone else GONE_ONCE, gone=True) for i in page.gone for p in posts(i)]
    found += [PostReading(p.post_id, FAILED, problem=why) for i, why in page.failed.items() for p in posts(i)]
    return found


def _counted(result: AccountRead, page: MetricsPage) -> AccountRead:
    return replace(
        result,
        read=result.read + len(page.metrics),
        views=result.views + sum(m.views or 0 for m in page.metrics),
        gone=result.gone + len(page.gone),
        failed={**result.failed, **page.failed},
        unsupported=result.unsupported | page.unsupported,
    )
