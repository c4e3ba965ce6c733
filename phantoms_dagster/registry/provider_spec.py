"""`ProviderSpec`, the record that describes a provider.

It holds values and module names, and imports no code that sends requests.
"""

from __future__ import annotations

from dataclasses import dataclass

from phantoms_dagster.registry.spec import IntegrationSpec


@dataclass(frozen=True, kw_only=True, eq=False)
class ProviderSpec(IntegrationSpec):
    """Everything that is specific to one provider. A provider writes scripts, speaks them or renders videos.

    - `key`: the setting with its key. None: it needs no key. A remote provider has at least this setting and `base_url`.
    - `renew`: what else may help when the provider refuses the key.
    - `call_seconds`: the setting with the longest time for a call, if the first byte of an answer may come as late as the last.
    - `usd_per_minute`: for a renderer, the setting with the price of a rendered minute. None: it costs nothing.
    - `channel_problem`: for a voice, a `module:function` that checks a channel before anything is paid for. Given a channel, it
      returns the key in channels.yaml with which the voice cannot speak, and why. None: it can speak.
    """

    key: str | None = "api_key"
    renew: str = ""
    call_seconds: str | None = None
    usd_per_minute: str | None = None
    channel_problem: str | None = None
