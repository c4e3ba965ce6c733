"""Renderers as the kill tests want them: Shotstack, Shotstack whose callbacks reach us, and the renderer of this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx

from phantoms_dagster.domain.errors import Transient
from phantoms_dagster.domain.paid_job import CompletedJob, Fetch, Order, PaidRecord, PaidState, WaitLimits, WrittenOff
from phantoms_dagster.domain.ports import Renderer, RenderJob
from phantoms_dagster.media.local_renderer import LocalRenderer
from phantoms_dagster.production.publication import pay
from phantoms_dagster.sandbox.core import Sandbox
from phantoms_dagster.sandbox.shotstack.studio import Progress
from phantoms_dagster_tests.contract import test_shotstack
from phantoms_dagster_tests.contract.publishing_kit import FakePaidJournal, MortalTransport, SandboxClock

Callback = Callable[[str], str | None]
Named = Callable[[str], Awaitable[Sequence[str]]]
LOST_SECONDS = 1800.0
PRICE = Decimal("0.04")
WAITS = WaitLimits(timedelta(seconds=LOST_SECONDS), timedelta(hours=1), poll_seconds=3, max_wait_seconds=30)


@dataclass
class Paid:
    """A renderer's sandbox and a job for it. `findable`: the service can be asked for an order by our own id."""

    sandbox: Sandbox
    transport: MortalTransport
    clock: SandboxClock
    renderer: Renderer
    job: Callable[[str], RenderJob]
    master: bytes
    findable: bool = False
    attempts: int = 0

    def journal(self, record: PaidRecord | None = None) -> FakePaidJournal:
        return FakePaidJournal(record, clock=self.clock)

    def forget(self) -> None:
        """A service forgets nothing within a day but the address of the file."""

    async def carry(self, journal: FakePaidJournal) -> CompletedJob[bytes]:
        """One call of the engine, by an attempt of a process that has just started."""
        self.attempts += 1
        attempt_id = f"attempt-{self.attempts}"

        async def make() -> RenderJob:
            return self.job(attempt_id)

        order = Order("render", attempt_id, PRICE, Decimal(0), Decimal(100), make, self.take)
        return await pay(self.renderer, order, journal, waits=WAITS, clock=self.clock)

    async def take(self, fetch: Fetch, cost: Decimal) -> bytes | WrittenOff:
        master = self.job("any").audio.with_name("master.mp4")
        await fetch(master)
        if master.read_bytes() != self.master:
            raise Transient("the video came down damaged", provider=self.renderer.provider)
        return self.master

    @property
    def billed(self) -> list[dict[str, Any]]:
        return [entry for entry in self.sandbox.ledger if entry["kind"] == "render"]

    def assert_once(self, journal: FakePaidJournal) -> None:
        """The video is there, and each order but the last one is booked: after its time, and only when its answer was lost."""
        assert journal.record.state is PaidState.DONE
        written_off = [proof for proof in journal.proofs if isinstance(proof, WrittenOff)]
        assert [proof.usd for proof in written_off] == [PRICE] * len(written_off)
        assert len(written_off) <= journal.states.count(PaidState.UNKNOWN)
        if self.renderer.provider == "local":
            assert written_off == []
            return
        billed = self.billed
        assert billed[-1]["id"] == journal.record.remote_id
        assert len(billed) <= 1 + len(written_off), "paid twice, and nobody knows"
        assert len({entry["marker"] for entry in billed}) == len(billed)
        assert all(late["at"] - early["at"] > LOST_SECONDS for early, late in pairwise(billed))
        if self.findable:
            assert len(billed) == 1


def bills(request: httpx.Request) -> bool:
    """Whether a request costs money."""
    return request.method == "POST" and request.url.path.endswith("/render")


async def _render(edit: dict[str, Any], audio: Path | None, destination: Path, progress: Progress) -> None:
    destination.write_bytes(test_shotstack.MASTER)


@asynccontextmanager
async def shotstack(
    folder: Path, *, calls_back: bool = False, callback: Callback | None = None, named: Named | None = None
) -> AsyncIterator[Paid]:
    """`calls_back`: callbacks reach us at once. `callback` and `named`: as the renderer takes them."""
    transport = MortalTransport()
    async with test_shotstack.running(folder, transport, render=_render) as world:
        world.sandbox.config["shotstack.processing_seconds"] = 2.0
        clock = SandboxClock(world.sandbox)
        base_url = f"{world.url}/shotstack"

        async def told(attempt_id: str) -> Sequence[str]:
            """What callbacks told us: the renders of each order."""
            return [entry["id"] for entry in world.billed if entry["marker"] == attempt_id]

        events: dict[str, Any] = {"named": told} if calls_back else {"named": named}
        if callback is not None:
            events["callback"] = callback
        renderer = world.renderer(clock=clock, base_url=base_url, **events)

        def job(attempt_id: str) -> RenderJob:
            return world.job(attempt_id=attempt_id)

        yield Paid(world.sandbox, transport, clock, renderer, job, test_shotstack.MASTER, findable=calls_back or named is not None)


def findable(folder: Path) -> Any:
    return shotstack(folder, calls_back=True)


async def quick_render(job: RenderJob, destination: Path, **_: Any) -> None:
    """In place of ffmpeg, which `test_media_rendering.py` tries."""
    destination.write_bytes(test_shotstack.MASTER)


@asynccontextmanager
async def local(folder: Path) -> AsyncIterator[Paid]:
    sandbox = Sandbox(seed=1)

    def job(attempt_id: str) -> RenderJob:
        return test_shotstack.make_job(folder, attempt_id=attempt_id)

    renderer = LocalRenderer(folder / "work")
    yield Paid(sandbox, MortalTransport(), SandboxClock(sandbox), renderer, job, test_shotstack.MASTER)
