"""`phantoms approve` and `phantoms reject`: a person decides."""

from __future__ import annotations

import getpass
from typing import Annotated

import typer

from phantoms_dagster.cli.console import out, plain_errors
from phantoms_dagster.cli.up import current
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.wiring import Workshop

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
) -> None:
    """Approve videos: exactly these bytes and words go out. A later change needs a new approval."""
    _decide(videos, everything=everything, note=note, reviewer=reviewer, approved=True)


def reject(
    videos: Videos = None,
    everything: Everything = False,
    note: Annotated[str, typer.Option(help="Why; kept with the decision")] = "",
    reviewer: Reviewer = None,
) -> None:
    """Reject videos: they are not posted. Regenerate the script or the render and decide again, or approve after all."""
    _decide(videos, everything=everything, note=note, reviewer=reviewer, approved=False)


def _decide(videos: list[str] | None, *, everything: bool, note: str, reviewer: str | None, approved: bool) -> None:
    with plain_errors():
        if bool(videos) == everything:
            raise InvalidInput("name the videos, or give --all; `phantoms status` lists what waits for review")
        workshop = Workshop(current())
        try:
            decisions, catalogue = workshop.decisions(), workshop.catalogue()
            keys = decisions.undecided() if everything else [catalogue.find(video) for video in videos or []]
            for key in keys:
                decided = decisions.decide(key, approved=approved, reviewer=reviewer or getpass.getuser(), note=note, via="cli")
                word = "approved" if approved else "rejected"
                out.print(f"{word} {key}" if decided.new else f"{key} was {word} before")
            if not keys:
                out.print("nothing waits for review")
        finally:
            workshop.close()
