"""The outage of `phantoms demo --faults`: the sandbox's render API is down for twenty seconds while it makes videos.

Nothing is simulated on our side. The sandbox refuses every call, the stack's own breaker opens, and its own probe closes it. This
module only sets the fault in the sandbox and reads the breaker's history from Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from phantoms_dagster.cli.times import exact
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.resilience.breakers.breaker import Breakers, Transition
from phantoms_dagster.resilience.pools import SANDBOX
from phantoms_dagster.settings import Settings
from phantoms_dagster.wiring.redis_connection import breaker_policy, redis_scripts

ROUTES, BREAKER = "shotstack.*", f"{SANDBOX}shotstack"
SECONDS = 20.0
# Three videos together call the render API about once a second. With these settings that is enough to open a breaker within
# seconds, as happens with the defaults under the load of hundreds of videos.
BREAKER_SETTINGS = {
    "PHANTOMS_BREAKER_MINIMUM_CALLS": "3",
    "PHANTOMS_BREAKER_WINDOW_SECONDS": "10",
    "PHANTOMS_BREAKER_FAILURE_RATE": "0.5",
    "PHANTOMS_BREAKER_RESET_SECONDS": "5",
}
SETTINGS_IN_WORDS = "opens when half of at least 3 calls within 10 s failed, probes every 5 s"


@dataclass
class OutageReport:
    """What happened in the outage. All clocks are those of this machine.

    `died_at` and `lifted_at` are when the fault was set and removed, `opened_at` and `closed_at` when the breaker changed.
    `probes_failed` counts the probes that found the service still down. `waited` is the number of videos that had to wait.
    """

    provider: str = "shotstack"
    breaker: str = BREAKER
    died_at: datetime | None = None
    opened_at: datetime | None = None
    lifted_at: datetime | None = None
    closed_at: datetime | None = None
    probes_failed: int = 0
    waited: int = 0
    dead_letters: int = 0

    @property
    def problems(self) -> list[str]:
        """What went wrong; empty when the breaker opened and closed and nothing was given up."""
        if self.died_at is None:
            return ["the outage did not happen: all videos were finished before the render API could go down"]
        found = []
        if self.opened_at is None:
            found.append(f"the breaker {BREAKER} did not open during the outage")
        elif self.closed_at is None:
            found.append(f"the breaker {BREAKER} did not close after the outage")
        if self.dead_letters:
            found.append(f"{counted(self.dead_letters, 'dead letter was', 'dead letters were')} written")
        return found

    def as_json(self) -> dict[str, Any]:
        """Return the report for `--json`."""
        return asdict(self)


class DemoOutage:
    """Starts, ends and follows the outage. `look` is called repeatedly and never waits."""

    def __init__(
        self,
        sandbox_url: str,
        changes: Callable[[], Sequence[Transition]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        seconds: float = SECONDS,
    ) -> None:
        self._faults = f"{sandbox_url}/_sandbox/faults"
        self._changes = changes
        self._now = now
        self._seconds = seconds
        self.report = OutageReport()

    @property
    def down(self) -> bool:
        """Whether videos still wait: the service is down, or its breaker has not closed yet."""
        report = self.report
        return report.died_at is not None and (report.lifted_at is None or self._open)

    @property
    def _open(self) -> bool:
        return self.report.opened_at is not None and self.report.closed_at is None

    def look(self, *, submitted: bool, waiting: int) -> list[str]:
        """Take the next step if it is time, and return what is new, as sentences.

        `submitted`: every video has been ordered. `waiting` is the number of videos that are not finished.
        """
        report = self.report
        if report.died_at is None:
            if not submitted or not waiting:
                return []
            # Wait until all videos are ordered, because a paid order is not repeated for half an hour after an error: it may count.
            self._tell("POST", json={"route": ROUTES, "kind": "status", "status": 503})
            report.died_at, report.waited = self._now(), waiting
            return [f"{exact(report.died_at)} the render API went down; {_videos(waiting)} wait for their renders"]
        news = []
        if report.lifted_at is None or self._open:
            news += self._followed()
        if report.lifted_at is None and self._now() >= report.died_at + timedelta(seconds=self._seconds):
            self._tell("DELETE", params={"route": ROUTES})
            report.lifted_at = self._now()
            news.append(f"{exact(report.lifted_at)} the render API is back; the next probe will notice")
        return news

    def sentences(self, waiting: int) -> list[tuple[str, str]]:
        """Return the outage for the screen: sentences with styles. `waiting` is the number of videos that are not finished."""
        report = self.report
        if report.died_at is None:
            return []
        if not self.down:
            if report.closed_at is None:
                return []
            return [(f"render API back at {_clock(report.closed_at)}: its breaker closed, the videos continue", "bold green")]
        nothing = f"render API down since {_clock(report.died_at)} - {_videos(waiting)} wait, nothing is lost"
        if report.lifted_at is not None:
            return [(f"render API back since {_clock(report.lifted_at)} - the next probe will notice", "bold yellow")]
        if report.opened_at is None:
            return [(nothing, "bold red")]
        failed = report.probes_failed
        probes = f"; {failed} probe{'s' if failed > 1 else ''} failed" if failed else ""
        opened = f"its breaker opened at {_clock(report.opened_at)}: calls have stopped{probes}"
        return [(nothing, "bold red"), (opened, "red")]

    def _followed(self) -> list[str]:
        """Read what the breaker did since the outage began. Return what is new."""
        report, news = self.report, []
        assert report.died_at is not None
        changes = sorted((c for c in self._changes() if c.at >= report.died_at), key=lambda change: change.at)
        report.probes_failed = sum(change.why == "probe failed" for change in changes)
        opened = next((change.at for change in changes if change.new == "open"), None)
        if report.opened_at is None and opened is not None:
            report.opened_at = opened
            news.append(f"{exact(opened)} its breaker opened: calls have stopped, nothing is lost")
        closed = next((change.at for change in changes if change.new == "closed" and opened and change.at > opened), None)
        if closed is not None:
            report.closed_at = closed
            news.append(f"{exact(closed)} a probe succeeded and the breaker closed: the videos continue")
        return news

    def _tell(self, method: str, **what: Any) -> None:
        httpx.request(method, self._faults, timeout=30, trust_env=False, **what).raise_for_status()


def breaker_changes(settings: Settings) -> list[Transition]:
    """Read the recent history of the render API's breaker from Redis. Raises RedisAway."""

    async def ask() -> list[Transition]:
        async with redis_scripts(settings) as scripts:
            return await Breakers(scripts, policy=breaker_policy(settings)).history(BREAKER)

    return asyncio.run(ask())


def _videos(count: int) -> str:
    return counted(count, "video")


def _clock(moment: datetime) -> str:
    return f"{moment.astimezone():%H:%M:%S}"
