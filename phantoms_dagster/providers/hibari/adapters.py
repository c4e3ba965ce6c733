"""Makes the adapter of the neural voice on this machine."""

from __future__ import annotations

from phantoms_dagster.media.voice import NeuralVoice
from phantoms_dagster.providers.tools import ProviderTools


def voice(tools: ProviderTools) -> NeuralVoice:
    """See `providers.tools`."""
    return NeuralVoice(tools.media)
