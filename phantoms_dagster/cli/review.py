"""`phantoms approve` and `phantoms reject`: a person decides."""

from __future__ import annotations

import getpass
import os
from collections.abc import Iterator, Sequence
from typing import Annotated

import typer
from rich.markup import escape

from phantoms_dagster.cli.console import BAD_INPUT, current, err, out, plain_errors, report
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.wiring import Workshop

MOST_AT_ONCE = 100_000
# Decided in one transaction, whose rows nobody else can work on meanwhile.
PAGE = 500
SHORTEST_HASH = 8

Videos = Annotated[list[str] | None, typer.Argument(help="Keys of videos, or enough of each")]
Everything = Annotated[bool, typer.Option("--all", help="Every video that waits for review")]
Reviewer = Annotated[str | None, typer.Option(help="Who decides; default: the user of this machine")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Review")(approve)
    app.command(rich_help_panel="Review")(reject)


def approve(
    videos: Videos = None,
    everything: Everything = False,
    note: Annotated[str, typer.Option(help="Kept with the decision")] = "",
    reviewer: Reviewer = None,
    content: Annotated[
        str | None, typer.Option(metavar="HASH", help="What was looked at, as `phantoms show` says; of one video")
    ] = None,
) -> None:
    """Approve videos: exactly these bytes and words go out, whatever is changed later.

    A video whose posts would say something else than when it was rendered is refused: look at it again, and name its content.
    """
    _decide(videos, everything=everything, note=note, reviewer=reviewer, approved=True, content=content)


def reject(
    videos: Videos = None,
    everything: Everything = False,
    note: Annotated[str, typer.Option(help="Why; kept with the decision")] = "",
    reviewer: Reviewer = None,
) -> None:
    """Reject videos: they are not posted. Regenerate the script or the render and decide again, or approve after all."""
    _decide(videos, everything=everything, note=note, reviewer=reviewer, approved=False)


def _decide(
    videos: list[str] | None, *, everything: bool, note: str, reviewer: str | None, approved: bool, content: str | None = None
) -> None:
    with plain_errors():
        if content is not None and (len(videos or []) != 1 or len(content) < SHORTEST_HASH):
            raise InvalidInput(f"--content is that of one video, at least {SHORTEST_HASH} characters; see `phantoms show`")
        if bool(videos) == everything:
            raise InvalidInput("name the videos, or give --all; `phantoms status` lists what waits for review")
        workshop = Workshop(current())
        try:
            decisions, catalogue = workshop.decisions(), workshop.catalogue()
            workshop.take_channels()
            # All names first: a mistyped one should not leave half of the decisions made.
            keys = decisions.undecided(limit=MOST_AT_ONCE) if everything else [catalogue.find(video) for video in videos or []]
            contents = {keys[0]: content} if content else {}
            problems, word = 0, "approved" if approved else "rejected"
            for page in _pages(list(dict.fromkeys(keys))):
                for decided in decisions.decide_all(
                    page, approved=approved, reviewer=reviewer or _user(), note=note, via="cli", contents=contents
                ):
                    if isinstance(decided, InvalidInput):  # the others can be decided all the same
                        report(str(decided))
                        problems += 1
                        continue
                    out.print(f"{word} {decided.key}" if decided.new else f"{decided.key} was {word} before", soft_wrap=True)
                    for warning in decided.warnings:
                        err.print(f"[yellow]warning: {decided.key}: {escape(warning)}[/]", soft_wrap=True)
            if not keys:
                out.print("nothing waits for review")
        finally:
            workshop.close()
        if problems:
            raise typer.Exit(BAD_INPUT)


def _pages(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[n : n + PAGE] for n in range(0, len(keys), PAGE))


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may run under a number that has no name
        return f"uid {os.getuid()}"
