"""Polling within one call: the pauses between polls, and when to stop and come back later."""

from __future__ import annotations

from collections.abc import Iterator

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.ports import Clock

# Short videos are often ready at once, so the first polls come quickly.
FIRST_PAUSE_SECONDS = 0.5


def pauses(longest: float) -> Iterator[float]:
    """Endless pauses between polls, in seconds: half a second, doubled each time up to `longest`."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield min(pause, longest)
        pause *= 2


def pause_at(age: float, longest: float) -> float:
    """Seconds until the next poll of something that began `age` seconds ago: as long as it has taken so far, up to `longest`.

    A call that returns after a deferral thus continues at the pace at which the last one stopped; `pauses` would start over.
    """
    return min(max(FIRST_PAUSE_SECONDS, age), longest)


class Polling:
    """Waits between polls until `seconds` in total are used up, then raises NotYet.

    The pauses of `poll` start at `first` seconds and double up to `longest`. `again` is the NotYet's `retry_after`; None means the
    wait that no longer fitted.
    """

    def __init__(self, clock: Clock, seconds: float, *, first: float, longest: float, again: float | None = None) -> None:
        self._clock, self._left, self._next = clock, seconds, first
        self._longest, self._again = longest, again

    async def wait(self, seconds: float, why: str) -> None:
        """Wait `seconds`. Raises NotYet at once when less is left."""
        if seconds > self._left:
            raise NotYet(why, retry_after=seconds if self._again is None else self._again)
        self._left -= seconds
        await self._clock.sleep(seconds)

    async def poll(self, why: str) -> None:
        """Wait until the next poll. Raises NotYet when the time is used up."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        await self.wait(pause, why)
