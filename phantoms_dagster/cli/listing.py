"""The list of videos for `phantoms status`: key, one mark per stage, and a note. Keys are never broken, so they can be copied."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.cells import cell_len
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from phantoms_dagster.cli.console import STATE_STYLES, out, plain
from phantoms_dagster.cli.times import soon
from phantoms_dagster.domain.outlook import Outage, summarize
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.catalogue import VideoRow

MARKS = {
    "done": "●",
    "running": "◐",
    "ready": "○",
    "deferred": "◷",
    "failed": "✗",
    "rejected": "⊘",
    "discarded": "-",
    "blocked": "·",
}
ASCII_MARKS = {**MARKS, "done": "#", "running": "~", "ready": "o", "deferred": "w", "failed": "X", "rejected": "/", "blocked": "."}
# The note needs at least NOTE columns. The cost is shown from WIDE columns on.
NOTE, WIDE = 24, 90
GAP = 2


@dataclass(frozen=True)
class ListLine:
    """A video in the list."""

    key: str
    marks: str
    note: str
    cost: str


def lines_of(
    videos: Sequence[VideoRow], undecided: Collection[str], outages: Sequence[Outage], held: Mapping[str, str]
) -> list[ListLine]:
    """Return a list row for each video. `held` maps the keys of videos on hold to who holds them."""
    return [ListLine(v.key, marks_of(v.states), _note(v, undecided, outages, held), f"{v.cost:.3f}") for v in videos]


def listed(lines: Sequence[ListLine]) -> Iterator[RenderableType]:
    """Yield the list as wide as the terminal. When key, marks and note do not fit on one line, each video takes two."""
    longest = max((cell_len(line.key) for line in lines), default=0)
    wide = max((Text.from_markup(line.marks).cell_len for line in lines), default=0)
    if out.width < longest + wide + 2 * GAP + NOTE:
        for line in lines:
            yield f"{line.key}\n  {line.marks}  {line.note}"
        return
    money = out.width >= WIDE and out.width >= longest + wide + 3 * GAP + NOTE + 6
    table = Table(box=None, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False)
    table.add_column("video", no_wrap=True, min_width=longest)
    table.add_column("stages", no_wrap=True, min_width=wide)
    table.add_column("now", overflow="fold")
    if money:
        table.add_column("USD", justify="right", no_wrap=True)
    for line in lines:
        table.add_row(line.key, line.marks, line.note, *([line.cost] if money else []))
    yield table


def marks() -> Mapping[str, str]:
    """Return the mark of each state: in ASCII when the terminal cannot show more."""
    return ASCII_MARKS if out.options.ascii_only else MARKS


def marks_of(states: Mapping[str, str]) -> str:
    """Return one mark per stage, and a space for a stage that the video does not have. Optional platforms come last."""
    return "".join(_mark(states.get(name)) for name, stage in STAGES.items() if stage.usual or name in states)


def note_text(video: VideoRow, undecided: Collection[str], outages: Sequence[Outage], held: Mapping[str, str]) -> str:
    """Return the note as plain text."""
    return Text.from_markup(_note(video, undecided, outages, held)).plain


def _mark(state: str | None) -> str:
    return " " if state is None else f"[{STATE_STYLES[state]}]{marks()[state]}[/]"


def _note(video: VideoRow, undecided: Collection[str], outages: Sequence[Outage], held: Mapping[str, str]) -> str:
    retired = " [dim]retired[/]" if video.retired_at else ""
    if video.key in undecided:
        return f"[bold]to review[/]{retired}"
    if video.key in held:
        return f"[yellow]on hold[/] by {plain(held[video.key])}{retired}"
    found = summarize(video.waiting, now=datetime.now(UTC), say=soon, outages=outages, accounts=video.accounts)
    if found is None:
        return ("[green]published[/]" if set(video.states.values()) == {"done"} else "") + retired
    more = f" +{found.more}" if found.more else ""
    said = found.state if not found.note else found.note if found.note.startswith("scheduled") else f"{found.state}, {found.note}"
    return f"[{STATE_STYLES[found.state]}]{found.stage} {plain(said)}{more}[/]{retired}"
