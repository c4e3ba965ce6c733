"""`phantoms retire` and `phantoms unretire`: which videos have partitions in Dagster. `production.retirement` has the rules.

The commands only write the table. The nightly job deletes partitions, and the intake sensor adds them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Annotated

import typer

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import BAD_INPUT, current, out, plain_errors, print_json, report
from phantoms_dagster.cli.dead_letters import moment
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.retirement import RetirementCandidate
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.production.retirement import may_be_retired, open_because
from phantoms_dagster.store.retirement import Retirement
from phantoms_dagster.wiring import Services

PAGE = 500
SHOWN_KEYS = 100

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Briefs")(retire)
    app.command(rich_help_panel="Briefs")(unretire)


def retire(
    videos: Annotated[
        list[str] | None, typer.Argument(help="Keys of videos, or enough of each", autocompletion=complete_video)
    ] = None,
    finished_before: Annotated[
        str | None,
        typer.Option("--finished-before", help="Every video that finished this long ago (30d, 2w) or before a date (2026-11-01)"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them")] = False,
    as_json: AsJson = False,
) -> None:
    """Retire finished videos now. The next nightly run removes their partitions from Dagster.

    Everything else stays: database rows, posts, and the reading of results. A video is not finished while it waits for something,
    has failed, or has a post whose outcome is unknown. Videos retire automatically PHANTOMS_RETIRE_DAYS days after they finish.
    """
    with plain_errors(), _retirement() as (retirement, services):
        if bool(videos) == (finished_before is not None):
            raise InvalidInput("give either videos or --finished-before 30d; `phantoms status` lists videos")
        if videos:
            keys = list(dict.fromkeys(services.catalogue().find(video) for video in videos))
            _retire_these(retirement, keys, dry_run=dry_run, as_json=as_json)
        else:
            _retire_all(retirement, _moment(finished_before or ""), dry_run=dry_run, as_json=as_json)


def unretire(
    videos: Annotated[list[str], typer.Argument(help="Keys of videos, or enough of each", autocompletion=complete_video)],
    as_json: AsJson = False,
) -> None:
    """Bring retired videos back. Within seconds they are Dagster partitions again, at the end of the list.

    They retire again PHANTOMS_RETIRE_DAYS days from now, or that long after what you regenerate has finished.
    """
    with plain_errors(), _retirement() as (retirement, services):
        catalogue = services.catalogue()
        keys = list(dict.fromkeys(catalogue.find(video) for video in videos))
        back = retirement.take_back(keys)
        if as_json:
            print_json(
                {"taken_back": [key for key in keys if key in back], "not_retired": [key for key in keys if key not in back]}
            )
            return
        for key in keys:
            if key not in back:
                out.print(f"{key} is not retired", soft_wrap=True)
                continue
            out.print(f"brought back {key}", soft_wrap=True)
            stages = catalogue.stages(key)
            gone = [name for name in STAGES if name in stages and stages[name].cleaned]
            if gone:
                out.print(f"  its files were deleted; to make it again, start with: {gone[0]}", style="dim", soft_wrap=True)


@contextmanager
def _retirement() -> Iterator[tuple[Retirement, Services]]:
    services = Services(current())
    try:
        yield Retirement(services.engine), services
    finally:
        services.close()


def _retire_these(retirement: Retirement, keys: Sequence[str], *, dry_run: bool, as_json: bool) -> None:
    """Retire the videos that are finished. Exits with BAD_INPUT when some are not."""
    found = retirement.candidates(keys)
    ended = [video.key for video in found if video.retired_at is None and open_because(video) is None]
    marked = ended if dry_run else retirement.mark(ended, _ended)
    others = retirement.candidates([key for key in keys if key not in marked])
    before = [video.key for video in others if video.retired_at is not None]
    refused = {v.key: open_because(v) or "something has just been started for it" for v in others if v.retired_at is None}
    if as_json:
        reasons = [{"key": key, "reason": reason} for key, reason in refused.items()]
        print_json({"retired": marked, "dry_run": dry_run, "retired_before": before, "refused": reasons})
    else:
        _tell(marked, dry_run=dry_run)
        for key in before:
            out.print(f"{key} is already retired", soft_wrap=True)
        for key, reason in refused.items():
            report(f"{key} is not finished: {reason}")
    if refused:
        raise typer.Exit(BAD_INPUT)


def _retire_all(retirement: Retirement, before: datetime, *, dry_run: bool, as_json: bool) -> None:
    after, marked = 0, []
    may = may_be_retired(before)
    while page := retirement.due(before, after=after, most=PAGE):
        after = page[-1].id
        keys = [video.key for video in page if may(video)]
        marked += keys if dry_run else retirement.mark(keys, may)
    if as_json:
        print_json({"retired": marked, "dry_run": dry_run, "retired_before": [], "refused": []})
    else:
        _tell(marked, dry_run=dry_run)


def _ended(video: RetirementCandidate) -> bool:
    return open_because(video) is None


def _tell(keys: Sequence[str], *, dry_run: bool) -> None:
    for key in keys[:SHOWN_KEYS]:
        out.print(key, soft_wrap=True)
    if len(keys) > SHOWN_KEYS:
        out.print(f"... and {len(keys) - SHOWN_KEYS} more", style="dim")
    out.print(f"{counted(len(keys), 'video')} {'would be retired' if dry_run else 'retired'}")
    if keys and not dry_run:
        hint = "the nightly run removes their partitions; to do it now, launch retirement_job in the Dagster UI"
        out.print(f"  {hint}", style="dim", soft_wrap=True)


def _moment(given: str) -> datetime:
    try:
        return moment(given, now=datetime.now(UTC))
    except InvalidInput:
        raise InvalidInput(f"--finished-before {given!r} is not a time; give 30d, 2w or 2026-11-01") from None
