"""Checks the configured language model, for `phantoms doctor` and for a warning when `phantoms up` or workers start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from phantoms_dagster.registry.providers import WRITERS
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints
from phantoms_dagster.wiring.providers import adapters, has, service_tools

if TYPE_CHECKING:
    from phantoms_dagster.providers.tools import ProviderFinding

SECONDS = 5.0


def model_finding(settings: Settings) -> ProviderFinding | None:
    """Check the configured model. Returns None when the chosen writer has no setting for a model.

    Raises InvalidInput when there is neither a key nor a sandbox.
    """
    # A start with the sandbox does not get here, so it need not import a client.
    from phantoms_dagster.resilience.limits import CallScope, UnguardedLimits  # noqa: PLC0415
    from phantoms_dagster.resilience.transport import Deadlines, build_client  # noqa: PLC0415

    endpoints = Endpoints(settings)
    writer = endpoints.chosen(WRITERS)
    if not has(writer, "model"):
        return None

    async def ask() -> ProviderFinding:
        # Without the shared limits: Redis may not be running yet, and this is one small call.
        deadlines = Deadlines(read=SECONDS, total=SECONDS)
        async with build_client(limits=UnguardedLimits(), scope=CallScope(writer), deadlines=deadlines) as client:
            found: ProviderFinding = await adapters(writer).model(service_tools(settings, endpoints, writer, client, SystemClock()))
            return found

    return asyncio.run(ask())


def model_warning(settings: Settings) -> str | None:
    """The warning to show at start; None when the model is fine or the sandbox writes the scripts."""
    endpoints = Endpoints(settings)
    if endpoints.sandboxed(endpoints.chosen(WRITERS)):
        return None
    finding = model_finding(settings)
    if finding is None or finding.verdict == "ok":
        return None
    return "; ".join(part for part in (f"scripts: {finding.found}", finding.fix) if part)
