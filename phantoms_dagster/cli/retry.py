"""`phantoms retry`: run a stage of a video again, whatever its state. The rules are in `store.retrying`."""

from __future__ import annotations

from typing import Annotated

import typer

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import current, out, plain, plain_errors, print_json, say
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.this_user import this_user


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Review")(retry)


def retry(
    video: Annotated[str, typer.Argument(help="Key of the video, or enough of it", autocompletion=complete_video)],
    start: Annotated[str | None, typer.Option("--from", metavar="STAGE", help="Run this stage and all later ones again")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask")] = False,
    by: Annotated[str | None, typer.Option("--by", help="Your name for the records; default: the user of this machine")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; needs --yes, because it cannot ask")] = False,
) -> None:
    """Run a stage of a video again: one that failed, waits, hangs in a render, or is done (with --from).

    First shows what it will do, its cost and its risks, and asks for confirmation. A post whose outcome is unknown is checked at
    the platform, never sent again blindly.
    """
    with plain_errors():
        if start is not None and start not in STAGES:
            raise InvalidInput(f"unknown stage {start!r}; the stages are {', '.join(STAGES)}")
        if as_json and not yes:
            raise InvalidInput("--json cannot ask for confirmation: add --yes, or leave out --json to see first what will happen")
        services = Services(current())
        try:
            services.take_channels()
            retrying = services.retrying()
            plan = retrying.plan(services.catalogue().find(video), start)
            if as_json:
                retrying.carry_out(plan, by=by or this_user())
                print_json({"key": plan.key, "stage": plan.stage, "said": list(plan.lines)})
                return
            out.print(plain(plan.key), soft_wrap=True)
            for line in plan.lines:
                say(f"  {plain(line)}")
            if not yes and not typer.confirm("Do it?"):
                out.print("nothing was changed")
                return
            retrying.carry_out(plan, by=by or this_user())
            out.print(f"done: {plain(plan.stage)} will run again", soft_wrap=True)
            out.print(f"  follow it: phantoms show {plain(plan.key)}", style="dim", soft_wrap=True)
        finally:
            services.close()
