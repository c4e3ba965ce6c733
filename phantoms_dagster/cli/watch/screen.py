"""Draws the screen of `phantoms watch` from a snapshot, for a terminal of any size. It reads no data itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from phantoms_dagster.cli.console import STATE_STYLES, out
from phantoms_dagster.cli.times import soon, zone
from phantoms_dagster.domain.attention import Attention
from phantoms_dagster.domain.outlook import SUMMARY_STATES, Outages, probe
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.outlook import AttemptSummary, NextStep

SHOWN_REVIEWS, SHOWN_WAITS = 5, 4
# The widest bar, and the room for the text next to it, in columns.
WIDEST_BAR, BESIDE = 24, 62
# Display names of an attempt's stored states.
WORDS = {"intent": "began", "received": "answered"}
_SEGMENTS = ("done", "running", "deferred", "ready", "failed", "rejected", "discarded")


@dataclass(frozen=True)
class Snapshot:
    """The data for one screen. `counts` has videos by stage and state; `undecided` has the keys that wait for a decision."""

    at: datetime
    counts: Mapping[str, Mapping[str, int]]
    undecided: Sequence[str]
    waits: Sequence[Attention]
    latest: Sequence[AttemptSummary]
    upcoming: Sequence[NextStep]
    outages: Outages


def happened(one: AttemptSummary) -> tuple[datetime, str, str]:
    """Return when it happened, its state as a word, and the style of that state."""
    at = one.finished_at or one.started_at
    return at, WORDS.get(one.state, one.state), STATE_STYLES.get(one.state, "cyan")


def drawn(snapshot: Snapshot, *, chosen: int, said: str, height: int) -> RenderableType:
    """Draw the screen, at most `height` lines. `chosen` is the selected row of the review list; `said` is the last message."""
    head, foot = list(_head(snapshot)), [*_foot(snapshot, said)]
    body = [*_reviews(snapshot, chosen), *_wrong(snapshot), *_next(snapshot)]
    room = max(0, height - len(head) - len(body) - len(foot) - 1)
    events = list(_events(snapshot.latest))[: max(0, room - 1)]
    newest = [Text(""), *events] if events else []
    lines = [*head, *body, *newest][: max(0, height - len(foot))]
    return Group(*lines, *foot)


def _head(snapshot: Snapshot) -> Iterator[Text]:
    there = snapshot.at.astimezone()
    yield _line(f"[bold]Phantoms[/]  {there:%H:%M:%S} {zone(there)} (all times)")
    yield from stage_bars(snapshot.counts)


def stage_bars(counts: Mapping[str, Mapping[str, int]], width: int | None = None) -> Iterator[Text]:
    """Yield a line for each stage that has videos: a bar of their states, and the counts. `width` is in columns."""
    columns = out.width if width is None else width
    for stage in STAGES:
        of = counts.get(stage, {})
        total = sum(of.values())
        if not total:
            continue
        parts = [f"{of[state]} {state}" for state in SUMMARY_STATES if of.get(state)]
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{stage:<18}")
        line.append_text(_bar(of, total, max(8, min(WIDEST_BAR, columns - BESIDE))))
        line.append(f" {of.get('done', 0)} of {total}")
        line.append(f"  {', '.join(parts)}" if parts else "", style="dim")
        yield line


def bar_cells() -> tuple[str, str]:
    """Return the full and the empty character of bars: ASCII when the terminal cannot show more."""
    return ("#", ".") if out.options.ascii_only else ("━", "─")


def _bar(of: Mapping[str, int], total: int, width: int) -> Text:
    """Return the bar of a stage's videos by state. Every state with videos gets at least one column."""
    full, light = bar_cells()
    bar, used = Text(), 0
    for state in _SEGMENTS:
        share = of.get(state, 0)
        cells = min(width - used, max(1, share * width // total) if share else 0)
        bar.append(full * cells, style=STATE_STYLES[state])
        used += cells
    return bar.append(light * (width - used), style="dim")


def _reviews(snapshot: Snapshot, chosen: int) -> Iterator[Text]:
    if not snapshot.undecided:
        return
    yield Text("")
    yield _line(f"[bold]{len(snapshot.undecided)} to review[/], most urgent first")
    first = max(0, min(chosen - SHOWN_REVIEWS + 1, len(snapshot.undecided) - SHOWN_REVIEWS))
    for number, key in enumerate(snapshot.undecided[first : first + SHOWN_REVIEWS], first):
        yield Text(f"{'>' if number == chosen else ' '} {key}", style="bold" if number == chosen else "")


def _wrong(snapshot: Snapshot) -> Iterator[Text]:
    if not (snapshot.waits or snapshot.outages.found or snapshot.outages.problem):
        return
    yield Text("")
    if snapshot.outages.problem:
        yield Text(f"Nothing runs: {snapshot.outages.problem}", style="red", no_wrap=True, overflow="ellipsis")
    for outage in snapshot.outages.found[:SHOWN_WAITS]:
        yield Text(
            f"the breaker of {outage.breaker} is open, {probe(outage, soon)}", style="yellow", no_wrap=True, overflow="ellipsis"
        )
    for item in snapshot.waits[:SHOWN_WAITS]:
        yield Text(item.what, no_wrap=True, overflow="ellipsis")
        yield Text(f"  {item.next_step}", style="dim")


def _next(snapshot: Snapshot) -> Iterator[Text]:
    if snapshot.upcoming:
        yield Text("")
    for step in snapshot.upcoming[:2]:
        yield _line(f"[dim]{soon(step.at, snapshot.at)}: {step.stage} of {step.key}[/]")


def _events(latest: Sequence[AttemptSummary]) -> Iterator[Text]:
    """Yield a line per attempt, newest first."""
    for one in latest:
        at, word, style = happened(one)
        line = Text(no_wrap=True, overflow="ellipsis")
        line.append(f"{at.astimezone():%H:%M} {one.stage:<17} ")
        line.append(f"{word:<8}", style=style)
        line.append(f" {one.key}")
        if one.message and one.state not in ("done", "intent"):
            line.append(f"  {' '.join(one.message.split())}", style="dim")
        yield line


def _foot(snapshot: Snapshot, said: str) -> Iterator[Text]:
    yield Text(said, style="yellow", no_wrap=True, overflow="ellipsis")
    keys = "up/down: select, o: open the video, a: approve, q: quit" if snapshot.undecided else "q: quit"
    yield Text(keys, style="dim", no_wrap=True, overflow="ellipsis")


def _line(markup: str) -> Text:
    text = Text.from_markup(markup, overflow="ellipsis")
    text.no_wrap = True
    return text


def empty(at: datetime | None = None) -> Snapshot:
    """Return the snapshot to show before the first query."""
    return Snapshot(at or datetime.now(UTC), {}, (), (), (), (), Outages())
