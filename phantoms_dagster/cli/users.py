"""`phantoms users`: users and API tokens of the desk. A password comes from a prompt or a file, never from an argument."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from phantoms_dagster.cli.console import current, out, plain_errors, print_json, print_result, say
from phantoms_dagster.cli.people import actor
from phantoms_dagster.cli.times import local
from phantoms_dagster.domain.errors import InvalidInput
from phantoms_dagster.store.users import Users
from phantoms_dagster.wiring import Services

GROUP_EXAMPLES = (
    "phantoms users add kim --role reviewer",
    "phantoms users passwd kim --password-file new-password.txt",
    "phantoms users token newsroom --role reviewer",
)


class RoleChoice(StrEnum):
    """The roles of users and tokens."""

    VIEWER = "viewer"
    REVIEWER = "reviewer"
    OPERATOR = "operator"


Name = Annotated[str, typer.Argument(help="The name to log in with, such as kim@example.org")]
File = Annotated[Path | None, typer.Option("--password-file", help="File whose first line is the password; default: a prompt")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(help="Add and remove the people who use the desk, and the tokens of programs that use its API.")
    group.command("add")(add)
    group.command("list")(show)
    group.command("remove")(remove)
    group.command("passwd")(passwd)
    group.command("role")(role)
    group.command("token")(token)
    epilog = "\n\n".join(["Examples:", *(f"[bold]{example}[/]" for example in GROUP_EXAMPLES)])
    app.add_typer(group, name="users", rich_help_panel="Run", no_args_is_help=True, epilog=epilog)


def add(
    name: Name,
    role: Annotated[  # noqa: A002,RUF100
        RoleChoice, typer.Option(help="viewer can look, reviewer can also decide, operator can do everything")
    ] = RoleChoice.REVIEWER,
    password_file: File = None,
    as_json: AsJson = False,
) -> None:
    """Add a user. Once there is one, everybody has to log in."""
    from phantoms_dagster.desk.passwords import hash_password  # noqa: PLC0415

    with _users() as users:
        stored = users.add(name, role.value, hash_password(_password(password_file)), actor=actor())
        print_result({"name": stored, "role": role.value}, f"added {stored} as {role.value}", as_json=as_json)


def show(as_json: AsJson = False) -> None:
    """List users and tokens."""
    with _users() as users:
        people, tokens = users.all(), users.tokens()
        if as_json:
            print_json({"users": [vars(user) for user in people], "tokens": [vars(one) for one in tokens]})
            return
        if not people and not tokens:
            say("no users yet: only this machine can open the desk; `phantoms users add NAME` adds the first one")
            return
        table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for column in ("name", "kind", "role", "since"):
            table.add_column(column)
        for user in people:
            table.add_row(user.name, "by provider" if user.issuer else "user", user.role, local(user.created_at))
        for one in tokens:
            table.add_row(one.name, "token", one.role, local(one.created_at))
        out.print(table)


def remove(name: Name, as_json: AsJson = False) -> None:
    """Remove a user. Their sessions end at once; their decisions stay."""
    with _users() as users:
        users.remove(name, actor=actor())
        print_result({"name": name}, f"removed {name}", as_json=as_json)


def passwd(name: Name, password_file: File = None, as_json: AsJson = False) -> None:
    """Set a user's password and end all of their sessions."""
    from phantoms_dagster.desk.passwords import hash_password  # noqa: PLC0415

    with _users() as users:
        if users.credentials(name) is None:
            raise InvalidInput(f"no user {name!r}; `phantoms users list` shows them")
        users.set_password(name, hash_password(_password(password_file)), actor=actor())
        print_result({"name": name}, f"set the password of {name}; they have to log in again", as_json=as_json)


def role(
    name: Name,
    role: Annotated[RoleChoice, typer.Argument(help="viewer, reviewer or operator")],
    as_json: AsJson = False,
) -> None:
    """Change a user's role. It applies to their next request."""
    with _users() as users:
        users.set_role(name, role.value, actor=actor())
        print_result({"name": name, "role": role.value}, f"{name} is now {role.value}", as_json=as_json)


def token(
    name: Annotated[str, typer.Argument(help="What the token is for, such as newsroom-import")],
    role: Annotated[RoleChoice, typer.Option(help="The role of the token")] = RoleChoice.VIEWER,
    revoke: Annotated[bool, typer.Option("--revoke", help="Revoke the token with this name")] = False,
    as_json: AsJson = False,
) -> None:
    """Make an API token and print it. It cannot be shown again: only its hash is stored."""
    with _users() as users:
        if revoke:
            users.revoke_token(name, actor=actor())
            print_result({"name": name}, f"revoked {name}", as_json=as_json)
            return
        secret = f"phantoms_{secrets.token_urlsafe(32)}"
        users.add_token(name, role.value, secret, actor=actor())
        print_result({"name": name, "role": role.value, "token": secret}, secret, as_json=as_json)


@contextmanager
def _users() -> Iterator[Users]:
    """Yield the store of users. Errors become messages."""
    with plain_errors():
        services = Services(current())
        try:
            yield Users(services.engine)
        finally:
            services.close()


def _password(file: Path | None) -> str:
    if file is not None:
        try:
            lines = file.expanduser().read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            raise InvalidInput(f"{file} is not text in UTF-8") from None
        return lines[0] if lines else ""
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))
