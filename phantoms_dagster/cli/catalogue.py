"""`phantoms status` and `phantoms show`: where everything is."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

import typer
from rich import box
from rich.console import RenderableType
from rich.panel import Panel
from rich.table import Table

from phantoms_dagster.cli.console import STATE_STYLES, current, local, out, plain, plain_errors, print_json
from phantoms_dagster.domain.attention import Attention
from phantoms_dagster.domain.models import Brief, MediaFile
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.domain.wording import notes
from phantoms_dagster.store.catalogue import StageRow, VideoRow
from phantoms_dagster.store.decisions import Review
from phantoms_dagster.store.stored import Unreadable, output_of
from phantoms_dagster.wiring import Workshop
from phantoms_dagster.wiring.media import Shelf

Found = TypeVar("Found")

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
# Below `NARROW` columns tables lose their less important columns; from `WIDE` on there is room for money.
NARROW, WIDE = 72, 90
# What a person should hear of a video first; what has ended well or cannot begin yet is no news.
NEWS = ("failed", "rejected", "running", "deferred", "ready", "discarded")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Look")(status)
    app.command(rich_help_panel="Look")(show)


def status(
    limit: Annotated[int, typer.Option(min=1, max=100_000, help="Most videos to list")] = 25,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """List the newest videos with the state of each stage, and what waits for you."""
    with plain_errors():
        workshop = Workshop(current())
        try:
            videos, counts = workshop.catalogue().videos(limit=limit), workshop.catalogue().counts()
            undecided = workshop.decisions().undecided()
            waits = [item for item in workshop.waits_for_people() if item.id != "review"]
        finally:
            workshop.close()
        if as_json:
            everything = {"videos": [asdict(v) for v in videos], "stages": counts, "to_review": undecided}
            print_json({**everything, "waits": [asdict(item) for item in waits]})
            return
        if not videos:
            _print_waits(waits)
            out.print('no videos yet; add one: phantoms add "Why octopuses have three hearts"', soft_wrap=True)
            return
        for lines in _list(videos, set(undecided)):
            out.print(lines, soft_wrap=isinstance(lines, str))
        out.print()
        out.print("  ".join(f"[{STATE_STYLES[s]}]{m}[/] {s}" for s, m in _marks().items()))
        out.print("one mark a stage: " + ", ".join(STAGES), style="dim")
        if undecided:
            out.print(f"\n[bold]{len(undecided)} to review[/], the most urgent first:")
            out.print(f"  phantoms show {undecided[0]}\n  phantoms approve {undecided[0]}", soft_wrap=True)
        _print_waits(waits)


def _print_waits(waits: Sequence[Attention]) -> None:
    if waits:
        out.print("\n[bold]Waits for you:[/]")
    for item in waits:
        out.print(f"  {plain(item.what)}\n    [dim]{plain(item.next_step)}[/]", soft_wrap=True)


def _list(videos: Sequence[VideoRow], waiting: Collection[str]) -> Iterator[RenderableType]:
    """The videos: one mark a stage, and the one thing to know. In a narrow terminal two lines each, so that keys stay whole."""
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("video", overflow="fold")
    table.add_column("stages", no_wrap=True, min_width=len(STAGES))
    table.add_column("now", overflow="fold")
    if out.width >= WIDE:
        table.add_column("USD", justify="right", no_wrap=True)
    for video in videos:
        marks = "".join(_mark(video.states.get(name)) for name in STAGES)
        news = "[bold]to review[/]" if video.key in waiting else _news(video.states)
        news += " [dim]retired[/]" if video.retired_at else ""
        if out.width < NARROW:
            yield f"{video.key}\n  {marks}  {news}"
        else:
            table.add_row(video.key, marks, news, *([f"{video.cost:.3f}"] if out.width >= WIDE else []))
    if table.row_count:
        yield table


def _marks() -> Mapping[str, str]:
    return ASCII_MARKS if out.options.ascii_only else MARKS


def _mark(state: str | None) -> str:
    return " " if state is None else f"[{STATE_STYLES[state]}]{_marks()[state]}[/]"


def _news(states: Mapping[str, str]) -> str:
    for state in NEWS:
        stages = [name for name in STAGES if states.get(name) == state]
        if stages:
            more = f" +{len(stages) - 1}" if len(stages) > 1 else ""
            return f"[{STATE_STYLES[state]}]{stages[0]} {state}{more}[/]"
    return "[green]published[/]" if set(states.values()) == {"done"} else ""


def show(
    video: Annotated[str, typer.Argument(help="Key of the video, or enough of it")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Show one video: its brief, script, files, posts, and why it waits or failed."""
    with plain_errors():
        workshop = Workshop(current())
        try:
            catalogue = workshop.catalogue()
            key = catalogue.find(video)
            stages, retired = catalogue.stages(key), catalogue.retired_at(key)
            waits = key in workshop.decisions().undecided(limit=100_000)
            unreadable: list[str] = []
            brief = _readable(lambda: catalogue.brief(key), unreadable)
            done = _outputs_of(key, stages, unreadable)
            review = _readable(lambda: workshop.decisions().review(key) if waits else None, unreadable)
        finally:
            workshop.close()
        if as_json:
            rows = {name: asdict(row) for name, row in stages.items()}
            found = (
                {
                    "words": [post.model_dump(mode="json") for post in review.words],
                    "content": review.content,
                    "warnings": list(review.warnings),
                }
                if review
                else None
            )
            print_json(
                {
                    "key": key,
                    "brief": brief.model_dump(mode="json") if brief else None,
                    "stages": rows,
                    "retired_at": retired,
                    "to_review": found,
                    "unreadable": unreadable,
                }
            )
            return
        out.print(_brief_panel(key, brief) if brief else f"[bold]{key}[/]", soft_wrap=True)
        for problem in unreadable:
            out.print(plain(problem), style="red", soft_wrap=True)
        out.print(_stages_table(stages))
        if "script" in done:
            out.print(_script_panel(done["script"]["script"]))
        for line in _taken_out(done):
            out.print(line, style="yellow", soft_wrap=True)
        for line in _outputs(workshop.shelf, done):
            out.print(line, soft_wrap=True)
        if retired:
            out.print(f"\nretired {local(retired)}: everything stays but its partition in Dagster", style="dim", soft_wrap=True)
            out.print(f"  phantoms unretire {key}", style="dim", soft_wrap=True)
        if waits:
            named = f" --content {review.content[:12]}" if review and review.changed else ""
            if review:
                out.print(_words_panel(review))
            out.print("\n[bold]It waits for you:[/]")
            out.print(f'  phantoms approve {key}{named}\n  phantoms reject {key} --note "why"', soft_wrap=True)


def _readable(read: Callable[[], Found], problems: list[str]) -> Found | None:
    """What was read. None when it cannot be read, and why goes into `problems`: the rest of the video is shown all the same."""
    try:
        return read()
    except Unreadable as error:
        if str(error) not in problems:
            problems.append(str(error))
        return None


def _outputs_of(key: str, stages: Mapping[str, StageRow], problems: list[str]) -> dict[str, dict[str, Any]]:
    """What the done stages made, as stored; what cannot be read goes into `problems`."""
    done: dict[str, dict[str, Any]] = {}
    for name, row in ((name, stages[name]) for name in STAGES if name in stages):
        if row.state == "done" and _readable(functools.partial(output_of, key, name, row.output), problems):
            done[name] = row.output or {}
    return done


def _brief_panel(key: str, brief: Brief) -> Panel:
    lines = [f"[bold]{plain(brief.title)}[/]", plain(brief.angle), *(f"- {plain(fact)}" for fact in brief.facts)]
    lines.append(f"[dim]channel {brief.channel}, {', '.join(brief.platforms)}, priority {brief.priority}[/]")
    if brief.publish_at:
        lines.append(f"[dim]not before {local(brief.publish_at)}[/]")
    return Panel("\n".join(line for line in lines if line), title=key, title_align="left")


def _stages_table(stages: Mapping[str, StageRow]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("stage", overflow="fold", min_width=6)
    table.add_column("state", no_wrap=True)
    narrow = out.width < NARROW
    if not narrow:
        table.add_column("tries", justify="right", no_wrap=True)
        table.add_column("finished", no_wrap=True)
        table.add_column("USD", justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for row in (stages[name] for name in STAGES if name in stages):
        until = f"until {local(row.retry_at)}" if row.retry_at and row.state == "deferred" else ""
        why = [until, row.error_class or "", row.reason or ""] if row.state != "done" else []
        if row.cleaned:
            why.append(f"files cleaned up {local(row.cleaned_at)}")
        state = f"[{STATE_STYLES[row.state]}]{_marks()[row.state]} {row.state}[/]"
        numbers = [str(row.attempts or ""), local(row.finished_at), f"{row.cost:.3f}" if row.cost else ""]
        table.add_row(row.stage, state, *([] if narrow else numbers), plain(" ".join(part for part in why if part)))
    return table


def _script_panel(script: Mapping[str, Any]) -> Panel:
    scenes = [f"{n}. [bold]{plain(s['on_screen_text'])}[/] {plain(s['narration'])}" for n, s in enumerate(script["scenes"], 1)]
    tags = f"[dim]{plain(' '.join(script['hashtags']))}[/]"
    lines = [f"[italic]{plain(script['hook'])}[/]", *scenes, plain(script["caption"]), tags]
    return Panel("\n".join(lines), title=plain(script["title"]), title_align="left")


def _taken_out(done: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """What a person who approves should know: what of the script is not in the video as it was written."""
    labels = (
        ("script", "removed", "removed from the script"),
        ("voiceover", "unspoken", "shown but not spoken"),
        ("rendered_video", "not_shown", "left out of the picture, because no font has it"),
    )
    for stage, field, label in labels:
        parts = done.get(stage, {}).get(field)
        if parts:
            yield f"{label}: {plain(', '.join(parts))}"


def _words_panel(review: Review) -> Panel:
    lines = []
    for post in review.words:
        kids = ", made for kids" if post.made_for_kids else ""
        lines.append(
            f"[bold]{post.platform.title}[/] [dim]{plain(post.privacy)}{kids}[/]\n{plain(post.title)}\n{plain(post.caption)}"
        )
        lines[-1] += "".join(f"\n[yellow]{plain(note)}[/]" for note in notes(post))
    if review.changed:
        lines.append(f"[yellow]changed since it was rendered: {plain(review.changed)}[/]")
    lines += [f"[yellow]{plain(warning)}[/]" for warning in review.warnings]
    lines.append(f"[dim]content {review.content[:12]}[/]")
    return Panel("\n\n".join(lines), title="what would be posted", title_align="left")


def _outputs(shelf: Shelf, done: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for name, output in done.items():
        match output["kind"]:
            case "rendered_video" | "variant":
                yield f"{name}: {plain(shelf.address(MediaFile(**output['video'])))}"
            case "post":
                yield f"{name}: {plain(output['url'])}"
