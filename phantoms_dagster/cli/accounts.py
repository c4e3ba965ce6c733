"""`phantoms accounts`: who owns each account, which accounts wait and why; connecting, checking and disconnecting accounts."""

from __future__ import annotations

import os
import sys
import threading
import webbrowser
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

import typer
from rich.table import Table

from phantoms_dagster.cli.console import FAILED, err, if_interrupted, out, plain, print_json, print_result, say
from phantoms_dagster.cli.opened import opened_services
from phantoms_dagster.domain.accounts import CONNECTED, Account, Standing, as_used, short_subject, standing
from phantoms_dagster.domain.errors import InvalidInput, PhantomsError
from phantoms_dagster.domain.grants import STORED
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.settings import RUNNING_FILE
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.wiring.endpoints import gateway_of

if TYPE_CHECKING:
    from phantoms_dagster.wiring import Services
    from phantoms_dagster.wiring.connecting import Attempt, Connected, Connecting
    from phantoms_dagster.wiring.key_checks import Finding

ANSWER_SECONDS = 600.0
HTTP_PORT = 80
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object")]
AccountKey = Annotated[str, typer.Argument(metavar="PLATFORM:NAME", help="The account, such as youtube:main")]


def register(app: typer.Typer) -> None:
    """Add the group of commands."""
    group = typer.Typer(
        help="Show the accounts: who owns each one according to its platform, and why its posts wait.\n\n"
        "Without a command it lists them, as `phantoms accounts list` does."
    )
    group.callback(invoke_without_command=True)(accounts)
    group.command("list")(show)
    group.command("connect")(connect)
    group.command("check")(check)
    group.command("disconnect")(disconnect)
    group.command("rotate-key")(rotate_key)
    app.add_typer(group, name="accounts", rich_help_panel="Look")


def accounts(
    context: typer.Context,
    forget: Annotated[
        str | None,
        typer.Option(
            metavar="PLATFORM:NAME",
            help="Forget the owner of this account; its next token sets a new one. Removes an account that no channel names",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the accounts, unless a command follows."""
    if context.invoked_subcommand is not None:
        return
    if forget is None:
        show(as_json)
        return
    with opened_services() as services:
        platform, name = _key(forget, "--forget")
        named = _named(services)
        removed = Accounts(services.engine).forget(platform, name, named=named is None or (platform, name) in named)
        line = f"removed {forget}" if removed else f"forgot the owner of {forget}; its next post asks the platform"
        print_result({"forgotten": forget, "removed": removed}, line, as_json=as_json)


def show(as_json: AsJson = False) -> None:
    """List the accounts: owner, where the token is, and what each needs."""
    with opened_services() as services:
        found = _listed(services)
        now = datetime.now(UTC)
        if as_json:
            print_json({"accounts": [_as_json(one, now) for one in found]})
            return
        if not found:
            say("no accounts yet: `phantoms up` reads them from channels.yaml")
            return
        rows = Table(box=None, header_style="bold", padding=(0, 2, 0, 0), pad_edge=False)
        for title in ("account", "owner", "token", "now"):
            rows.add_column(title, overflow="fold")
        for one in found:
            name = one.account.key + (f" ({one.route})" if one.route else "")
            rows.add_row(plain(name), plain(_whose(one)), plain(_source(one)), plain(_now(one, now)))
        out.print(rows)


def connect(
    platform: Annotated[str, typer.Argument(help="The platform, such as youtube")],
    name: Annotated[str | None, typer.Option(help="The account's name in channels.yaml; default: the only one")] = None,
    paste: Annotated[
        bool, typer.Option("--paste", help="Do not wait for the browser: print the URL, and take the address it ends at")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of this machine for the redirect; 0: any free one")] = 0,
    as_json: AsJson = False,
) -> None:
    """Connect an account: its owner grants access in a browser, and Phantoms keeps the connection from then on."""
    if platform not in tuple(Platform):
        raise typer.BadParameter(f"the platforms are {', '.join(p for p in Platform if p.spec.oauth)}", param_hint="PLATFORM")
    with opened_services() as services:
        from phantoms_dagster.wiring.connecting import Connecting  # noqa: PLC0415 - it imports the platforms' adapters

        connecting = Connecting(services, Platform(platform), name)
        if not connecting.is_named and not as_json:
            missing = f"no channel names the {connecting.platform.title} account {connecting.name}"
            say(f"{missing} yet: add it to `accounts` in channels.yaml", style="yellow", to=err)
        for variable in _not_running_with(services, connecting.platform) if not as_json else ():
            missing = f"the running `phantoms up` has another {variable}, or none, so it cannot use the account for long"
            say(f"{missing}: stop it, and start it with this one", style="yellow", to=err)
        registered = connecting.redirect_uri
        there = urlsplit(registered or "http://127.0.0.1")
        with if_interrupted(lambda: _left_over(connecting)):
            # This machine answers plain http only.
            if paste or there.scheme != "http" or there.hostname not in ("127.0.0.1", "localhost"):
                done = _pasted(connecting, registered, port)
            else:
                done = _by_browser(connecting, registered, port)
        key = f"{connecting.platform}:{connecting.name}"
        fields = {"connected": key, "owner": done.owner.label, "subject": done.owner.subject, "warning": done.warning}
        print_result(fields, f"connected {key}: {done.owner.label} ({short_subject(done.owner.subject)})", as_json=as_json)
        if done.warning and not as_json:
            say(done.warning, style="yellow")
        found = next((a for a in Accounts(services.engine).all() if a.key == key and not a.gateway), None)
        for finding in () if found is None or as_json else _preflight(services, found, []):
            say("; ".join(part for part in (f"{finding.verdict}  {finding.found}", finding.fix) if part))
        used = any(channel.accounts.get(connecting.platform) == connecting.name for channel in services.channels().values())
        if not used and not as_json:
            say(f"no channel posts to {key} yet: name it under `accounts` in channels.yaml")


def _not_running_with(services: Services, platform: Platform) -> list[str]:
    """The variables of the platform that are set here, and are different where `phantoms up` runs. It renews the tokens."""
    from dotenv import dotenv_values  # noqa: PLC0415

    file = services.settings.paths.home / RUNNING_FILE
    if not file.is_file():
        return []
    theirs = dotenv_values(file)
    names = [f"PHANTOMS_{platform.upper()}_{name}" for name in ("CLIENT_ID", "BASE_URL", "TOKEN_URL")]
    return [name for name in names if (mine := os.environ.get(name)) and mine != theirs.get(name)]


def _left_over(connecting: Connecting) -> str:
    """What an interrupted attempt has left behind."""
    if connecting.finishing:
        return "the answer was being stored; `phantoms accounts` shows whether the account is connected"
    return "nothing was stored"


def _by_browser(connecting: Connecting, registered: str | None, port: int) -> Connected:
    """Open the browser and wait for it to come back to this machine."""
    from phantoms_dagster.wiring.connecting import WrongState, at_port  # noqa: PLC0415
    from phantoms_dagster.wiring.loopback import PATH, LoopbackServer, Page  # noqa: PLC0415

    if registered:
        there = urlsplit(at_port(registered, port))
        server = LoopbackServer(HTTP_PORT if there.port is None else there.port, there.path or PATH)
    else:
        server = LoopbackServer(port)
    found: list[Connected] = []
    try:
        attempt = connecting.begin(at_port(registered or f"http://127.0.0.1:*{PATH}", server.port))
        say(f"open this page as the owner of the {connecting.platform.title} account:\n{attempt.consent.url}", to=err)
        # A text browser, or one that is named in BROWSER, may not return before it is closed.
        threading.Thread(target=webbrowser.open, args=(attempt.consent.url,), daemon=True).start()

        def judge(answer: Mapping[str, str]) -> Page:
            try:
                code = connecting.code_in(attempt, answer)
            except WrongState as error:
                return Page("Not this one", str(error), done=False, status=400)
            found.append(connecting.finish(attempt, code))
            owner = found[0].owner
            text = f"{connecting.platform.title} account {connecting.name} is {owner.label}. You can close this page."
            return Page("Connected", text, done=True)

        server.wait(judge, ANSWER_SECONDS)
    finally:
        server.close()
    return found[0]


def _pasted(connecting: Connecting, registered: str | None, port: int) -> Connected:
    """Print the URL and read the address that the browser ends at."""
    from phantoms_dagster.wiring.connecting import PASTE_PORT, at_port  # noqa: PLC0415
    from phantoms_dagster.wiring.loopback import PATH  # noqa: PLC0415

    attempt: Attempt = connecting.begin(at_port(registered or f"http://127.0.0.1:*{PATH}", port or PASTE_PORT))
    lines = (
        f"1. Open this page as the owner of the {connecting.platform.title} account:",
        attempt.consent.url,
        "2. Grant access. The browser then shows an error or an empty page; that is all right.",
        "3. Copy the whole address from the browser, and paste it here:",
    )
    err.print("\n".join(lines), soft_wrap=True, markup=False)
    pasted = sys.stdin.readline()
    return connecting.finish(attempt, connecting.code_pasted(attempt, pasted))


def check(
    account: Annotated[str | None, typer.Argument(metavar="PLATFORM:NAME", help="Only this account")] = None,
    as_json: AsJson = False,
) -> None:
    """Ask the platforms whether the tokens work, who owns them, and what they permit. Exits with 1 when one does not work."""
    with opened_services() as services:
        from phantoms_dagster.wiring.key_checks import Finding, ask_account  # noqa: PLC0415 - it imports the platforms' adapters

        wanted = None if account is None else _key(account, "the account")
        found, now = [one for one in _listed(services) if one.account.platform.spec.remote], datetime.now(UTC)
        chosen = [one for one in found if wanted is None or (one.account.platform, one.account.name) == wanted]
        if wanted is not None and not chosen:
            raise InvalidInput(f"no account {account}; `phantoms accounts` lists them")
        results: list[dict[str, Any]] = []
        for one in chosen:
            a = one.account
            row: dict[str, Any] = {"account": a.key, "state": _standing(one, now).state, "ends_at": a.ends_at}
            if not one.named and wanted is None and a.token_source is None:
                findings = [Finding(a.key, "note", "not checked: no channel names it", f"run `{_forget_command(a)}` to remove it")]
            else:
                own = not a.gateway and one.way == GATEWAY
                findings = ask_account(
                    services.settings, services.endpoints, a.platform, a.name, a.token_source, route=one.way, own=own
                )
                if not (own or one.sandboxed):
                    findings += _preflight(services, a, findings)
            results += [{**row, "verdict": finding.verdict, "found": finding.found, "fix": finding.fix} for finding in findings]
            if not as_json:
                _print_findings(a, findings)
        if as_json:
            print_json({"accounts": results})
        if any(row["verdict"] == "wrong" for row in results):
            raise typer.Exit(FAILED)


def _preflight(services: Services, account: Account, asked: list[Finding]) -> list[Finding]:
    """What else the platform says about the account, for the next posts. The token and its permissions were asked about already."""
    if services.settings.redis.url is None or any(finding.verdict == "wrong" for finding in asked):
        return []  # the pools of calls are in Redis; and a token that does not work cannot ask
    from phantoms_dagster.wiring.key_checks import Finding  # noqa: PLC0415
    from phantoms_dagster.wiring.preflight import check_account_now  # noqa: PLC0415 - it imports every provider

    name = f"{account.platform}:{account.name}"
    checks = check_account_now(services, account.platform, account.name)
    known = ("token", "permissions")
    return [Finding(name, c.verdict, f"{c.name}: {c.found}", c.fix) for c in checks if c.name not in known and c.verdict != "ok"]


def disconnect(account: AccountKey, as_json: AsJson = False) -> None:
    """Disconnect an account: end the connection at the platform and delete its tokens. Its posts and its owner stay."""
    with opened_services() as services:
        from phantoms_dagster.wiring.connecting import disconnect as end  # noqa: PLC0415 - it imports the cryptography

        why = end(services, *_key(account, "disconnect"))
        line = f"disconnected {account}; its tokens are deleted{f' ({why})' if why else ''}"
        print_result({"disconnected": account, "revoked": not why}, line, as_json=as_json)


def rotate_key(as_json: AsJson = False) -> None:
    """Make a new key and encrypt all stored tokens with it. With PHANTOMS_TOKEN_KEYS, use the first key there."""
    with opened_services() as services:
        from phantoms_dagster.store.grants import Grants  # noqa: PLC0415
        from phantoms_dagster.wiring.token_keys import add_key, vault  # noqa: PLC0415

        path = add_key(services.settings)
        count = Grants(services.engine, vault(services.settings)).reencrypt()
        where = f"a new key in {path}" if path else "the first key of PHANTOMS_TOKEN_KEYS"
        line = f"{count} accounts are encrypted with {where}; older keys are still needed to read backups"
        print_result({"accounts": count, "file": str(path) if path else None}, line, as_json=as_json)


def _print_findings(account: Account, findings: Sequence[Finding]) -> None:
    for finding in findings:
        fix = finding.fix if finding.fix not in finding.found else ""
        say("; ".join(part for part in (f"{finding.verdict}  {account.key}: {finding.found}", fix) if part))
    if account.token_source == STORED and account.ends_at is not None and not account.dead:
        say(f"ok  {account.key}: the connection ends on {account.ends_at:%Y-%m-%d %H:%M} UTC unless it is renewed")


@dataclass(frozen=True)
class _Listed:
    """An account as a person uses it. `way`: the route of its posts. `named`: a channel names it."""

    account: Account
    way: str
    named: bool
    sandboxed: bool
    has_token: bool

    @property
    def route(self) -> str:
        """The route to show: an account that uses a gateway has another line if it is connected to its platform, too."""
        return GATEWAY if self.account.gateway else "" if self.way == GATEWAY else self.way


def _listed(services: Services) -> list[_Listed]:
    """All accounts. While channels.yaml cannot be used, they are shown without their routes."""
    named = _named(services)
    routes = {} if named is None else services.routes()
    gateways = {key: gateway_of(key[0]) for key, way in routes.items() if way == GATEWAY}
    found = []
    for account in as_used(Accounts(services.engine).all(), gateways):
        key = (account.platform, account.name)
        sandboxed = _sandboxed(services, account)
        asked = account.gateway or str(account.platform)
        token = sandboxed or bool(account.token_source) or services.endpoints.secret(asked) is not None
        has_token = token or not account.platform.spec.remote
        found.append(_Listed(account, routes.get(key, ""), named is None or key in named, sandboxed, has_token))
    return found


def _named(services: Services) -> set[tuple[Platform, str]] | None:
    """The accounts that channels name; None while channels.yaml cannot be used."""
    try:
        return {(platform, name) for channel in services.channels().values() for platform, name in channel.accounts.items()}
    except InvalidInput:
        return None


def _sandboxed(services: Services, account: Account) -> bool:
    """Whether the sandbox answers for the account."""
    if not account.platform.spec.remote:
        return False
    try:
        return services.endpoints.sandboxed(account.gateway or str(account.platform))
    except PhantomsError:
        return False  # its key is missing and the sandbox is off, which `phantoms doctor` reports


def _key(text: str, option: str) -> tuple[Platform, str]:
    platform, _, name = text.partition(":")
    if platform not in tuple(Platform) or not name:
        raise InvalidInput(f"{option} takes a platform and an account, such as youtube:main")
    return Platform(platform), name


def _whose(one: _Listed) -> str:
    account = one.account
    if account.subject is None:
        return "none, because the sandbox answers" if one.sandboxed else "not asked yet"
    return f"{account.label} ({short_subject(account.subject)})"


def _source(one: _Listed) -> str:
    """Where the token is. `env`: the platform's own variable."""
    account = one.account
    if one.sandboxed:
        return "sandbox"
    if not one.has_token or (account.connected_at is not None and account.token_source is None):
        return "none"
    if account.gateway:
        return "key of the gateway"
    return account.token_source or ("env" if account.platform.spec.remote else "none needed")


def _now(one: _Listed, now: datetime) -> str:
    account, found = one.account, _standing(one, now)
    if not one.named and account.token_source is None:
        return f"no channel names it; run `{_forget_command(account)}` to remove it"
    unused = "" if one.named else "; no channel names it"
    if found.state == CONNECTED:
        return ("connected" if account.token_source == STORED else "ok") + unused
    command = f"; run `{found.command}`" if found.command and found.command not in found.why else ""
    return f"{found.state}: {found.why}{command}{unused}"


def _standing(one: _Listed, now: datetime) -> Standing:
    return standing(one.account, now, has_token=one.has_token)


def _forget_command(account: Account) -> str:
    return f"phantoms accounts --forget {account.key}"


def _as_json(one: _Listed, now: datetime) -> dict[str, object]:
    """The account without its token's hash. Scripts know `token_source` as `place`."""
    values = asdict(one.account)
    del values["token_sha256"]
    found = _standing(one, now)
    named = {"place" if name == "token_source" else name: value for name, value in values.items()}
    return {**named, "standing": found.state, "command": found.command, "route": one.route, "named": one.named}
