"""pybreaker's half of a breaker: its rules, and the copy in memory of what Redis says, which is all that pybreaker sees.

Nothing here does I/O; `breaker` brings the copy up to date and carries pybreaker's verdicts to Redis.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pybreaker

from phantoms_dagster.resilience.breakers import scripts as lua

log = logging.getLogger(__name__)

CACHE_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a breaker opens: at least `minimum_calls` in the last `window_seconds`, of which `failure_rate` (0..1] failed, or of
    which the last `minimum_calls` all failed: what was well until a moment ago would hide an outage for half a window, in
    which videos use up their attempts.

    It is probed after `reset_seconds`; a probe whose process died is given up after `probe_seconds`.
    """

    window_seconds: float = 30.0
    minimum_calls: int = 10
    failure_rate: float = 0.5
    reset_seconds: float = 10.0
    probe_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse what would never open, or never close."""
        if min(self.window_seconds, self.reset_seconds, self.probe_seconds) <= 0 or self.minimum_calls < 1:
            raise ValueError("times must be above zero and the minimum at least one call")
        if not 0 < self.failure_rate <= 1:
            raise ValueError("a failure rate is above 0 and at most 1")


class MirrorStorage(pybreaker.CircuitBreakerStorage):
    """What pybreaker sees: the last look at Redis plus what has not been told to it yet. Times are translated to our clock."""

    def __init__(self, name: str, policy: BreakerPolicy) -> None:
        super().__init__(name)
        self._policy = policy
        self._state = pybreaker.STATE_CLOSED
        self._since: datetime | None = None
        self.calls = self.failures = self.streak = self.untold_successes = 0
        self.wait = 0.0
        self.manual = False
        self.looked_at = -CACHE_SECONDS * 2
        self.proposed: str | None = None
        self.probing = False

    def see(self, look: lua.BreakerSnapshot) -> None:
        """Take over what Redis says."""
        self._state, self.calls, self.failures, self.streak = look.state, look.calls, look.failures, look.streak
        self.wait, self.manual = look.wait, look.manual
        self._since = None if look.since_ago is None else datetime.now(UTC) - timedelta(seconds=look.since_ago)
        self.looked_at = time.monotonic()

    def assume(self, state: str) -> None:
        """Judge the next outcome as if this were the state; nothing is proposed to the fleet."""
        self._state = state

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        """pybreaker's verdict: believed at once here, proposed to the fleet by whoever called."""
        if state == pybreaker.STATE_OPEN:
            # What was looked up last may be the time that a probe is allowed to take, which is minutes for a long call.
            self.wait = self._policy.reset_seconds
        self.proposed = self._state = state

    @property
    def counter(self) -> int:
        """1 once the window holds too many failures (`fail_max` is 1), else 0: pybreaker's own count knows no window."""
        least, calls = self._policy.minimum_calls, self.calls + self.untold_successes
        dead = self.streak >= least and not self.untold_successes
        return int(calls >= least and (dead or self.failures >= calls * self._policy.failure_rate))

    @property
    def success_counter(self) -> int:
        """1 while the outcome at hand is the probe's: a single answer closes."""
        return int(self.probing)

    @property
    def opened_at(self) -> datetime | None:
        """When it last changed, by our clock."""
        return self._since

    @opened_at.setter
    def opened_at(self, at: datetime) -> None:
        """Redis sets the time of an opening together with the opening."""
        self._since = at


class ProbeOnly(pybreaker.CircuitBreakerListener):
    """Keeps all but the probe's outcome away from a half-open breaker, counts successes, and tells `changed` of each change."""

    def __init__(self, storage: MirrorStorage, changed: Callable[[str, str, str], None] | None) -> None:
        self._storage = storage
        self._changed = changed

    def before_call(self, cb: pybreaker.CircuitBreaker, *_called: object, **_with: object) -> None:  # noqa: ARG002 - pybreaker's
        """Raises CircuitBreakerError for a late outcome of a call that is not the probe."""
        if self._storage.state == pybreaker.STATE_HALF_OPEN and not self._storage.probing:
            raise pybreaker.CircuitBreakerError("half-open: only the probe's outcome counts")

    def success(self, cb: pybreaker.CircuitBreaker) -> None:  # noqa: ARG002 - pybreaker's name for it
        """A success is told to Redis with the next look."""
        self._storage.untold_successes += 1

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        """This process has seen the change, made here or elsewhere."""
        old = old_state.name if old_state is not None else "?"
        log.warning("the breaker of %s went from %s to %s", cb.name, old, new_state.name)
        if self._changed is not None:
            self._changed(self._storage.name, old, new_state.name)
