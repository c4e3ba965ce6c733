"""`phantoms dead-letters`: list, replay and discard what failed for good. The rules are in `store.dead_letters`."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer
from rich import box
from rich.cells import cell_len
from rich.table import Table

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import BAD_INPUT, STATE_STYLES, current, out, plain, plain_errors, print_json, report
from phantoms_dagster.cli.times import local
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import InvalidInput, NotFound
from phantoms_dagster.domain.stages import STAGES
from phantoms_dagster.store.dead_letters.letters import (
    DeadLetter,
    DeadLetterDetail,
    DeadLetters,
    Handled,
    LetterFilter,
    stages_named,
)
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.this_user import this_user

STATES = ("open", "replayed", "discarded")
CLASSES = ("transient", "permanent", "rejected", "unknown", "internal")
SHOWN_REFUSALS = 100
MOST_LETTER = 2**63 - 1
# Widths in the list: the gap between columns, a time, and the minimum for a reason.
GAP, WHEN, WHY = 2, 21, 24
SHOWN_WHY = 120
_AGO = re.compile(r"(\d{1,6})\s*([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

EXAMPLES = {
    "list": [
        "phantoms dead-letters list",
        "phantoms dead-letters list --stage post --since 24h",
        "phantoms dead-letters list --provider shotstack --class transient --json",
        "phantoms dead-letters list --state discarded",
    ],
    "show": ["phantoms dead-letters show 12", "phantoms dead-letters show octopuses --json"],
    "replay": [
        "phantoms dead-letters replay 12 octopuses",
        "phantoms dead-letters replay --provider shotstack --since 6h",
        "phantoms dead-letters replay --all",
        "phantoms dead-letters replay 12 --from script",
    ],
    "discard": [
        'phantoms dead-letters discard 12 --reason "the topic is no longer true"',
        'phantoms dead-letters discard --class rejected --stage script --reason "against their policy"',
    ],
}


def _epilog(name: str) -> str:
    return "\n\n".join(["Examples:", *(f"[bold]{example}[/]" for example in EXAMPLES[name])])


dead_letters = typer.Typer(
    help="See what failed for good, replay it once its cause is fixed, or discard it.\n\n"
    "A replay gives the stage a fresh retry budget. It never posts twice and never pays for a render twice. "
    "Materializing failed partitions in the Dagster UI (a backfill from failure) clears the same letters.",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(dead_letters, name="dead-letters", rich_help_panel="Review")


Which = Annotated[
    list[str] | None, typer.Argument(help="Numbers of letters, or keys of videos (enough of each)", autocompletion=complete_video)
]
StageName = Annotated[str | None, typer.Option("--stage", help="Only this stage; `variant` and `post` mean all platforms")]
Provider = Annotated[str | None, typer.Option("--provider", help="Only this provider; `none`: letters without one")]
ErrorClass = Annotated[str | None, typer.Option("--class", help=f"Only this class: {', '.join(CLASSES)}")]
Since = Annotated[str | None, typer.Option("--since", help="Only newer ones: 30m, 6h, 2d, or a time such as 2026-12-24T18:00")]
Everything = Annotated[bool, typer.Option("--all", help="Every open letter")]
By = Annotated[str | None, typer.Option("--by", help="Your name for the records; default: the user of this machine")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


@dead_letters.command("list", epilog=_epilog("list"))
def list_letters(
    stage: StageName = None,
    provider: Provider = None,
    error_class: ErrorClass = None,
    since: Since = None,
    state: Annotated[str, typer.Option(help=f"{', '.join(STATES)}, or all")] = "open",
    limit: Annotated[int, typer.Option(min=1, max=1_000_000, help="List at most this many letters")] = 50,
    as_json: AsJson = False,
) -> None:
    """List letters, newest first, with a count per stage and class."""
    with plain_errors(), _letters() as (letters, _):
        if state not in (*STATES, "all"):
            raise InvalidInput(f"there is no state {state!r}; the states are {', '.join(STATES)} and all")
        wanted = replace(_filter(stage, provider, error_class, since), state=None if state == "all" else state)
        found, total = letters.list(wanted, limit=limit), letters.count(wanted)
        if as_json:
            print_json({"total": total, "letters": [asdict(letter) for letter in found]})
            return
        if not found:
            which = "no dead letters" if state == "all" else f"no {state} dead letters"
            filtered = replace(wanted, state=None) != LetterFilter(state=None)
            out.print(f"{which} match; without filters: `phantoms dead-letters list`" if filtered else which, soft_wrap=True)
            return
        _print_letters(found)
        if total > len(found):
            out.print(f"... and {total - len(found)} more; --limit {total} lists all", style="dim")
        out.print()
        for group, count in Counter(_group(letter) for letter in found).most_common(10):
            out.print(f"{count:>6}  {plain(group)}", soft_wrap=True)
        if state == "open":
            out.print(f"\nshow:   phantoms dead-letters show {found[0].id}", style="dim", soft_wrap=True)
            out.print("replay: phantoms dead-letters replay --all (or with filters)", style="dim", soft_wrap=True)


@dead_letters.command(epilog=_epilog("show"))
def show(
    which: Annotated[
        str,
        typer.Argument(
            help="Number of a letter, or key of a video (enough of it): all of its letters", autocompletion=complete_video
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show everything about a letter: the cause, the provider's answer, and every attempt."""
    with plain_errors(), _letters() as (letters, services):
        number = _number(which)
        key = None if number is not None else services.catalogue().find(which)
        found = letters.of_video(key) if key is not None else [letters.show(number or 0)]
        if as_json:
            print_json({"letters": [_as_json(detail) for detail in found]})
            return
        if not found:
            out.print(f"{key} has no dead letters", soft_wrap=True)
        for detail in found:
            _print_detail(detail)


@dead_letters.command(epilog=_epilog("replay"))
def replay(
    which: Which = None,
    stage: StageName = None,
    provider: Provider = None,
    error_class: ErrorClass = None,
    since: Since = None,
    everything: Everything = False,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Start over from this earlier stage: script, voiceover, rendered_video, approval or a variant. "
            "Later stages run again; published posts stay",
        ),
    ] = None,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Replay letters. Their stages start over with a fresh retry budget. A post with an unknown outcome is checked at the platform.

    Exits with 2 when some could not be replayed; the others were.
    """
    with plain_errors(), _letters() as (letters, services):
        if start is not None and start not in STAGES:
            raise InvalidInput(f"unknown stage {start!r}; the stages are {', '.join(STAGES)}")
        wanted = _chosen(services, which, _filter(stage, provider, error_class, since), everything=everything)
        _tell("replayed", [letters.replay(part, by=by or this_user(), start=start) for part in wanted], as_json=as_json)


@dead_letters.command(epilog=_epilog("discard"))
def discard(
    which: Which = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; required, and kept with the letter")] = "",
    stage: StageName = None,
    provider: Provider = None,
    error_class: ErrorClass = None,
    since: Since = None,
    everything: Everything = False,
    by: By = None,
    as_json: AsJson = False,
) -> None:
    """Give up stages and everything after them. Their letters are kept, with your name, the reason and the time.

    You can still replay a discarded letter by its number.
    """
    with plain_errors(), _letters() as (letters, services):
        if not reason.strip():
            raise InvalidInput('a discard needs a reason: --reason "why"; it is kept with the letter')
        wanted = _chosen(services, which, _filter(stage, provider, error_class, since), everything=everything)
        _tell("discarded", [letters.discard(part, by=by or this_user(), reason=reason) for part in wanted], as_json=as_json)


# --- selecting letters


@contextmanager
def _letters() -> Iterator[tuple[DeadLetters, Services]]:
    services = Services(current())
    try:
        yield DeadLetters(services.engine), services
    finally:
        services.close()


def _filter(stage: str | None, provider: str | None, error_class: str | None, since: str | None) -> LetterFilter:
    if error_class is not None and error_class not in CLASSES:
        raise InvalidInput(f"there is no class {error_class!r}; the classes are {', '.join(CLASSES)}")
    return LetterFilter(
        stages=None if stage is None else stages_named(stage),
        provider=provider,
        error_class=error_class,
        since=None if since is None else moment(since, now=datetime.now(UTC)),
    )


def _chosen(services: Services, which: Sequence[str] | None, wanted: LetterFilter, *, everything: bool) -> list[LetterFilter]:
    """Return filters for the named letters, else for all that match. A letter given by number may be discarded; others are open."""
    filtered = wanted != LetterFilter()
    if which and everything:
        raise InvalidInput("give either letters or --all")
    if not (which or everything or filtered):
        raise InvalidInput("give letters, videos, filters or --all; `phantoms dead-letters list` shows the letters")
    if not which:
        return [wanted]
    # Look up all names first, so that a mistyped one does not leave half of the work done.
    numbers = [(name, _number(name)) for name in which]
    keys = [services.catalogue().find(name) for name, number in numbers if number is None]
    ids = [number for _, number in numbers if number is not None]
    if ids:
        _all_there(services, ids)
    parts = [replace(wanted, ids=ids, state=None)] if ids else []
    return parts + ([replace(wanted, keys=keys)] if keys else [])


def _all_there(services: Services, ids: Sequence[int]) -> None:
    letters = DeadLetters(services.engine)
    found = {letter.id for letter in letters.list(LetterFilter(ids=ids, state=None))}
    for missing in (number for number in ids if number not in found):
        letters.show(missing)


def _number(name: str) -> int | None:
    """Return the letter's number; None when the name is not a number. Keys of videos never consist of digits only."""
    if not re.fullmatch(r"[0-9]{1,30}", name):
        return None
    if int(name) > MOST_LETTER:
        raise NotFound(f"no dead letter {name}; `phantoms dead-letters list --state all` lists them")
    return int(name)


def moment(given: str, *, now: datetime) -> datetime:
    """Parse a duration before now, such as `6h`, or an ISO time (local time when it has no zone). Raises InvalidInput."""
    ago = _AGO.fullmatch(given.strip().lower())
    try:
        if ago is not None:
            return now - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        return datetime.fromisoformat(given.strip()).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput(f"--since {given!r} is not a time; give 30m, 6h, 2d or 2026-12-24T18:00+01:00") from error


# --- display


def _group(letter: DeadLetter) -> str:
    return f"{letter.stage} {letter.error_class} {letter.provider or ''}".rstrip()


def _print_letters(found: Sequence[DeadLetter]) -> None:
    """Print one line per letter, or two when a key does not fit. Keys are never broken, so they can be copied."""
    longest = max(cell_len(letter.key) for letter in found)
    number = max(len(str(letter.id)) for letter in found)
    stage = max(len(letter.stage) for letter in found)
    details = max(len(letter.error_class) for letter in found) + max(cell_len(letter.provider or "-") for letter in found)
    least = number + longest + stage + 3 * GAP
    if out.width < least:
        for letter in found:
            out.print(f"{letter.id}  {letter.key}\n  {plain(_group(letter))}", soft_wrap=True)
        return
    causes = out.width >= least + details + 2 * GAP
    when = out.width >= least + details + 4 * GAP + WHEN + WHY
    table = Table(box=None, header_style="bold", padding=(0, GAP, 0, 0), pad_edge=False)
    table.add_column("no.", justify="right", no_wrap=True)
    if when:
        table.add_column("when", no_wrap=True)
    table.add_column("video", no_wrap=True)
    table.add_column("stage", no_wrap=True)
    if causes:
        table.add_column("class", no_wrap=True)
        table.add_column("provider", no_wrap=True)
    if when:
        table.add_column("why", overflow="fold")
    for letter in found:
        first, last = ([local(letter.created_at)], [_first_line(letter.message)]) if when else ([], [])
        cause = [letter.error_class, plain(letter.provider or "-")] if causes else []
        table.add_row(str(letter.id), *first, letter.key, letter.stage, *cause, *last)
    out.print(table)


def _first_line(message: str) -> str:
    """Return the beginning of a reason, cut between words. `show` prints all of it."""
    return plain(textwrap.shorten(" ".join(message.split()), SHOWN_WHY, placeholder=" ..."))


def _print_detail(detail: DeadLetterDetail) -> None:
    letter = detail.letter
    table = Table(box=box.SIMPLE_HEAD, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    style = STATE_STYLES.get(detail.stage_state, "")
    rows = [
        ("stage", f"{letter.stage}, revision {letter.revision}, now [{style}]{detail.stage_state}[/]"),
        ("cause", f"[bold]{letter.error_class}[/] {plain(letter.provider or '')} {plain(letter.code or '')}"),
        ("", plain(letter.message)),
        *_budget(letter),
        ("since", f"{local(letter.created_at)}, run {letter.run_id or '-'}"),
        *((name, plain(str(value))) for name, value in detail.evidence.items()),
    ]
    if letter.state != "open":
        rows.append(
            (letter.state, f"{local(letter.closed_at)} by {plain(letter.closed_by or '-')}: {plain(letter.closed_reason or '')}")
        )
    for number, attempt in enumerate(detail.attempts, 1):
        said = " ".join(str(attempt.get(name) or "") for name in ("class", "code", "message")).strip()
        rows.append((f"attempt {number}", plain(f"{_short(attempt.get('at'))} {said or 'no outcome'}")))
    for name, value in rows:
        table.add_row(name, value)
    out.print(f"[bold]dead letter {letter.id}[/], {letter.state}")
    out.print(letter.key, soft_wrap=True)
    out.print(table)
    if letter.state == "open":
        out.print(f"  phantoms dead-letters replay {letter.id}", soft_wrap=True)
        out.print(f'  phantoms dead-letters discard {letter.id} --reason "why"\n', soft_wrap=True)


def _budget(letter: DeadLetter) -> list[tuple[str, str]]:
    """Return what was spent before the stage was given up: `5 attempts over 34 minutes`. Empty when it failed at once."""
    if letter.counted is None or letter.failing_since is None or letter.error_class != "transient":
        return []
    minutes = (letter.created_at - letter.failing_since).total_seconds() / 60
    over = f"{minutes:.0f} minutes" if minutes >= 1.5 else f"{minutes * 60:.0f} seconds"
    free = letter.tries - letter.counted
    return [
        (
            "given up",
            f"after {counted(letter.counted, 'attempt')} over {over}"
            + (f", plus {counted(free, 'attempt')} that did not count" if free > 0 else ""),
        )
    ]


def _short(at: Any) -> str:
    return local(datetime.fromisoformat(at)) if isinstance(at, str) else ""


def _as_json(detail: DeadLetterDetail) -> dict[str, Any]:
    more = {"stage_state": detail.stage_state, "evidence": detail.evidence, "attempts": detail.attempts}
    return {**asdict(detail.letter), **more}


def _tell(word: str, parts: Sequence[Handled], *, as_json: bool) -> None:
    """Print a summary. Exits with BAD_INPUT when something was refused."""
    closed = {letter.id: letter for part in parts for letter in part.closed}
    refused = {r.letter.id: r for part in parts for r in part.refused if r.letter.id not in closed}
    if as_json:
        reasons = [{"id": r.letter.id, "key": r.letter.key, "stage": r.letter.stage, "reason": r.reason} for r in refused.values()]
        print_json({word: [asdict(letter) for letter in closed.values()], "refused": reasons})
    else:
        for group, count in Counter(_group(letter) for letter in closed.values()).most_common():
            out.print(f"{count:>6}  {plain(group)}", soft_wrap=True)
        out.print(f"{word} {len(closed)}" + (f", refused {len(refused)}" if refused else ""))
        for r in list(refused.values())[:SHOWN_REFUSALS]:
            report(f"{r.letter.id} {r.letter.key} {r.letter.stage}: {r.reason}")
        if len(refused) > SHOWN_REFUSALS:
            report(f"... and {len(refused) - SHOWN_REFUSALS} more; --json lists all")
    if refused:
        raise typer.Exit(BAD_INPUT)
