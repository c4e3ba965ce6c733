"""Reads how reels stand. A URL has only a short code, which the account's media list translates into the media's id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from phantoms_dagster.domain.errors import ProviderError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.ports import PostStanding
from phantoms_dagster.domain.values import JsonObject
from phantoms_dagster.platforms.instagram.api import GONE, PROVIDER, Graph, moment, path
from phantoms_dagster.platforms.instagram.reel import PAGE, PAGES
from phantoms_dagster.providers.http import objects

FIELDS = "id,permalink,timestamp"


class InstagramPostReader:
    """Implements `ports.PostReader` with one read for each media."""

    provider = PROVIDER
    platform = Platform("instagram")
    tells_more_than_metrics = False

    def __init__(self, graph: Graph) -> None:
        self._graph = graph

    async def look(self, account: str, references: Sequence[str]) -> Sequence[PostStanding]:
        """See the port. Meta leaves the permalink out if the media has copyrighted material or was removed for a violation."""
        return [await self._look(account, reference) for reference in references]

    async def _look(self, account: str, reference: str) -> PostStanding:
        if not reference.isdigit():
            media = await self._with_code(account, reference)
            if media is None:
                return PostStanding(reference, "gone", "the account's media do not contain it")
        else:
            try:
                media = await self._graph.get(account, path(reference), fields=FIELDS)
            except ProviderError as error:
                if error.code not in GONE:
                    raise
                return PostStanding(reference, "gone", f"Instagram answers with error {error.code}")
        number, url, at = str(media.get("id")), media.get("permalink"), moment(media.get("timestamp"))
        if not isinstance(url, str):
            return PostStanding(
                number, "blocked", "the media has no permalink: copyrighted material, or removed for a violation", "", at
            )
        return PostStanding(number, "public", "the media has a permalink", url, at)

    async def _with_code(self, account: str, code: str) -> JsonObject | None:
        """The account's media whose permalink has that short code; None if the newest pages have none."""
        place, cursor = path(await self._graph.user(account), "media"), dict[str, str]()
        for _ in range(PAGES):
            answer = await self._graph.get(account, place, fields=FIELDS, limit=str(PAGE), **cursor)
            page = objects(answer, "data")
            for media in page:
                if str(media.get("permalink") or "").rstrip("/").rsplit("/", 1)[-1] == code:
                    return media
            paging: Any = answer.get("paging")
            after = paging.get("cursors", {}).get("after") if isinstance(paging, dict) and "next" in paging else None
            if not page or after is None:
                return None
            cursor = {"after": after}
        return None
