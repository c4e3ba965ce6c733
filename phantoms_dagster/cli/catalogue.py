"""`phantoms status` and `phantoms show`: where everything is."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from phantoms_dagster.cli.briefs import local
from phantoms_dagster.cli.console import STATE_STYLES, out, plain_errors
from phantoms_dagster.cli.up import current
from phantoms_dagster.domain.models import Brief
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.catalogue import StageRow, VideoRow
from phantoms_dagster.wiring import Workshop

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
SHORT = {"script": "script", "voiceover": "voice", "rendered_video": "render", "approval": "review"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Look")(status)
    app.command(rich_help_panel="Look")(show)


def status(
    limit: Annotated[int, typer.Option(min=1, help="Most videos to list")] = 25,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """List the newest videos with the state of each stage, and what waits for you."""
    with plain_errors():
        workshop = Workshop(current())
        try:
            videos, counts = workshop.catalogue().videos(limit=limit), workshop.catalogue().counts()
            undecided = workshop.decisions().undecided()
        finally:
            workshop.close()
        if as_json:
            json.dump({"videos": [asdict(v) for v in videos], "stages": counts, "to_review": undecided}, sys.stdout, default=str)
            sys.stdout.write("\n")
            return
        if not videos:
            out.print('no videos yet; add one: phantoms add "Why octopuses have three hearts"')
            return
        out.print(videos_table(videos))
        marks = "  ".join(f"[{STATE_STYLES[s]}]{m} {s}[/]" for s, m in MARKS.items())
        out.print(marks)
        if undecided:
            out.print(f"\n[bold]{len(undecided)} to review:[/] phantoms show {undecided[0]}, then phantoms approve {undecided[0]}")


def videos_table(videos: list[VideoRow]) -> Table:
    """The videos, one row each, one column a stage."""
    table = Table(header_style="bold", pad_edge=False)
    table.add_column("video", overflow="fold")
    for name in STAGES:
        table.add_column(SHORT.get(name, name.replace("/variant", " cut").replace("/post", " post")), justify="center")
    table.add_column("USD", justify="right")
    for video in videos:
        cells = [_mark(video.states.get(name)) for name in STAGES]
        table.add_row(video.key, *cells, f"{video.cost:.3f}")
    return table


def _mark(state: str | None) -> str:
    return "" if state is None else f"[{STATE_STYLES[state]}]{MARKS[state]}[/]"


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
            brief, stages = catalogue.brief(key), catalogue.stages(key)
        finally:
            workshop.close()
        if as_json:
            shown = {"key": key, "brief": brief.model_dump(mode="json"), "stages": {n: asdict(s) for n, s in stages.items()}}
            json.dump(shown, sys.stdout, default=str, ensure_ascii=False)
            sys.stdout.write("\n")
            return
        out.print(Group(_brief_panel(key, brief), _stages_table(stages), *_outputs(workshop, stages)))
        state = stages["approval"].state
        if state in ("ready", "deferred") and stages["rendered_video"].state == "done":
            out.print(f'\n[bold]It waits for you:[/] phantoms approve {key}   or   phantoms reject {key} --note "why"')


def _brief_panel(key: str, brief: Brief) -> Panel:
    lines = [f"[bold]{escape(brief.title)}[/]", escape(brief.angle), *(f"- {escape(fact)}" for fact in brief.facts)]
    lines.append(f"[dim]channel {brief.channel}, {', '.join(brief.platforms)}, priority {brief.priority}[/]")
    if brief.publish_at:
        lines.append(f"[dim]not before {local(brief.publish_at)}[/]")
    return Panel("\n".join(line for line in lines if line), title=key, title_align="left")


def _stages_table(stages: dict[str, StageRow]) -> Table:
    table = Table(header_style="bold", pad_edge=False)
    for column in ("stage", "state", "tries", "finished", "USD", "note"):
        table.add_column(column, overflow="fold")
    for name in STAGES:
        row = stages.get(name)
        if row is None:
            continue
        when = f" until {local(row.retry_at)}" if row.retry_at and row.state == "deferred" else ""
        note = f"{row.error_class or ''} {row.reason or ''}".strip() if row.state != "done" else ""
        style = STATE_STYLES[row.state]
        cost = f"{row.cost:.3f}" if row.cost else ""
        table.add_row(name, f"[{style}]{row.state}[/]{when}", str(row.attempts), local(row.finished_at), cost, escape(note))
    return table


def _outputs(workshop: Workshop, stages: dict[str, StageRow]) -> list[RenderableType]:
    made: list[RenderableType] = []
    media = workshop.media_folder
    for name in STAGES:
        output: dict[str, Any] | None = stages[name].output if name in stages and stages[name].state == "done" else None
        if output is None:
            continue
        match output["kind"]:
            case "script":
                script = output["script"]
                scenes = "\n".join(
                    f"{n}. [bold]{escape(s['on_screen_text'])}[/] {escape(s['narration'])}"
                    for n, s in enumerate(script["scenes"], 1)
                )
                made.append(
                    Panel(f"[italic]{escape(script['hook'])}[/]\n{scenes}", title=escape(script["title"]), title_align="left")
                )
            case "rendered_video" | "variant":
                file = output["video"]
                made.append(f"{name}: {media / file['sha256'][:2] / (file['sha256'][2:] + file['suffix'])}")
            case "post":
                made.append(f"{name}: [link={output['url']}]{output['url']}[/link]")
    return made
