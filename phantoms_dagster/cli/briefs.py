"""`phantoms add` and `phantoms import`: briefs in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from phantoms_dagster.cli.console import BAD_INPUT, err, out, plain, plain_errors, print_json
from phantoms_dagster.cli.up import current
from phantoms_dagster.production.intake import Accepted, Refusal, load, make_brief, printable, read
from phantoms_dagster.wiring import Workshop

SHOWN_REFUSALS = 100


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
    publish_at: Annotated[
        str | None, typer.Option(help="Not before, such as 2026-12-24T18:00+01:00; without a zone it is UTC")
    ] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="0 is the most urgent; default 5")] = None,
) -> None:
    """Add one video. It goes through all stages by itself and waits for your approval before it is posted."""
    with plain_errors():
        workshop = Workshop(current())
        try:
            channels = workshop.channels()
            given = {
                "title": title,
                "angle": angle,
                "facts": fact or [],
                "channel": channel,
                "platforms": platforms,
                "publish_at": publish_at,
                "priority": priority,
            }
            brief = make_brief(given, channels)
            catalogue = workshop.catalogue()
            catalogue.put_channels(channels.values())
            [added] = catalogue.add([brief], source="cli")
        finally:
            workshop.close()
        if added.new:
            out.print(f"added [bold]{added.key}[/]", soft_wrap=True)
            out.print(f"  follow it: phantoms show {added.key}", style="dim", soft_wrap=True)
        else:
            out.print(f"this brief is there already: [bold]{added.key}[/]", soft_wrap=True)


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="A .csv, .jsonl or .yaml file. Columns: title (needed), angle, facts (separated by | in CSV), channel, "
            "platforms, publish_at, priority"
        ),
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Add the videos of a file. Bad rows are named with line and reason, the good ones are taken; then the exit code is 2."""
    with plain_errors():
        content = load(file)
        workshop = Workshop(current())
        try:
            batch = read(str(file), content, workshop.channels())
            new, known = _store(workshop, batch.accepted, f"import:{printable(file.name, 200)}") if not dry_run else ([], [])
        finally:
            workshop.close()
        duplicates = [Refusal(str(file), line, f"duplicate: this brief is {key} already") for line, key in known]
        refused = sorted([*batch.refused, *duplicates], key=lambda r: r.line)
        good = len(batch.accepted) - len(known)
        if as_json:
            reasons = [{"line": r.line, "reason": r.reason} for r in refused]
            print_json({"file": str(file), "taken": new, "good": good, "refused": reasons})
        else:
            _print(refused)
            out.print(f"{good} {'good' if dry_run else 'taken'}, {len(refused)} refused")
        if refused:
            raise typer.Exit(BAD_INPUT)


def _store(workshop: Workshop, rows: Sequence[Accepted], source: str) -> tuple[list[str], list[tuple[int, str]]]:
    """The keys that are new, and the lines of briefs that were there already with the keys of those."""
    if not rows:
        return [], []
    catalogue = workshop.catalogue()
    catalogue.put_channels(workshop.channels().values())
    added = catalogue.add([row.brief for row in rows], source=source)
    known = [(row.line, a.key) for row, a in zip(rows, added, strict=True) if not a.new]
    return [a.key for a in added if a.new], known


def _print(refused: Sequence[Refusal]) -> None:
    for refusal in refused[:SHOWN_REFUSALS]:
        err.print(plain(str(refusal)), style="red", soft_wrap=True)
    if len(refused) > SHOWN_REFUSALS:
        err.print(f"... and {len(refused) - SHOWN_REFUSALS} more; --json lists all", style="red")
