"""Decides which runs to request for the videos that are ready. No clock, no database, no Dagster: the table is read through a port.

A run can target only one contiguous range of partitions, so ready videos are grouped into contiguous ranges around the most urgent
ones. Only those are read, because a hundred thousand videos may be waiting.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from phantoms_dagster.domain.planning import OpenRun, PlannedRun, ReadyVideo, ReadyVideos, Span
from phantoms_dagster.domain.stages import CHAINS, STAGES, Chain, stages_of

# The time bucket in a run key. Dagster launches a run key only once, so without it a run that died before its claim could never be
# requested again.
RUN_KEY_SECONDS = 60
# A video that is to be published within this time goes ahead of all other videos of its stage in the run queue.
NEAR = timedelta(hours=1)
NEAR_BONUS = 10
# By chain. It is more than any `make` run can have, so that approved videos go ahead of videos that are still being made.
CHAIN_BONUS = {"release": 20}


@dataclass(frozen=True)
class BatchPolicy:
    """How ready videos are grouped into runs.

    - `batch_size`: the most videos in one run.
    - `runs_per_stage`: the most open runs of one stage.
    - `chain_videos`: up to this many videos do a whole chain in one run (0: never).
    - `batch_wait`: how long an incomplete batch waits for more videos while a run of the previous stage is open.
    """

    batch_size: int
    runs_per_stage: int
    chain_videos: int = 0
    batch_wait: timedelta = timedelta(0)


def plan(
    waiting: ReadyVideos, *, chain: Chain, open_runs: Sequence[OpenRun], policy: BatchPolicy, now: datetime
) -> list[PlannedRun]:
    """The runs to request for the stages of the chain, the most urgent of each stage first. Videos of open runs are left out.

    Runs of other chains do not matter here, because a person's decision separates the chains.
    """
    open_runs = [run for run in open_runs if run.target in chain.targets]
    spans = waiting.spans(open_runs)
    room = {stage.name: policy.runs_per_stage - sum(run.target == stage.name for run in open_runs) for stage in chain.stages}
    most = {name: max(free * policy.batch_size, policy.chain_videos + 1) for name, free in room.items() if free > 0}
    seeds = {name: list(found) for name, found in waiting.most_urgent(most, _by_stage(spans)).items() if found}
    planned: list[PlannedRun] = []
    few = seeds.get(chain.head.name, [])
    if 0 < len(few) <= policy.chain_videos and not any(run.target == chain.name for run in open_runs):
        cut = _RangeCutter(chain.head.name, _by_stage(spans), policy.batch_size)
        run = cut.run(chain.name, few[0], waiting.around([(chain.head.name, few[0].position)], policy.batch_size), now)
        planned.append(run)
        seeds[chain.head.name] = [v for v in few if v.key not in run.keys]
    # The videos of a chain run continue in that run, so no batch waits for them.
    under_way = {run.target for run in open_runs} if policy.batch_wait else set()
    cuts = {
        name: _RangeCutter(name, _by_stage(spans), policy.batch_size)
        for name, found in seeds.items()
        if found and not _waits_for_batch(name, found, under_way, policy, now)
    }
    for _ in range(policy.runs_per_stage):
        chosen = {name: seed for name, cut in cuts.items() if room[name] > 0 and (seed := cut.next(seeds[name]))}
        if not chosen:
            break
        windows = waiting.around([(name, seed.position) for name, seed in chosen.items()], policy.batch_size)
        for name, seed in chosen.items():
            planned.append(cuts[name].run(name, seed, windows, now))
            room[name] -= 1
    return planned


def _by_stage(spans: Iterable[Span]) -> list[Span]:
    return [Span(stage.name, span.first, span.last) for span in spans for stage in stages_of(span.target)]


def _waits_for_batch(
    name: str, found: Sequence[ReadyVideo], under_way: Collection[str], policy: BatchPolicy, now: datetime
) -> bool:
    """Whether the batch waits for videos that the previous stage is about to finish. Separate runs for them would cost more."""
    if len(found) >= policy.batch_size or not set(STAGES[name].after) & set(under_way):
        return False
    return min(video.since for video in found) > now - policy.batch_wait


class _RangeCutter:
    """Cuts ranges of videos for one stage. They overlap neither each other nor an open run."""

    def __init__(self, stage: str, spans: Iterable[Span], batch_size: int) -> None:
        self._stage = stage
        self._taken = [span for span in spans if span.target == stage]
        self._batch_size = batch_size

    def next(self, seeds: Iterable[ReadyVideo]) -> ReadyVideo | None:
        """The most urgent video that is not in a range yet, or None."""
        return next((video for video in seeds if self._is_free(video)), None)

    def run(
        self, target: str, seed: ReadyVideo, windows: Mapping[tuple[str, int], Sequence[ReadyVideo]], now: datetime
    ) -> PlannedRun:
        """A run over the range that begins at the seed. If the batch is not full, the range also extends before the seed."""
        window = windows.get((self._stage, seed.position), ()) or (seed,)
        at = next((n for n, video in enumerate(window) if video.position == seed.position), None)
        if at is None:  # it was claimed after it was listed
            window, at = (seed,), 0
        after = list(self._free(window[at:]))[: self._batch_size]
        before = list(self._free(reversed(window[:at])))[: self._batch_size - len(after)]
        videos = [*reversed(before), *after]
        self._taken.append(Span(self._stage, videos[0].position, videos[-1].position))
        return _request(target, videos, now)

    def _free(self, videos: Iterable[ReadyVideo]) -> Iterator[ReadyVideo]:
        for video in videos:
            if not self._is_free(video):
                return
            yield video

    def _is_free(self, video: ReadyVideo) -> bool:
        return not any(video.position in span for span in self._taken)


def _request(target: str, videos: Sequence[ReadyVideo], now: datetime) -> PlannedRun:
    first, last = videos[0].key, videos[-1].key
    facts = "".join(f"{v.key}:{v.generation};" for v in videos)
    digest = hashlib.sha256(facts.encode()).hexdigest()[:12]
    bucket = int(now.timestamp()) // RUN_KEY_SECONDS
    near = any(v.publish_at is not None and v.publish_at <= now + NEAR for v in videos)
    return PlannedRun(
        target=target,
        first=first,
        last=last,
        keys=tuple(v.key for v in videos),
        run_key=f"{target}/{first}..{last}/{digest}/{bucket}",
        priority=9 - min(v.priority for v in videos) + (NEAR_BONUS if near else 0) + _bonus(target),
    )


def _bonus(target: str) -> int:
    return next((bonus for name, bonus in CHAIN_BONUS.items() if target in CHAINS[name].targets), 0)
