"""A paid job, such as a render, is ordered exactly once, awaited and fetched. This module has its states, proofs and verbs.

`production.publication` is the only code that saves a paid job's state. It may take only the steps in the table below, and a
trigger on `phantoms.renders` enforces the same table. A service never sees the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Generic, Protocol, TypeVar

from phantoms_dagster.domain.errors import IllegalTransition, PhantomsError, Unknown
from phantoms_dagster.domain.publication import Found, RemoteId, Undecided

Job = TypeVar("Job")
Job_contra = TypeVar("Job_contra", contravariant=True)
JobResult = TypeVar("JobResult")

# --- states ---------------------------------------------------------------------------------------------------------


class PaidState(StrEnum):
    """The state of a paid job."""

    INTENT = "intent"  # everything that was paid so far is booked
    SENDING = "sending"  # the request that bills may have left
    UNKNOWN = "unknown"  # its answer was lost
    SUBMITTED = "submitted"  # the service has accepted it and given it an id
    DONE = "done"  # its file is ours


PAID_TRANSITIONS: Mapping[PaidState, frozenset[PaidState]] = MappingProxyType(
    {
        PaidState.INTENT: frozenset({PaidState.SENDING}),
        PaidState.SENDING: frozenset({PaidState.SUBMITTED, PaidState.UNKNOWN, PaidState.INTENT}),
        PaidState.UNKNOWN: frozenset({PaidState.SUBMITTED, PaidState.INTENT}),
        PaidState.SUBMITTED: frozenset({PaidState.DONE, PaidState.INTENT}),
        PaidState.DONE: frozenset({PaidState.DONE, PaidState.INTENT}),
    }
)

MAY_BE_PAID = (PaidState.SENDING, PaidState.UNKNOWN)
PAID = (PaidState.SUBMITTED, PaidState.DONE)

# Every step that leads to another order needs a proof. A job that was certainly paid can only be written off.
NEEDS_PROOF = frozenset((before, PaidState.INTENT) for before in MAY_BE_PAID)
NEEDS_WRITE_OFF = frozenset((before, PaidState.INTENT) for before in PAID)


@dataclass(frozen=True)
class NotBilled:
    """The proof that the order cost nothing: it was explicitly refused, or never reached the service.

    `evidence` is one line with the service's answer. The ledger keeps it. `error` is raised after the save; without one the job is
    ordered again at once.
    """

    evidence: str
    error: PhantomsError | None = None

    def __post_init__(self) -> None:
        """Raises IllegalTransition for an answer that was lost."""
        if isinstance(self.error, Unknown):
            raise IllegalTransition("a lost answer does not prove that the order was refused")


@dataclass(frozen=True)
class WrittenOff:
    """The order will never produce a usable file. `usd` is booked as spent in the same commit; then `error` is raised."""

    evidence: str
    usd: Decimal
    error: PhantomsError


def check_paid_step(before: PaidState, after: PaidState, proof: NotBilled | WrittenOff | None) -> None:
    """Raise IllegalTransition for a step that is not in the table or lacks its proof."""
    if after not in PAID_TRANSITIONS[before]:
        raise IllegalTransition(f"a paid job that is {before} cannot become {after}")
    step = (before, after)
    if (step in NEEDS_PROOF and proof is None) or (step in NEEDS_WRITE_OFF and not isinstance(proof, WrittenOff)):
        raise IllegalTransition(f"a paid job that is {before} is ordered again only when it was not billed, or is written off")


# --- the ledger -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PaidRecord:
    """The ledger's row of a paid job. `attempt_id`: our own id of the order, which the service may also know.

    `remote_id`: the service's id. `attempted_at`: when the order was about to leave. `spent`: US dollars that the video had cost
    when the row was opened.
    """

    state: PaidState = PaidState.INTENT
    remote_id: str | None = None
    attempt_id: str | None = None
    attempted_at: datetime | None = None
    spent: Decimal = Decimal(0)


class PaidJournal(Protocol):
    """The ledger's row of the job. Every step is committed before the next request is sent."""

    @property
    def record(self) -> PaidRecord:
        """The row as last committed. After a crash it shows the last step that was saved."""
        ...

    async def save(
        self,
        state: PaidState,
        *,
        attempt_id: str | None = None,
        remote_id: str | None = None,
        proof: NotBilled | WrittenOff | None = None,
    ) -> PaidRecord:
        """Commit a step. None keeps the saved value. A write-off is booked on its attempt in the same commit.

        Raises IllegalTransition or StaleClaim.
        """
        ...


# --- the service ----------------------------------------------------------------------------------------------------

AboutToBill = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class JobStatus:
    """The status of a job. `state`: `rendering`, `done` or `failed`. `error`: why it failed.

    `progress` (0 to 1) and `cost` (US dollars) are None when the service does not report them.
    """

    state: str
    progress: float | None = None
    url: str | None = None
    error: str | None = None
    cost: Decimal | None = None


class PaidService(Protocol[Job_contra]):
    """Makes files for money. Only `submit` may cost anything. Every verb may raise the errors of `domain.errors`.

    They change nothing in the ledger, with one exception: `Unknown` from `submit` means that its answer was lost.
    `at_once`: a job is done when `submit` returns, so its status can be read without a wait.
    """

    provider: str
    at_once: bool

    async def submit(self, job: Job_contra, about_to_bill: AboutToBill) -> RemoteId | NotBilled:
        """Order a job. Raises Unknown when the answer is lost.

        `about_to_bill` must be awaited right before the one request that bills. It saves that the request may have left. Not
        earlier: a job that still waits for a pool has sent nothing.
        """
        ...

    async def find(self, attempt_id: str) -> Found | NotBilled | Undecided:
        """Find out what happened to the order with our id. Sends nothing that costs money."""
        ...

    async def status(self, remote_id: str) -> JobStatus:
        """The job's status. Raises Permanent with the code `404` for a job that the service does not know."""
        ...

    async def fetch(self, remote_id: str, destination: Path, *, url: str | None = None) -> None:
        """Download the job's file to `destination`, completely or not at all. `url`: from the last status."""
        ...


# --- the order ------------------------------------------------------------------------------------------------------

Fetch = Callable[[Path], Awaitable[None]]


@dataclass(frozen=True)
class Order(Generic[Job, JobResult]):
    """An order for one paid job. `noun` names the job in messages and error codes, such as `render`. Amounts are in US dollars.

    `job` builds the job when it is ordered. `accept` gets a function that downloads the file, and the job's cost. It returns the
    result, or a write-off when the file is unusable.
    """

    noun: str
    attempt_id: str
    price: Decimal
    spent: Decimal
    budget: Decimal
    job: Callable[[], Awaitable[Job]]
    accept: Callable[[Fetch, Decimal], Awaitable[JobResult | WrittenOff]]


@dataclass(frozen=True)
class WaitLimits:
    """The limits of waiting: for a lost answer, for the end of a job, between two status reads, and within one call."""

    lost_after: timedelta
    deadline: timedelta
    poll_seconds: float
    max_wait_seconds: float


@dataclass(frozen=True)
class CompletedJob(Generic[JobResult]):
    """A job that is done, with its accepted result. `cost` is in US dollars."""

    result: JobResult
    remote_id: str
    cost: Decimal
