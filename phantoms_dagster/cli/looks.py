"""Checks of servers and services that run in parallel, each with a deadline, for `phantoms doctor`."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence

from phantoms_dagster.wiring.key_checks import Finding

SECONDS = 10.0
SLOW_SECONDS = 30.0  # an object store is written to, read from and cleaned


class ParallelChecks:
    """Runs each check in its own thread. A check that misses its deadline counts as failed, and its late result is ignored.

    Its thread cannot be stopped: nothing can interrupt a resolver that waits for name servers.
    """

    def __init__(self, asking: Callable[[Collection[str]], None]) -> None:
        self._asking = asking
        self._done: queue.SimpleQueue[tuple[str, Sequence[Finding] | BaseException]] = queue.SimpleQueue()
        self._running: dict[str, float] = {}

    def start(self, check: str, look: Callable[[], Sequence[Finding]], seconds: float = SECONDS) -> None:
        """Start a check with a deadline in `seconds`."""

        def run() -> None:
            try:
                self._done.put((check, look()))
            except BaseException as error:  # noqa: BLE001 - raised again where the findings are read
                self._done.put((check, error))

        self._running[check] = time.monotonic() + seconds
        self._asking(tuple(self._running))
        threading.Thread(target=run, name=f"look at {check}", daemon=True).start()

    def findings(self) -> Iterator[Finding]:
        """Yield the findings as they come in. Checks may be started meanwhile. Raises what a check raised."""
        while self._running:
            try:
                check, found = self._done.get(timeout=max(0.0, min(self._running.values()) - time.monotonic()))
            except queue.Empty:
                yield from self._late()
                continue
            if self._running.pop(check, None) is None:
                continue
            self._asking(tuple(self._running))
            if isinstance(found, BaseException):
                raise found
            yield from found

    def _late(self) -> Iterator[Finding]:
        now = time.monotonic()
        for check in [name for name, deadline in self._running.items() if deadline <= now]:
            del self._running[check]
            self._asking(tuple(self._running))
            yield Finding(check, "wrong", "no answer in time", "check the network and that its host name resolves")
