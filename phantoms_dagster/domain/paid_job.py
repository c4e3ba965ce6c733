"""A paid job: how one thing that costs money is ordered exactly once, waited for and fetched. A render is one.

Its states, its proofs, and what a service does. `production.publication` is the only code that saves a paid job's state. What it
may save is the table here, which the database checks once more (a trigger on `phantoms.renders`). A service never sees the ledger.
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
Taken = TypeVar("Taken")

# --- states ---------------------------------------------------------------------------------------------------------


class PaidState(StrEnum):
    """Where a paid job is."""

    INTENT = "intent"  # nothing of it is paid that is not booked
    SENDING = "sending"  # the request that bills may have left
    UNKNOWN = "unknown"  # its answer was lost
    SUBMITTED = "submitted"  # the service has taken it and named it
    DONE = "done"  # what it made is ours


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

# Whatever leads to another order needs a proof. What was certainly paid can only be written off.
NEEDS_PROOF = frozenset((before, PaidState.INTENT) for before in MAY_BE_PAID)
NEEDS_WRITE_OFF = frozenset((before, PaidState.INTENT) for before in PAID)


@dataclass(frozen=True)
class NotBilled:
    """The proof that the order cost nothing: it was refused in so many words, or never reached the service.

    `evidence` says, in one line, what was said. It is kept in the ledger. `error` is raised after the save. Without one the job is
    ordered now.
    """

    evidence: str
    error: PhantomsError | None = None

    def __post_init__(self) -> None:
        """Raises IllegalTransition for an answer that was lost."""
        if isinstance(self.error, Unknown):
            raise IllegalTransition("an order whose answer was lost is no refusal")


@dataclass(frozen=True)
class WrittenOff:
    """Nothing will come of the order any more. `usd` is booked as spent in the same commit; then `error` is raised."""

    evidence: str
    usd: Decimal
    error: PhantomsError


def check_paid_step(before: PaidState, after: PaidState, proof: NotBilled | WrittenOff | None) -> None:
    """Raises IllegalTransition for a step that the table does not have, or that lacks its proof."""
    if after not in PAID_TRANSITIONS[before]:
        raise IllegalTransition(f"a paid job that is {before} cannot become {after}")
    step = (before, after)
    if (step in NEEDS_PROOF and proof is None) or (step in NEEDS_WRITE_OFF and not isinstance(proof, WrittenOff)):
        raise IllegalTransition(f"a paid job that is {before} is ordered again only when it was not billed, or is written off")


# --- the ledger -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PaidRecord:
    """The ledger's row of a paid job. `attempt_id` is our own id of the order, by which the service may know it.

    `remote_id` is the service's. `attempted_at`: when the order was about to leave. `spent`: US dollars that the video had cost
    when the row was opened.
    """

    state: PaidState = PaidState.INTENT
    remote_id: str | None = None
    attempt_id: str | None = None
    attempted_at: datetime | None = None
    spent: Decimal = Decimal(0)


class PaidJournal(Protocol):
    """The ledger's row of the job: every step is committed before the next request is sent."""

    @property
    def record(self) -> PaidRecord:
        """The row as last committed. After a crash it is what the last step left behind."""
        ...

    async def save(
        self,
        state: PaidState,
        *,
        attempt_id: str | None = None,
        remote_id: str | None = None,
        proof: NotBilled | WrittenOff | None = None,
    ) -> PaidRecord:
        """Commit a step. None keeps a value. What is written off is booked with its attempt, in the same commit.

        Raises IllegalTransition or StaleClaim.
        """
        ...


# --- the service ----------------------------------------------------------------------------------------------------

AboutToBill = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class JobStatus:
    """`state` is `rendering`, `done` or `failed`; `progress` is 0..1 when the service tells; `error` says why it failed.

    `cost`: US dollars, when the service tells them.
    """

    state: str
    progress: float | None = None
    url: str | None = None
    error: str | None = None
    cost: Decimal | None = None


class PaidService(Protocol[Job_contra]):
    """Makes files for money. Only `submit` may cost anything. Every verb may raise the errors of `domain.errors`.

    They change nothing in the ledger, but an `Unknown` that `submit` raises: its answer was lost.
    `at_once`: a job is done when `submit` returns, so nobody need wait before the first look at it.
    """

    provider: str
    at_once: bool

    async def submit(self, job: Job_contra, about_to_bill: AboutToBill) -> RemoteId | NotBilled:
        """Order a job. `about_to_bill` is awaited right before the one request that bills: it saves that this may leave.

        It does so late, since who waits for a turn in a pool has sent nothing. Raises Unknown when the answer is lost.
        """
        ...

    async def find(self, attempt_id: str) -> Found | NotBilled | Undecided:
        """What became of the order with our id. Sends nothing that costs anything."""
        ...

    async def status(self, remote_id: str) -> JobStatus:
        """How that job is doing. Raises Permanent with the code `404` for one that the service does not know."""
        ...

    async def fetch(self, remote_id: str, destination: Path, *, url: str | None = None) -> None:
        """Download what it made to `destination` (written whole or not at all). `url`: as the last status told it."""
        ...


# --- the order ------------------------------------------------------------------------------------------------------

Fetch = Callable[[Path], Awaitable[None]]


@dataclass(frozen=True)
class Order(Generic[Job, Taken]):
    """What is ordered. `noun` names it to people and in the codes of errors: `render`. Amounts are in US dollars.

    `job` puts it together, when it is ordered. `take` is given a function that downloads the file, and what the job cost. It
    returns what is kept, or writes the job off when the file is of no use.
    """

    noun: str
    attempt_id: str
    price: Decimal
    spent: Decimal
    budget: Decimal
    job: Callable[[], Awaitable[Job]]
    take: Callable[[Fetch, Decimal], Awaitable[Taken | WrittenOff]]


@dataclass(frozen=True)
class Waits:
    """How long is waited: for a lost answer, for a job's end, between two looks, and in one call."""

    lost_after: timedelta
    deadline: timedelta
    poll_seconds: float
    max_wait_seconds: float


@dataclass(frozen=True)
class PaidFor(Generic[Taken]):
    """A job that is done and fetched."""

    taken: Taken
    remote_id: str
    cost: Decimal
