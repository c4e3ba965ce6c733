"""Draws the screen of `phantoms demo`: a bar per video, the outage, and the newest events. It reads no data itself."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.text import Text

from phantoms_dagster.cli.console import STATE_STYLES
from phantoms_dagster.cli.times import zone
from phantoms_dagster.cli.watch.screen import bar_cells, happened, stage_bars
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.outlook import AttemptSummary

# With more videos than this, the screen shows a bar per stage instead.
MOST_LANES = 10
MOST_EVENTS = 8
# Widths in columns: the text after a bar, the narrowest and widest bar, and the narrowest title.
NOTE, BAR, TITLE = 24, (10, 60), 16
# Lines for the heading, an outage and some events.
AROUND = 12
# The date and the four hex digits at the end of a key, which mean nothing in a demo.
_DATED = re.compile(r"-\d{8}-[0-9a-f]{4}.*$")
# The share of a video's bar, in percent, that each stage takes, roughly by duration. The posts share the rest.
WEIGHTS = {"script": 4, "voiceover": 10, "rendered_video": 64, "approval": 4}
POSTING = 100 - sum(WEIGHTS.values())
BUSY = {"script": "writing the script", "voiceover": "speaking the script", "approval": "waiting for the reviewer"}
ENDED_BADLY = ("failed", "rejected", "discarded")


@dataclass(frozen=True)
class VideoLane:
    """A video: title, stage states, and the progress of its render (0 to 1; None when it is not rendering)."""

    title: str
    states: Mapping[str, str]
    rendering: float | None = None

    @property
    def share(self) -> float:
        """The overall progress, 0 to 1: the done stages, and the render as far as it is."""
        done: float = sum(weight for name, weight in WEIGHTS.items() if self.states.get(name) == "done")
        if self.states.get("rendered_video") != "done":
            done += WEIGHTS["rendered_video"] * (self.rendering or 0.0)
        for_platforms = [state for name, state in self.states.items() if name not in WEIGHTS]
        posted = sum(state == "done" for state in for_platforms) / len(for_platforms) if for_platforms else 0.0
        return (done + POSTING * posted) / 100

    @property
    def rendered(self) -> bool:
        """Whether its video is finished, or will never be."""
        made = [self.states.get(name) for name in ("script", "voiceover", "rendered_video")]
        return made[-1] == "done" or any(state in ENDED_BADLY for state in made)

    @property
    def waits_for_review(self) -> bool:
        """Whether its video is finished and waits for a decision."""
        return self.states.get("rendered_video") == "done" and self.states.get("approval") in ("ready", "deferred", "running")


@dataclass(frozen=True)
class DemoView:
    """The contents of the screen. `outage` has sentences with styles; `seconds` is the time since the start."""

    at: datetime
    seconds: float
    lanes: Sequence[VideoLane]
    latest: Sequence[AttemptSummary] = ()
    outage: Sequence[tuple[str, str]] = ()
    down: bool = False


def drawn(view: DemoView, *, width: int, height: int) -> RenderableType:
    """Draw at most `height` lines of at most `width` columns."""
    lines = [_heading(view), Text(""), *_videos(view, width, height)]
    if view.outage:
        lines.append(Text(""))
    for words, style in view.outage:
        # URLs and commands are indented. They are never broken, so that they can be clicked and copied.
        folded = [words] if words.startswith(" ") else wrap(words, width)
        lines += [Text(line, style=style, overflow="fold") for line in folded]
    events = list(_events(view.latest, width))[: max(0, min(MOST_EVENTS, height - len(lines) - 1))]
    return Group(*[*lines, *([Text(""), *events] if events else [])][:height])


def note(lane: VideoLane, *, down: bool) -> tuple[str, str]:
    """Return what the video is doing, in at most NOTE columns, and a style. `down`: the render API does not answer."""
    bad = next((name for name, state in lane.states.items() if state in ENDED_BADLY), None)
    if bad is not None:
        return f"{bad} {lane.states[bad]}"[:NOTE], STATE_STYLES[lane.states[bad]]
    first = next((name for name in STAGES if lane.states.get(name, "done") != "done"), None)
    if first is None:
        return "posted everywhere", "green"
    if first == "rendered_video":
        if down:
            return "waits for the render API", "yellow"
        return (f"rendering {lane.rendering:.0%}", "cyan") if lane.rendering else ("queued for rendering", "dim")
    if first in BUSY:
        return BUSY[first], "cyan" if first != "approval" else "blue"
    posts = [state for name, state in lane.states.items() if STAGES[name].kind == "post"]
    return f"posted on {posts.count('done')} of {len(posts)}", "cyan"


def _heading(view: DemoView) -> Text:
    there = view.at.astimezone()
    posted = sum(state == "done" for lane in view.lanes for name, state in lane.states.items() if STAGES[name].kind == "post")
    wanted = sum(STAGES[name].kind == "post" for lane in view.lanes for name in lane.states)
    told = (
        f"  {there:%H:%M:%S} {zone(there)}  {view.seconds:.0f} s  {counted(len(view.lanes), 'video')}, {posted} of {wanted} posts"
    )
    return Text.assemble(("Phantoms demo", "bold"), told, no_wrap=True, overflow="ellipsis")


def _videos(view: DemoView, width: int, height: int) -> Iterator[Text]:
    """Yield two lines per video when there is room, so that no title is cut; else one. Many videos get a bar per stage."""
    if len(view.lanes) > min(MOST_LANES, height - 6):
        yield from stage_bars(_counts(view.lanes), width)
        return
    in_two = len(view.lanes) * 2 + AROUND <= height
    columns = max(BAR[0], min(BAR[1], (width - NOTE - 4) // (1 if in_two else 4)))
    titles = width if in_two else max(TITLE, width - NOTE - 4 - columns)
    for lane in view.lanes:
        title = Text(lane.title, no_wrap=True)
        title.truncate(titles, overflow="ellipsis", pad=not in_two)
        bar = _bar(lane, columns, down=view.down)
        if in_two:
            yield title
            yield bar
        else:
            yield Text.assemble(title, "  ", bar)


def _bar(lane: VideoLane, columns: int, *, down: bool) -> Text:
    """Return the progress bar of a video, with what it is doing."""
    full, light = bar_cells()
    words, style = note(lane, down=down)
    cells = round(lane.share * columns)
    colour = "green" if lane.share >= 1 else style if style != "dim" else "cyan"
    return Text.assemble((full * cells, colour), (light * (columns - cells), "dim"), "  ", (words, style))


def _events(latest: Sequence[AttemptSummary], width: int) -> Iterator[Text]:
    """Yield the last event of each stage of each video, newest first."""
    newest: dict[tuple[str, str], AttemptSummary] = {}
    for one in sorted(latest, key=lambda one: (happened(one)[0], one.id)):
        newest.pop((one.key, one.stage), None)
        newest[one.key, one.stage] = one
    for one in reversed(newest.values()):
        at, word, style = happened(one)
        name = _DATED.sub("", one.key)
        line = Text.assemble(f"{at.astimezone():%H:%M:%S} {one.stage:<17} ", (f"{word:<8}", style), f" {name}", no_wrap=True)
        line.truncate(width, overflow="ellipsis")
        yield line


def _counts(lanes: Sequence[VideoLane]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for lane in lanes:
        for stage, state in lane.states.items():
            counts.setdefault(stage, Counter())[state] += 1
    return counts
