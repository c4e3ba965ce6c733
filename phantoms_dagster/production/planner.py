"""What to run next: a pure function from rows to runs. No clock, no database, no Dagster.

A run can target only one contiguous range of partitions, so ready videos are grouped into contiguous ranges.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from phantoms_dagster.domain.work import OpenRun, PlannedRun, ReadyVideo

# The bucket makes a request that came to nothing (a run that died before its claim) possible again a little later.
RUN_KEY_SECONDS = 60


def plan(
    ready: Mapping[str, Sequence[ReadyVideo]],
    *,
    order: Mapping[str, int],
    open_runs: Iterable[OpenRun],
    batch_size: int,
    runs_per_stage: int,
    now: datetime,
) -> list[PlannedRun]:
    """The runs to request.

    `ready`: by stage. `order`: the place of each partition key, as Dagster lists them; keys without a place wait for the
    intake. `open_runs`: what is queued or under way; their videos are left to them. At most `batch_size` videos a run and
    `runs_per_stage` open runs a stage. The most urgent ranges come first.
    """
    covered: dict[str, list[tuple[int, int]]] = {}
    for run in open_runs:
        if run.first in order and run.last in order:
            covered.setdefault(run.stage, []).append((order[run.first], order[run.last]))
    planned: list[PlannedRun] = []
    for stage, videos in ready.items():
        busy = covered.get(stage, [])
        free = runs_per_stage - len(busy)
        if free <= 0:
            continue
        waiting = {order[v.key]: v for v in videos if v.key in order and not _inside(order[v.key], busy)}
        runs = [_run(stage, [waiting[p] for p in places], now) for places in _ranges(sorted(waiting), batch_size)]
        runs.sort(key=lambda pair: pair[0])
        planned += [run for _, run in runs[:free]]
    return planned


def _inside(place: int, ranges: Iterable[tuple[int, int]]) -> bool:
    return any(first <= place <= last for first, last in ranges)


def _ranges(places: Sequence[int], most: int) -> Iterable[list[int]]:
    current: list[int] = []
    for place in places:
        if current and (place != current[-1] + 1 or len(current) == most):
            yield current
            current = []
        current.append(place)
    if current:
        yield current


def _run(stage: str, videos: Sequence[ReadyVideo], now: datetime) -> tuple[tuple[float, int], PlannedRun]:
    """A run with its urgency: the nearest publish time first, then the highest priority (0 is the highest)."""
    first, last = videos[0].key, videos[-1].key
    facts = "".join(f"{v.key}:{v.generation};" for v in videos)
    digest = hashlib.sha256(facts.encode()).hexdigest()[:12]
    bucket = int(now.timestamp()) // RUN_KEY_SECONDS
    due = min((v.publish_at.timestamp() for v in videos if v.publish_at), default=float("inf"))
    priority = min(v.priority for v in videos)
    run = PlannedRun(
        stage=stage,
        first=first,
        last=last,
        keys=tuple(v.key for v in videos),
        run_key=f"{stage}/{first}..{last}/{digest}/{bucket}",
        priority=9 - priority,
    )
    return (due, priority), run
