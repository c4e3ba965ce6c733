"""What passes between the planner and the store: videos that are ready, runs that are open, and runs to request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class ReadyVideo:
    """A video that a run could work on now, as the planner sees it."""

    stage: str
    key: str
    place: int
    generation: int
    since: datetime
    priority: int = 5
    publish_at: datetime | None = None


@dataclass(frozen=True)
class OpenRun:
    """A run that is queued or under way: the stage or the chain it works on and its first and last partition key."""

    target: str
    first: str
    last: str


@dataclass(frozen=True)
class Span:
    """The partitions of an open run, as places in Dagster's order, both ends included. `target`: as in `OpenRun`."""

    target: str
    first: int
    last: int

    def __contains__(self, place: int) -> bool:
        return self.first <= place <= self.last


@dataclass(frozen=True)
class PlannedRun:
    """A run to request: one stage, or the stages of one chain, over a contiguous range of partitions."""

    target: str
    first: str
    last: str
    keys: tuple[str, ...] = field(repr=False)
    run_key: str
    priority: int = 0


class ReadyVideos(Protocol):
    """What the planner asks the table of stages."""

    def spans(self, runs: Sequence[OpenRun]) -> list[Span]:
        """The places of open runs; those with a partition that is not there any more are left out."""
        ...

    def most_urgent(self, most: Mapping[str, int], busy: Sequence[Span]) -> Mapping[str, Sequence[ReadyVideo]]:
        """By stage at most so many of the videos that a run could work on now and no span of that stage covers.

        The nearest publish time comes first, then the highest priority (0 is the highest), then Dagster's order.
        """
        ...

    def around(self, wanted: Sequence[tuple[str, int]], most: int) -> Mapping[tuple[str, int], Sequence[ReadyVideo]]:
        """For each stage and place: the videos that a run could work on together with the one at that place.

        Neighbours without a gap, in Dagster's order, at most `most` in each direction.
        """
        ...
