"""The values that the planner and the store exchange: ready videos, open runs, and runs to request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True)
class ReadyVideo:
    """A stage of a video that a run could work on now. `position`: the video's place in Dagster's partition order."""

    stage: str
    key: str
    position: int
    generation: int
    since: datetime
    priority: int = 5
    publish_at: datetime | None = None


@dataclass(frozen=True)
class OpenRun:
    """A run that is queued or running: its stage or chain, and its first and last partition key."""

    target: str
    first: str
    last: str


@dataclass(frozen=True)
class Span:
    """The partitions of an open run, as positions in Dagster's order including both ends. `target`: as in `OpenRun`."""

    target: str
    first: int
    last: int

    def __contains__(self, position: int) -> bool:
        return self.first <= position <= self.last


@dataclass(frozen=True)
class PlannedRun:
    """A run to request: one stage or one chain, over a contiguous range of partitions."""

    target: str
    first: str
    last: str
    keys: tuple[str, ...] = field(repr=False)
    run_key: str
    priority: int = 0


class ReadyVideos(Protocol):
    """The planner's queries to the table of stages."""

    def spans(self, runs: Sequence[OpenRun]) -> list[Span]:
        """The positions of open runs. A run whose first or last partition no longer exists is left out."""
        ...

    def most_urgent(self, most: Mapping[str, int], busy: Sequence[Span]) -> Mapping[str, Sequence[ReadyVideo]]:
        """For each stage, the most urgent videos that a run could work on now. Videos in a busy span of the stage are left out.

        `most`: the largest number of videos by stage. The nearest publish time comes first, then the highest priority (0 is the
        highest), then Dagster's order.
        """
        ...

    def around(self, wanted: Sequence[tuple[str, int]], most: int) -> Mapping[tuple[str, int], Sequence[ReadyVideo]]:
        """For each stage and position: the videos that a run could work on together with the one at that position.

        They are contiguous, in Dagster's order, and at most `most` in each direction.
        """
        ...
