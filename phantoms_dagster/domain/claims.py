"""What passes between a runner and the store: claims, what a use case gets and returns, and how an attempt ended.

How a claim is made belongs in `store`; what is done with it, in `production`.
"""

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

# The class of a stage that waits for another run, which wakes it when it has ended.
HELD = "held"
# The classes of a stage that nothing is wrong with: it waits for a person's decision; a person said no; a person gave up an
# earlier stage of the video; nobody wants the video on this platform.
WAITS_FOR_PERSON, REJECTED, DISCARDED, NOT_WANTED = "person", "rejected", "discarded", "not_wanted"
# The class of a key without a brief.
UNKNOWN_VIDEO = "unknown_video"


@dataclass(frozen=True)
class ReviewDecision:
    """What a reviewer decided about one revision of a video. `words`: what its posts would have said then."""

    approved: bool
    reviewer: str
    note: str = ""
    content_sha256: str | None = None
    decided_at: datetime | None = None
    words: tuple[PostWords, ...] = ()


@dataclass(frozen=True)
class RunContext:
    """Who asks. A `person` (the UI, a backfill, the command line) may also claim what has failed or waits for its retry.

    `max_wait_seconds` shortens the stage's own max_wait: something else of the same run waits behind this stage.
    """

    run_id: str
    by: Literal["sensor", "person"]
    decision: ReviewDecision | None = None
    max_wait_seconds: float | None = None


@dataclass(frozen=True)
class Claim:
    """One video in one stage, `owner`'s until the lease ends. `generation` fences every write; `spent` is in US dollars.

    `in_doubt`: rows of the attempts right before this one that were killed or ended unknown; `reads` of them ended unknown, so they
    have looked for the outcome. `waits`: how often the video came back to the table since its last failure that cost an attempt,
    without being made.
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
        """What an earlier stage made. The claim guarantees that it is there."""
        made = self.inputs[stage]
        assert isinstance(made, kind), f"{stage} made a {type(made).__name__}"
        return made


@dataclass(frozen=True)
class StageTask:
    """What a use case gets: the claim and the handle of the attempt under way."""

    claim: Claim
    attempt: Attempt

    @property
    def video(self) -> Video:
        """The video."""
        return self.claim.video


@dataclass(frozen=True)
class StageResult:
    """What a use case returns. `cost` is what this attempt added, in US dollars; `provider` is whose work it was."""

    output: StageOutput
    cost: Decimal = Decimal(0)
    provider_ref: str | None = None
    provider: str | None = None


@dataclass(frozen=True)
class Unclaimed:
    """A video that cannot be worked on in this run, and why. `retry_at` None: not by waiting alone."""

    key: str
    outcome: Literal["done", "deferred", "failed", "skipped"]
    reason: str
    output: StageOutput | None = None
    retry_at: datetime | None = None
    error_class: str | None = None


@dataclass(frozen=True)
class Claims:
    """The answer to a claim: what is ours, and what is not."""

    claimed: Sequence[Claim]
    unclaimed: Sequence[Unclaimed]


@dataclass(frozen=True)
class AttemptOutcome:
    """How an attempt of a claim ended, as it goes into the table.

    `state` is DONE, DEFERRED, FAILED or REJECTED. `counts`: whether it used up an attempt of the budget. `unsent`: nothing left
    for anybody's service, so that the attempt never was one and its row goes. `outage`: a provider that is down failed it.
    `paced`: seconds that the attempt waited for pools and breakers, by name. `waits_for`: the one that the next attempt waits for.
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
    """How one video left a run, for the run's events and for people."""

    key: str
    outcome: Literal["done", "deferred", "failed", "rejected", "skipped", "stale"]
    output: StageOutput | None = None
    cost: Decimal = Decimal(0)
    message: str = ""
    error_class: str | None = None
    retry_at: datetime | None = None
    fresh: bool = True


class Ledgers(Protocol):
    """Opens the ledgers that guard what must not be done twice."""

    async def post(self, claim: Claim, *, account: str, marker: str, video: MediaFile, caption: str, sandbox: bool) -> PostJournal:
        """The post's row, made when there is none."""
        ...

    async def bound_account(self, claim: Claim, *, sandbox: bool) -> str | None:
        """The account that this post was begun on; None when nothing of it was sent."""
        ...

    async def render(self, claim: Claim, *, sandbox: bool) -> PaidJournal:
        """The render's row, made when there is none. Raises NotYet when the sandbox would go on with a real render."""
        ...


class StageStore(Protocol):
    """The table of stages as a runner needs it."""

    async def claim(self, stage: Stage, keys: Sequence[str], *, owner: str, context: RunContext) -> Claims:
        """Claim what can be claimed, in one transaction, attempt rows included."""
        ...

    async def heartbeat(self, owner: str) -> None:
        """Renew the lease of everything that owner holds."""
        ...

    async def regenerate(self, stage: Stage, keys: Sequence[str], *, run_id: str = "") -> None:
        """Make done rows ready again as a new revision, except those that this very run has made; void what depends on them.

        Raises InvalidInput when a post is in flight.
        """
        ...

    async def attempt(self, claim: Claim) -> Attempt:
        """The handle of the attempt that the claim opened."""
        ...

    async def try_again(self, claim: Claim, outcome: AttemptOutcome) -> Claim:
        """Close the attempt and open the next one under the same claim. Raises StaleClaim."""
        ...

    async def failing_seconds(self, claim: Claim) -> float | None:
        """By the database's clock: how long ago the first failure was that cost an attempt of the present budget; None: none."""
        ...

    async def finish(self, claim: Claim, outcome: AttemptOutcome) -> bool:
        """Write the outcome. False: another runner has taken over and nothing was written."""
        ...

    async def release(self, owner: str) -> None:
        """Hand back everything that owner still holds, at once and without using up an attempt (the run was stopped)."""
        ...
