"""What a stage of a video waits for, and what its person types, as words. Pure: what is known comes in as values.

`phantoms status`, `show` and `watch` say the same about the same video, because they ask here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from phantoms_dagster.domain.stages import STAGES

# What `production.stages.post` says of a post before its time.
GOES_OUT = "goes out at "
# What a person should hear of a video first. What has ended well or cannot begin yet is no news.
NEWS = ("failed", "rejected", "running", "deferred", "ready", "discarded")
OPEN_STATES = ("ready", "running", "deferred")


@dataclass(frozen=True)
class WaitingStage:
    """A stage that has not ended well: its state, from when on it may run, when it is tried again, and why not before."""

    state: str
    ready_at: datetime | None = None
    retry_at: datetime | None = None
    error_class: str | None = None
    reason: str | None = None


@dataclass(frozen=True)
class Outage:
    """A breaker that is not closed. `stages`: the names of the stages that wait for it.

    `account`: of one account alone. `until`: its next probe; None: it stays open until a person closes it. `probing`: a probe is
    under way.
    """

    breaker: str
    stages: frozenset[str]
    account: str | None = None
    until: datetime | None = None
    probing: bool = False

    def stops(self, stage: str, accounts: Mapping[str, str]) -> bool:
        """Whether this stage waits for it. `accounts`: the accounts of the video's channel, by platform."""
        if stage not in self.stages:
            return False
        return self.account is None or self.account == accounts.get(stage.partition("/")[0])


@dataclass(frozen=True)
class Outages:
    """What is out of order. `problem`: why Redis could not be asked; then nothing is carried out at all."""

    found: tuple[Outage, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class VideoSummary:
    """The one thing to know of a video: its stage, that stage's state, why (may be empty), and how many more are like it."""

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
    """What the stage waits for; empty when for nothing in particular. `say` writes a time for its reader."""
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
    """When the breaker may close."""
    if outage.probing:
        return "a probe is under way"
    return f"probed from {say(outage.until)} on" if outage.until else f"until `phantoms breakers reset {outage.breaker}`"


def news(
    waiting: Mapping[str, WaitingStage],
    *,
    now: datetime,
    say: Callable[[datetime], str],
    outages: Sequence[Outage] = (),
    accounts: Mapping[str, str] | None = None,
) -> VideoSummary | None:
    """The most important of a video's stages; None when there is nothing to say."""
    for state in NEWS:
        stages = [name for name in STAGES if name in waiting and waiting[name].state == state]
        if stages:
            first = stages[0]
            why = note(first, waiting[first], now=now, say=say, outages=outages, accounts=accounts)
            return VideoSummary(first, state, why, len(stages) - 1)
    return None


def next_steps(key: str, waiting: Mapping[str, WaitingStage]) -> list[str]:
    """What a person may do about it, as commands with a reason behind each. Empty when nothing needs a person."""
    failed = [name for name in STAGES if name in waiting and waiting[name].state == "failed"]
    steps = []
    if failed:
        steps.append(f"phantoms dead-letters show {key}    # why {' and '.join(failed)} failed")
        steps.append(f"phantoms dead-letters replay {key}    # once the cause is gone")
    if "approval" in waiting and waiting["approval"].state == "rejected":
        steps.append(f"phantoms retry {key} --from script    # a new script and a new film, to decide on again")
    return steps
