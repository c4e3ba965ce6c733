"""`phantoms webhooks`: the addresses that are told of events, and what was delivered to them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from phantoms_dagster.cli.console import current, out, plain, plain_errors, print_json, say, told
from phantoms_dagster.cli.dead_letters import moment
from phantoms_dagster.cli.people import actor
from phantoms_dagster.cli.times import exact, local
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.webhooks import EVENTS, OLD_SECRET_HOURS
from phantoms_dagster.store.webhooks import STATES, Webhooks
from phantoms_dagster.wiring import Services

if TYPE_CHECKING:
    from phantoms_dagster.settings import Settings

GROUP_EXAMPLES = (
    "phantoms webhooks add https://example.org/hooks/phantoms --event approval.wanted --event video.posted",
    "phantoms webhooks deliveries --state failed",
    "phantoms webhooks resend --failed --since 2026-11-26T08:00+01:00",
)
Number = Annotated[int, typer.Argument(help="The number that `phantoms webhooks list` shows", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Tell other programs of events, signed and at least once; see what was delivered, and send it again.")
    group.command("add")(add)
    group.command("list")(show)
    group.command("remove")(remove)
    group.command("rotate")(rotate)
    group.command("enable")(enable)
    group.command("deliveries")(deliveries)
    group.command("resend")(resend)
    group.command("deliver")(deliver)
    epilog = "\n\n".join(["Examples:", *(f"[bold]{example}[/]" for example in GROUP_EXAMPLES)])
    app.add_typer(group, name="webhooks", rich_help_panel="Run", no_args_is_help=True, epilog=epilog)


def add(
    url: Annotated[str, typer.Argument(help="Where events go, such as https://example.org/hooks/phantoms")],
    event: Annotated[list[str], typer.Option(help=f"Which events: {', '.join(EVENTS)}; default: all")] = [],  # noqa: B006
    note: Annotated[str, typer.Option(help="What it is for, for people")] = "",
    as_json: AsJson = False,
) -> None:
    """Add an address, and print the secret that its messages are signed with, once."""
    with _webhooks() as (store, _):
        number, secret = store.add(url, event, actor(), remark=note)
        if as_json:
            print_json({"endpoint": number, "secret": secret})
            return
        out.print(f"added endpoint {number}; its secret, which is shown this once:", soft_wrap=True)
        out.print(secret, soft_wrap=True, markup=False)


def show(as_json: AsJson = False) -> None:
    """List the addresses: what they want, and whether they take it."""
    with _webhooks() as (store, _):
        found = store.endpoints()
        if as_json:
            print_json({"endpoints": [vars(one) for one in found]})
            return
        if not found:
            say("no endpoints: `phantoms webhooks add URL` adds the first")
            return
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for title in ("no.", "address", "events", "now"):
            table.add_column(title, overflow="fold")
        for one in found:
            events = "all" if one.events == EVENTS else ", ".join(one.events)
            table.add_row(str(one.id), plain(one.url), events, plain(_now(one.state, one.reason, one.failing_since)))
        out.print(table)


def remove(number: Number, as_json: AsJson = False) -> None:
    """Remove an address, and forget its secret. What was not delivered yet is not sent any more."""
    with _webhooks() as (store, _):
        store.remove(number, actor())
        told({"endpoint": number}, f"removed endpoint {number}", as_json=as_json)


def rotate(
    number: Number,
    keep_hours: Annotated[float, typer.Option(help="How long messages are signed with the old secret, too")] = OLD_SECRET_HOURS,
    as_json: AsJson = False,
) -> None:
    """Give an address another secret, and print it, once. For a while the old one signs, too, so that nothing is refused."""
    with _webhooks() as (store, _):
        secret = store.rotate(number, actor(), keep_hours=keep_hours)
        told({"endpoint": number, "secret": secret}, secret, as_json=as_json)


def enable(number: Number, as_json: AsJson = False) -> None:
    """Let an address that was disabled get events again. `resend --failed --since` sends what it missed."""
    with _webhooks() as (store, _):
        store.enable(number, actor())
        told({"endpoint": number}, f"endpoint {number} gets events again", as_json=as_json)


def deliveries(
    number: Annotated[int | None, typer.Argument(help="One delivery, with its tries and what is sent", min=1)] = None,
    state: Annotated[str, typer.Option(help=f"Only those that are {', '.join(STATES)}")] = "",
    event: Annotated[str, typer.Option(help="Only those of this event")] = "",
    endpoint: Annotated[int | None, typer.Option(help="Only those to this address", min=1)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many at most")] = 30,
    as_json: AsJson = False,
) -> None:
    """Show what was delivered, the newest first; with a number all about one."""
    with _webhooks() as (store, settings):
        if number is not None:
            _one(store, settings, number, as_json=as_json)
            return
        if state and state not in STATES:
            raise InvalidInput(f"there is no state {state!r}; there are {', '.join(STATES)}")
        if event and event not in EVENTS:
            raise InvalidInput(f"there is no event {event!r}; there are {', '.join(EVENTS)}")
        found = store.deliveries(state=state, event=event, endpoint=endpoint, limit=limit)
        if as_json:
            print_json({"deliveries": [{k: v for k, v in vars(one).items() if k != "data"} for one in found]})
            return
        if not found:
            out.print("no deliveries")
            return
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for title in ("no.", "event", "to", "state", "when", "last"):
            table.add_column(title, overflow="fold")
        for one in found:
            last = one.reason or (f"{one.tries} tries" if one.tries > 1 else "")
            table.add_row(str(one.id), one.type, str(one.endpoint_id), one.state, exact(one.at), plain(last))
        out.print(table)


def resend(
    number: Annotated[int | None, typer.Argument(help="One delivery", min=1)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All that failed since --since")] = False,
    since: Annotated[str, typer.Option(help="A time such as 2026-11-26T08:00+01:00, or how long ago: 6h, 3d")] = "",
    endpoint: Annotated[int | None, typer.Option(help="Only those to this address", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Send one delivery again, or all that failed. A message keeps its id, so its receiver knows it when it had it already."""
    with _webhooks() as (store, _):
        if (number is None) == (not failed):
            raise InvalidInput("give the number of a delivery, or --failed --since TIME")
        if number is not None:
            store.resend(number, actor())
            told({"deliveries": 1}, f"delivery {number} is sent again", as_json=as_json)
            return
        if not since:
            raise InvalidInput("--failed needs --since, such as --since 6h")
        count = store.resend_failed(moment(since, now=datetime.now(UTC)), actor(), endpoint=endpoint)
        told({"deliveries": count}, f"{counted(count, 'delivery is', 'deliveries are')} sent again", as_json=as_json)


def deliver() -> None:
    """Deliver, and stay. `phantoms metrics` does it by itself; this is for more of them, or for a machine of its own."""
    from phantoms_dagster.wiring import logs  # noqa: PLC0415
    from phantoms_dagster.wiring.webhooks import delivering  # noqa: PLC0415 - the other commands need no HTTP client

    async def stay(settings: Settings, services: Services) -> None:
        async with delivering(settings, services.engine) as task:
            await task

    with plain_errors():
        settings = current()
        logs.configure(settings)
        services = Services(settings)
        try:
            assert services.engine
            out.print("delivering webhooks; Ctrl-C stops it")
            with suppress(KeyboardInterrupt):
                asyncio.run(stay(settings, services))
        finally:
            services.close()


def _one(store: Webhooks, settings: Settings, number: int, *, as_json: bool) -> None:
    from phantoms_dagster.providers.webhooks import payload  # noqa: PLC0415 - the other commands need no HTTP client
    from phantoms_dagster.wiring.addresses import desk_url  # noqa: PLC0415

    found, attempts = store.delivery(number)
    sent = payload(found.type, found.at, found.data, desk_url(settings))
    if as_json:
        fields = {name: value for name, value in vars(found).items() if name != "data"}
        print_json({**fields, "attempts": [vars(one) for one in attempts], "payload": sent})
        return
    out.print(f"{found.type} {found.message_id} to endpoint {found.endpoint_id}: {found.state}", soft_wrap=True)
    if found.state == "pending":
        out.print(f"next try at {exact(found.next_at)}")
    for one in attempts:
        out.print(f"  {exact(one.at)}  {one.seconds:.2f} s  {plain(one.error) or f'answered {one.status}'}", soft_wrap=True)
    out.print(sent, soft_wrap=True, markup=False)


def _now(state: str, reason: str, failing_since: datetime | None) -> str:
    if state != "active":
        return f"{state}: {reason}" if reason else state
    return f"fails since {local(failing_since)}" if failing_since else "ok"


@contextmanager
def _webhooks() -> Iterator[tuple[Webhooks, Settings]]:
    """The endpoints in the database, and the settings; what goes wrong is told in words."""
    with plain_errors():
        settings = current()
        services = Services(settings)
        try:
            yield Webhooks(services.engine, settings.webhook_targets), settings
        finally:
            services.close()
