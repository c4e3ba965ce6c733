"""Creates the adapters for Instagram."""

from __future__ import annotations

from phantoms_dagster.domain.models import Platform
from phantoms_dagster.platforms.instagram.api import AppSecret, Graph
from phantoms_dagster.platforms.instagram.grants import SCOPES, InstagramGrants
from phantoms_dagster.platforms.instagram.identity import InstagramIdentity
from phantoms_dagster.platforms.instagram.metrics import InstagramMetricsReader
from phantoms_dagster.platforms.instagram.oauth import InstagramOAuth
from phantoms_dagster.platforms.instagram.posts import InstagramPostReader
from phantoms_dagster.platforms.instagram.preflight import InstagramPreflight
from phantoms_dagster.platforms.instagram.publisher import InstagramPublisher
from phantoms_dagster.platforms.oauth import App
from phantoms_dagster.platforms.tools import Tools

__all__ = ["SCOPES", "grants", "identity", "metrics", "oauth", "post_reader", "preflight", "publisher"]

# Seconds between the two reads that prove that nothing was published.
SETTLE_SECONDS = 60.0
SANDBOX_SETTLE_SECONDS = 0.5


def _app_secret(tools: Tools) -> AppSecret:
    return lambda: tools.secret("app_secret")


def _graph(tools: Tools) -> Graph:
    return Graph(
        client=tools.client,
        base_url=tools.base_url,
        version=tools.setting("version"),
        tokens=tools.tokens,
        app_secret=_app_secret(tools),
    )


def publisher(tools: Tools) -> InstagramPublisher:
    """See `platforms.tools`. The sandbox serves uploads under its own address."""
    return InstagramPublisher(
        client=tools.client,
        base_url=tools.base_url,
        upload_url=f"{tools.base_url}/rupload" if tools.sandbox else tools.setting("upload_url"),
        tokens=tools.tokens,
        clock=tools.clock,
        sandbox=tools.sandbox,
        version=tools.setting("version"),
        app_secret=_app_secret(tools),
        max_wait=tools.max_wait,
        upload=tools.setting("upload"),
        settle_seconds=SANDBOX_SETTLE_SECONDS if tools.sandbox else SETTLE_SECONDS,
    )


def metrics(tools: Tools) -> InstagramMetricsReader:
    """See `platforms.tools`."""
    return InstagramMetricsReader(
        client=tools.client,
        base_url=tools.base_url,
        tokens=tools.tokens,
        clock=tools.clock,
        version=tools.setting("version"),
        app_secret=_app_secret(tools),
    )


def post_reader(tools: Tools) -> InstagramPostReader:
    """See `platforms.tools`."""
    return InstagramPostReader(_graph(tools))


def identity(tools: Tools) -> InstagramIdentity:
    """See `platforms.tools`."""
    return InstagramIdentity(_graph(tools))


def grants(tools: Tools) -> InstagramGrants:
    """See `platforms.tools`."""
    return InstagramGrants(_graph(tools))


def oauth(tools: Tools) -> InstagramOAuth:
    """See `platforms.tools`."""
    return InstagramOAuth(
        client=tools.client,
        app=App(Platform("instagram"), tools.setting, tools.secret),
        authorize_url=tools.setting("authorize_url"),
        token_url=tools.setting("token_url"),
        base_url=tools.base_url,
    )


def preflight(tools: Tools) -> InstagramPreflight:
    """See `platforms.tools`."""
    return InstagramPreflight(_graph(tools), tools.clock, upload=tools.setting("upload"), sandbox=tools.sandbox)
