"""`phantoms settings`: the current values, where each came from, and unknown variables. Secrets are hidden."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from dotenv import dotenv_values
from pydantic import BaseModel, SecretStr
from rich.table import Table

from phantoms_dagster.cli.console import current, out, plain, plain_errors, print_json, say
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import RUNNING_FILE, Settings
from phantoms_dagster.settings.leaves import PREFIX, leaves
from phantoms_dagster.settings.sources import RENAMED, old_names

STARS = "********"
ENVIRONMENT, RUNNING, DEFAULT = "environment", "running `phantoms up`", "default"
# The similarity above which a name counts as a misspelling: BATCHSIZE of BATCH_SIZE, YOUTUB_TOKEN of YOUTUBE_TOKEN.
ALIKE = 0.85
_PASSWORD = re.compile(r"(?<=://)[^/@\s]+(?=@)")


@dataclass(frozen=True)
class ShownSetting:
    """A setting for display. `value` has secrets replaced by stars; `source` says where it came from."""

    group: str
    variable: str
    value: str
    source: str
    meaning: str


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(settings)


def settings(
    words: Annotated[
        list[str] | None, typer.Argument(metavar="WORD", help="Only settings with these words in their name or description")
    ] = None,
    changed: Annotated[bool, typer.Option("--changed", help="Only settings that differ from their default")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Show the current settings, where each value came from, and unknown variables. Secrets are hidden."""
    with plain_errors():
        found = [one for one in in_force(current()) if _fits(one, words or ()) and not (changed and one.source == DEFAULT)]
        unknown = list(unknown_variables(os.environ))
        if as_json:
            print_json({"settings": [asdict(one) for one in found], "unknown": [{"variable": v, "meant": m} for v, m in unknown]})
            return
        if not found and words:
            raise InvalidInput(
                f"no setting has {' and '.join(map(repr, words))} in its name or description; `phantoms settings` shows all"
            )
        if found:
            out.print(_table(found, meanings=bool(words)))
        else:
            say("every setting is at its default")
        for variable, meant in unknown:
            hint = f"; did you mean {meant}?" if meant else "; unless a channel uses it for a token, it has no effect"
            say(f"{plain(variable)} is not a setting{hint}", style="yellow")
        if not words and not changed:
            say("Each is an environment variable. To read what some do, give a word: `phantoms settings youtube`.", style="dim")


def in_force(settings: Settings) -> Iterator[ShownSetting]:
    """Yield all settings, in the order of docs/settings.md."""
    given = {name.upper() for name, value in os.environ.items() if value}
    left = {name.upper() for name, value in dotenv_values(settings.paths.home / RUNNING_FILE).items() if value}
    olds = {new: old for old, new in old_names(given)}
    for leaf in leaves(Settings).values():
        if leaf.variable in given:
            source = ENVIRONMENT
        elif leaf.variable in olds:
            source = f"{ENVIRONMENT}, under its old name {olds[leaf.variable]}"
        elif leaf.file_variable in given:
            source = f"the file in {leaf.file_variable}"
        else:
            source = RUNNING if leaf.variable in left else DEFAULT
        group = " ".join(leaf.path[:-1])
        yield ShownSetting(group, leaf.variable, shown(leaf.value(settings)), source, leaf.description)


def shown(value: Any) -> str:
    """Format a value for display. Secrets become stars, and so do the user name and password in a URL."""
    if value is None or value in ("", [], {}):
        return "unset"
    if isinstance(value, SecretStr):
        return STARS
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value))
    if isinstance(value, dict):
        return _PASSWORD.sub(STARS, json.dumps(value, default=_for_json, ensure_ascii=False))
    return _PASSWORD.sub(STARS, str(value))


def _for_json(value: object) -> object:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else str(value)


def unknown_variables(environment: Iterable[str]) -> Iterator[tuple[str, str | None]]:
    """Yield variables that start with PHANTOMS_ but are not settings, each with the setting that was probably meant, or None."""
    known = {leaf.variable for leaf in leaves(Settings).values()}
    files = {leaf.file_variable for leaf in leaves(Settings).values() if leaf.file_variable}
    before = {f"{PREFIX}{old.upper()}" for old in RENAMED}
    for variable in sorted(environment):
        if variable.upper().startswith(PREFIX) and variable.upper() not in known | files | before:
            close = difflib.get_close_matches(variable.upper(), sorted(known | files), n=1, cutoff=ALIKE)
            yield variable, close[0] if close else None


def _fits(one: ShownSetting, words: Iterable[str]) -> bool:
    text = f"{one.variable} {one.meaning}".lower()
    return all(word.lower() in text for word in words)


def _table(found: list[ShownSetting], *, meanings: bool) -> Table:
    rows = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    rows.add_column("variable", no_wrap=True)
    rows.add_column("value", overflow="fold")
    rows.add_column("meaning" if meanings else "from", overflow="fold")
    group = None
    for one in found:
        if one.group != group:
            group = one.group
            if rows.row_count:
                rows.add_row()
            rows.add_row(f"[bold]{plain(group)}[/]")
        value = plain(one.value) if one.source == DEFAULT else f"[bold]{plain(one.value)}[/]"
        source = plain(one.source)
        rows.add_row(one.variable, value, f"{plain(one.meaning)} [dim](from: {source})[/]" if meanings else source)
    return rows
