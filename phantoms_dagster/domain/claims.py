"""The values that a runner and the store exchange: claims, a use case's input and result, and the outcome of an attempt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal, Protocol, TypeVar

from phantoms_dagster.domain.errors import Evidence
from phantoms_dagster.domain.models import MediaFile, PostWords, StageOutput, Video
from phantoms_dagster.domain.paid_job import PaidJournal
from phantoms_dagster.domain.ports import Attempt
from phantoms_dagster.domain.publication import PostJournal
from phantoms_dagster.domain.stages import Stage, StageState
from phantoms_dagster.domain.values import JsonObject

Output = TypeVar("Output")

# Error class of a stage that waits for another run. That run wakes it when it ends.
HELD = "held"
# Error classes of stages that did not fail. In order: the stage waits for a person's decision; a person rejected the video; a
# person discarded an earlier stage of it; the brief no longer names this platform.
WAITS_FOR_PERSON, REJECTED, DISCARDED, NOT_WANTED = "person", "rejected", "discarded", "not_wanted"
# Error class of a key without a brief.
UNKNOWN_VIDEO = "unknown_video"


@dataclass(frozen=True)
class ReviewDecision:
    """A reviewer's decision about one revision of a video. `words`: the words of its posts at that time."""

    approved: bool
    reviewer: str
    note: str = ""
    content_sha256: str | None = None
    decided_at: datetime | None = None
    words: tuple[PostWords, ...] = ()


@dataclass(frozen=True)
class RunContext:
    """The run that claims. `by`: a `person` (the UI, a backfill, the command line) may also claim stages that failed or wait for a
    retry.

    `max_wait_seconds` lowers the stage's own limit, because later stages of the same run wait for this one.
    """

    run_id: str
    by: Literal["sensor", "person"]
    decision: ReviewDecision | None = None
    max_wait_seconds: float | None = None


@dataclass(frozen=True)
class Claim:
    """One stage of one video, held by `owner` until the lease ends. `generation` fences every write. `spent` is in US dollars.

    `in_doubt`: the rows of the directly preceding attempts that were killed or ended `unknown`, without those that only read.
    `reads`: how many ended `unknown`, that is, looked for the outcome. `waits`: how often the stage was deferred at no cost since
    its last failure that cost an attempt.
    """

    video_id: int
    video: Video
    stage: Stage
    revision: int
    generation: int
    attempt_row: int
    attempts_used: int
    inputs: Mapping[str, StageOutput]
    spent: Decimal
    run_id: str
    stored_response: JsonObject | None = None
    decision: ReviewDecision | None = None
    owner: str = ""
    in_doubt: tuple[int, ...] = ()
    reads: int = 0
    waits: int = 0

    def output(self, stage: str, kind: type[Output]) -> Output:
        """The output of an earlier stage. The claim guarantees that it exists."""
        made = self.inputs[stage]
        assert isinstance(made, kind), f"{stage} made a {type(made).__name__}"
        return made


@dataclass(frozen=True)
class StageTask:
    """The input of a use case: the claim, and the attempt in progress."""

    claim: Claim
    attempt: Attempt

    @property
    def video(self) -> Video:
        """The video of the claim."""
        return self.claim.video


@dataclass(frozen=True)
class StageResult:
    """The result of a use case. `cost`: what this attempt added, in US dollars. `provider`: the service that did the work."""

    output: StageOutput
    cost: Decimal = Decimal(0)
    provider_ref: str | None = None
    provider: str | None = None


@dataclass(frozen=True)
class Unclaimed:
    """A video that this run cannot work on, and why. `retry_at` is None when waiting alone does not help."""

    key: str
    outcome: Literal["done", "deferred", "failed", "skipped"]
    reason: str
    output: StageOutput | None = None
    retry_at: datetime | None = None
    error_class: str | None = None


@dataclass(frozen=True)
class Claims:
    """The answer to a claim request: the videos that were claimed, and the others."""

    claimed: Sequence[Claim]
    unclaimed: Sequence[Unclaimed]


@dataclass(frozen=True)
class AttemptOutcome:
    """The outcome of an attempt, as the store records it.

    - `state`: DONE, DEFERRED, FAILED or REJECTED.
    - `counts`: it used up an attempt of the budget.
    - `unsent`: no request left for any service, so the attempt's row is deleted.
    - `outage`: it failed because a provider is down.
    - `paced`: seconds that the attempt waited for pools and breakers, by name.
    - `waits_for`: the pool or breaker that the next attempt waits for.
    """

    state: StageState
    result: StageResult | None = None
    retry_at: datetime | None = None
    counts: bool = True
    provider: str | None = None
    error_class: str | None = None
    code: str | None = None
    message: str | None = None
    evidence: Evidence | None = None
    unsent: bool = False
    outage: bool = False
    paced: Mapping[str, float] = field(default_factory=dict)
    waits_for: str = ""


@dataclass(frozen=True)
class Result:
    """The outcome of one video in a run, for the run's events and messages. `fresh`: this run made the output."""

    key: str
    outcome: Literal["done", "deferred", "failed", "rejected", "skipped", "stale"]
    output: StageOutput | None = None
    cost: Decimal = Decimal(0)
    message: str = ""
    error_class: str | None = None
    retry_at: datetime | None = None
    fresh: bool = True


class Ledgers(Protocol):
    """Opens the ledger rows that prevent double posts and double payments."""

    async def post(
        self,
        claim: Claim,
        *,
        account: str,
        marker: str,
        video: MediaFile,
        caption: str,
        sandbox: bool,
        set_apart: str | None = None,
        route: str = "",
        extras: Sequence[str] = (),
    ) -> PostJournal:
        """The journal of the post's row. Creates the row when there is none. `set_apart`, `extras`: see `PostTerms`.

        A post that has begun keeps its account and its route.
        """
        ...

    async def bound_account(self, claim: Claim, *, sandbox: bool) -> str | None:
        """The account that this post was started on; None when nothing has been sent yet."""
        ...

    async def render(self, claim: Claim, *, sandbox: bool) -> PaidJournal:
        """The journal of the render's row. Creates the row when there is none.

        Raises NotYet when the sandbox would continue a real render.
        """
        ...


@dataclass(frozen=True)
class PostTime:
    """When a post may go out; None: at any time. `waits`: why it waits for a person; empty when it does not.

    `begun`: something was sent already, so the platform may be asked about it at any time.
    """

    at: datetime | None = None
    waits: str = ""
    begun: bool = False


class PostTimes(Protocol):
    """Says when posts may go out."""

    async def of(self, claim: Claim) -> PostTime:
        """The time of the claimed post, as it is now. Gives it the next free slot if its channel has slots and it has no time."""
        ...


@dataclass(frozen=True)
class Failing:
    """How long a stage has failed for temporary reasons, since the first failure that cost an attempt of the current budget.

    `seconds`: by the database's clock; None without such a failure. `alone`: no other video got through the stage in that time, so
    the service may be down.
    """

    seconds: float | None = None
    alone: bool = False


class StageStore(Protocol):
    """The table of stages, as a runner uses it."""

    async def claim(self, stage: Stage, keys: Sequence[str], *, owner: str, context: RunContext) -> Claims:
        """Claim all videos that can be claimed and create their attempt rows, in one transaction."""
        ...

    async def heartbeat(self, owner: str) -> None:
        """Renew the leases of all the owner's claims."""
        ...

    async def regenerate(self, stage: Stage, keys: Sequence[str], *, run_id: str = "") -> None:
        """Make done rows ready again as a new revision and void the stages after them. Rows that this run made are skipped.

        Raises InvalidInput when a post is in flight.
        """
        ...

    async def attempt(self, claim: Claim) -> Attempt:
        """The attempt that the claim opened."""
        ...

    async def try_again(self, claim: Claim, outcome: AttemptOutcome) -> Claim:
        """Close the attempt and open the next one under the same claim. Raises StaleClaim."""
        ...

    async def failing(self, claim: Claim) -> Failing:
        """How long the stage has been failing."""
        ...

    async def finish(self, claim: Claim, outcome: AttemptOutcome) -> bool:
        """Write the outcome. Returns False when another runner has taken over; then nothing was written."""
        ...

    async def release(self, owner: str) -> None:
        """Release all claims that the owner still holds, without using up an attempt, because its run was stopped."""
        ...
