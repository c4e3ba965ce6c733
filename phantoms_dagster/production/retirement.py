"""Retirement: videos that ended long ago leave the set of partitions. Their rows stay, and so does everything read from them.

In which order it is done is said here and nowhere else; what becomes of their files belongs in `cleaning`. A crash between
any two steps leaves what the next night finishes:

1. The video is marked in the table. From then on the planner leaves it alone, and a person can take it back.
2. Its partition is deleted, with the video's rows locked and after another look at the open runs.
3. It is noted that the partition is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from phantoms_dagster.domain.retirement import InFlight, RetirementCandidate
from phantoms_dagster.domain.stages import STAGES, StageState

# A night's work is bounded: at a millisecond or two each this is seconds, and five times what is made on a busy day.
MOST_A_NIGHT = 5_000
# So many are deleted between two looks at the open runs.
BATCH = 100

ENDED = (StageState.DONE, StageState.REJECTED, StageState.DISCARDED)
GIVEN_UP = (StageState.REJECTED, StageState.DISCARDED)


class Partitions(Protocol):
    """The set of partitions, and who works on them."""

    def keys(self) -> Sequence[str]:
        """All keys, in the order in which ranges are cut."""
        ...

    def in_flight(self) -> InFlight:
        """What runs that have not ended, and backfills, work on."""
        ...

    def delete(self, key: str) -> None:
        """Delete one; nothing happens when it is gone already."""
        ...

    def add(self, keys: Sequence[str]) -> None:
        """Add them at the end; those that are there stay where they are."""
        ...


class TakingOut(Protocol):
    """Marked videos whose rows are locked: nobody claims, replays or takes them back meanwhile."""

    @property
    def videos(self) -> Sequence[RetirementCandidate]:
        """Where they stand now."""
        ...

    def gone(self, keys: Sequence[str]) -> None:
        """Note that these partitions are deleted."""
        ...

    def back(self, keys: Sequence[str]) -> None:
        """Take these videos back; their partitions are where they were."""
        ...

    def anew(self, keys: Sequence[str]) -> None:
        """Take these videos back; their partitions are added at the end."""
        ...


class Retiring(Protocol):
    """The table of videos as retirement needs it."""

    def half_done(self, most: int) -> list[str]:
        """Videos that are marked and whose partition may still be there, oldest first."""
        ...

    def due(self, before: datetime, *, after: int, most: int) -> list[RetirementCandidate]:
        """Videos with an id above `after`, in that order, of which nothing is under way and that ended before that time."""
        ...

    def mark(self, keys: Sequence[str], may: Callable[[RetirementCandidate], bool]) -> list[str]:
        """Mark those of the videos that may be, asked again with their rows locked; their keys."""
        ...

    def taking_out(self, keys: Sequence[str]) -> AbstractContextManager[TakingOut]:
        """Lock those of the videos that are still marked. Everything is committed at the end, or nothing after an exception."""
        ...


@dataclass
class Retired:
    """What came of a night: keys of videos. `held`: a run is in flight. `overtaken`: a run was launched meanwhile and fails."""

    retired: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    taken_back: list[str] = field(default_factory=list)
    overtaken: list[str] = field(default_factory=list)
    unclear: set[str] = field(default_factory=set)
    more: bool = False


def open_because(video: RetirementCandidate) -> str | None:
    """Why the video has not ended; None when it has: every stage done or given up, or waiting for one that was given up.

    A failed stage has not ended: its dead letter waits for a person. Neither has a post whose outcome is open, although
    somebody discarded its letter: only a read can tell what became of it.
    """
    if not video.registered:
        return "it is new: Dagster does not know it yet"
    for name, stage in STAGES.items():
        state = video.states.get(name)
        if state is StageState.FAILED:
            return f"{name} failed: replay or discard its dead letter"
        if state is StageState.BLOCKED and not _in_vain(stage.name, video):
            return f"{name} waits for {' and '.join(stage.after)}"
        if state not in (None, StageState.BLOCKED, *ENDED):
            return f"{name} is {state}"
    for platform, post in video.posts.items():
        return f"its post on {platform} is {post}"
    return None


def _in_vain(name: str, video: RetirementCandidate) -> bool:
    """Whether that stage waits for one that was given up."""
    before = [(earlier, video.states.get(earlier)) for earlier in STAGES[name].after]
    return any(state in GIVEN_UP or (state is StageState.BLOCKED and _in_vain(earlier, video)) for earlier, state in before)


def covered(in_flight: InFlight, order: Sequence[str], asked: Collection[str]) -> frozenset[str]:
    """Those of the keys asked for that something works on. `order`: every partition, as ranges are cut; not needed without any.

    What cannot be told covers all of them, such as a range with an end that is gone.
    """
    places = {key: place for place, key in enumerate(order)}
    if in_flight.unclear or any(key not in places for ends in in_flight.ranges for key in ends):
        return frozenset(asked)
    spans = [sorted(places[key] for key in ends) for ends in in_flight.ranges]
    inside = {key for key in asked if key in places and any(first <= places[key] <= last for first, last in spans)}
    return in_flight.keys.intersection(asked) | inside


def retire(store: Retiring, partitions: Partitions, *, before: datetime | None, most: int = MOST_A_NIGHT) -> Retired:
    """Finish what an earlier night or a person has begun, then retire what ended before that time (None: nothing more).

    At most so many are looked at; those that something works on are left for another night.
    """
    night = Retired()
    begun = store.half_done(most)
    for start in range(0, len(begun), BATCH):
        _take_out(store, partitions, begun[start : start + BATCH], night, fresh=False)
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
        _take_out(store, partitions, marked, night, fresh=True)
    night.more = len(night.retired) + len(night.held) >= most
    return night


def may_be_retired(before: datetime) -> Callable[[RetirementCandidate], bool]:
    """Whether a video has ended, and before that time."""
    return lambda video: open_because(video) is None and video.ended_at is not None and video.ended_at < before


def _take_out(store: Retiring, partitions: Partitions, keys: Sequence[str], night: Retired, *, fresh: bool) -> None:
    """Steps 2 and 3. `fresh`: marked just now, so that what is held is not marked any longer than it must be."""
    if not keys:
        return
    with store.taking_out(keys) as videos:
        alive = [video.key for video in videos.videos if open_because(video) is not None]
        rest = [video.key for video in videos.videos if video.key not in alive]
        held, free = _split(rest, _busy(partitions, rest, night))
        for key in free:
            partitions.delete(key)
        # A run that was launched since the last look fails before it claims anything, for its partition is gone. One that is
        # for this video alone finds it again; the end of a range cannot be put back to where it was.
        late = partitions.in_flight()
        wanted, gone = _split(free, late.keys)
        night.overtaken += _split(gone, frozenset(end for ends in late.ranges for end in ends))[0]
        partitions.add(wanted)
        videos.anew(wanted)
        videos.gone(gone)
        videos.back([*alive, *(held if fresh else [])])
    night.retired += gone
    night.held += held
    night.taken_back += [*alive, *wanted]


def _busy(partitions: Partitions, asked: Collection[str], night: Retired) -> frozenset[str]:
    in_flight = partitions.in_flight()
    night.unclear.update(in_flight.unclear)
    # 100,000 keys take a quarter of a second to read, and only a range needs their order.
    return covered(in_flight, partitions.keys() if in_flight.ranges else (), asked)


def _split(keys: Iterable[str], inside: frozenset[str]) -> tuple[list[str], list[str]]:
    """Those inside, and those outside."""
    found: tuple[list[str], list[str]] = ([], [])
    for key in keys:
        found[key not in inside].append(key)
    return found
