"""`phantoms guest-links`: links for people without an account to decide on one video."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import current, out, plain_errors, print_json, say, whole_number
from phantoms_dagster.cli.people import actor
from phantoms_dagster.cli.review import SHORTEST_HASH
from phantoms_dagster.cli.times import local
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.guest_links import DEFAULT_HOURS, MOST_HOURS, GuestLink, GuestLinks
from phantoms_dagster.wiring import Services

GROUP_EXAMPLES = (
    'phantoms guest-links add octopuses --guest "Dr. Weber"',
    "phantoms guest-links list",
    "phantoms guest-links revoke 7",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Let a person without an account approve or reject one video, once, with a link that expires.")
    group.command("add")(add)
    group.command("list")(show)
    group.command("revoke")(revoke)
    epilog = "\n\n".join(["Examples:", *(f"[bold]{example}[/]" for example in GROUP_EXAMPLES)])
    app.add_typer(group, name="guest-links", rich_help_panel="Review", no_args_is_help=True, epilog=epilog)


def add(
    video: Annotated[str, typer.Argument(help="Key of the video, or enough of it", autocompletion=complete_video)],
    guest: Annotated[str, typer.Option(help="The guest's name, for the audit log")],
    hours: Annotated[int, typer.Option(min=1, max=MOST_HOURS, help="How many hours the link is valid")] = DEFAULT_HOURS,
    content: Annotated[
        str | None, typer.Option(help="Hash of the version that you saw in `phantoms show`; default: the rendered version")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a link for the current version of a video and print it. It cannot be shown again: only its hash is stored."""
    with _links() as (services, links):
        if content is not None and len(content) < SHORTEST_HASH:
            raise InvalidInput(f"--content needs at least {SHORTEST_HASH} characters; see `phantoms show`")
        services.pending_decisions().commit_due()
        services.take_channels()
        key = services.catalogue().find(video)
        link, secret = links.add(key, guest, actor(), content_sha256=content, hours=hours)
        address = f"{desk_address(services.settings)}guest/{secret}"
        if as_json:
            print_json({**_row(link), "url": address})
            return
        out.print(address, soft_wrap=True, markup=False, highlight=False)
        say(f"  {escape(link.guest)} can answer once, until {local(link.expires_at)}; to revoke the link:", style="dim")
        out.print(f"  phantoms guest-links revoke {link.id}", style="dim", soft_wrap=True)


def show(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many to show, newest first")] = 50, as_json: AsJson = False
) -> None:
    """List the newest links and their states. The URLs are never shown again."""
    with _links() as (_, links):
        found = links.page(limit=limit)
        if as_json:
            print_json({"links": [_row(link) for link in found]})
            return
        if not found:
            say('no guest links; `phantoms guest-links add VIDEO --guest "Dr. Weber"` makes one')
            return
        for link in found:
            out.print(f"[bold]{link.id}[/]  {link.key}", soft_wrap=True)  # a key that is cut cannot be copied
            about = f"{_state(link)}, until {local(link.expires_at)}, asked by {escape(link.made_by)}"
            out.print(f"   {escape(link.guest)}: {about}", soft_wrap=True)


def revoke(
    number: Annotated[
        int, typer.Argument(parser=whole_number, metavar="ID", help="The link's id, as `phantoms guest-links list` shows it")
    ],
    as_json: AsJson = False,
) -> None:
    """Revoke a link, so that it no longer works."""
    with _links() as (_, links):
        link = links.revoke(number, actor())
        if as_json:
            print_json(_row(link))
        else:
            say(f"revoked {escape(link.guest)}'s link")


def _state(link: GuestLink) -> str:
    if link.state != "used" or link.answer is None:
        return link.state
    said = {"approve": "approved", "reject": "rejected"}.get(link.answer, link.answer)
    return said if link.decision == "committed" else f"{said}, {link.decision}"


def _row(link: GuestLink) -> dict[str, object]:
    return {name: value for name, value in asdict(link).items() if name != "content_sha256"} | {"content": link.content_sha256}


def desk_address(settings: Settings) -> str:
    """Return the desk's URL: PHANTOMS_DESK_URL (which a running `phantoms up` sets), else the local default."""
    host = f"[{settings.desk.host}]" if ":" in settings.desk.host else settings.desk.host
    return f"{(settings.desk.url or f'http://{host}:{settings.desk.port}').rstrip('/')}/"


@contextmanager
def _links() -> Iterator[tuple[Services, GuestLinks]]:
    with plain_errors():
        services = Services(current())
        try:
            yield services, services.guest_links()
        finally:
            services.close()
