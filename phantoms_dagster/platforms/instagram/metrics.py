"""Reads the metrics of reels from Instagram's media insights.

One metric that a reel does not have fails the whole call. So the six that every reel has are requested together, and each other one
separately. Metrics lag by up to 48 hours and are an empty set until then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import httpx

from phantoms_dagster.domain.errors import NotYet, Permanent, PhantomsError, ProviderError, Throttled
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Metrics, MetricsPage, Tokens
from phantoms_dagster.platforms.instagram.api import GONE, PROVIDER, AppSecret, Graph, no_secret, path
from phantoms_dagster.providers.http import objects

STABLE = ("views", "reach", "likes", "comments", "shares", "saved")
WATCH_TIME = "ig_reels_video_view_total_time"  # milliseconds, of all views together
# Codes that concern the token or the account rather than one post: asking about the next post is useless.
_ACCOUNT_CODES = frozenset({"10", "190", *map(str, range(200, 300))})
Numbers = dict[str, float]


@dataclass
class _Turn:
    """The findings of one round for an account: for each metric, how many reels had it and how many were refused it."""

    without: frozenset[str]
    had: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)

    def unsupported(self) -> frozenset[str]:
        """The metrics that were refused for every reel in this round."""
        return frozenset(metric for metric in self.refused if not self.had[metric])


class InstagramMetricsReader:
    """Implements `ports.MetricsReader` for reels. `at_once`: the number of concurrent posts, each with its own calls."""

    provider = PROVIDER
    platform = Platform("instagram")

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        base_url: str,
        tokens: Tokens,
        clock: Clock,
        sandbox: bool = False,
        version: str = "v26.0",
        app_secret: AppSecret = no_secret,
        at_once: int = 4,
    ) -> None:
        self.sandbox = sandbox
        self._graph = Graph(client=client, base_url=base_url, version=version, tokens=tokens, app_secret=app_secret)
        self._clock = clock
        self._at_once = at_once

    async def pages(self, account: str, remote_ids: Sequence[str], *, without: Collection[str] = ()) -> AsyncIterator[MetricsPage]:
        """See the port. A metric that Instagram does not give (yet) is None.

        A post that fails does not end the round, unless the error concerns the account or no post of a page could be read.
        """
        turn = _Turn(frozenset(without))
        for at in range(0, len(remote_ids), self._at_once):
            batch = remote_ids[at : at + self._at_once]
            # All are awaited before an error is raised, so that no request is left running.
            answers = await asyncio.gather(*(self._one(account, number, turn) for number in batch), return_exceptions=True)
            metrics = tuple(answer for answer in answers if isinstance(answer, Metrics))
            gone = tuple(number for number, answer in zip(batch, answers, strict=True) if answer is None)
            errors = {number: answer for number, answer in zip(batch, answers, strict=True) if isinstance(answer, BaseException)}
            outcome = next((error for error in errors.values() if _ends_the_turn(error)), None)
            if outcome is None and errors and not (metrics or gone):
                outcome = next(iter(errors.values()))
            failed = {} if outcome is not None else {number: str(error) for number, error in errors.items()}
            last = outcome is not None or at + self._at_once >= len(remote_ids)
            yield MetricsPage(metrics, gone, failed, turn.unsupported() if last else frozenset())
            if outcome is not None:
                raise outcome

    async def _one(self, account: str, number: str, turn: _Turn) -> Metrics | None:
        try:
            numbers = await self._stable(account, number, turn)
        except ProviderError as error:
            if error.code in GONE:
                return None
            raise
        try:
            watched = (await self._supported(account, number, WATCH_TIME, turn)).get(WATCH_TIME)
        except PhantomsError:
            # The six metrics were read and are kept. An error of the account appears again with the next post.
            watched = None
        return Metrics(
            remote_id=number,
            views=_count(numbers, "views"),
            likes=_count(numbers, "likes"),
            comments=_count(numbers, "comments"),
            shares=_count(numbers, "shares"),
            watch_seconds=None if watched is None else watched / 1000,
        )

    async def _stable(self, account: str, number: str, turn: _Turn) -> Numbers:
        """The six common metrics.

        They are read one by one if the API no longer supports one, so that it does not hide the others.
        """
        wanted = [metric for metric in STABLE if metric not in turn.without]
        try:
            numbers = await self._insights(account, number, *wanted)
        except Permanent as error:
            if _too_few_viewers(error):
                return {}
            if not _unsupported(error):
                raise
        else:
            turn.had.update(wanted)
            return numbers
        numbers = {}
        for metric in wanted:
            numbers |= await self._supported(account, number, metric, turn)
        return numbers

    async def _supported(self, account: str, number: str, metric: str, turn: _Turn) -> Numbers:
        """One metric; empty when this reel does not have it."""
        if metric in turn.without:
            return {}
        try:
            numbers = await self._insights(account, number, metric)
        except Permanent as error:
            if _too_few_viewers(error):
                return {}
            if not _unsupported(error):
                raise
            turn.refused[metric] += 1
            return {}
        turn.had[metric] += 1
        return numbers

    async def _insights(self, account: str, number: str, *metrics: str) -> Numbers:
        answer = await self._graph.get(account, path(number, "insights"), metric=",".join(metrics))
        numbers: Numbers = {}
        for row in objects(answer, "data"):
            value = _value(row)
            if value is not None:
                numbers[str(row.get("name"))] = value
        return numbers


def _ends_the_turn(error: BaseException) -> bool:
    """Whether an error concerns the account: a full pool, too many calls, a refused token."""
    if isinstance(error, ProviderError):
        code = (error.code or "").split("/")[0]
        return isinstance(error, Throttled) or error.code == "not_connected" or code in _ACCOUNT_CODES
    return isinstance(error, NotYet) or not isinstance(error, PhantomsError)


def _too_few_viewers(error: ProviderError) -> bool:
    """Whether Instagram withholds a metric because too few people saw the reel. The code is that of a missing permission."""
    return error.code is not None and error.code.split("/")[0] == "10" and "enough viewers" in str(error)


def _unsupported(error: ProviderError) -> bool:
    """Whether the API refused a metric (code 100) rather than the token or the post."""
    return error.code is not None and error.code.split("/")[0] == "100" and error.code not in GONE


def _value(row: dict[str, Any]) -> float | None:
    values, total = row.get("values"), row.get("total_value")
    given = values[0].get("value") if values else total.get("value") if isinstance(total, dict) else None
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) else None


def _count(numbers: Numbers, metric: str) -> int | None:
    return int(numbers[metric]) if metric in numbers else None
