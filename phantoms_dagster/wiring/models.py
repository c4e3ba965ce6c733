"""Whether the language model that is set can be used: for `phantoms doctor`, and said once when `phantoms up` or workers start."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.clock import SystemClock
from phantoms_dagster.wiring.endpoints import Endpoints

if TYPE_CHECKING:
    from phantoms_dagster.providers.openai.models import ModelFinding

SECONDS = 5.0


def model_finding(settings: Settings) -> ModelFinding:
    """What is to be said of the model. Raises InvalidInput when there is neither a key nor a sandbox."""
    # Who starts with the sandbox asks nobody, and needs no client.
    from phantoms_dagster.providers.openai.models import ModelFinding, examine  # noqa: PLC0415
    from phantoms_dagster.resilience.limits import CallScope, UnguardedLimits  # noqa: PLC0415
    from phantoms_dagster.resilience.transport import Deadlines, build_client  # noqa: PLC0415

    endpoints = Endpoints(settings)
    if urlsplit(endpoints.base_url("openai")).username is not None:
        fix = "take them out; the key goes into PHANTOMS_OPENAI_API_KEY"
        return ModelFinding("wrong", "PHANTOMS_OPENAI_BASE_URL holds a user name or a password, which no call can send", fix)

    async def ask() -> ModelFinding:
        # Without the fleet's limits: this is asked where Redis may not be running yet, and it is one small call.
        deadlines = Deadlines(read=SECONDS, total=SECONDS)
        async with build_client(limits=UnguardedLimits(), scope=CallScope("openai"), deadlines=deadlines) as client:
            return await examine(
                client,
                base_url=endpoints.base_url("openai"),
                api_key=endpoints.key("openai"),
                model=settings.openai_model,
                today=SystemClock().now().date(),
                sandbox=endpoints.sandboxed("openai"),
            )

    return asyncio.run(ask())


def model_warning(settings: Settings) -> str | None:
    """What to warn of when something starts; None when the model is fine, or the sandbox writes the scripts."""
    if Endpoints(settings).sandboxed("openai"):
        return None
    finding = model_finding(settings)
    if finding.verdict == "ok":
        return None
    return "; ".join(part for part in (f"scripts: {finding.found}", finding.fix) if part)
