"""Creates the adapters for YouTube."""

from __future__ import annotations

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms.oauth import App
from phantoms_dagster.platforms.tools import Tools
from phantoms_dagster.platforms.youtube.extras import YouTubeExtras
from phantoms_dagster.platforms.youtube.grants import SCOPES, YouTubeGrants
from phantoms_dagster.platforms.youtube.identity import YouTubeIdentity
from phantoms_dagster.platforms.youtube.metrics import YouTubeMetricsReader
from phantoms_dagster.platforms.youtube.oauth import GoogleOAuth
from phantoms_dagster.platforms.youtube.posts import YouTubePosts
from phantoms_dagster.platforms.youtube.preflight import YouTubePreflight
from phantoms_dagster.platforms.youtube.publisher import YouTubePublisher

__all__ = ["SCOPES", "extras", "grants", "identity", "metrics", "oauth", "post_reader", "post_remover", "preflight", "publisher"]


def publisher(tools: Tools) -> YouTubePublisher:
    """See `platforms.tools`."""
    return YouTubePublisher(
        client=tools.client,
        base_url=tools.base_url,
        tokens=tools.tokens,
        clock=tools.clock,
        sandbox=tools.sandbox,
        max_wait=tools.max_wait,
    )


def metrics(tools: Tools) -> YouTubeMetricsReader:
    """See `platforms.tools`."""
    return YouTubeMetricsReader(client=tools.client, base_url=tools.base_url, tokens=tools.tokens, clock=tools.clock)


def post_reader(tools: Tools) -> YouTubePosts:
    """See `platforms.tools`."""
    return YouTubePosts(client=tools.client, base_url=tools.base_url, tokens=tools.tokens, clock=tools.clock, sandbox=tools.sandbox)


def post_remover(tools: Tools) -> YouTubePosts:
    """See `platforms.tools`."""
    return post_reader(tools)


def extras(tools: Tools) -> YouTubeExtras:
    """See `platforms.tools`."""
    return YouTubeExtras(
        client=tools.client, base_url=tools.base_url, tokens=tools.tokens, clock=tools.clock, sandbox=tools.sandbox
    )


def identity(tools: Tools) -> YouTubeIdentity:
    """See `platforms.tools`."""
    return YouTubeIdentity(client=tools.client, base_url=tools.base_url, tokens=tools.tokens, clock=tools.clock)


def grants(tools: Tools) -> YouTubeGrants:
    """See `platforms.tools`."""
    return YouTubeGrants(client=tools.client, base_url=tools.base_url, tokens=tools.tokens)


def oauth(tools: Tools) -> GoogleOAuth:
    """See `platforms.tools`."""
    return GoogleOAuth(
        client=tools.client,
        app=App(Platform("youtube"), tools.setting, tools.secret),
        authorize_url=tools.setting("authorize_url"),
        base_url=tools.setting("token_url"),
    )


def preflight(tools: Tools) -> YouTubePreflight:
    """See `platforms.tools`."""
    return YouTubePreflight(client=tools.client, base_url=tools.base_url, tokens=tools.tokens, clock=tools.clock)
