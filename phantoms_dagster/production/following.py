"""How a paid job that a service has taken ends: looks at it, and the waits between them. Nothing is saved here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from phantoms_dagster.domain.errors import NotYet, Permanent, Transient
from phantoms_dagster.domain.paid_job import JobStatus, Order, PaidService, Waits, WrittenOff
from phantoms_dagster.domain.ports import Clock

# The first pause between two looks; they double up to the setting.
FIRST_LOOK_SECONDS = 0.5
# A service may take a moment until it knows what it has just taken: only after this long does "unknown" mean "gone".
GONE_AFTER = timedelta(seconds=60)
# Codes of Permanent: the service does not know the job, has no file of it any more, or says that it failed.
GONE = ("404", "410", "gone", "failed")


@dataclass(frozen=True)
class Following:
    """One job that was ordered at `ordered_at` and that the service calls `remote_id`."""

    service: PaidService[Any]
    order: Order[Any, Any]
    waits: Waits
    clock: Clock
    remote_id: str
    ordered_at: datetime

    @property
    def _name(self) -> str:
        return f"{self.order.noun} {self.remote_id}"

    async def ended(self, *, fresh: bool) -> JobStatus | WrittenOff:
        """How the job ended, or why nothing will come of it. Raises NotYet when it outlasts the longest wait of the call.

        One that is `fresh`, ordered a moment ago, is not looked at before the first pause.
        """
        waits, noun = self.waits, self.order.noun
        waited, pause, misses = 0.0, min(FIRST_LOOK_SECONDS, waits.poll_seconds), 0
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
                        return lost(self.service, self.order, "gone", f"the service no longer knows {self._name}")
                elif status.state == "done":
                    return status
                elif status.state == "failed":
                    message = f"the {noun} failed: {status.error or 'no reason given'}"
                    error = Transient(message, provider=self.service.provider, code=f"{noun}_failed")
                    return WrittenOff(message, self.order.price if status.cost is None else status.cost, error)
                elif age > waits.deadline:
                    what = f"{self._name} has not ended after {age.total_seconds() / 60:.0f} minutes"
                    return lost(self.service, self.order, "overdue", what)
            if waited >= waits.max_wait_seconds:
                raise NotYet(f"{self._name} is still running", retry_after=waits.max_wait_seconds + 1)
            await self.clock.sleep(pause)
            waited, pause, looks = waited + pause, min(pause * 2, waits.poll_seconds), True

    async def _status(self) -> JobStatus | None:
        """None: the service does not know the job."""
        try:
            return await self.service.status(self.remote_id)
        except Permanent as error:
            if error.code not in GONE:
                raise
            return None

    async def downloaded(self, destination: Path, status: JobStatus, cost: Decimal) -> WrittenOff | None:
        """Download the file; what to write off when the service has it no more."""
        try:
            await self.service.fetch(self.remote_id, destination, url=status.url)
        except Permanent as error:
            if error.code not in GONE:
                raise
            return lost(self.service, self.order, "gone", f"the file of {self._name} is gone", cost)
        return None


def lost(service: PaidService[Any], order: Order[Any, Any], code: str, what: str, usd: Decimal | None = None) -> WrittenOff:
    """A job that will never bring a file. Its error lets the next attempt order another, if the budget allows it."""
    usd = order.price if usd is None else usd
    message = f"{what}; it is booked as spent ({usd:.2f} USD) and made again"
    return WrittenOff(what, usd, Transient(message, provider=service.provider, code=f"{order.noun}_{code}", retry_after=0))
