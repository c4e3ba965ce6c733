"""Retirement: removes videos that ended long ago from Dagster's partitions. Their rows stay, and so does everything read from them.

Only this module decides the order of steps. `cleaning` deletes files. After a crash between two steps, the next night finishes:

1. The video is marked in the table. From then on the planner ignores it, and a person can restore it.
2. Its partition is deleted, while the video's rows are locked and after another look at the open runs.
3. The removal of the partition is recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from phantoms_dagster.domain.retirement import InFlight, RetirementCandidate
from phantoms_dagster.domain.stages import STAGES, StageState

# The limit of one night. At one or two milliseconds per video this takes seconds, and it is five times the output of a busy day.
MOST_A_NIGHT = 5_000
# How many partitions are deleted between two looks at the open runs.
BATCH = 100

ENDED = (StageState.DONE, StageState.REJECTED, StageState.DISCARDED)
GIVEN_UP = (StageState.REJECTED, StageState.DISCARDED)


class Partitions(Protocol):
    """The set of partitions, and the runs that work on them."""

    def keys(self) -> Sequence[str]:
        """All keys, in the order that ranges use."""
        ...

    def in_flight(self) -> InFlight:
        """What open runs and backfills work on."""
        ...

    def delete(self, key: str) -> None:
        """Delete a partition. Deleting a missing one is no error."""
        ...

    def add(self, keys: Sequence[str]) -> None:
        """Add partitions at the end. Existing ones keep their position."""
        ...


class PartitionRemoval(Protocol):
    """Marked videos with locked rows, so that they cannot be claimed, replayed or restored meanwhile."""

    @property
    def videos(self) -> Sequence[RetirementCandidate]:
        """Their current states."""
        ...

    def mark_removed(self, keys: Sequence[str]) -> None:
        """Record that these partitions are deleted."""
        ...

    def restore(self, keys: Sequence[str]) -> None:
        """Restore these videos. Their partitions still have their old positions."""
        ...

    def restore_at_end(self, keys: Sequence[str]) -> None:
        """Restore these videos. Their partitions were added at the end."""
        ...


class RetirementStore(Protocol):
    """The table of videos, as retirement uses it."""

    def unfinished(self, most: int) -> list[str]:
        """Keys of marked videos whose partition may still exist, oldest first."""
        ...

    def due(self, before: datetime, *, after: int, most: int) -> list[RetirementCandidate]:
        """Videos that ended before that time and have no open stage, with ids above `after`, in the order of their ids."""
        ...

    def mark(self, keys: Sequence[str], may: Callable[[RetirementCandidate], bool]) -> list[str]:
        """Lock the videos, mark those for which `may` is still true, and return their keys."""
        ...

    def lock_for_removal(self, keys: Sequence[str]) -> AbstractContextManager[PartitionRemoval]:
        """Lock the videos that are still marked. Leaving the block commits everything; an exception rolls everything back."""
        ...


@dataclass
class RetirementReport:
    """The result of one night, as keys of videos. `held`: an open run works on them. `taken_back`: restored.

    `overtaken`: a run was launched for them meanwhile and will fail. `unclear`: runs whose partitions cannot be determined.
    `more`: there may be more videos to retire.
    """

    retired: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    taken_back: list[str] = field(default_factory=list)
    overtaken: list[str] = field(default_factory=list)
    unclear: set[str] = field(default_factory=set)
    more: bool = False


def open_because(video: RetirementCandidate) -> str | None:
    """Why the video has not ended; None when it has. Then each stage is done or given up, or waits for one that was given up.

    A failed stage has not ended, because its dead letter waits for a person. A post with an unknown outcome has not ended either,
    even if its dead letter was discarded: only a read can show what happened to it.
    """
    if not video.registered:
        return "it is new: Dagster does not know it yet"
    for name, stage in STAGES.items():
        state = video.states.get(name)
        if state is StageState.FAILED:
            return f"{name} failed: replay or discard its dead letter"
        if state is StageState.BLOCKED and not _never_runs(stage.name, video):
            return f"{name} waits for {' and '.join(stage.after)}"
        if state not in (None, StageState.BLOCKED, *ENDED):
            return f"{name} is {state}"
    for platform, post in video.posts.items():
        return f"its post on {platform} is {post}"
    return None


def _never_runs(name: str, video: RetirementCandidate) -> bool:
    """Whether that blocked stage will never run, because an earlier stage was given up."""
    before = [(earlier, video.states.get(earlier)) for earlier in STAGES[name].after]
    return any(state in GIVEN_UP or (state is StageState.BLOCKED and _never_runs(earlier, video)) for earlier, state in before)


def covered(in_flight: InFlight, order: Sequence[str], asked: Collection[str]) -> frozenset[str]:
    """Those of the keys in `asked` that a run or backfill works on. `order`: all partitions in order, needed only for ranges.

    If that cannot be determined, for example because a range's end no longer exists, all keys are returned.
    """
    positions = {key: position for position, key in enumerate(order)}
    if in_flight.unclear or any(key not in positions for ends in in_flight.ranges for key in ends):
        return frozenset(asked)
    spans = [sorted(positions[key] for key in ends) for ends in in_flight.ranges]
    inside = {key for key in asked if key in positions and any(first <= positions[key] <= last for first, last in spans)}
    return in_flight.keys.intersection(asked) | inside


def retire(
    store: RetirementStore, partitions: Partitions, *, before: datetime | None, most: int = MOST_A_NIGHT
) -> RetirementReport:
    """Finish removals begun earlier, then retire at most `most` videos that ended before that time (None: only finish).

    Videos that a run works on are left for another night.
    """
    night = RetirementReport()
    begun = store.unfinished(most)
    for start in range(0, len(begun), BATCH):
        _remove_partitions(store, partitions, begun[start : start + BATCH], night, fresh=False)
    after = 0
    while before is not None and (left := most - len(night.retired) - len(night.held)) > 0:
        videos = store.due(before, after=after, most=min(BATCH, left))
        if not videos:
            break
        after = videos[-1].id
        ended = [video.key for video in videos if open_because(video) is None]
        busy = _busy(partitions, ended, night)
        night.held += [key for key in ended if key in busy]
        marked = store.mark([key for key in ended if key not in busy], may_be_retired(before))
        _remove_partitions(store, partitions, marked, night, fresh=True)
    night.more = len(night.retired) + len(night.held) >= most
    return night


def may_be_retired(before: datetime) -> Callable[[RetirementCandidate], bool]:
    """Returns a function that says whether a video ended before that time."""
    return lambda video: open_because(video) is None and video.ended_at is not None and video.ended_at < before


def _remove_partitions(
    store: RetirementStore, partitions: Partitions, keys: Sequence[str], night: RetirementReport, *, fresh: bool
) -> None:
    """Do steps 2 and 3. `fresh`: the videos were marked just now, so those that are held are unmarked again."""
    if not keys:
        return
    with store.lock_for_removal(keys) as videos:
        alive = [video.key for video in videos.videos if open_because(video) is not None]
        rest = [video.key for video in videos.videos if video.key not in alive]
        held, free = _split(rest, _busy(partitions, rest, night))
        for key in free:
            partitions.delete(key)
        # A run launched since the last look fails before it claims anything, because its partition is gone. For a run of a single
        # video the partition can be added again. The end of a range cannot get its old position back.
        late = partitions.in_flight()
        wanted, gone = _split(free, late.keys)
        night.overtaken += _split(gone, frozenset(end for ends in late.ranges for end in ends))[0]
        partitions.add(wanted)
        videos.restore_at_end(wanted)
        videos.mark_removed(gone)
        videos.restore([*alive, *(held if fresh else [])])
    night.retired += gone
    night.held += held
    night.taken_back += [*alive, *wanted]


def _busy(partitions: Partitions, asked: Collection[str], night: RetirementReport) -> frozenset[str]:
    in_flight = partitions.in_flight()
    night.unclear.update(in_flight.unclear)
    # Reading 100,000 keys takes a quarter of a second, and only ranges need their order.
    return covered(in_flight, partitions.keys() if in_flight.ranges else (), asked)


def _split(keys: Iterable[str], inside: frozenset[str]) -> tuple[list[str], list[str]]:
    """Split the keys into those in `inside` and the others."""
    found: tuple[list[str], list[str]] = ([], [])
    for key in keys:
        found[key not in inside].append(key)
    return found
