"""`phantoms pools` and `phantoms breakers`: the current limits on calls, and tripping or resetting breakers by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, TypeVar

import typer
from rich.table import Table

from phantoms_dagster.cli.console import current, err, out, plain, plain_errors, print_json
from phantoms_dagster.cli.people import actor
from phantoms_dagster.cli.times import exact, local, soon
from phantoms_dagster.resilience.breakers.breaker import BreakerState
from phantoms_dagster.resilience.pools import SANDBOX
from phantoms_dagster.resilience.usage import RateUse
from phantoms_dagster.store.audit import Actor, AuditLog
from phantoms_dagster.wiring import Services
from phantoms_dagster.wiring.breaker_switch import BreakerSwitch, BreakerSwitched
from phantoms_dagster.wiring.watching import PoolView, Watcher, known_breaker, watching

STYLES = {"closed": "green", "half-open": "yellow", "open": "red"}
SPANS = {1.0: "a second", 60.0: "a minute", 3_600.0: "an hour", 86_400.0: "a day"}
GROUP_EXAMPLES = (
    "phantoms breakers",
    'phantoms breakers trip youtube --for 600 --why "they announced maintenance"',
    'phantoms breakers reset youtube --why "it is back"',
    "phantoms breakers history youtube",
)

Found = TypeVar("Found")
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
Breaker = Annotated[
    str,
    typer.Argument(help="An integration such as youtube, one account such as youtube:main, or sandbox/youtube for the sandbox"),
]
Why = Annotated[str, typer.Option(help="The reason, for the breaker's history")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command(rich_help_panel="Look")(pools)
    group = typer.Typer(invoke_without_command=True, rich_markup_mode="rich", add_completion=False)
    group.callback()(breakers)
    group.command()(trip)
    group.command()(reset)
    group.command()(history)
    epilog = "\n\n".join(["Examples:", *(f"[bold]{example}[/]" for example in GROUP_EXAMPLES)])
    app.add_typer(group, name="breakers", rich_help_panel="Look", epilog=epilog)


def pools(
    pool: Annotated[str | None, typer.Argument(metavar="[NAME]", help="One pool and those of its accounts; default: all")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the limits on calls now: slots, waiting calls, rates, daily quotas, and how far 429s have reduced them."""
    with plain_errors():
        found = _asked(lambda watcher: watcher.pools(pool))
        if as_json:
            print_json({"pools": [asdict(view) for view in found]})
            return
        out.print(_pools_table(found))
        if any(view.pool.endswith(":*") for view in found):
            out.print("A name that ends with :* means all accounts that have not made a call yet.", style="dim", soft_wrap=True)


def _pools_table(found: Sequence[PoolView]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("pool", overflow="fold")
    for title in ("in use", "waiting"):
        table.add_column(title, justify="right", no_wrap=True)
    for title in ("rates", "left today", "throttled to"):
        table.add_column(title, overflow="fold")
    for view in found:
        table.add_row(
            plain(view.pool),
            str(view.in_use) if view.slots is None else f"{view.in_use}/{view.slots}",
            f"[yellow]{view.waiting}[/]" if view.waiting else "",
            "\n".join(map(_rate, view.rates)),
            "" if view.quota is None else f"{view.quota_left}/{view.quota}",
            _learnt(view),
            style=None if view.used else "dim",
        )
    return table


def _rate(rate: RateUse) -> str:
    return f"{rate.used}/{rate.calls} {SPANS.get(rate.seconds) or f'in {rate.seconds:g} s'}"


def _learnt(view: PoolView) -> str:
    parts = [f"{view.factor:.0%}"] if view.factor < 1 else []
    if view.paused_seconds > 0:
        parts.append(f"paused {view.paused_seconds:.0f} s")
    return f"[yellow]{', '.join(parts)}[/]" if parts else ""


def breakers(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the breakers; open or close one, or read its history."""
    if context.invoked_subcommand is not None:
        return
    with plain_errors():
        found = _asked(lambda watcher: watcher.breakers.look())
        if as_json:
            print_json({"breakers": [asdict(state) for state in found]})
        elif found:
            out.print(_breakers_table(found))
        else:
            out.print("no calls yet, so there are no breakers to show")


def _breakers_table(found: Sequence[BreakerState]) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("breaker", overflow="fold")
    for title in ("state", "since"):
        table.add_column(title, no_wrap=True)
    table.add_column("failed", justify="right", no_wrap=True)
    table.add_column("next", overflow="fold")
    for breaker in found:
        state = f"[{STYLES[breaker.state]}]{breaker.state}[/]{' manually' if breaker.manual else ''}"
        failed = f"{breaker.failures} of {breaker.calls}" if breaker.calls else ""
        table.add_row(plain(breaker.name), state, local(breaker.since), failed, _next(breaker))
    return table


def _next(breaker: BreakerState) -> str:
    match breaker.state:
        case "closed":
            return ""
        case "half-open":
            return "a probe is under way"
    if breaker.until is None or (breaker.until - datetime.now(UTC)).days > 365:
        return "open until it is reset"
    return f"next probe from {soon(breaker.until)}"


def trip(
    name: Breaker,
    why: Why,
    seconds: Annotated[float | None, typer.Option("--for", help="Seconds until the first probe; default: open until reset")] = None,
    as_json: AsJson = False,
) -> None:
    """Open a breaker by hand. Calls stop at once and videos wait; nothing fails."""
    with plain_errors(), _unlogged():
        done = _switched(lambda switch, actor: switch.trip(name, actor, why=why, seconds=seconds))
        if as_json:
            print_json(
                {
                    "breaker": done.breaker,
                    "state": "open",
                    "seconds": seconds,
                    "why": done.why,
                    "sandbox_goes_on": done.sandbox_goes_on,
                }
            )
            return
        until = "it is reset" if seconds is None else f"a probe in {seconds:g} s"
        out.print(f"{plain(done.breaker)} is open until {until}", soft_wrap=True)
        if done.sandbox_goes_on:
            err.print(f"calls to the sandbox continue; their breaker is {SANDBOX}{plain(done.breaker)}", soft_wrap=True)


def reset(name: Breaker, why: Why, as_json: AsJson = False) -> None:
    """Close a breaker by hand and clear its failures."""
    with plain_errors(), _unlogged():
        done = _switched(lambda switch, actor: switch.reset(name, actor, why=why))
        if as_json:
            print_json({"breaker": done.breaker, "state": "closed", "why": done.why})
            return
        out.print(f"{plain(done.breaker)} is closed", soft_wrap=True)


def history(name: Breaker, as_json: AsJson = False) -> None:
    """Show the last hundred state changes of a breaker, newest first."""
    with plain_errors():
        breaker = known_breaker(name)
        found = _asked(lambda watcher: watcher.breakers.history(breaker))
        if as_json:
            print_json({"breaker": breaker, "history": [asdict(change) for change in found]})
            return
        if not found:
            out.print(f"{plain(breaker)} has never changed state", soft_wrap=True)
            return
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for title in ("at", "from", "to"):
            table.add_column(title, no_wrap=True)
        table.add_column("why", overflow="fold")
        for change in found:
            table.add_row(exact(change.at), change.old, f"[{STYLES[change.new]}]{change.new}[/]", plain(change.why))
        out.print(table)


def _asked(question: Callable[[Watcher], Awaitable[Found]]) -> Found:
    """Connect to Redis and return the answer to one question."""

    async def ask() -> Found:
        async with watching(current()) as watcher:
            return await question(watcher)

    return asyncio.run(ask())


def _switched(word: Callable[[BreakerSwitch, Actor], Awaitable[BreakerSwitched]]) -> BreakerSwitched:
    """Trip or reset a breaker. This works without a database, but then there is no entry in the audit log."""

    async def say(switch: BreakerSwitch) -> BreakerSwitched:
        return await word(switch, actor())

    settings = current()
    services = Services(settings)
    try:
        note = AuditLog(services.engine).write if settings.database.url is not None else None
        done = asyncio.run(say(BreakerSwitch(settings, note)))
    finally:
        services.close()
    if note is not None and not done.noted:
        err.print("this is not in the audit log, because PostgreSQL does not answer", soft_wrap=True)
    return done


@contextmanager
def _unlogged() -> Iterator[None]:
    """Mute the log of this process's own breaker. The command already prints what the user did."""
    logger, handler = logging.getLogger("phantoms_dagster.resilience"), logging.NullHandler()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
