"""`phantoms webhooks`: the endpoints that receive events, and their deliveries."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from phantoms_dagster.cli.console import current, out, plain, plain_errors, print_json, print_result, say
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
Number = Annotated[int, typer.Argument(help="The endpoint's number in `phantoms webhooks list`", min=1)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Notify other programs of events with signed requests, see what was delivered, and send it again.")
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
    note: Annotated[str, typer.Option(help="A note about its purpose")] = "",
    as_json: AsJson = False,
) -> None:
    """Add an endpoint and print its signing secret. `rotate` makes a new one if you lose it."""
    with _webhooks() as (store, _):
        number, secret = store.add(url, event, actor(), remark=note)
        if as_json:
            print_json({"endpoint": number, "secret": secret})
            return
        out.print(f"added endpoint {number}; save its secret, which is shown only once:", soft_wrap=True)
        out.print(secret, soft_wrap=True, markup=False)


def show(as_json: AsJson = False) -> None:
    """List the endpoints, their events, and whether deliveries succeed."""
    with _webhooks() as (store, _):
        found = store.endpoints()
        if as_json:
            print_json({"endpoints": [vars(one) for one in found]})
            return
        if not found:
            say("no endpoints yet: `phantoms webhooks add URL` adds the first one")
            return
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for title in ("no.", "address", "events", "now"):
            table.add_column(title, overflow="fold")
        for one in found:
            events = "all" if one.events == EVENTS else ", ".join(one.events)
            table.add_row(str(one.id), plain(one.url), events, plain(_now(one.state, one.reason, one.failing_since)))
        out.print(table)


def remove(number: Number, as_json: AsJson = False) -> None:
    """Remove an endpoint and its secret. Pending deliveries to it are dropped."""
    with _webhooks() as (store, _):
        store.remove(number, actor())
        print_result({"endpoint": number}, f"removed endpoint {number}", as_json=as_json)


def rotate(
    number: Number,
    keep_hours: Annotated[
        float, typer.Option(help="Hours in which messages are also signed with the old secret")
    ] = OLD_SECRET_HOURS,
    as_json: AsJson = False,
) -> None:
    """Give an endpoint a new secret and print it. For a while messages are also signed with the old one, so none is refused."""
    with _webhooks() as (store, _):
        secret = store.rotate(number, actor(), keep_hours=keep_hours)
        print_result({"endpoint": number, "secret": secret}, secret, as_json=as_json)


def enable(number: Number, as_json: AsJson = False) -> None:
    """Enable an endpoint that was disabled. `resend --failed --since` sends what it missed."""
    with _webhooks() as (store, _):
        store.enable(number, actor())
        print_result({"endpoint": number}, f"endpoint {number} gets events again", as_json=as_json)


def deliveries(
    number: Annotated[int | None, typer.Argument(help="One delivery, to show its attempts and payload", min=1)] = None,
    state: Annotated[str, typer.Option(help=f"Only those in this state: {', '.join(STATES)}")] = "",
    event: Annotated[str, typer.Option(help="Only those of this event")] = "",
    endpoint: Annotated[int | None, typer.Option(help="Only those to this endpoint", min=1)] = None,
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="How many to show")] = 30,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first; with a number, show everything about one."""
    with _webhooks() as (store, settings):
        if number is not None:
            _one(store, settings, number, as_json=as_json)
            return
        if state and state not in STATES:
            raise InvalidInput(f"there is no state {state!r}; the states are {', '.join(STATES)}")
        if event and event not in EVENTS:
            raise InvalidInput(f"there is no event {event!r}; the events are {', '.join(EVENTS)}")
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
            last = one.reason or (f"{one.tries} attempts" if one.tries > 1 else "")
            table.add_row(str(one.id), one.type, str(one.endpoint_id), one.state, exact(one.at), plain(last))
        out.print(table)


def resend(
    number: Annotated[int | None, typer.Argument(help="The number of one delivery", min=1)] = None,
    failed: Annotated[bool, typer.Option("--failed", help="All deliveries that failed since --since")] = False,
    since: Annotated[str, typer.Option(help="A time such as 2026-11-26T08:00+01:00, or how long ago: 6h, 3d")] = "",
    endpoint: Annotated[int | None, typer.Option(help="Only those to this endpoint", min=1)] = None,
    as_json: AsJson = False,
) -> None:
    """Send one delivery again, or all that failed. A message keeps its id, so the receiver can recognise a duplicate."""
    with _webhooks() as (store, _):
        if (number is None) == (not failed):
            raise InvalidInput("give the number of a delivery, or --failed --since TIME")
        if number is not None:
            store.resend(number, actor())
            print_result({"deliveries": 1}, f"delivery {number} will be sent again", as_json=as_json)
            return
        if not since:
            raise InvalidInput("--failed needs --since, such as --since 6h")
        count = store.resend_failed(moment(since, now=datetime.now(UTC)), actor(), endpoint=endpoint)
        print_result({"deliveries": count}, f"{counted(count, 'delivery', 'deliveries')} will be sent again", as_json=as_json)


def deliver() -> None:
    """Deliver webhooks until stopped. `phantoms metrics` includes this; use it to run more, or on a separate machine."""
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
    from phantoms_dagster.providers.webhook_payloads import payload  # noqa: PLC0415 - the other commands need no payload
    from phantoms_dagster.wiring.addresses import desk_url  # noqa: PLC0415

    found, attempts = store.delivery(number)
    sent = payload(found.type, found.at, found.data, desk_url(settings))
    if as_json:
        fields = {name: value for name, value in vars(found).items() if name != "data"}
        print_json({**fields, "attempts": [vars(one) for one in attempts], "payload": sent})
        return
    out.print(f"{found.type} {found.message_id} to endpoint {found.endpoint_id}: {found.state}", soft_wrap=True)
    if found.state == "pending":
        out.print(f"next attempt at {exact(found.next_at)}")
    for one in attempts:
        out.print(f"  {exact(one.at)}  {one.seconds:.2f} s  {plain(one.error) or f'answered {one.status}'}", soft_wrap=True)
    out.print(sent, soft_wrap=True, markup=False)


def _now(state: str, reason: str, failing_since: datetime | None) -> str:
    if state != "active":
        return f"{state}: {reason}" if reason else state
    return f"failing since {local(failing_since)}" if failing_since else "ok"


@contextmanager
def _webhooks() -> Iterator[tuple[Webhooks, Settings]]:
    """Yield the store of endpoints, and the settings. Errors become messages."""
    with plain_errors():
        settings = current()
        services = Services(settings)
        try:
            yield Webhooks(services.engine, settings.webhooks.targets), settings
        finally:
            services.close()
