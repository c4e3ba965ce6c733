"""pybreaker's half of a breaker: the policy, and the in-memory copy of Redis' state, which is all that pybreaker sees.

Nothing here does I/O. `breaker` refreshes the copy and sends pybreaker's decisions to Redis.
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
    """When a breaker opens and when it is probed.

    It opens when the last `window_seconds` hold at least `minimum_calls` calls, and either a share of `failure_rate` (0..1] of them
    failed or the last `minimum_calls` all failed. Without the second rule, successes from before an outage would hide it for half a
    window, and videos would use up their attempts. It is probed after `reset_seconds`. A probe whose process died is given up after
    `probe_seconds`.
    """

    window_seconds: float = 30.0
    minimum_calls: int = 10
    failure_rate: float = 0.5
    reset_seconds: float = 10.0
    probe_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Raises ValueError for a policy under which a breaker would never open or never close."""
        if min(self.window_seconds, self.reset_seconds, self.probe_seconds) <= 0 or self.minimum_calls < 1:
            raise ValueError("times must be above zero and the minimum at least one call")
        if not 0 < self.failure_rate <= 1:
            raise ValueError("a failure rate is above 0 and at most 1")


class MirrorStorage(pybreaker.CircuitBreakerStorage):
    """The state that pybreaker sees: the last snapshot from Redis plus the successes not yet reported. Times are on our clock."""

    def __init__(self, name: str, policy: BreakerPolicy) -> None:
        super().__init__(name)
        self._policy = policy
        self._state = pybreaker.STATE_CLOSED
        self._since: datetime | None = None
        self.calls = self.failures = self.streak = self.unreported_successes = 0
        self.wait = 0.0
        self.manual = False
        self.looked_at = -CACHE_SECONDS * 2
        self.proposed: str | None = None
        self.probing = False

    def apply(self, look: lua.BreakerSnapshot) -> None:
        """Replace the copy with a snapshot from Redis."""
        self._state, self.calls, self.failures, self.streak = look.state, look.calls, look.failures, look.streak
        self.wait, self.manual = look.wait, look.manual
        self._since = None if look.since_ago is None else datetime.now(UTC) - timedelta(seconds=look.since_ago)
        self.looked_at = time.monotonic()

    def assume(self, state: str) -> None:
        """Set the state for judging the next outcome, without proposing it to the other processes."""
        self._state = state

    @property
    def state(self) -> str:
        """`closed`, `open` or `half-open`."""
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        """pybreaker's decision: applied here at once. The caller proposes it to the other processes."""
        if state == pybreaker.STATE_OPEN:
            # `wait` may still hold the longest duration of a probe, which is minutes for a long call.
            self.wait = self._policy.reset_seconds
        self.proposed = self._state = state

    @property
    def counter(self) -> int:
        """1 when the window holds too many failures (`fail_max` is 1), else 0. pybreaker's own counter has no window."""
        least, calls = self._policy.minimum_calls, self.calls + self.unreported_successes
        dead = self.streak >= least and not self.unreported_successes
        return int(calls >= least and (dead or self.failures >= calls * self._policy.failure_rate))

    @property
    def success_counter(self) -> int:
        """1 while the probe's outcome is judged, else 0: a single answered probe closes the breaker."""
        return int(self.probing)

    @property
    def opened_at(self) -> datetime | None:
        """When the state last changed, on our clock."""
        return self._since

    @opened_at.setter
    def opened_at(self, at: datetime) -> None:
        """Set only in the copy: Redis records the time itself when it opens the breaker."""
        self._since = at


class ProbeOnly(pybreaker.CircuitBreakerListener):
    """Lets only the probe's outcome reach a half-open breaker, counts successes, and calls `changed` on each change of state."""

    def __init__(self, storage: MirrorStorage, changed: Callable[[str, str, str], None] | None) -> None:
        self._storage = storage
        self._changed = changed

    def before_call(self, cb: pybreaker.CircuitBreaker, *_called: object, **_with: object) -> None:  # noqa: ARG002 - pybreaker's
        """Raises CircuitBreakerError for the late outcome of a call other than the probe."""
        if self._storage.state == pybreaker.STATE_HALF_OPEN and not self._storage.probing:
            raise pybreaker.CircuitBreakerError("half-open: only the probe's outcome counts")

    def success(self, cb: pybreaker.CircuitBreaker) -> None:  # noqa: ARG002 - pybreaker's name for it
        """Count a success. Redis learns of it with the next refresh."""
        self._storage.unreported_successes += 1

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,
        old_state: pybreaker.CircuitBreakerState | None,
        new_state: pybreaker.CircuitBreakerState,
    ) -> None:
        """Log and report a change of state, whichever process made it."""
        old = old_state.name if old_state is not None else "?"
        log.warning("the breaker of %s went from %s to %s", cb.name, old, new_state.name)
        if self._changed is not None:
            self._changed(self._storage.name, old, new_state.name)
