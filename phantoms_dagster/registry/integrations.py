"""All registered providers and platforms by name, in the order of docs/settings.md."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from phantoms_dagster.registry.platforms import SPECS as PLATFORMS
from phantoms_dagster.registry.providers import PROVIDERS
from phantoms_dagster.registry.spec import IntegrationSpec

INTEGRATIONS: Mapping[str, IntegrationSpec] = MappingProxyType({**PROVIDERS, **PLATFORMS})
