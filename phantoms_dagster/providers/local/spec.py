"""The renderer on this machine. It needs no key and costs nothing."""

from __future__ import annotations

from phantoms_dagster.registry.provider_spec import ProviderSpec

PROVIDER = ProviderSpec(
    name="local", title="local ffmpeg", adapters="phantoms_dagster.providers.local.adapters", remote=False, key=None
)
