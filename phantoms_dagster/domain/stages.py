"""The stages of a video, the states of a stage and the legal transitions between them: one table each.

Who carries out a transition belongs in `store`; when, in `production`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType

from phantoms_dagster.domain.errors import IllegalTransition, UnknownStage
from phantoms_dagster.domain.models import Platform


@dataclass(frozen=True)
class Stage:
    """One step of a video's way. `after` is what the graph shows; `needs` is every output its use case reads."""

    name: str
    kind: str
    pool: str
    after: tuple[str, ...]
    needs: tuple[str, ...]
    platform: Platform | None = None

    @property
    def usual(self) -> bool:
        """Whether every installation has videos in it. The stages of other platforms cost nothing until a video has them."""
        return self.platform is None or self.platform.spec.usual

    @property
    def slug(self) -> str:
        """The name as an identifier, and the asset's key: `youtube/post` is `youtube_post`."""
        return self.name.replace("/", "_")


def _all_stages() -> dict[str, Stage]:
    stages = [
        Stage("script", "script", "script", (), ()),
        Stage("voiceover", "voiceover", "voiceover", ("script",), ("script",)),
        Stage("rendered_video", "rendered_video", "render", ("voiceover",), ("script", "voiceover")),
        Stage("approval", "approval", "approval", ("rendered_video",), ("script", "rendered_video")),
    ]
    for platform in Platform:
        variant, post = f"{platform}/variant", f"{platform}/post"
        stages.append(Stage(variant, "variant", "variant", ("approval",), ("script", "rendered_video", "approval"), platform))
        stages.append(
            Stage(post, "post", f"publish_{platform}", (variant,), ("script", "rendered_video", "approval", variant), platform)
        )
    return {stage.name: stage for stage in stages}


STAGES: Mapping[str, Stage] = MappingProxyType(_all_stages())


@dataclass(frozen=True)
class Chain:
    """Stages that one run may do one after the other for a few videos, when nobody else waits: a run costs a second to start."""

    name: str
    stages: tuple[Stage, ...]

    @property
    def head(self) -> Stage:
        """The stage it begins with."""
        return self.stages[0]

    @property
    def fused(self) -> tuple[Stage, ...]:
        """The stages that a run of it does. The others follow in runs of their own, when a video has them."""
        return tuple(stage for stage in self.stages if stage.usual)

    @property
    def works(self) -> frozenset[str]:
        """What a run of it can work on: the whole chain, or one of its stages."""
        return frozenset({self.name, *(stage.name for stage in self.stages)})


# A person decides between the two. A chain is also the name of its queue and its job.
CHAINS: Mapping[str, Chain] = MappingProxyType(
    {
        "make": Chain("make", tuple(s for s in STAGES.values() if s.kind in ("script", "voiceover", "rendered_video"))),
        "release": Chain("release", tuple(s for s in STAGES.values() if s.kind in ("approval", "variant", "post"))),
    }
)


def stages_of(work: str) -> tuple[Stage, ...]:
    """The stages of a run that works on `work`, a stage's or a chain's name. Raises UnknownStage."""
    return CHAINS[work].fused if work in CHAINS else (stage(work),)


def stage(name: str) -> Stage:
    """The stage of that name. Raises UnknownStage, which lists the names there are."""
    try:
        return STAGES[name]
    except KeyError:
        raise UnknownStage(f"unknown stage {name!r}; the stages are {', '.join(STAGES)}") from None


def stages_for(platforms: tuple[Platform, ...]) -> tuple[Stage, ...]:
    """The stages of a video that is wanted on those platforms, in the order they run."""
    return tuple(s for s in STAGES.values() if s.platform is None or s.platform in platforms)


def downstream(name: str) -> tuple[Stage, ...]:
    """Every stage that reads, directly or not, what `name` makes, in the order they run."""
    reached = {name}
    for candidate in STAGES.values():
        if reached & set(candidate.after):
            reached.add(candidate.name)
    return tuple(s for s in STAGES.values() if s.name in reached and s.name != name)


@cache
def upstream(name: str) -> tuple[Stage, ...]:
    """Every stage that comes before `name`, in the order they run."""
    return tuple(s for s in STAGES.values() if any(later.name == name for later in downstream(s.name)))


class State(StrEnum):
    """Where one video is in one stage."""

    BLOCKED = "blocked"
    READY = "ready"
    RUNNING = "running"
    DEFERRED = "deferred"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    DISCARDED = "discarded"


class Event(StrEnum):
    """What can happen to a stage of a video."""

    UNBLOCK = "unblock"
    CLAIM = "claim"
    FINISH = "finish"
    DEFER = "defer"
    FAIL = "fail"
    REJECT = "reject"
    REPLAY = "replay"
    REGENERATE = "regenerate"
    VOID = "void"
    DISCARD = "discard"


TRANSITIONS: Mapping[tuple[State, Event], State] = MappingProxyType(
    {
        (State.BLOCKED, Event.UNBLOCK): State.READY,
        (State.READY, Event.CLAIM): State.RUNNING,
        (State.DEFERRED, Event.CLAIM): State.RUNNING,
        (State.FAILED, Event.CLAIM): State.RUNNING,  # a person or a backfill asks again
        (State.RUNNING, Event.CLAIM): State.RUNNING,  # the lease ran out: somebody else takes over
        (State.REJECTED, Event.CLAIM): State.RUNNING,  # a reviewer decides again
        (State.RUNNING, Event.FINISH): State.DONE,
        (State.RUNNING, Event.DEFER): State.DEFERRED,
        (State.RUNNING, Event.FAIL): State.FAILED,
        (State.RUNNING, Event.REJECT): State.REJECTED,
        (State.FAILED, Event.REPLAY): State.READY,
        (State.REJECTED, Event.REPLAY): State.READY,
        (State.FAILED, Event.DISCARD): State.DISCARDED,
        (State.DISCARDED, Event.REPLAY): State.READY,
        (State.DONE, Event.REGENERATE): State.READY,
        (State.READY, Event.VOID): State.BLOCKED,
        (State.RUNNING, Event.VOID): State.BLOCKED,
        (State.DEFERRED, Event.VOID): State.BLOCKED,
        (State.DONE, Event.VOID): State.BLOCKED,
        (State.FAILED, Event.VOID): State.BLOCKED,
        (State.REJECTED, Event.VOID): State.BLOCKED,
        (State.DISCARDED, Event.VOID): State.BLOCKED,
        (State.BLOCKED, Event.VOID): State.BLOCKED,
    }
)


def after(state: State, event: Event) -> State:
    """The state that follows. Raises IllegalTransition."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a stage that is {state} cannot {event}") from None


def sources(event: Event) -> tuple[State, ...]:
    """The states in which that event may happen."""
    return tuple(state for state, happening in TRANSITIONS if happening is event)


class PostState(StrEnum):
    """Where a post is in its publishing protocol. What may follow is in `domain.publication`."""

    INTENT = "intent"
    OPENED = "opened"
    UPLOADING = "uploading"
    COMMITTING = "committing"
    UNKNOWN = "unknown"
    PUBLISHED = "published"
    CONFIRMED = "confirmed"
    FAILED = "failed"
