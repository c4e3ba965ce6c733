"""Makes the adapter of the renderer Shotstack, and checks its key."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from phantoms_dagster.providers.shotstack.renderer import ShotstackRenderer
from phantoms_dagster.providers.tools import ProviderFinding, ProviderTools, ServiceTools


def renderer(tools: ProviderTools) -> ShotstackRenderer:
    """See `providers.tools`."""
    return _renderer(tools, callback=tools.callback, named=tools.named)


async def check(service: ServiceTools) -> Sequence[ProviderFinding]:
    """Check whether Shotstack accepts the key at this stage. Raises ProviderError."""
    await _renderer(service).check_key()
    shown, stage = httpx.URL(service.base_url).copy_with(userinfo=b""), service.setting("stage")
    return [ProviderFinding("shotstack", "ok", f"{shown} accepts the key for the stage {stage}")]


def _renderer(service: ServiceTools, **events: Any) -> ShotstackRenderer:
    return ShotstackRenderer(
        client=service.client,
        base_url=service.base_url,
        api_key=service.key,
        stage=service.setting("stage"),
        clock=service.clock,
        sandbox=service.sandbox,
        usd_per_minute=service.setting("usd_per_minute"),
        **events,
    )
