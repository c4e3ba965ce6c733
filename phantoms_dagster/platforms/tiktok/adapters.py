"""Creates the adapters for TikTok."""

from __future__ import annotations

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms.oauth import App
from phantoms_dagster.platforms.tiktok import gateway as through_gateway
from phantoms_dagster.platforms.tiktok.grants import SCOPES, TikTokGrants
from phantoms_dagster.platforms.tiktok.identity import TikTokIdentity
from phantoms_dagster.platforms.tiktok.late import TikTokLateIds
from phantoms_dagster.platforms.tiktok.metrics import TikTokMetricsReader
from phantoms_dagster.platforms.tiktok.oauth import TikTokOAuth
from phantoms_dagster.platforms.tiktok.posts import TikTokPostReader
from phantoms_dagster.platforms.tiktok.preflight import TikTokPreflight
from phantoms_dagster.platforms.tiktok.publisher import TikTokPublisher
from phantoms_dagster.platforms.tiktok.route_facts import route_facts
from phantoms_dagster.platforms.tools import Tools
from phantoms_dagster.providers.uploadpost.publisher import UploadPostPublisher
from phantoms_dagster.providers.uploadpost.results import UploadPostLateIds, UploadPostMetricsReader, UploadPostReader

__all__ = [
    "SCOPES",
    "gateway",
    "gateway_late_ids",
    "gateway_metrics",
    "gateway_post_reader",
    "grants",
    "identity",
    "late_ids",
    "metrics",
    "oauth",
    "post_reader",
    "preflight",
    "publisher",
    "route_facts",
]


def publisher(tools: Tools) -> TikTokPublisher:
    """See `platforms.tools`."""
    return TikTokPublisher(
        client=tools.client,
        base_url=tools.base_url,
        tokens=tools.tokens,
        clock=tools.clock,
        sandbox=tools.sandbox,
        max_wait=tools.max_wait,
    )


def gateway(tools: Tools) -> UploadPostPublisher:
    """See `platforms.tools`."""
    return through_gateway.publisher(tools)


def gateway_late_ids(tools: Tools) -> UploadPostLateIds:
    """See `platforms.tools`."""
    return through_gateway.late_ids(tools)


def gateway_metrics(tools: Tools) -> UploadPostMetricsReader:
    """See `platforms.tools`."""
    return through_gateway.metrics(tools)


def gateway_post_reader(tools: Tools) -> UploadPostReader:
    """See `platforms.tools`."""
    return through_gateway.post_reader(tools)


def metrics(tools: Tools) -> TikTokMetricsReader:
    """See `platforms.tools`."""
    return TikTokMetricsReader(client=tools.client, base_url=tools.base_url, tokens=tools.tokens)


def post_reader(tools: Tools) -> TikTokPostReader:
    """See `platforms.tools`."""
    return TikTokPostReader(client=tools.client, base_url=tools.base_url, tokens=tools.tokens, sandbox=tools.sandbox)


def identity(tools: Tools) -> TikTokIdentity:
    """See `platforms.tools`."""
    return TikTokIdentity(client=tools.client, base_url=tools.base_url, tokens=tools.tokens)


def grants(tools: Tools) -> TikTokGrants:
    """See `platforms.tools`."""
    return TikTokGrants(client=tools.client, base_url=tools.base_url, tokens=tools.tokens, route=tools.route)


def late_ids(tools: Tools) -> TikTokLateIds:
    """See `platforms.tools`."""
    return TikTokLateIds(client=tools.client, base_url=tools.base_url, tokens=tools.tokens, sandbox=tools.sandbox)


def oauth(tools: Tools) -> TikTokOAuth:
    """See `platforms.tools`."""
    return TikTokOAuth(
        client=tools.client,
        app=App(Platform("tiktok"), tools.setting, tools.secret),
        authorize_url=tools.setting("authorize_url"),
        base_url=tools.base_url,
    ).for_route(tools.route)


def preflight(tools: Tools) -> TikTokPreflight:
    """See `platforms.tools`."""
    return TikTokPreflight(client=tools.client, base_url=tools.base_url, tokens=tools.tokens)
