"""Processes that only make calls, for the benchmark *pools*: through the product's guarded client, or directly at its admission.

Each prints one line of JSON per event. Times are seconds since the epoch: all processes are on one machine.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import httpx

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.resilience.admission.pools import Granted, Request, Wait
from phantoms_dagster.resilience.limits import CallScope, RedisLimits
from phantoms_dagster.resilience.pools import SANDBOX
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.clients import guarded_clients
from phantoms_dagster.wiring.limits import limits_of

SCOPE = CallScope("openai", pool="script", sandbox=True)


def tell(**event: Any) -> None:
    """Print one event in a single write, because the processes share the file."""
    print(json.dumps(event), flush=True)


async def call(number: int, options: Mapping[str, Any]) -> None:
    """The role `call`: as many calls of `path` as the pool lets through, `at_once` at a time, for `seconds` from `start` on."""
    services = Services.from_environment()
    url = services.endpoints.base_url("openai") + options["path"]
    headers = {"Authorization": f"Bearer {services.endpoints.key('openai')}"}
    counted = {"answered": 0, "failed": 0, "deferred": 0}

    async def caller(client: httpx.AsyncClient) -> None:
        await asyncio.sleep(max(0.0, options["start"] - time.time()))
        while time.time() < options["start"] + options["seconds"]:
            try:
                response = await client.get(url, headers=headers)
                counted["answered" if response.is_success else "failed"] += 1
            except NotYet:
                counted["deferred"] += 1
            except httpx.HTTPError:
                counted["failed"] += 1

    async with (
        guarded_clients(services.settings, services.clock, sandboxed=services.endpoints.sandboxed) as clients,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(options["at_once"]):
            group.create_task(caller(clients["openai"]))
    tell(calls=counted, number=number)


async def hold(number: int, options: Mapping[str, Any]) -> None:
    """The role `hold`: take one slot and keep it until killed, or for `seconds`."""
    services = Services.from_environment()
    async with limits_of(services.settings, services.clock) as limits:
        permit = await limits.admit(SCOPE, max_wait=60, hold_seconds=600)
        tell(held=time.time(), number=number)
        await asyncio.sleep(options["seconds"])
        await limits.settle(permit, options["outcome"])


async def wait(number: int, options: Mapping[str, Any]) -> None:
    """The role `wait`: wait in line `each` times, `spacing` after the last time, and report when it came and was admitted.

    Both times are from Redis' clock, in microseconds. A process's own clock would depend on when the machine lets it run.
    """
    services = Services.from_environment()
    async with limits_of(services.settings, services.clock) as limits:
        await asyncio.gather(*(_stand_in_line(limits, number + options["processes"] * n, options) for n in range(options["each"])))


async def _stand_in_line(limits: RedisLimits, place: int, options: Mapping[str, Any]) -> None:
    await asyncio.sleep(max(0.0, options["start"] + options["spacing"] * place - time.time()))
    request = Request((f"{SANDBOX}{SCOPE.pool}",))
    answer: Granted | Wait = Wait(0.0, f"{SANDBOX}{SCOPE.pool}", "slots")
    while isinstance(answer, Wait):
        await asyncio.sleep(answer.seconds)
        answer = await limits.admission.acquire(request, max_wait=120)
    came = request.ticket or answer.lease.granted_at
    await asyncio.sleep(options["seconds"])
    await limits.admission.release(answer.lease)
    tell(place=place, came=came, granted=answer.lease.granted_at, token=answer.lease.token)


ROLES: Mapping[str, Callable[[int, Mapping[str, Any]], Coroutine[Any, Any, None]]] = {"call": call, "hold": hold, "wait": wait}
