"""Providers: their pools and breakers, and tripping or resetting a breaker by hand."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import FastAPI
from pydantic import Field

from phantoms_dagster.desk.api.routes import add
from phantoms_dagster.desk.api.values import ApiModel, Name, Reason, RequestModel
from phantoms_dagster.desk.visits import CurrentVisit
from phantoms_dagster.wiring.breaker_switch import LONGEST_SECONDS, BreakerSwitch
from phantoms_dagster.wiring.provider_status import ProviderStatus, read_provider_status
from phantoms_dagster.wiring.redis_connection import RedisAway

TAG = "providers"


class RateResource(ApiModel):
    """A rate limit: `used` of at most `calls` calls in the last `seconds`."""

    calls: int
    seconds: float
    used: int


class Pool(ApiModel):
    """The current state of a pool. With `slots` null concurrency is unlimited; with `quota_left` null there is no daily quota.

    `factor` is the share of the limits in use after throttling (0 to 1). `paused_seconds` is how long the pool stays paused because
    the provider asked for it.
    """

    pool: str
    in_use: int
    slots: int | None
    waiting: int
    rates: list[RateResource]
    quota: int | None
    quota_left: int | None
    factor: float
    paused_seconds: float


class PoolList(ApiModel):
    """All pools."""

    pools: list[Pool]


class Breaker(ApiModel):
    """A breaker. While it is open, `until` is the time of the next probe. `manual`: a person opened it."""

    name: str
    state: str
    calls: int
    failures: int
    since: datetime | None
    until: datetime | None
    manual: bool


class BreakerList(ApiModel):
    """All breakers that have been used or tripped."""

    breakers: list[Breaker]


class Reset(RequestModel):
    """The breaker to reset, such as `youtube` or `youtube:main`, and the reason."""

    breaker: Annotated[Name, Field(examples=["youtube"])]
    reason: Reason


class Trip(Reset):
    """The breaker to open. It is probed after `seconds`; with null it stays open until it is reset."""

    seconds: Annotated[float, Field(gt=0, le=LONGEST_SECONDS, allow_inf_nan=False)] | None = None


class BreakerChange(ApiModel):
    """The result. `sandbox_goes_on`: calls to the sandbox continue, because they have their own breaker.

    `noted`: the change is in the audit log.
    """

    breaker: str
    state: str
    why: str
    seconds: float | None
    sandbox_goes_on: bool
    noted: bool


def register(app: FastAPI) -> None:
    """Add the routes."""
    add(app, "GET", "/pools", list_pools, tag=TAG)
    add(app, "GET", "/breakers", list_breakers, tag=TAG)
    add(app, "POST", "/breakers/trip", trip_breaker, tag=TAG)
    add(app, "POST", "/breakers/reset", reset_breaker, tag=TAG)


def list_pools(visit: CurrentVisit) -> PoolList:
    """List the pools with their rates, slots and quotas."""
    return PoolList(pools=[Pool.model_validate(pool) for pool in _look(visit).pools])


def list_breakers(visit: CurrentVisit) -> BreakerList:
    """List the breakers."""
    return BreakerList(breakers=[Breaker.model_validate(state) for state in _look(visit).breakers])


def trip_breaker(visit: CurrentVisit, body: Trip) -> BreakerChange:
    """Open a breaker. Calls stop at once and videos wait; nothing fails."""
    done = asyncio.run(_switch(visit).trip(body.breaker, visit.actor, why=body.reason, seconds=body.seconds))
    return BreakerChange.model_validate(done)


def reset_breaker(visit: CurrentVisit, body: Reset) -> BreakerChange:
    """Close a breaker and clear its failures."""
    return BreakerChange.model_validate(asyncio.run(_switch(visit).reset(body.breaker, visit.actor, why=body.reason)))


def _switch(visit: CurrentVisit) -> BreakerSwitch:
    return BreakerSwitch(visit.desk.settings, visit.desk.audit.write)


def _look(visit: CurrentVisit) -> ProviderStatus:
    look = read_provider_status(visit.desk.settings)
    if look.problem:
        raise RedisAway(look.problem)
    return look
