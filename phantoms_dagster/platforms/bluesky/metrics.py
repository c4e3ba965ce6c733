"""Reads likes, replies and reposts. Bluesky counts no views."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence

from phantoms_dagster.domain.ports import Metrics, MetricsPage
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.bluesky.api import PLATFORM, PROVIDER, Calls
from phantoms_dagster.providers.http import objects

MAX_IDS = 25


class BlueskyMetricsReader:
    """Implements `ports.MetricsReader`. Both reposts and quotes count as shares."""

    provider = PROVIDER
    platform = PLATFORM

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def pages(
        self,
        account: str,
        remote_ids: Sequence[str],
        *,
        without: Collection[str] = (),  # noqa: ARG002 - every account has all metrics
    ) -> AsyncIterator[MetricsPage]:
        """See the port. A post that is not in the answer is gone."""
        wanted = list(dict.fromkeys(remote_ids))
        for start in range(0, len(wanted), MAX_IDS):
            batch = wanted[start : start + MAX_IDS]
            shown = objects(await self._calls.get(account, "app.bsky.feed.getPosts", uris=batch), "posts")
            found = {metrics.remote_id: metrics for metrics in map(_metrics, shown)}
            yield MetricsPage(tuple(found[uri] for uri in batch if uri in found), tuple(uri for uri in batch if uri not in found))


def _metrics(post: JsonObject) -> Metrics:
    def count(name: str) -> int | None:
        value = post.get(name)
        return value if isinstance(value, int) else None

    reposts, quotes = count("repostCount"), count("quoteCount")
    shares = None if reposts is None and quotes is None else (reposts or 0) + (quotes or 0)
    return Metrics(remote_id=str(post.get("uri")), likes=count("likeCount"), comments=count("replyCount"), shares=shares)
