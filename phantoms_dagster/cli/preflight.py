"""`phantoms preflight`: what would make the next posts fail, and what to do about it before their time has come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from phantoms_dagster.cli.completion import complete_video
from phantoms_dagster.cli.console import FAILED, out, plain, print_json, say
from phantoms_dagster.cli.opened import opened_services
from phantoms_dagster.cli.times import local
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.preflight import PreflightCheck, as_rows, phase_to_check, worst

STYLES = {"ok": "green", "note": "dim", "unchecked": "yellow", "wrong": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(preflight)


def preflight(
    video: Annotated[
        str | None, typer.Argument(help="Check the posts of this video now: key, or enough of it", autocompletion=complete_video)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Show what would make the next posts fail: account, permissions, quota, file and words.

    Each post is checked 24 hours and 1 hour before it is due. With a video, its posts are checked now, whenever they are due.
    Exits with 1 when something is wrong.
    """
    with opened_services() as services:
        from phantoms_dagster.wiring.preflight import check_now, preflights  # noqa: PLC0415 - it imports every provider

        key = None if video is None else services.catalogue().find(video)
        if key is not None:
            check_now(services, key)
        tables = preflights(services)
        posts = tables.posts(key)
        seen = {(post.key, post.platform) for post in posts}
        now = services.clock.now()
        due = [one for one in tables.upcoming(now) if phase_to_check(one, now)] if key is None else []
        unchecked = [one for one in due if (one.key, one.platform) not in seen]
        named = {(post.platform, post.account) for post in posts}
        accounts = [one for one in tables.accounts() if (one.platform, one.account) in named]
        if as_json:
            print_json(
                {
                    "posts": [
                        {
                            "key": post.key,
                            "platform": str(post.platform),
                            "account": post.account,
                            "due_at": post.due_at,
                            "checked_at": post.checked_at,
                            "checks": as_rows(post.checks),
                        }
                        for post in posts
                    ],
                    "accounts": [
                        {"account": f"{one.platform}:{one.account}", "checked_at": one.checked_at, "checks": as_rows(one.checks)}
                        for one in accounts
                    ],
                }
            )
        else:
            for one in accounts:
                _print(f"{one.platform}:{one.account}", f"checked {local(one.checked_at)}", one.checks)
            for post in posts:
                _print(f"{post.key} on {post.platform.title}", f"due {local(post.due_at)}", post.checks)
            if unchecked:
                first = min(unchecked, key=lambda one: one.due_at)
                more = counted(len(unchecked), "post is", "posts are")
                say(f"{more} due within 24 hours and not checked yet, the first on {local(first.due_at)}.")
                say("`phantoms up` checks them; to check now:")
                out.print(f"  phantoms preflight {first.key}", soft_wrap=True)
            elif not posts:
                say(f"{key} has no post that is not out yet" if key else "nothing was checked: no post is due within 24 hours")
        if any(worst(checks) == "wrong" for checks in (*(one.checks for one in accounts), *(post.checks for post in posts))):
            raise typer.Exit(FAILED)


def _print(name: str, when: str, checks: Sequence[PreflightCheck]) -> None:
    out.print(f"[bold]{plain(name)}[/]  [dim]{plain(when)}[/]", soft_wrap=True)
    for check in checks:
        out.print(f"  [{STYLES[check.verdict]}]{check.verdict:<9}[/]  {plain(check.name)}: {plain(check.found)}", soft_wrap=True)
        if check.fix and check.verdict != "ok":
            out.print(f"             [bold]{plain(check.fix)}[/]", soft_wrap=True)
