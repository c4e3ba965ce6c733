"""The gate for every stage that works with files: while their folder cannot be used, videos wait, and a breaker shows the reason.

The breaker `media_folder` opens when the folder cannot be used at all, `media_space` when it cannot be written. With an object
store the folder is this machine's cache, so the breakers' names contain the machine's name. `media.disk` diagnoses the folder.
"""

from __future__ import annotations

import asyncio
import math
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from phantoms_dagster.domain.claims import StageResult, StageTask
from phantoms_dagster.domain.errors import MediaAway, NotYet
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.media.disk import Disk
from phantoms_dagster.production.runner import UseCase
from phantoms_dagster.resilience.breakers.breaker import BreakerOpen, Breakers, CallOutcome
from phantoms_dagster.resilience.limits import RedisLimits
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.limits import limits_of

# How long a check of the folder is valid, so that many videos share one. Handling a file takes longer than this anyway.
_LOOKED_AT_SECONDS = 0.25

Known = Callable[[], Awaitable[bool]]


def media_disk(settings: Settings) -> Disk:
    """The media folder, or the folder of the object store's cache and of work in progress."""
    ours = settings.media.url is None
    return Disk(settings.media_path, what="media folder" if ours else "media cache", marked=ours)


@asynccontextmanager
async def media_gate(
    settings: Settings, clock: Clock, known: Known, *, limits: RedisLimits | None = None
) -> AsyncIterator[MediaGate]:
    """The gate for one event loop. `known` tells whether files were stored before; it is called only if the folder has no marker.

    `limits`: limits that the caller has already opened.
    """
    async with limits_of(settings, clock, limits) as opened:
        where = "" if settings.media.url is None else f"@{socket.gethostname()}"
        yield MediaGate(media_disk(settings), opened.breakers, known, reset_seconds=settings.breakers.reset_seconds, where=where)


class MediaGate:
    """While a folder is unusable, lets one caller at a time check it; all others wait. Without Redis, per process."""

    def __init__(self, disk: Disk, breakers: Breakers, known: Known, *, reset_seconds: float, where: str = "") -> None:
        self._disk = disk
        self._breakers = breakers
        self._known = known
        self._reset_seconds = reset_seconds
        self._reading, self._writing = f"media_folder{where}", f"media_space{where}"
        self._shut_until: dict[str, float] = {}
        self._identified = False
        self._looked_at = -math.inf

    @asynccontextmanager
    async def __call__(self, *, writing: bool) -> AsyncIterator[None]:
        """Wraps work with files. Raises NotYet while the folder cannot be used, also if it becomes unusable inside the block."""
        for name in (self._reading, self._writing) if writing else (self._reading,):
            await self._pass(name)
        try:
            await self._identify()
            yield
        except Exception as error:
            away = await asyncio.to_thread(self._disk.diagnose, error)
            if away is not None:
                await self._shut(away)
                raise away from (None if away is error else error)
            if (transient := self._disk.as_transient(error)) is not None:
                raise transient from error
            raise

    async def _identify(self) -> None:
        now = time.monotonic()
        if now - self._looked_at < _LOOKED_AT_SECONDS:
            return
        if not await asyncio.to_thread(self._disk.is_there):
            # If this process has seen the marker before, it need not ask the tables.
            known = self._identified or await self._known()
            await asyncio.to_thread(self._disk.identify, known=known)
        self._identified, self._looked_at = True, now

    async def _pass(self, name: str) -> None:
        """Raise NotYet while the breaker `name` is open. The probe checks the folder itself, so it costs no video an attempt."""
        try:
            permit = await self._breakers.admit(name)
        except BreakerOpen:
            raise
        except NotYet:
            await self._pass_alone(name)
            return
        if permit.probe is None:
            return
        try:
            await self._try(name)
        except MediaAway:
            await self._breakers.settle(permit, CallOutcome.FAILED)
            raise
        except BaseException:
            await self._breakers.settle(permit, CallOutcome.NONE)
            raise
        await self._breakers.settle(permit, CallOutcome.ANSWERED)

    async def _pass_alone(self, name: str) -> None:
        """The same without Redis: what this process has seen decides."""
        until = self._shut_until.get(name)
        if until is None:
            return
        left = until - time.monotonic()
        if left > 0:
            raise NotYet(f"{name} is open: the {self._disk.what} cannot be used", retry_after=left)
        self._shut_until[name] = time.monotonic() + self._reset_seconds  # one caller checks, the others in this process wait
        await self._try(name)
        self._shut_until.pop(name, None)

    async def _try(self, name: str) -> None:
        await asyncio.to_thread(self._disk.check_usable, writing=name == self._writing)

    async def _shut(self, away: MediaAway) -> None:
        """Open the breaker with the cause as its reason, once even if many callers find out at the same time."""
        self._looked_at = -math.inf
        name = self._reading if away.reading else self._writing
        self._shut_until[name] = time.monotonic() + self._reset_seconds
        try:
            if (await self._breakers.state(name)).state == "closed":
                await self._breakers.trip(name, seconds=self._reset_seconds, why=str(away))
        except NotYet:
            return  # Redis is unavailable: only `_shut_until` remains


class GatedUseCase:
    """A use case that works with files, behind the gate."""

    def __init__(self, gate: MediaGate, use_case: UseCase, *, writing: bool) -> None:
        self._gate = gate
        self._use_case = use_case
        self._writing = writing

    async def __call__(self, task: StageTask) -> StageResult:
        """Raises what the use case raises, and NotYet while the folder cannot be used."""
        async with self._gate(writing=self._writing):
            return await self._use_case(task)
