"""The HTTP clients of the integrations, behind the shared breakers and pools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache

import httpx

from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.registry.providers import PROVIDERS
from phantoms_dagster.resilience.limits import CallScope, RedisLimits
from phantoms_dagster.resilience.scopes import scope_of
from phantoms_dagster.resilience.transport import CallObserver, Deadlines, build_client
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.endpoints import INTEGRATIONS
from phantoms_dagster.wiring.limits import limits_of


def deadlines_of(settings: Settings, integration: str) -> Deadlines:
    """How long a call of the integration may take."""
    deadlines = Deadlines(total=settings.pacing.call_seconds, max_wait=settings.pacing.max_wait_seconds)
    if integration in PROVIDERS and (setting := PROVIDERS[integration].call_seconds) is not None:
        longest = settings.of(integration, setting)
        return replace(deadlines, read=longest, total=longest)
    return replace(deadlines, read=min(deadlines.read, settings.pacing.call_seconds))


@asynccontextmanager
async def guarded_clients(
    settings: Settings,
    clock: Clock,
    observer: CallObserver | None = None,
    *,
    sandboxed: Callable[[str], bool],
    limits: RedisLimits | None = None,
) -> AsyncIterator[dict[str, httpx.AsyncClient]]:
    """One client per integration, behind the shared breakers and pools.

    `sandboxed` tells whether the sandbox answers for an integration; its calls then have their own breakers and pools. It is called
    with the first request, when everything it depends on is known. `limits`: limits that the caller has already opened.
    """
    async with AsyncExitStack() as stack:
        limits = await stack.enter_async_context(limits_of(settings, clock, limits))
        yield {
            name: await stack.enter_async_context(
                build_client(
                    limits=limits, scope=_scope(name, sandboxed), deadlines=deadlines_of(settings, name), observer=observer
                )
            )
            for name in INTEGRATIONS
        }


def _scope(integration: str, sandboxed: Callable[[str], bool]) -> Callable[[httpx.Request], CallScope]:
    """The function that gives the scope of a request of the integration."""
    of_path = scope_of(integration)
    in_sandbox = cache(lambda: sandboxed(integration))

    def scope(request: httpx.Request) -> CallScope:
        found = of_path(request)
        return replace(found, sandbox=True) if in_sandbox() else found

    return scope
