"""Says in words what a stage of a video waits for, and which commands a person can type next. Pure functions.

`phantoms status`, `show` and `watch` all use it, so that they say the same about the same video.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from phantoms_dagster.domain.stages import STAGES

# How `production.stages.post` begins the reason of a post that is scheduled.
GOES_OUT = "goes out at "
# The states worth reporting, the most important first. Stages that are done or blocked are not reported.
SUMMARY_STATES = ("failed", "rejected", "running", "deferred", "ready", "discarded")
OPEN_STATES = ("ready", "running", "deferred")


@dataclass(frozen=True)
class WaitingStage:
    """A stage that is not done: its state, the earliest time it may run, the time of its next retry, and the reason."""

    state: str
    ready_at: datetime | None = None
    retry_at: datetime | None = None
    error_class: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Outage:
    """A breaker that is not closed. `stages`: the names of the stages that wait for it.

    `account`: the one account it covers, if it does not cover the whole platform. `until`: the time of its next probe; None: it
    stays open until a person closes it. `probing`: a probe is running.
    """

    breaker: str
    stages: frozenset[str]
    account: str | None = None
    until: datetime | None = None
    probing: bool = False

    def stops(self, stage: str, accounts: Mapping[str, str]) -> bool:
        """Whether this stage waits for the breaker. `accounts`: the accounts of the video's channel, by platform."""
        if stage not in self.stages:
            return False
        return self.account is None or self.account == accounts.get(stage.partition("/")[0])


@dataclass(frozen=True)
class Outages:
    """All outages. `problem`: why Redis could not be read; then no work runs at all."""

    found: tuple[Outage, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class VideoSummary:
    """The most important fact about a video: a stage, its state, a note (may be empty), and how many others share the state."""

    stage: str
    state: str
    note: str
    more: int = 0


def note(
    stage: str,
    waiting: WaitingStage,
    *,
    now: datetime,
    say: Callable[[datetime], str],
    outages: Iterable[Outage] = (),
    accounts: Mapping[str, str] | None = None,
) -> str:
    """What the stage waits for; empty when it waits for nothing in particular. `say` formats a time for the reader."""
    if waiting.state not in OPEN_STATES:
        return ""
    if waiting.state == "ready" and waiting.ready_at is not None and waiting.ready_at > now:
        return f"scheduled for {say(waiting.ready_at)}"
    reason = waiting.reason or ""
    if waiting.state == "deferred" and waiting.retry_at is not None and reason.startswith(GOES_OUT):
        return f"scheduled for {say(waiting.retry_at)}"
    stopped = next((outage for outage in outages if outage.stops(stage, accounts or {})), None)
    if stopped is not None:
        return f"waits: the breaker of {stopped.breaker} is open, {probe(stopped, say)}"
    if waiting.state == "deferred" and waiting.retry_at is not None:
        return f"tried again {say(waiting.retry_at)}" if waiting.retry_at > now else "tried again now"
    return ""


def probe(outage: Outage, say: Callable[[datetime], str]) -> str:
    """When the breaker is probed next, or how to close it by hand."""
    if outage.probing:
        return "a probe is under way"
    return f"probed from {say(outage.until)} on" if outage.until else f"until `phantoms breakers reset {outage.breaker}`"


def summarize(
    waiting: Mapping[str, WaitingStage],
    *,
    now: datetime,
    say: Callable[[datetime], str],
    outages: Sequence[Outage] = (),
    accounts: Mapping[str, str] | None = None,
) -> VideoSummary | None:
    """The summary of a video's most important stage; None when there is nothing to report."""
    for state in SUMMARY_STATES:
        stages = [name for name in STAGES if name in waiting and waiting[name].state == state]
        if stages:
            first = stages[0]
            why = note(first, waiting[first], now=now, say=say, outages=outages, accounts=accounts)
            return VideoSummary(first, state, why, len(stages) - 1)
    return None


def next_steps(key: str, waiting: Mapping[str, WaitingStage]) -> list[str]:
    """The commands that a person can run for the video, each with its reason. Empty when nothing needs a person."""
    failed = [name for name in STAGES if name in waiting and waiting[name].state == "failed"]
    steps = []
    if failed:
        steps.append(f"phantoms dead-letters show {key}    # why {' and '.join(failed)} failed")
        steps.append(f"phantoms dead-letters replay {key}    # once the cause is gone")
    if "approval" in waiting and waiting["approval"].state == "rejected":
        steps.append(f"phantoms retry {key} --from script    # a new script and a new video, to decide on again")
    return steps
