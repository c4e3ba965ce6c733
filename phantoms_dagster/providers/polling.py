"""Looking again and again inside one call: how long between two looks, and when to give the call back.

What is looked at, and what an answer means, belongs in each adapter.
"""

from __future__ import annotations

from collections.abc import Iterator

from phantoms_dagster.domain.errors import NotYet
from phantoms_dagster.domain.ports import Clock

# Short videos are often ready at once: the first looks come quickly.
FIRST_PAUSE_SECONDS = 0.5


def pauses(longest: float) -> Iterator[float]:
    """Seconds between looks: half a second, doubled up to `longest`, for ever."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield min(pause, longest)
        pause *= 2


def pause_at(age: float, longest: float) -> float:
    """Seconds until the next look at something that began `age` seconds ago: as long again as it has taken, up to `longest`.

    A call that comes back after a deferral goes on as slowly as the last one ended, where `pauses` would begin quickly again.
    """
    return min(max(FIRST_PAUSE_SECONDS, age), longest)


class Polling:
    """Waits until `seconds` of them are used up, then raises NotYet.

    The pauses of `poll` begin with `first` seconds and double up to `longest`. `again`: seconds until the next call, as NotYet
    says it; None: as long as the wait that did not fit any more.
    """

    def __init__(self, clock: Clock, seconds: float, *, first: float, longest: float, again: float | None = None) -> None:
        self._clock, self._left, self._next = clock, seconds, first
        self._longest, self._again = longest, again

    async def wait(self, seconds: float, why: str) -> None:
        """Wait that long. Raises NotYet, at once, when that is longer than what is left."""
        if seconds > self._left:
            raise NotYet(why, retry_after=seconds if self._again is None else self._again)
        self._left -= seconds
        await self._clock.sleep(seconds)

    async def poll(self, why: str) -> None:
        """Wait until the next look. Raises NotYet."""
        pause, self._next = self._next, min(self._next * 2, self._longest)
        await self.wait(pause, why)
