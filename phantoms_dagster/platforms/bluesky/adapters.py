"""Creates the adapters for Bluesky. Each has its own session."""

from __future__ import annotations

from collections.abc import Sequence

from phantoms_dagster.domain.ports import AccountIdentity
from phantoms_dagster.platforms.bluesky.api import PLATFORM, Calls
from phantoms_dagster.platforms.bluesky.metrics import BlueskyMetricsReader
from phantoms_dagster.platforms.bluesky.posts import BlueskyPosts
from phantoms_dagster.platforms.bluesky.publisher import SITE, BlueskyPublisher
from phantoms_dagster.platforms.scopes import Scope
from phantoms_dagster.platforms.tools import Tools

__all__ = ["grants", "identity", "metrics", "post_reader", "post_remover", "publisher"]


def _calls(tools: Tools) -> Calls:
    return Calls(client=tools.client, base_url=tools.base_url, tokens=tools.tokens, clock=tools.clock)


def publisher(tools: Tools) -> BlueskyPublisher:
    """See `platforms.tools`. The sandbox serves the video service and the site under its own address."""
    return BlueskyPublisher(
        _calls(tools),
        video_url=f"{tools.base_url}/video" if tools.sandbox else tools.setting("video_url"),
        clock=tools.clock,
        sandbox=tools.sandbox,
        site=tools.base_url if tools.sandbox else SITE,
        max_wait=tools.max_wait,
    )


def metrics(tools: Tools) -> BlueskyMetricsReader:
    """See `platforms.tools`."""
    return BlueskyMetricsReader(_calls(tools))


def post_reader(tools: Tools) -> BlueskyPosts:
    """See `platforms.tools`."""
    return BlueskyPosts(_calls(tools), site=tools.base_url if tools.sandbox else SITE)


def post_remover(tools: Tools) -> BlueskyPosts:
    """See `platforms.tools`."""
    return post_reader(tools)


def identity(tools: Tools) -> BlueskyIdentity:
    """See `platforms.tools`."""
    return BlueskyIdentity(_calls(tools))


def grants(tools: Tools) -> BlueskyGrants:
    """See `platforms.tools`."""
    return BlueskyGrants(_calls(tools))


class BlueskyIdentity:
    """Reads the owner of an app password. The DID stays the same when the handle changes."""

    platform = PLATFORM

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def read(self, account: str) -> AccountIdentity:
        """See the port."""
        session = await self._calls.session(account)
        return AccountIdentity(session.did, session.handle)


class BlueskyGrants:
    """Every app password may post, so no permission can be missing."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def missing(self, account: str) -> Sequence[Scope] | None:
        """See the port."""
        await self._calls.session(account)
        return ()
