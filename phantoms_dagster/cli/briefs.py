"""`phantoms add` and `phantoms import`: briefs in."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from phantoms_dagster.cli.console import BAD_INPUT, err, out, plain_errors
from phantoms_dagster.cli.up import current
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.production.intake import SUFFIXES, Refusal, make_brief, read
from phantoms_dagster.wiring import Workshop


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Briefs")(add)
    app.command("import", rich_help_panel="Briefs")(import_file)


def add(
    title: Annotated[str, typer.Argument(help="What the video is about")],
    angle: Annotated[str, typer.Option(help="How to tell it")] = "",
    fact: Annotated[list[str] | None, typer.Option(help="A fact to use; may be given several times")] = None,
    channel: Annotated[str | None, typer.Option(help="Channel of channels.yaml; default: its first")] = None,
    platforms: Annotated[
        str | None, typer.Option(help="Comma-separated: youtube,tiktok,instagram; default: all of the channel")
    ] = None,
    publish_at: Annotated[str | None, typer.Option(help="Not before, such as 2026-12-24T18:00+01:00")] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="0 is the most urgent; default 5")] = None,
) -> None:
    """Add one video. It goes through all stages by itself and waits for your approval before it is posted."""
    with plain_errors():
        workshop = Workshop(current())
        try:
            channels = workshop.channels()
            given: dict[str, Any] = {
                "title": title,
                "angle": angle,
                "facts": fact or [],
                "channel": channel,
                "platforms": platforms,
                "publish_at": publish_at,
                "priority": priority,
            }
            brief = make_brief({k: v for k, v in given.items() if v not in (None, "", [])}, channels)
            catalogue = workshop.catalogue()
            catalogue.put_channels(channels.values())
            [added] = catalogue.add([brief], source="cli")
        finally:
            workshop.close()
        if added.new:
            out.print(f"added [bold]{added.key}[/]")
            out.print(f"  follow it: phantoms show {added.key}", style="dim")
        else:
            out.print(f"this brief is there already: [bold]{added.key}[/]")


def import_file(
    file: Annotated[Path, typer.Argument(help="CSV, JSONL or YAML; see the README for the columns")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Add the videos of a file. Bad rows are named with line and reason, the good ones are taken; then the exit code is 2."""
    with plain_errors():
        if not file.is_file():
            raise InvalidInput(f"{file} is not a file")
        workshop = Workshop(current())
        try:
            channels = workshop.channels()
            batch = read(str(file), file.read_bytes(), channels)
            refused: list[Refusal] = list(batch.refused)
            new, known = [], []
            if batch.accepted and not dry_run:
                catalogue = workshop.catalogue()
                catalogue.put_channels(channels.values())
                added = catalogue.add([row.brief for row in batch.accepted], source=f"import:{file.name}")
                new = [a.key for a in added if a.new]
                known = [(row.line, a.key) for row, a in zip(batch.accepted, added, strict=True) if not a.new]
        finally:
            workshop.close()
        refused += [Refusal(str(file), line, f"duplicate: this brief is {key} already") for line, key in known]
        refused.sort(key=lambda r: r.line)
        if as_json:
            report = {
                "file": str(file),
                "taken": new,
                "good": len(batch.accepted) - len(known),
                "refused": [{"line": r.line, "reason": r.reason} for r in refused],
            }
            json.dump(report, sys.stdout, ensure_ascii=False)
            sys.stdout.write("\n")
        else:
            for refusal in refused:
                err.print(escape(str(refusal)), style="red", soft_wrap=True)
            word = "good" if dry_run else "taken"
            out.print(f"{len(batch.accepted) - len(known)} {word}, {len(refused)} refused")
        if refused:
            raise typer.Exit(BAD_INPUT)


def local(moment: datetime | None) -> str:
    """A time as people here write it."""
    return "" if moment is None else moment.astimezone().strftime("%Y-%m-%d %H:%M")


__all__ = ["SUFFIXES", "add", "import_file", "local", "register"]
