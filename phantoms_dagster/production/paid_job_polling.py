"""Waits for a paid job that a service has accepted: polls its status and downloads its file. It saves nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from phantoms_dagster.domain.errors import NotYet, Permanent, Transient
from phantoms_dagster.domain.paid_job import JobStatus, Order, PaidService, WaitLimits, WrittenOff
from phantoms_dagster.domain.ports import Clock

# The first pause between two status reads. It doubles each time, up to the setting.
FIRST_PAUSE_SECONDS = 0.5
# A service may need a moment until it knows a job that it has just accepted. Only after this time does "unknown" mean "gone".
GONE_AFTER = timedelta(seconds=60)
# Codes of Permanent: the service does not know the job, no longer has its file, or says that it failed.
GONE = ("404", "410", "gone", "failed")


@dataclass(frozen=True)
class PaidJobPoller:
    """Polls one job, which was ordered at `ordered_at` and has the id `remote_id` at the service."""

    service: PaidService[Any]
    order: Order[Any, Any]
    waits: WaitLimits
    clock: Clock
    remote_id: str
    ordered_at: datetime

    @property
    def _name(self) -> str:
        return f"{self.order.noun} {self.remote_id}"

    async def wait_for_end(self, *, fresh: bool) -> JobStatus | WrittenOff:
        """Wait for the end of the job. Returns its status, or a write-off when it will never have a file.

        Raises NotYet when the job takes longer than the max wait. `fresh`: it was ordered a moment ago, so pause before the first
        read.
        """
        waits, noun = self.waits, self.order.noun
        waited, pause, misses = 0.0, min(FIRST_PAUSE_SECONDS, waits.poll_seconds), 0
        looks = not fresh or self.service.at_once
        while True:
            if looks:
                status = await self._status()
                age = self.clock.now() - self.ordered_at
                if status is None:
                    misses += 1
                    if age <= GONE_AFTER:
                        left = (GONE_AFTER - age).total_seconds() + 1
                        raise NotYet(f"the service does not know {self._name} yet", retry_after=left)
                    if misses > 1:
                        return written_off(self.service, self.order, "gone", f"the service no longer knows {self._name}")
                elif status.state == "done":
                    return status
                elif status.state == "failed":
                    message = f"the {noun} failed: {status.error or 'no reason given'}"
                    error = Transient(message, provider=self.service.provider, code=f"{noun}_failed")
                    return WrittenOff(message, self.order.price if status.cost is None else status.cost, error)
                elif age > waits.deadline:
                    what = f"{self._name} has not ended after {age.total_seconds() / 60:.0f} minutes"
                    return written_off(self.service, self.order, "overdue", what)
            if waited >= waits.max_wait_seconds:
                raise NotYet(f"{self._name} is still running", retry_after=waits.max_wait_seconds + 1)
            await self.clock.sleep(pause)
            waited, pause, looks = waited + pause, min(pause * 2, waits.poll_seconds), True

    async def _status(self) -> JobStatus | None:
        """The job's status; None when the service does not know the job."""
        try:
            return await self.service.status(self.remote_id)
        except Permanent as error:
            if error.code not in GONE:
                raise
            return None

    async def download(self, destination: Path, status: JobStatus, cost: Decimal) -> WrittenOff | None:
        """Download the file. Returns a write-off when the service no longer has it, else None."""
        try:
            await self.service.fetch(self.remote_id, destination, url=status.url)
        except Permanent as error:
            if error.code not in GONE:
                raise
            return written_off(self.service, self.order, "gone", f"the file of {self._name} is gone", cost)
        return None


def written_off(service: PaidService[Any], order: Order[Any, Any], code: str, what: str, usd: Decimal | None = None) -> WrittenOff:
    """The write-off of a job that will never have a file. Its error lets the next attempt order another one within the budget."""
    usd = order.price if usd is None else usd
    message = f"{what}; {usd:.2f} USD is booked as spent, and a new one is ordered"
    return WrittenOff(what, usd, Transient(message, provider=service.provider, code=f"{order.noun}_{code}", retry_after=0))
