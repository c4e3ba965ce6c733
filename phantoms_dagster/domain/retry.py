"""Retry decisions as values: wait here, come back later, or give up.

The functions are pure: no clock, no sleep, no table, no client. The runner carries the decisions out. Each provider's adapter turns
the provider's answers into error classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from phantoms_dagster.domain.errors import HumanRejection, NotYet, PhantomsError, ProviderError, Throttled, Transient, Unknown

# Quotas reset daily. A provider that asks for a longer wait, or sends `Retry-After: inf`, is tried again after a day.
MAX_RETRY_AFTER_SECONDS = 86_400.0
# The wait before an unknown outcome is read back. It doubles each time, because listings lag behind commits.
READ_BACK_SECONDS = 30.0
# A stage that waits for the same thing again and again is retried less and less often, between the first two of these waits. The
# second is short, because nothing wakes a stage when a breaker closes or a pool is free. The third is for stages held by another
# run (a busy account), which wakes them when it ends.
ASK_AGAIN_SECONDS, ASK_AGAIN_MAX_SECONDS, HELD_MAX_SECONDS = 5.0, 60.0, 300.0
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.05, 1.0
_MOST_DOUBLINGS = 64  # 2.0**1024 would overflow; every wait reaches its limit long before


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The budget of one stage. `attempts` includes the first one.

    A transient failure is final when all attempts are used up and `give_up_seconds` have passed since the first failure that cost
    one. If no other video got through the stage in that time, the service may be down, and `give_up_alone_seconds` must have
    passed. `max_wait_seconds` limits how long one claim may wait inside a run. For a longer wait the stage is deferred and holds no
    process.
    """

    attempts: int = 5
    backoff_seconds: float = 2.0
    backoff_max_seconds: float = 900.0
    max_wait_seconds: float = 120.0
    give_up_seconds: float = 1_800.0
    give_up_alone_seconds: float = 259_200.0

    def __post_init__(self) -> None:
        """Refuse an impossible budget."""
        if self.attempts < 1:
            raise ValueError("a stage needs at least one attempt")
        if not 0 < self.backoff_seconds <= self.backoff_max_seconds:
            raise ValueError("the first back-off must be above zero and no longer than the maximum")
        if self.max_wait_seconds < 0:
            raise ValueError("the max wait cannot be negative")
        if self.give_up_seconds < 0 or self.give_up_alone_seconds < 0:
            raise ValueError("the time after which a stage is given up cannot be negative")

    def give_up_after(self, *, alone: bool) -> float:
        """How many seconds a stage may fail for temporary reasons. `alone`: no other video got through the stage meanwhile."""
        return max(self.give_up_seconds, self.give_up_alone_seconds) if alone else self.give_up_seconds


@dataclass(frozen=True, slots=True)
class WaitHere:
    """Sleep `seconds` inside the run, then retry. `counts`: the error used up an attempt."""

    seconds: float
    reason: str = ""
    counts: bool = False


@dataclass(frozen=True, slots=True)
class Defer:
    """Retry in another run after `seconds`, or at `until` when it is given. `counts`: the error used up an attempt."""

    seconds: float
    reason: str
    counts: bool
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Fail:
    """Create a dead letter now. `error_class`: the ProviderError's own class, `permanent`, `rejected` or `internal`."""

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
    alone: bool = False,
    outage: bool = False,
    again: int = 0,
) -> RetryDecision:
    """Decide what to do after `error` ended attempt number `attempt` (from 1, counting only attempts that cost one).

    - `random` returns numbers from 0 to 1.
    - `now`: compares the time of a NotYet with the max wait. Without it, the NotYet's `retry_after` is used.
    - `reads`: how often an unknown outcome was read back so far (default: `attempt - 1`).
    - `waits_for_others`: this run may also wait for another run.
    - `failing_seconds`: the time since the first failure that cost an attempt (None: this is the first).
    - `alone`: no other video got through the stage in that time.
    - `outage`: a breaker of the failed call was not closed. The provider is down, so the failure costs no attempt.
    - `again`: how many attempts right before this one ended at no cost.

    The decision depends on the class of the error:

    - Transient waits with full jitter, `random() * min(max, base * 2**(attempt-1))`, in addition to the provider's Retry-After.
      Without the jitter all waiting stages would return at the same moment. It fails when `policy.attempts` and
      `policy.give_up_after` are both used up; until then the waits keep growing. In an outage they stay as short as those for
      an open breaker, so that work resumes soon after it.
    - Throttled waits in the same way and never fails. It costs no attempt.
    - NotYet waits as long as it says. If another run must end first, it waits in the table, and longer each time. It costs no
      attempt.
    - Unknown waits `30 s * 2**reads`, at most the maximum back-off, before it is read back. It is never sent again, costs no
      attempt and never times out.
    - Anything else fails at once.

    Raises `error` itself when it is not an Exception: a cancellation or an interrupt is not a failure.
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
        if costs and attempt >= policy.attempts and (failing_seconds or 0.0) >= policy.give_up_after(alone=alone):
            return Fail(error.error_class)
        wish = _wish(error.retry_after)
        # An error at no cost does not raise `attempt`, so without a Retry-After its waits grow with `again` instead.
        doublings = attempt - 1 if costs or wish else attempt - 1 + again
        # The breaker already limits the load, so a failed probe need not return later than the calls that the breaker refused.
        longest = min(policy.backoff_max_seconds, ASK_AGAIN_MAX_SECONDS) if outage else policy.backoff_max_seconds
        backoff = random() * _doubled(policy.backoff_seconds, doublings, longest)
        return _wait(wish + backoff, str(error), counts=costs, policy=policy)
    return Fail(_class_of(error))


def _not_yet(
    error: NotYet, *, policy: RetryPolicy, random: Callable[[], float], now: datetime | None, here: bool, again: int
) -> RetryDecision:
    asked = (error.until - now).total_seconds() if error.until is not None and now is not None else error.retry_after
    seconds = _finite(asked, math.inf)
    if here and again:
        # If two clocks differ, a time may have passed here and not there. Without a minimum that would be a busy loop.
        seconds = max(seconds, _doubled(SHORTEST_PAUSE_SECONDS, again - 1, LONGEST_PAUSE_SECONDS))
    if here and seconds <= policy.max_wait_seconds:
        return WaitHere(seconds, str(error), counts=False)
    longest = HELD_MAX_SECONDS if error.held else ASK_AGAIN_MAX_SECONDS
    grown = _doubled(ASK_AGAIN_SECONDS, again - 1, longest) * (0.5 + 0.5 * random()) if again else 0.0
    if grown > seconds:
        return Defer(grown, str(error), counts=False)
    return Defer(seconds, str(error), counts=False, until=error.until)


def _wait(seconds: float, reason: str, *, counts: bool, policy: RetryPolicy) -> RetryDecision:
    """Wait here when the max wait allows it, else defer."""
    if seconds <= policy.max_wait_seconds:
        return WaitHere(seconds, reason, counts)
    return Defer(seconds, reason, counts)


def _doubled(base: float, times: int, most: float) -> float:
    """Return `base * 2**times`, at most `most`."""
    return min(most, base * 2.0 ** min(max(times, 0), _MOST_DOUBLINGS))


def _wish(retry_after: float | None) -> float:
    """A provider's Retry-After as a finite number of seconds."""
    return _finite(retry_after or 0.0, MAX_RETRY_AFTER_SECONDS)


def _finite(seconds: float, most: float) -> float:
    """Clamp `seconds` to 0..most. NaN becomes 0 and infinity a day, because a header can contain anything."""
    if math.isnan(seconds):
        return 0.0
    if math.isinf(seconds):
        return MAX_RETRY_AFTER_SECONDS if seconds > 0 else 0.0
    return min(max(seconds, 0.0), most)


def _class_of(error: Exception) -> str:
    if isinstance(error, ProviderError):
        return error.error_class
    if isinstance(error, HumanRejection):
        return "rejected"
    return "permanent" if isinstance(error, PhantomsError) else "internal"
