"""What a provider says of itself: one record. It holds values and names of modules, and imports nothing that sends a request."""

from __future__ import annotations

from dataclasses import dataclass

from phantoms_dagster.registry.spec import IntegrationSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class ProviderSpec(IntegrationSpec):
    """All that is special about a provider: what writes scripts, speaks them or renders videos.

    `key`: the setting that has its key; None: it needs none. `renew`: what else may help when the key is refused. A remote provider
    has at least the settings `base_url` and `key`.
    `call_seconds`: the setting with the longest time that a call may take, where its first byte may come as late as its last.
    `usd_per_minute`: of a renderer, the setting with the price of a rendered minute; None: it costs nothing.
    `channel_problem`: of a voice, `module:function`. It is told a channel, and names the key that keeps the channel from being
    spoken, and why; None: nothing does. It is asked before anything is paid for.
    """

    key: str | None = "api_key"
    renew: str = ""
    call_seconds: str | None = None
    usd_per_minute: str | None = None
    channel_problem: str | None = None
