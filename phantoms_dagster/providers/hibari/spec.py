"""The neural voice on this machine. It needs no key and costs nothing."""

from __future__ import annotations

from phantoms_dagster.registry.provider_spec import ProviderSpec

PROVIDER = ProviderSpec(
    name="hibari",
    title="the neural voice of this machine",
    adapters="phantoms_dagster.providers.hibari.adapters",
    remote=False,
    key=None,
    channel_problem="phantoms_dagster.media.voices:voice_problem",
)
