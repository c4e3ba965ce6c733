"""The stages of a video, the states of a stage and the legal transitions between states: one table each.

`production` decides when a transition happens. `store` writes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Literal

from phantoms_dagster.domain.errors import IllegalTransition, UnknownStage
from phantoms_dagster.domain.models import (
    ApprovalOutput,
    Platform,
    PostOutput,
    RenderedVideoOutput,
    ScriptOutput,
    VariantOutput,
    VoiceoverOutput,
)
from phantoms_dagster.domain.values import Value


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage. Assets, jobs, queues and retirement are all derived from this table.

    - `kind`: the name that the stages of all platforms share, such as `post`.
    - `output`: the type of its output.
    - `after`: its parents in the asset graph. `needs`: every output that its use case reads.
    - `chain`: the chain it is part of.
    - `regenerates`: its run config has an option to make it again.
    - `files`: how it uses the media store.
    - `kept_by`: the values of PHANTOMS_MEDIA_KEEP that keep its files after a video is retired.
    - `description` and `tools` are shown in Dagster's catalog.
    """

    name: str
    kind: str
    output: type[Value]
    pool: str
    chain: Literal["make", "release"]
    description: str
    tools: frozenset[str]
    after: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    platform: Platform | None = None
    regenerates: bool = False
    files: Literal["none", "reads", "writes"] = "none"
    kept_by: tuple[str, ...] = ("all", "master", "none")

    @property
    def usual(self) -> bool:
        """Whether every installation uses it. The stages of other platforms cost nothing until a video needs them."""
        return self.platform is None or self.platform.spec.usual

    @property
    def slug(self) -> str:
        """The name as an identifier: `youtube/post` is `youtube_post`."""
        return self.name.replace("/", "_")


_COMMON = (
    Stage(
        name="script",
        kind="script",
        output=ScriptOutput,
        pool="script",
        chain="make",
        description="Hook, scenes, title, caption and hashtags, written by a language model from the brief in the channel's voice.",
        tools=frozenset({"openai", "json"}),
        regenerates=True,
    ),
    Stage(
        name="voiceover",
        kind="voiceover",
        output=VoiceoverOutput,
        pool="voiceover",
        chain="make",
        description="The script spoken by a neural voice, with the exact time of each sentence.",
        tools=frozenset({"python", "audio"}),
        after=("script",),
        needs=("script",),
        regenerates=True,
        files="writes",
        kept_by=("all",),
    ),
    Stage(
        name="rendered_video",
        kind="rendered_video",
        output=RenderedVideoOutput,
        pool="render",
        chain="make",
        description="The master: 1080x1920, 30 fps, H.264 and AAC at -14 LUFS, made by the render API or local ffmpeg, "
        "then probed.",
        tools=frozenset({"ffmpeg", "video"}),
        after=("voiceover",),
        needs=("script", "voiceover"),
        regenerates=True,
        files="writes",
        kept_by=("all", "master"),
    ),
    Stage(
        name="approval",
        kind="approval",
        output=ApprovalOutput,
        pool="approval",
        chain="release",
        description="A person's decision about exactly these bytes and words. Nothing is published without it. "
        "Decide with `phantoms approve`, or materialize with run config {decision, reviewer, note}.",
        tools=frozenset({"human"}),
        after=("rendered_video",),
        needs=("script", "rendered_video"),
    ),
)


def _stages_of(platform: Platform) -> tuple[Stage, Stage]:
    variant = Stage(
        name=f"{platform}/variant",
        kind="variant",
        output=VariantOutput,
        pool="variant",
        chain="release",
        description=f"The approved video within {platform.title}'s limits, remuxed where that is enough, "
        "and the title and caption that go with it.",
        tools=frozenset({"ffmpeg", str(platform)}),
        after=("approval",),
        needs=("script", "rendered_video", "approval"),
        platform=platform,
        files="writes",
        kept_by=("all",),
    )
    post = Stage(
        name=f"{platform}/post",
        kind="post",
        output=PostOutput,
        pool=f"publish_{platform}",
        chain="release",
        description=f"The video published on {platform.title}, exactly once: the ledger records each step before the next request.",
        tools=frozenset({str(platform)}),
        after=(variant.name,),
        needs=("script", "rendered_video", "approval", variant.name),
        platform=platform,
        files="reads",
    )
    return variant, post


STAGES: Mapping[str, Stage] = MappingProxyType(
    {stage.name: stage for stage in (*_COMMON, *(stage for platform in Platform for stage in _stages_of(platform)))}
)
# One stage of each kind, for what all stages of a kind share.
KINDS: Mapping[str, Stage] = MappingProxyType({stage.kind: stage for stage in reversed(tuple(STAGES.values()))})


@dataclass(frozen=True)
class Chain:
    """Stages that one run may do in sequence for a few videos when nothing else waits. A run costs about a second to start."""

    name: str
    stages: tuple[Stage, ...]

    @property
    def head(self) -> Stage:
        """Its first stage."""
        return self.stages[0]

    @property
    def joined(self) -> tuple[Stage, ...]:
        """The stages that one run of the chain does. The other stages get runs of their own."""
        return tuple(stage for stage in self.stages if stage.usual)

    @property
    def targets(self) -> frozenset[str]:
        """The possible targets of its runs: the whole chain, or one of its stages."""
        return frozenset({self.name, *(stage.name for stage in self.stages)})


# A person decides between the two chains. A chain's name is also the name of its queue and its job.
CHAINS: Mapping[str, Chain] = MappingProxyType(
    {name: Chain(name, tuple(stage for stage in STAGES.values() if stage.chain == name)) for name in ("make", "release")}
)


def stages_of(target: str) -> tuple[Stage, ...]:
    """The stages of a run whose target is `target`, the name of a stage or a chain. Raises UnknownStage."""
    return CHAINS[target].joined if target in CHAINS else (stage(target),)


def stage(name: str) -> Stage:
    """The stage of that name. Raises UnknownStage, which lists all names."""
    try:
        return STAGES[name]
    except KeyError:
        raise UnknownStage(f"unknown stage {name!r}; the stages are {', '.join(STAGES)}") from None


def stages_for(platforms: tuple[Platform, ...]) -> tuple[Stage, ...]:
    """The stages of a video for those platforms, in the order they run."""
    return tuple(s for s in STAGES.values() if s.platform is None or s.platform in platforms)


def downstream(name: str) -> tuple[Stage, ...]:
    """Every stage that comes after `name`, directly or not, in the order they run."""
    reached = {name}
    for candidate in STAGES.values():
        if reached & set(candidate.after):
            reached.add(candidate.name)
    return tuple(s for s in STAGES.values() if s.name in reached and s.name != name)


@cache
def upstream(name: str) -> tuple[Stage, ...]:
    """Every stage that comes before `name`, directly or not, in the order they run."""
    return tuple(s for s in STAGES.values() if any(later.name == name for later in downstream(s.name)))


class StageState(StrEnum):
    """The state of one stage of one video."""

    BLOCKED = "blocked"
    READY = "ready"
    RUNNING = "running"
    DEFERRED = "deferred"
    DONE = "done"
    FAILED = "failed"
    REJECTED = "rejected"
    DISCARDED = "discarded"


class StageEvent(StrEnum):
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


TRANSITIONS: Mapping[tuple[StageState, StageEvent], StageState] = MappingProxyType(
    {
        (StageState.BLOCKED, StageEvent.UNBLOCK): StageState.READY,
        (StageState.READY, StageEvent.CLAIM): StageState.RUNNING,
        (StageState.DEFERRED, StageEvent.CLAIM): StageState.RUNNING,
        (StageState.FAILED, StageEvent.CLAIM): StageState.RUNNING,  # a person or a backfill asks again
        (StageState.RUNNING, StageEvent.CLAIM): StageState.RUNNING,  # the lease ran out: another runner takes over
        (StageState.REJECTED, StageEvent.CLAIM): StageState.RUNNING,  # a reviewer decides again
        (StageState.RUNNING, StageEvent.FINISH): StageState.DONE,
        (StageState.RUNNING, StageEvent.DEFER): StageState.DEFERRED,
        (StageState.RUNNING, StageEvent.FAIL): StageState.FAILED,
        (StageState.RUNNING, StageEvent.REJECT): StageState.REJECTED,
        (StageState.FAILED, StageEvent.REPLAY): StageState.READY,
        (StageState.REJECTED, StageEvent.REPLAY): StageState.READY,
        (StageState.FAILED, StageEvent.DISCARD): StageState.DISCARDED,
        (StageState.DISCARDED, StageEvent.REPLAY): StageState.READY,
        (StageState.DONE, StageEvent.REGENERATE): StageState.READY,
        (StageState.READY, StageEvent.VOID): StageState.BLOCKED,
        (StageState.RUNNING, StageEvent.VOID): StageState.BLOCKED,
        (StageState.DEFERRED, StageEvent.VOID): StageState.BLOCKED,
        (StageState.DONE, StageEvent.VOID): StageState.BLOCKED,
        (StageState.FAILED, StageEvent.VOID): StageState.BLOCKED,
        (StageState.REJECTED, StageEvent.VOID): StageState.BLOCKED,
        (StageState.DISCARDED, StageEvent.VOID): StageState.BLOCKED,
        (StageState.BLOCKED, StageEvent.VOID): StageState.BLOCKED,
    }
)


def next_state(state: StageState, event: StageEvent) -> StageState:
    """The state after the event. Raises IllegalTransition."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise IllegalTransition(f"a stage that is {state} cannot {event}") from None


def states_before(event: StageEvent) -> tuple[StageState, ...]:
    """The states in which the event is legal."""
    return tuple(state for state, happening in TRANSITIONS if happening is event)


class PostState(StrEnum):
    """The state of a post. The legal steps are in `domain.publication`."""

    INTENT = "intent"
    OPENED = "opened"
    UPLOADING = "uploading"
    COMMITTING = "committing"
    UNKNOWN = "unknown"
    HANDED_OVER = "handed_over"
    PUBLISHED = "published"
    CONFIRMED = "confirmed"
    FAILED = "failed"
