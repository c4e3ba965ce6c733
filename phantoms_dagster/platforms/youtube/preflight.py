"""Asks YouTube ahead of a post about the state of the channel."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PublishJob, Tokens
from phantoms_dagster.domain.preflight import PreflightCheck
from phantoms_dagster.platforms.youtube.api import YouTubeCalls, part
from phantoms_dagster.providers.http import objects


class YouTubePreflight:
    """Implements `ports.PreflightReader` with `channels.list`, which costs one unit of quota."""

    platform = Platform("youtube")

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, clock: Clock) -> None:
        self._calls = YouTubeCalls(client, base_url, tokens, clock)

    async def checks(self, account: str, job: PublishJob | None) -> Sequence[PreflightCheck]:
        """See the port. What is read is the channel's, so a post adds nothing to it."""
        if job is not None:
            return []
        listing = await self._calls.get(account, "channels", part="status", mine="true")
        status = part(next(iter(objects(listing, "items")), {}), "status")
        if status.get("isLinked") is False:
            # The documentation of the field in channels.list calls it a prerequisite for uploading videos.
            fix = "log in to youtube.com as the owner and create the channel"
            return [PreflightCheck("channel", "wrong", "the channel has no public identity, so nothing can be uploaded to it", fix)]
        return [PreflightCheck("channel", "ok", "the channel takes uploads")]
