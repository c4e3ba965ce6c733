"""Reads the numbers of reels from Instagram's media insights.

Requests and errors of the Graph API belong in `instagram_api`, posting in `instagram`.

A metric that a reel does not have fails the whole call, so the six that every reel has are asked for together and the extra
one by itself. Numbers lag up to 48 hours behind and come as an empty set until then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx

from phantoms_dagster.domain.errors import Permanent, ProviderError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, Metrics, Tokens
from phantoms_dagster.providers.http import objects
from phantoms_dagster.providers.instagram_api import GONE, PROVIDER, Graph, path

STABLE = ("views", "reach", "likes", "comments", "shares", "saved")
WATCH_TIME = "ig_reels_video_view_total_time"  # milliseconds, of all views together
Numbers = dict[str, float]


class InstagramMetricsReader:
    """A `MetricsReader` of reels. `at_once` is the number of posts asked about at the same time (one post a call)."""

    provider = PROVIDER
    platform = Platform.INSTAGRAM

    def __init__(
        self,
        *,
        client: httpx.AsyncClient,
        base_url: str,
        tokens: Tokens,
        clock: Clock,
        sandbox: bool = False,
        version: str = "v26.0",
        at_once: int = 8,
    ) -> None:
        self.sandbox = sandbox
        self._graph = Graph(client=client, base_url=base_url, version=version, tokens=tokens)
        self._clock = clock
        self._at_once = at_once

    async def read(self, account: str, remote_ids: Sequence[str]) -> list[Metrics]:
        """The metrics of those posts, in their order; a number that Instagram does not (yet) give is None."""
        found: list[Metrics] = []
        for at in range(0, len(remote_ids), self._at_once):
            batch = remote_ids[at : at + self._at_once]
            # All are awaited before the first error is raised, so that no request is left running behind it.
            answers = await asyncio.gather(*(self._one(account, number) for number in batch), return_exceptions=True)
            for answer in answers:
                if isinstance(answer, BaseException):
                    raise answer
                if answer is not None:
                    found.append(answer)
        return found

    async def _one(self, account: str, number: str) -> Metrics | None:
        try:
            numbers = await self._stable(account, number)
        except ProviderError as error:
            if error.code in GONE:
                return None
            raise
        watched = (await self._supported(account, number, WATCH_TIME)).get(WATCH_TIME)
        return Metrics(
            remote_id=number,
            views=_count(numbers, "views"),
            likes=_count(numbers, "likes"),
            comments=_count(numbers, "comments"),
            shares=_count(numbers, "shares"),
            watch_seconds=None if watched is None else watched / 1000,
        )

    async def _stable(self, account: str, number: str) -> Numbers:
        """The six; one by one when the API has stopped to know one of them, so that it does not hide the others."""
        try:
            return await self._insights(account, number, *STABLE)
        except Permanent as error:
            if not _unsupported(error):
                raise
        numbers: Numbers = {}
        for metric in STABLE:
            numbers |= await self._supported(account, number, metric)
        return numbers

    async def _supported(self, account: str, number: str, metric: str) -> Numbers:
        """One metric, or nothing when this reel does not have it."""
        try:
            return await self._insights(account, number, metric)
        except Permanent as error:
            if not _unsupported(error):
                raise
            return {}

    async def _insights(self, account: str, number: str, *metrics: str) -> Numbers:
        answer = await self._graph.get(account, path(number, "insights"), metric=",".join(metrics))
        numbers: Numbers = {}
        for row in objects(answer, "data"):
            value = _value(row)
            if value is not None:
                numbers[str(row.get("name"))] = value
        return numbers


def _unsupported(error: ProviderError) -> bool:
    """Whether the API refused a metric (code 100), not the token or the post."""
    return error.code is not None and error.code.split("/")[0] == "100" and error.code not in GONE


def _value(row: dict[str, Any]) -> float | None:
    values, total = row.get("values"), row.get("total_value")
    given = values[0].get("value") if values else total.get("value") if isinstance(total, dict) else None
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) else None


def _count(numbers: Numbers, metric: str) -> int | None:
    return int(numbers[metric]) if metric in numbers else None
