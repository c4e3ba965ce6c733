"""`phantoms accounts`: who owns each account, which accounts wait and why, and forgetting an owner."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from phantoms_dagster.cli.console import current, out, plain, plain_errors, print_json, say
from phantoms_dagster.domain.accounts import ACTIVE, Account
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.wiring import Services


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(accounts)


def accounts(
    forget: Annotated[
        str | None, typer.Option(metavar="PLATFORM:NAME", help="Forget the owner of this account; its next token sets a new one")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False,
) -> None:
    """Show the accounts: who owns each one according to its platform, and why its posts wait."""
    with plain_errors():
        services = Services(current())
        try:
            table = Accounts(services.engine)
            if forget is not None:
                platform, _, name = forget.partition(":")
                if platform not in tuple(Platform) or not name:
                    raise InvalidInput("--forget takes a platform and an account, such as youtube:main")
                table.forget(Platform(platform), name)
                if as_json:
                    print_json({"forgotten": forget})
                    return
                out.print(f"forgot the owner of {forget}; its next post asks the platform", soft_wrap=True)
                return
            found = table.all()
        finally:
            services.close()
        if as_json:
            print_json({"accounts": [_as_json(account) for account in found]})
            return
        if not found:
            say("no accounts yet: `phantoms up` reads them from channels.yaml")
            return
        rows = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for title in ("account", "owner", "token", "now"):
            rows.add_column(title, overflow="fold")
        for account in found:
            whose = f"{account.label} ({account.subject})" if account.subject else "not asked yet"
            now = "ok" if account.state == ACTIVE else f"waits: {account.reason}"
            rows.add_row(
                f"{account.platform}:{account.name}", plain(whose), plain(account.token_source or "the platform's"), plain(now)
            )
        out.print(rows)


def _as_json(account: Account) -> dict[str, object]:
    """The account without its token's hash. Scripts know `token_source` as `place`."""
    values = asdict(account)
    del values["token_sha256"]
    return {"place" if name == "token_source" else name: value for name, value in values.items()}
