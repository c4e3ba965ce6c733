"""`StageRunner` runs one stage for many videos on one event loop. All stages share it.

It claims the videos, runs the stage's use case for each concurrently, retries or defers as decided, records the outcomes, and
renews the leases meanwhile. All waits of one claim share one budget, the max wait. A waiting video holds no concurrency slot.
`defs` writes the run's events.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Protocol

from phantoms_dagster.domain import logs
from phantoms_dagster.domain.attempt_context import AttemptContext, track_attempt
from phantoms_dagster.domain.claims import (
    HELD,
    WAITS_FOR_PERSON,
    AttemptOutcome,
    Claim,
    Failing,
    Result,
    RunContext,
    StageResult,
    StageStore,
    StageTask,
    Unclaimed,
)
from phantoms_dagster.domain.errors import (
    HumanRejection,
    NotYet,
    PhantomsError,
    ProviderError,
    StaleClaim,
    StoreAway,
    Transient,
    WaitsForPerson,
)
from phantoms_dagster.domain.ports import Clock
from phantoms_dagster.domain.retry import Defer, Fail, RetryDecision, RetryPolicy, WaitHere, decide
from phantoms_dagster.domain.stages import Stage, StageState

# How long the end of a run waits for a renewal of its leases that is under way, and then for the end of its cancellation.
HEART_SECONDS = 5.0

_log = logging.getLogger(__name__)

UseCase = Callable[[StageTask], Coroutine[Any, Any, StageResult]]
OnResult = Callable[[Result], None]


class Owners(Protocol):
    """Makes unique names for runners."""

    def __call__(self) -> str:
        """A new, unique name."""
        ...


class StageRunner:
    """Runs stages. One instance belongs to one event loop.

    `use_cases` and `policies` are by the stage's kind. `policy` is for kinds without their own. `in_flight`: the most videos worked
    on at the same time. `heartbeat_seconds`: a third of the lease.
    """

    def __init__(
        self,
        *,
        store: StageStore,
        use_cases: Mapping[str, UseCase],
        clock: Clock,
        policy: RetryPolicy,
        random: Callable[[], float],
        new_owner: Owners,
        in_flight: int,
        heartbeat_seconds: float,
        policies: Mapping[str, RetryPolicy] = MappingProxyType({}),
    ) -> None:
        self._store = store
        self._use_cases = use_cases
        self._clock = clock
        self._policy = policy
        self._policies = policies
        self._random = random
        self._new_owner = new_owner
        self._in_flight = asyncio.Semaphore(in_flight)
        self._heartbeat_seconds = heartbeat_seconds

    async def run(
        self,
        stage: Stage,
        keys: Sequence[str],
        context: RunContext,
        *,
        regenerate: bool = False,
        on_result: OnResult = lambda _: None,
    ) -> list[Result]:
        """Run the stage for each of `keys`. Returns the results in the order of `keys`.

        `on_result` is called for each video as soon as its outcome is committed. Raises StoreAway when PostgreSQL stays
        unavailable. That decides nothing about any video: remaining claims are released or expire with their leases.
        """
        owner = self._new_owner()
        if regenerate:
            await self._store.regenerate(stage, keys, run_id=context.run_id)
        claims = await self._store.claim(stage, keys, owner=owner, context=context)
        results: dict[str, Result] = {}

        def note(result: Result) -> None:
            results[result.key] = result
            on_result(result)

        for unclaimed in claims.unclaimed:
            note(_unclaimed_result(unclaimed))
        if claims.claimed:
            await self._work_on(claims.claimed, owner, note, context)
        return [results[key] for key in dict.fromkeys(keys)]

    async def _work_on(self, claims: Sequence[Claim], owner: str, note: OnResult, context: RunContext) -> None:
        use_case = self._use_cases[claims[0].stage.kind]
        over = asyncio.Event()
        heart = asyncio.create_task(self._renew_leases(owner, over))
        away: list[StoreAway] = []
        try:
            async with asyncio.TaskGroup() as group:
                for claim in claims:
                    group.create_task(self._run_claim(claim, use_case, note, away, context))
            if away:
                raise away[0]
        except BaseException as error:
            # The run is being stopped, or the store failed. Release the other claims now instead of letting their leases expire.
            with suppress(Exception):
                await asyncio.shield(self._store.release(owner))
            if isinstance(error, BaseExceptionGroup):
                raise error.exceptions[0] from error  # the store's own error says more than a group of them
            raise
        finally:
            over.set()
            await _ended(heart)

    async def _renew_leases(self, owner: str, over: asyncio.Event) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._heartbeat_seconds):
                    await over.wait()
            if over.is_set():
                return
            try:
                await self._store.heartbeat(owner)
            except Exception:  # noqa: BLE001
                # If the lease expires, another runner takes over. Every write is fenced against that.
                _log.warning("the lease could not be renewed", exc_info=True)

    async def _run_claim(self, claim: Claim, use_case: UseCase, note: OnResult, away: list[StoreAway], context: RunContext) -> None:
        """Run one video to its outcome. A StoreAway goes into `away`; after the first one no further use case starts.

        Use cases that are already running continue: their calls may be paid for, and PostgreSQL may be back in time for the answer.
        """
        try:
            with logs.about(run_id=claim.run_id, stage=claim.stage.name, video=claim.video.key):
                note(await self._run_to_outcome(claim, use_case, away, context))
        except StaleClaim as error:
            note(Result(claim.video.key, "stale", message=str(error)))
        except StoreAway as error:
            away.append(error)

    async def _run_to_outcome(self, claim: Claim, use_case: UseCase, away: Sequence[StoreAway], context: RunContext) -> Result:
        policy = self._policies.get(claim.stage.kind, self._policy)
        left, again = policy.max_wait_seconds, claim.waits
        paced: dict[str, float] = {}
        if context.max_wait_seconds is not None:
            left = min(left, context.max_wait_seconds)
        while True:
            this = AttemptContext(longest_wait=None if context.max_wait_seconds is None else left, paced=paced)
            try:
                made = await self._attempt(claim, use_case, this, away)
            except (StaleClaim, StoreAway):
                raise
            except Exception as error:  # noqa: BLE001  every error of a use case becomes a decision and is recorded with its class
                left = max(0.0, left - this.waited)
                failing = await self._failing(error, claim, policy)
                decision = decide(
                    error,
                    attempt=claim.attempts_used + 1,
                    policy=replace(policy, max_wait_seconds=left),
                    random=self._random,
                    now=self._clock.now(),
                    reads=claim.reads,
                    # For a person, a deferred video is an unfinished run. The sensor simply requests it again.
                    waits_for_others=context.by == "person",
                    failing_seconds=failing.seconds,
                    alone=failing.alone,
                    outage=this.outage,
                    again=again,
                )
                outcome = self._outcome(error, decision, this)
                if not isinstance(decision, WaitHere):
                    return await self._end(claim, outcome)
                left -= decision.seconds
                again = 0 if decision.counts else again + 1
                paced = dict(this.paced) if outcome.unsent else {}
                if outcome.waits_for:
                    paced[outcome.waits_for] = paced.get(outcome.waits_for, 0.0) + decision.seconds
                if not outcome.unsent:
                    try:
                        claim = await self._store.try_again(claim, outcome)
                    except (StaleClaim, StoreAway):
                        raise
                    except Exception as unwritable:  # noqa: BLE001  as in `_end`
                        _log.exception("an attempt of %s on %s cannot be closed", claim.stage.name, claim.video.key)
                        return await self._end(claim, _unwritable(unwritable))
                await self._clock.sleep(decision.seconds)
                continue
            return await self._end(claim, AttemptOutcome(StageState.DONE, result=made, counts=False, paced=this.paced))

    async def _failing(self, error: Exception, claim: Claim, policy: RetryPolicy) -> Failing:
        """How long the stage has been failing. It is read only when the decision depends on it."""
        if not isinstance(error, Transient) or claim.attempts_used + 1 < policy.attempts or not policy.give_up_seconds:
            return Failing()
        return await self._store.failing(claim)

    async def _attempt(self, claim: Claim, use_case: UseCase, this: AttemptContext, away: Sequence[StoreAway]) -> StageResult:
        attempt = await self._store.attempt(claim)
        await self._in_flight.acquire()
        this.slot = self._in_flight
        try:
            if away:
                raise away[0]
            with logs.about(attempt=attempt.id), track_attempt(this):
                try:
                    made = await use_case(StageTask(claim, attempt))
                except PhantomsError as error:
                    _log.info("%s not made for %s: %s: %s", claim.stage.name, claim.video.key, type(error).__name__, error)
                    raise
                except Exception:
                    _log.exception("%s failed on %s", claim.stage.name, claim.video.key)
                    raise
                _log.info("%s made for %s", claim.stage.name, claim.video.key)
                return made
        finally:
            if this.slot is not None:
                this.slot.release()

    async def _end(self, claim: Claim, outcome: AttemptOutcome) -> Result:
        try:
            ours = await self._store.finish(claim, outcome)
        except (StaleClaim, StoreAway):
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the outcome cannot be stored
            # Some value cannot be stored. Only this video is affected, and a person has to see it.
            _log.exception("the outcome of %s on %s cannot be written", claim.stage.name, claim.video.key)
            outcome = _unwritable(error)
            ours = await self._store.finish(claim, outcome)
        if not ours:
            raise StaleClaim(f"{claim.video.key}: another runner has taken over {claim.stage.name}")
        made = outcome.result
        return Result(
            key=claim.video.key,
            outcome=_NAMES[outcome.state],
            output=made.output if made else None,
            cost=made.cost if made else Result.cost,
            message=outcome.message or "",
            error_class=outcome.error_class,
            retry_at=outcome.retry_at,
        )

    def _outcome(self, error: Exception, decision: RetryDecision, this: AttemptContext) -> AttemptOutcome:
        provider = error.provider if isinstance(error, ProviderError) else None
        code = error.code if isinstance(error, ProviderError) else type(error).__name__
        evidence = error.evidence if isinstance(error, ProviderError) else None
        message = str(error) if isinstance(error, PhantomsError) else f"{type(error).__name__}: {error}"
        error_class = error.error_class if isinstance(error, ProviderError) else None
        if isinstance(error, NotYet) and error.held:
            error_class = HELD
        if isinstance(error, WaitsForPerson):
            # There is no retry time, because the decision makes the stage due.
            return AttemptOutcome(
                StageState.DEFERRED, None, None, False, error_class=WAITS_FOR_PERSON, message=message, unsent=not this.sent
            )
        match decision:
            case WaitHere():
                state, retry_at, counts = StageState.DEFERRED, None, decision.counts
            case Defer():
                retry_at = decision.until or self._clock.now() + timedelta(seconds=decision.seconds)
                state, counts = StageState.DEFERRED, decision.counts
            case Fail():
                state, retry_at, counts = (
                    (StageState.REJECTED if isinstance(error, HumanRejection) else StageState.FAILED),
                    None,
                    True,
                )
                error_class = decision.error_class
        unsent = isinstance(error, NotYet) and not this.sent
        outage = isinstance(error, Transient) and this.outage
        waits_for = error.waits_for if isinstance(error, NotYet) else ""
        return AttemptOutcome(
            state, None, retry_at, counts, provider, error_class, code, message, evidence, unsent, outage, this.paced, waits_for
        )


def _unwritable(error: Exception) -> AttemptOutcome:
    message = f"{type(error).__name__}: the output or the provider's answer cannot be stored: {error}"
    return AttemptOutcome(StageState.FAILED, None, None, True, None, "internal", type(error).__name__, message, None)


_NAMES: Mapping[StageState, Any] = {
    StageState.DONE: "done",
    StageState.DEFERRED: "deferred",
    StageState.FAILED: "failed",
    StageState.REJECTED: "rejected",
}


async def _ended(heart: asyncio.Task[None]) -> None:
    """Wait until the heart has ended, which was told to.

    It is cancelled only if PostgreSQL keeps it. A cancellation in the middle of a statement can lose the connection. And
    `asyncio.wait_for` of Python 3.11, which SQLAlchemy uses, can swallow a cancellation.
    """
    for _ in range(2):
        await asyncio.wait({heart}, timeout=HEART_SECONDS)
        heart.cancel()  # does nothing to a task that has ended


def _unclaimed_result(unclaimed: Unclaimed) -> Result:
    return Result(
        key=unclaimed.key,
        outcome=unclaimed.outcome,
        output=unclaimed.output,
        message=unclaimed.reason,
        error_class=unclaimed.error_class,
        retry_at=unclaimed.retry_at,
        fresh=False,
    )
