"""The media store of a pipeline, with the object store behind a breaker like every other service."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from phantoms_dagster.domain.errors import MediaAway, NotFound, NotYet, ProviderError
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.media.files import FolderStore
from phantoms_dagster.media.object_store.errors import is_outage, is_store_wide
from phantoms_dagster.resilience.breakers.breaker import CallOutcome
from phantoms_dagster.resilience.limits import CallScope, RedisLimits
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.limits import limits_of
from phantoms_dagster.wiring.media import INTEGRATION, media_store

if TYPE_CHECKING:
    from phantoms_dagster.media.object_store.store import ObjectStore

_SCOPE = CallScope(INTEGRATION)
_SLACK_SECONDS = 30.0


@asynccontextmanager
async def guarded_media(
    settings: Settings, clock: Clock, *, limits: RedisLimits | None = None
) -> AsyncIterator[FolderStore | ObjectStore]:
    """The store of a pipeline. While the object store is down its breaker is open, and stages are deferred instead of failing.

    `limits`: limits that the caller has already opened.
    """
    if settings.media.url is None:
        yield media_store(settings)
        return
    async with limits_of(settings, clock, limits) as opened:
        yield media_store(settings, guard=lambda: _guarded(opened, settings))


@asynccontextmanager
async def _guarded(limits: RedisLimits, settings: Settings) -> AsyncIterator[None]:
    """Ask the breaker once per transfer and report the transfer's outcome to it.

    A refused key and a missing or full bucket are not the video's fault, and every other video would get the same answer. So the
    breaker opens at once with the reason, and MediaAway is raised.
    """
    permit = await limits.admit(
        _SCOPE, max_wait=settings.pacing.max_wait_seconds, hold_seconds=settings.pacing.call_seconds + _SLACK_SECONDS
    )
    try:
        yield
    except ProviderError as error:
        shut = is_store_wide(error)
        await limits.settle(permit, CallOutcome.FAILED if shut or is_outage(error) else CallOutcome.ANSWERED)
        if not shut:
            raise
        with suppress(NotYet):  # without Redis no call is admitted anyway
            if (await limits.breakers.state(INTEGRATION)).state == "closed":
                await limits.breakers.trip(INTEGRATION, seconds=settings.breakers.reset_seconds, why=str(error))
        raise MediaAway(str(error), reading=True) from error
    except NotFound:
        await limits.settle(permit, CallOutcome.ANSWERED)
        raise
    except BaseException:
        limits.abandon(permit, CallOutcome.NONE)
        raise
    else:
        await limits.settle(permit, CallOutcome.ANSWERED)
