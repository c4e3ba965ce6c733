"""Which pool each request of an integration falls under, so that adapters need not say it.

A table of paths and nothing else; the numbers of the pools stand in `pools`. What a row costs against a daily quota is the
provider's own price list. Reading results has pools and breakers of its own: whatever happens to it, publishing goes on.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from phantoms_dagster.resilience.limits import CallScope

if TYPE_CHECKING:
    import httpx


class Route(NamedTuple):
    """Requests of this method (None: any) whose URL matches. `integration` is another breaker's when it is another's service."""

    method: str | None
    url: re.Pattern[str]
    pool: str
    cost: int = 1
    integration: str | None = None


def _route(method: str | None, url: str, pool: str, cost: int = 1, *, integration: str | None = None) -> Route:
    return Route(method, re.compile(url), pool, cost, integration)


# The first row that matches decides; each integration ends with one that matches all.
ROUTES: dict[str, tuple[Route, ...]] = {
    "openai": (_route(None, r"/audio/", "voiceover"), _route(None, r"", "script")),
    "shotstack": (
        _route(None, r"/edit/", "render"),
        _route(None, r"/serve/", "render_serve"),
        _route(None, r"/ingest/", "render_ingest"),
        # Signed uploads and finished files live in object storage, which may ail while the render API is well.
        _route(None, r"", "transfer", integration="shotstack_files"),
    ),
    "youtube": (
        _route("POST", r"/upload/youtube/v3/videos", "publish_youtube"),
        # determine_quota_cost: writes cost 50 units, reads 1; captions are dearer.
        _route("POST", r"/upload/youtube/v3/captions", "youtube_api", 400),
        _route("POST", r"/upload/", "youtube_api", 50),
        _route(None, r"/upload/", "upload_youtube"),
        _route(None, r"youtubeanalytics|/v2/reports", "youtube_analytics", integration="youtube_metrics"),
        _route("GET", r"/videos:batchGetStats", "metrics_youtube", integration="youtube_metrics"),
        _route("GET", r"/v3/search", "youtube_search"),
        _route("GET", r"/v3/captions", "youtube_api", 50),
        _route("GET", r"", "youtube_api"),
        _route(None, r"", "youtube_api", 50),
    ),
    "tiktok": (
        _route("PUT", r"", "upload_tiktok"),
        _route(None, r"/publish/(inbox/)?(video|content)/init/", "publish_tiktok"),
        _route(None, r"/publish/creator_info/", "tiktok_creator"),
        _route(None, r"/publish/", "tiktok_status"),
        _route(None, r"/video/(query|list)/", "metrics_tiktok", integration="tiktok_metrics"),
        _route(None, r"", "tiktok_api"),
    ),
    "instagram": (
        _route("POST", r"/ig-api-upload/|rupload\.", "upload_instagram"),
        _route("POST", r"/media_publish\b", "publish_instagram"),
        _route("POST", r"/media\b", "instagram_container"),
        _route("GET", r"/insights$", "metrics_instagram", integration="instagram_metrics"),
        _route(None, r"", "instagram_api"),
    ),
}


def scope_of(integration: str) -> Callable[[httpx.Request], CallScope]:
    """The scope of each request of `openai`, `shotstack`, `youtube`, `tiktok` or `instagram`. Raises KeyError for any other."""
    routes = ROUTES[integration]

    def scope(request: httpx.Request) -> CallScope:
        url = str(request.url).partition("?")[0]
        for route in routes:
            if (route.method is None or route.method == request.method) and route.url.search(url):
                return CallScope(route.integration or integration, pool=route.pool, cost=route.cost)
        raise AssertionError(f"the routes of {integration} do not end with one for all")

    return scope
