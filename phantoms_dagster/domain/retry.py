"""What to do after an error, as a value: wait here, come back later, or give up.

Only decisions belong here: no clock, no sleeping, no table, no client. The runner carries them out; how a provider's
answer becomes an error class belongs to that provider's adapter.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from phantoms_dagster.domain.errors import HumanRejection, NotYet, PhantomsError, ProviderError, Throttled, Transient, Unknown

# Quotas turn over daily: a provider that wishes for more (or sends `Retry-After: inf`) is simply asked again after a day.
LONGEST_WISH_SECONDS = 86_400.0
# An unknown outcome is read back after this long, then twice as long, and so on: listings lag behind commits.
READ_BACK_SECONDS = 30.0
# Somebody who waits for the same thing again and again is asked for ever more rarely: from the first to the second of these.
# Nobody tells a run that a breaker has closed or a pool is free, so that second one is short. A busy account wakes who waits.
ASK_AGAIN_SECONDS, ASK_AGAIN_MAX_SECONDS, HELD_MAX_SECONDS = 5.0, 60.0, 300.0
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
_MOST_DOUBLINGS = 64  # 2.0**1024 overflows; long before that every wait has met its bound


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The budget of one stage. Seconds throughout; `attempts` counts the first one too.

    A transient failure is final when both are used up: the attempts, and `give_up_seconds` since the first of the failures that
    cost one. `max_wait_seconds` is all that one claim may wait inside a run: a longer wait is written to the table and holds no
    process.
    """

    attempts: int = 5
    backoff_seconds: float = 2.0
    backoff_max_seconds: float = 900.0
    max_wait_seconds: float = 120.0
    give_up_seconds: float = 1_800.0

    def __post_init__(self) -> None:
        """Refuse a budget that no error could be decided with."""
        if self.attempts < 1:
            raise ValueError("a stage has at least one attempt")
        if not 0 < self.backoff_seconds <= self.backoff_max_seconds:
            raise ValueError("the first back-off must be above zero and no longer than the longest")
        if self.max_wait_seconds < 0:
            raise ValueError("the longest wait cannot be negative")
        if self.give_up_seconds < 0:
            raise ValueError("the age at which a stage is given up cannot be negative")


@dataclass(frozen=True, slots=True)
class WaitHere:
    """Sleep `seconds` inside the run, then try again. `counts`: the error used up an attempt."""

    seconds: float
    reason: str = ""
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Defer:
    """Come back after `seconds`, or at `until` when that is given. `counts`: the error used up an attempt."""

    seconds: float
    reason: str
    counts: bool
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """Dead letter now. `error_class` is the letter's class: a ProviderError's own, `permanent`, `rejected` or `internal`."""

    error_class: str


RetryDecision = WaitHere | Defer | Fail


def decide(
    error: BaseException,
    *,
    attempt: int,
    policy: RetryPolicy,
    random: Callable[[], float],
    now: datetime | None = None,
    reads: int | None = None,
    waits_for_others: bool = False,
    failing_seconds: float | None = None,
    outage: bool = False,
    again: int = 0,
) -> RetryDecision:
    """What to do after `error` ended try number `attempt` (from 1, counting only tries that cost an attempt).

    `random` gives numbers in 0..1. `now` lets a NotYet with a time be compared with the longest wait; without it its
    `retry_after` is. `reads` is the number of read-backs of an unknown outcome so far (default: `attempt - 1`).
    `waits_for_others`: a wait for another run may be spent here as well as any other. `failing_seconds`: the time since the first
    failure that cost an attempt (None: this is it). `outage`: a breaker in the way of the failed call was not closed, so the
    provider is down and the failure costs nothing. `again`: how many tries before this one ended without a cost.

    - Transient waits with full jitter, `random() * min(max, base * 2**(attempt-1))`, on top of the provider's Retry-After:
      a floor that a crowd would otherwise come back at all at once. It fails when `policy.attempts` tries and
      `policy.give_up_seconds` are used up; until both are, the waits go on growing. In an outage they stay as short as those for
      an open breaker, so that work goes on soon after it.
    - Throttled waits alike and never fails. NotYet waits as long as it says, in the table when another run has to end first,
      and there ever longer when it was in vain before. Neither costs an attempt.
    - Unknown waits `30 s * 2**reads`, at most the longest back-off, for its read-back: it is never sent again, costs no
      attempt and is never given up by a timer.
    - Anything else fails at once.

    Raises `error` itself when it is no Exception: a cancellation or an interrupt is nobody's failure.
    """
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, NotYet):
        return _not_yet(error, policy=policy, random=random, now=now, here=waits_for_others or not error.held, again=again)
    if isinstance(error, Unknown):
        wait = _doubled(READ_BACK_SECONDS, attempt - 1 if reads is None else reads, policy.backoff_max_seconds)
        return _wait(max(wait, _wish(error.retry_after)), str(error), counts=False, policy=policy)
    if isinstance(error, Transient):
        costs = not isinstance(error, Throttled) and not outage
        if costs and attempt >= policy.attempts and (failing_seconds or 0.0) >= policy.give_up_seconds:
            return Fail(error.error_class)
        wish = _wish(error.retry_after)
        # What costs nothing does not count up: without a wish its waits grow by how often it has happened.
        doublings = attempt - 1 if costs or wish else attempt - 1 + again
        # The breaker keeps the crowd away: who was its probe need not come back later than those that it sent away.
        longest = min(policy.backoff_max_seconds, ASK_AGAIN_MAX_SECONDS) if outage else policy.backoff_max_seconds
        backoff = random() * _doubled(policy.backoff_seconds, doublings, longest)
        return _wait(wish + backoff, str(error), counts=costs, policy=policy)
    return Fail(_class_of(error))


def _not_yet(
    error: NotYet, *, policy: RetryPolicy, random: Callable[[], float], now: datetime | None, here: bool, again: int
) -> RetryDecision:
    said = (error.until - now).total_seconds() if error.until is not None and now is not None else error.retry_after
    seconds = _finite(said, math.inf)
    if here and again:
        # A time that has passed and still does not help (two clocks that differ) must not become a loop without a pause.
        seconds = max(seconds, _doubled(SHORTEST_PAUSE_SECONDS, again - 1, LONGEST_PAUSE_SECONDS))
    if here and seconds <= policy.max_wait_seconds:
        return WaitHere(seconds, str(error), counts=False)
    longest = HELD_MAX_SECONDS if error.held else ASK_AGAIN_MAX_SECONDS
    grown = _doubled(ASK_AGAIN_SECONDS, again - 1, longest) * (0.5 + 0.5 * random()) if again else 0.0
    if grown > seconds:
        return Defer(grown, str(error), counts=False)
    return Defer(seconds, str(error), counts=False, until=error.until)


def _wait(seconds: float, reason: str, *, counts: bool, policy: RetryPolicy) -> RetryDecision:
    """Here when the longest wait covers it, else later."""
    if seconds <= policy.max_wait_seconds:
        return WaitHere(seconds, reason, counts)
    return Defer(seconds, reason, counts)


def _doubled(base: float, times: int, most: float) -> float:
    """`base * 2**times`, at most `most`."""
    return min(most, base * 2.0 ** min(max(times, 0), _MOST_DOUBLINGS))


def _wish(retry_after: float | None) -> float:
    """A provider's Retry-After as a usable number of seconds."""
    return _finite(retry_after or 0.0, LONGEST_WISH_SECONDS)


def _finite(seconds: float, most: float) -> float:
    """`seconds` within 0..most; what is no number is 0, what is endless is a day: headers can say anything."""
    if math.isnan(seconds):
        return 0.0
    if math.isinf(seconds):
        return LONGEST_WISH_SECONDS if seconds > 0 else 0.0
    return min(max(seconds, 0.0), most)


def _class_of(error: Exception) -> str:
    if isinstance(error, ProviderError):
        return error.error_class
    if isinstance(error, HumanRejection):
        return "rejected"
    return "permanent" if isinstance(error, PhantomsError) else "internal"
