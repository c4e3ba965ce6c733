"""`phantoms add`, `phantoms import` and `phantoms edit`: add and change briefs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import BAD_INPUT, current, err, out, plain, plain_errors, print_json, progress, say
from phantoms_dagster.cli.people import actor
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.script_edits import ScriptEdit
from phantoms_dagster.production.intake import (
    REASON_CHARACTERS,
    Accepted,
    Refusal,
    load,
    make_brief,
    make_changes,
    printable,
    read,
)
from phantoms_dagster.registry.platforms import Platform
from phantoms_dagster.store.catalogue import PAGE
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.this_user import this_user

PLATFORMS = ",".join(Platform.usual())
SHOWN_REFUSALS = 100
SHOWN_KEYS = 20
NEXT = "`phantoms up` makes each video and waits for your approval: `phantoms approve`"

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Briefs")(add)
    app.command("import", rich_help_panel="Briefs")(import_file)
    app.command(rich_help_panel="Briefs")(edit)


def add(
    title: Annotated[str, typer.Argument(help="What the video is about")],
    angle: Annotated[str, typer.Option(help="How to tell it")] = "",
    fact: Annotated[list[str] | None, typer.Option(help="A fact to use; can be repeated")] = None,
    channel: Annotated[str | None, typer.Option(help="A channel in channels.yaml; default: the first")] = None,
    platforms: Annotated[
        str | None, typer.Option(help=f"Comma-separated, such as {PLATFORMS}; default: all of the channel's")
    ] = None,
    publish_at: Annotated[
        str | None, typer.Option(help="Do not post before this time, such as 2026-12-24T18:00+01:00; UTC without a zone")
    ] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="0 is the most urgent; default 5")] = None,
    as_json: AsJson = False,
) -> None:
    """Add one video. Phantoms makes it automatically and waits for your approval before it posts."""
    with plain_errors():
        services = Services(current())
        try:
            channels = services.channels()
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
            catalogue = services.catalogue()
            catalogue.put_channels(channels.values())
            [added] = catalogue.add([brief], source="cli", added_by=this_user())
        finally:
            services.close()
        if as_json:
            print_json({"key": added.key, "new": added.new})
        elif added.new:
            out.print(f"added [bold]{added.key}[/]", soft_wrap=True)
            out.print(f"  follow it: phantoms show {added.key}", style="dim", soft_wrap=True)
            say(f"  {NEXT}", style="dim")
        else:
            say(f"this brief already exists: [bold]{added.key}[/]")
            out.print(
                f"  change it: phantoms edit {added.key} --publish-at ... --platforms ... --priority ...",
                style="dim",
                soft_wrap=True,
            )


def edit(
    video: Annotated[str, typer.Argument(help="Key of the video, or enough of it", autocompletion=complete_video)],
    title: Annotated[str | None, typer.Option(help="What the video is about; an existing script stays")] = None,
    publish_at: Annotated[
        str | None,
        typer.Option(help="Do not post before this time, such as 2026-12-24T18:00+01:00; UTC without a zone; `now` removes it"),
    ] = None,
    platforms: Annotated[
        str | None,
        typer.Option(help=f"The full list, comma-separated, such as {PLATFORMS}; a new platform needs a new approval"),
    ] = None,
    priority: Annotated[int | None, typer.Option(min=0, max=9, help="0 is the most urgent")] = None,
    post_title: Annotated[str | None, typer.Option(help="Title of the posts; a rendered video needs a new approval")] = None,
    caption: Annotated[str | None, typer.Option(help="Caption of the posts; the video stays, but needs a new approval")] = None,
    hashtags: Annotated[str | None, typer.Option(help="Hashtags of the posts, such as 'ocean deepsea'")] = None,
    as_json: AsJson = False,
) -> None:
    """Change the brief of a video, or the words of its posts. Published posts do not change.

    Examples: `phantoms edit octopuses --publish-at 2026-12-24T18:00+01:00`, `phantoms edit octopuses --caption "Eight arms."`.
    """
    with plain_errors():
        given = {"title": title, "publish_at": publish_at, "platforms": platforms, "priority": priority}
        texts = ScriptEdit(title=post_title, caption=caption, hashtags=hashtags)
        of_brief = any(value is not None for value in given.values())
        if texts == ScriptEdit() and not of_brief:
            raise InvalidInput(
                "nothing to change; give --title, --publish-at, --platforms or --priority for the brief, or --post-title, "
                "--caption or --hashtags for the posts"
            )
        services = Services(current())
        if texts != ScriptEdit():
            if of_brief:
                raise InvalidInput("change the brief and the words of the posts in two separate commands")
            _edit_texts(services, video, texts, as_json=as_json)
            return
        try:
            channels = services.channels()
            catalogue = services.catalogue()
            key = catalogue.find(video)
            name = catalogue.channel_name(key)
            if name not in channels:
                raise InvalidInput(f"channel {name} is no longer in channels.yaml; put it back to change its videos")
            changes = make_changes(given, channels[name])
            catalogue.put_channels(channels.values())
            edited = services.brief_edits().edit(
                key, changes, by="cli", offered=lambda wanted: channels[wanted].accounts, actor=actor()
            )
            odd = _odd(services, key, edited.after.publish_at) if changes.publish_at is not None else []
        finally:
            services.close()
        _tell(key, list(edited.differences), [*edited.notes, *odd], as_json=as_json)


def _odd(services: Services, key: str, at: datetime | None) -> list[str]:
    """Return the warnings that the calendar shows about this time."""
    from phantoms_dagster.store.calendar import Calendar  # noqa: PLC0415 - only a new time needs it
    from phantoms_dagster.wiring.schedule_warnings import schedule_warnings  # noqa: PLC0415

    plan = Calendar(services.engine)
    video = plan.one(key)
    if at is None or video is None or not video.waits:
        return []
    return schedule_warnings(plan, services.settings, video, plan.channels()[video.channel], at)


def _edit_texts(services: Services, video: str, texts: ScriptEdit, *, as_json: bool) -> None:
    """Change the words of the posts and print what changed."""
    try:
        key = services.catalogue().find(video)
        edited = services.text_edits().edit(key, texts, actor())
    finally:
        services.close()
    differences = list(edited.differences)
    _tell(key, differences, edited.notes, as_json=as_json)
    if differences and not as_json:
        say("  the video stays the same; look at it and decide again:")
        out.print(f"  phantoms show {key}", soft_wrap=True)


def _tell(key: str, differences: Sequence[tuple[str, object, object]], notes: Sequence[str], *, as_json: bool) -> None:
    """Print what an edit changed: each changed field with its old and new value."""
    if as_json:
        changed = {name: {"old": old, "new": new} for name, old, new in differences}
        print_json({"key": key, "changed": changed, "notes": list(notes)})
        return
    out.print(f"[bold]{key}[/]" + ("" if differences else ": nothing changed"), soft_wrap=True)
    for name, old, new in differences:
        out.print(f"  {name}: {plain(_said(old))} -> {plain(_said(new))}", soft_wrap=True)
    for note in notes:
        say(f"  {note}", style="yellow")


def _said(value: object) -> str:
    """Format a value of a brief for display."""
    match value:
        case None:
            return "none"
        case tuple():
            return ", ".join(str(part) for part in value)
        case datetime():
            return f"{value.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
        case _:
            return str(value)


def import_file(
    file: Annotated[
        Path,
        typer.Argument(
            help="An .xlsx, .ods, .csv, .json, .jsonl or .yaml file. Columns: title (required), angle, facts (separated by | in a "
            "table), channel, platforms, publish_at, priority"
        ),
    ],
    update: Annotated[
        bool, typer.Option("--update", help="Update platforms, publish_at and priority of existing briefs from this file")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only check the file")] = False,
    as_json: AsJson = False,
) -> None:
    """Add the videos in a file. Valid rows are added; invalid ones are listed with line and reason, and the exit code is 2."""
    with plain_errors():
        content = load(file)
        services = Services(current())
        try:
            batch = read(str(file), content, services.channels())
            stored = _Stored() if dry_run else _store(services, batch.accepted, str(file), update=update)
        finally:
            services.close()
        refused = sorted([*batch.refused, *stored.refused], key=lambda r: r.line)
        good = len(batch.accepted) if dry_run else len(stored.new)
        rows_refused = batch.rows_refused + len(stored.refused)
        if as_json:
            reasons = [{"line": r.line, "reason": r.reason} for r in refused]
            counts = {"taken": stored.new, "updated": stored.updated, "unchanged": stored.unchanged, "good": good}
            print_json({"file": str(file), **counts, "refused": reasons, "rows_refused": rows_refused})
        else:
            _print(refused)
            changed = f", {len(stored.updated)} updated, {len(stored.unchanged)} unchanged" if update and not dry_run else ""
            out.print(f"{good} {'valid' if dry_run else 'added'}{changed}, {rows_refused} refused")
            if any(refusal.header for refusal in batch.refused):
                held = counted(batch.held, "row is refused only for that", "rows are refused only for that")
                say(f"  correct the column names and import the file again; {held}", style="dim")
            if stored.known and not update:
                out.print("  to change existing briefs, add --update", style="dim", soft_wrap=True)
            _print_taken(stored.new)
        if refused:
            raise typer.Exit(BAD_INPUT)


def _print_taken(keys: Sequence[str]) -> None:
    """Print the keys and the next step."""
    for key in keys[:SHOWN_KEYS]:
        out.print(f"  {key}", soft_wrap=True)
    if len(keys) > SHOWN_KEYS:
        out.print(f"  ... and {len(keys) - SHOWN_KEYS} more; --json lists all", style="dim")
    if keys:
        out.print(f"  follow them: phantoms status\n  one of them: phantoms show {keys[0]}", style="dim", soft_wrap=True)
        say(f"  {NEXT}", style="dim")


@dataclass
class _Stored:
    """The result of storing valid rows: the keys, and refusals of rows that could not be stored after all."""

    new: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    known: int = 0
    refused: list[Refusal] = field(default_factory=list)


def _store(services: Services, rows: Sequence[Accepted], file: str, *, update: bool) -> _Stored:
    """Add the rows page by page, with a progress bar. Existing briefs are refused, or with `update` updated."""
    stored = _Stored()
    if not rows:
        return stored
    catalogue, edits, channels = services.catalogue(), services.brief_edits(), services.channels()
    catalogue.put_channels(channels.values())
    source = f"import:{printable(Path(file).name, 200)}"
    with progress("adding", len(rows)) as done:
        for start in range(0, len(rows), PAGE):
            page = rows[start : start + PAGE]
            added = catalogue.add([row.brief for row in page], source=source, added_by=this_user())
            for row, one in zip(page, added, strict=True):
                if one.new:
                    stored.new.append(one.key)
                    continue
                stored.known += 1
                if not update:
                    stored.refused.append(Refusal(file, row.line, f"duplicate: this brief is already {one.key}", row.entry))
                    continue
                try:
                    edited = edits.edit(one.key, row.changes, by="cli", offered=lambda name: channels[name].accounts)
                except InvalidInput as error:
                    stored.refused.append(Refusal(file, row.line, printable(str(error), REASON_CHARACTERS), row.entry))
                else:
                    (stored.updated if edited.before != edited.after else stored.unchanged).append(one.key)
            done(len(page))
    return stored


def _print(refused: Sequence[Refusal]) -> None:
    for refusal in refused[:SHOWN_REFUSALS]:
        say(plain(str(refusal)), style="red", to=err)
    if len(refused) > SHOWN_REFUSALS:
        err.print(f"... and {len(refused) - SHOWN_REFUSALS} more; --json lists all", style="red")
