"""Makes the adapter of the renderer on this machine."""

from __future__ import annotations

from phantoms_dagster.media.local_renderer import LocalRenderer
from phantoms_dagster.providers.tools import ProviderTools


def renderer(tools: ProviderTools) -> LocalRenderer:
    """See `providers.tools`."""
    return LocalRenderer(tools.work_dir, in_flight=tools.renders_in_flight)
