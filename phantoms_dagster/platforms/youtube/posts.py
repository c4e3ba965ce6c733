"""Reads how videos are: their privacy, whether YouTube rejected them, and where they are blocked. Deletes them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import httpx

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import Clock, PostStanding, Tokens
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.youtube.api import MAX_IDS, PROVIDER, YouTubeCalls, accepted, part, text
from phantoms_dagster.platforms.youtube.metrics import READING_POOL
from phantoms_dagster.platforms.youtube.publisher import watch_url
from phantoms_dagster.providers.http import objects

_DEAD = ("failed", "rejected", "deleted")


class YouTubePosts:
    """Implements `ports.PostReader` and `ports.PostRemover`. A list costs one unit for fifty videos, a deletion fifty units."""

    provider = PROVIDER
    platform = Platform("youtube")
    tells_more_than_metrics = True

    def __init__(self, *, client: httpx.AsyncClient, base_url: str, tokens: Tokens, clock: Clock, sandbox: bool = False) -> None:
        self._calls = YouTubeCalls(client, base_url, tokens, clock)
        self._clock = clock
        self._sandbox = sandbox

    async def look(self, account: str, references: Sequence[str]) -> Sequence[PostStanding]:
        """See the port. YouTube leaves out videos that it does not have."""
        found: dict[str, JsonObject] = {}
        for start in range(0, len(references), MAX_IDS):
            ids = ",".join(references[start : start + MAX_IDS])
            listing = await self._calls.get(account, "videos", pool=READING_POOL, part="snippet,status,contentDetails", id=ids)
            found |= {str(video["id"]): video for video in objects(listing, "items") if "id" in video}
        return [self._standing(number, found.get(number)) for number in references]

    async def remove(self, account: str, remote_id: str) -> str:
        """See the port."""
        url = self._calls.url("youtube/v3/videos")
        response = await self._calls.send(account, "DELETE", url, params={"id": remote_id})
        if response.status_code == 404:
            return "videos.delete answered that there is no such video"
        if response.status_code >= 300:
            accepted(response, self._clock.now())
        return f"videos.delete answered {response.status_code}"

    def _standing(self, number: str, video: JsonObject | None) -> PostStanding:
        if video is None:
            return PostStanding(number, "gone", "videos.list does not contain it")
        snippet, status = part(video, "snippet"), part(video, "status")
        at = text(snippet, "publishedAt")
        state, evidence = "public", f"privacyStatus is {text(status, 'privacyStatus')}"
        upload, privacy = text(status, "uploadStatus"), text(status, "privacyStatus")
        limits = part(part(video, "contentDetails"), "regionRestriction")
        if upload in _DEAD:
            why = text(status, "rejectionReason") or text(status, "failureReason") or "no reason given"
            state, evidence = "blocked", f"uploadStatus is {upload} ({why})"
        elif privacy == "private":
            state = "private"
        elif "allowed" in limits or limits.get("blocked"):
            state, evidence = "blocked", f"regionRestriction is {_regions(limits)}"
        return PostStanding(
            number,
            state,  # type: ignore[arg-type]
            evidence,
            watch_url(self._calls, number, sandbox=self._sandbox),
            None if at is None else datetime.fromisoformat(at),
            text(snippet, "channelId"),
        )


def _regions(limits: JsonObject) -> str:
    """The restriction in one line. An empty list of allowed countries blocks a video everywhere."""
    name = "allowed" if "allowed" in limits else "blocked"
    countries = limits.get(name)
    shown = [str(code) for code in countries] if isinstance(countries, list) else []
    return f"{name}: {', '.join(shown[:10]) or 'nowhere'}{' and more' if len(shown) > 10 else ''}"
