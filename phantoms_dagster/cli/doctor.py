"""`phantoms doctor`: checks everything that can be wrong and says how to fix it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import imageio_ffmpeg
import redis
import typer
from rich.table import Table
from rich.text import Text
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.cli.console import FAILED, current, out, plain, plain_errors, print_json
from phantoms_dagster.cli.looks import SLOW_SECONDS, ParallelChecks
from phantoms_dagster.cli.problems import database_problem
from phantoms_dagster.cli.sentence import WrappedText
from phantoms_dagster.cli.settings import unknown_variables
from phantoms_dagster.cli.times import unknown_zone
from phantoms_dagster.domain.accounts import BLOCKED, EXPIRING, standing
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.registry.channel_keys import GATEWAY
from phantoms_dagster.registry.providers import KINDS, PROVIDERS, WRITERS
from phantoms_dagster.resilience.redis.refusals import refuse_cluster
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.migrate import pending
from phantoms_dagster.wiring import INTEGRATIONS, Services
from phantoms_dagster.wiring.channels_text import ChannelsMissing
from phantoms_dagster.wiring.endpoints import Endpoints, variable_of_key
from phantoms_dagster.wiring.key_checks import Finding, ask_account, ask_provider, route_findings
from phantoms_dagster.wiring.media import probe
from phantoms_dagster.wiring.models import model_finding
from phantoms_dagster.wiring.providers import has
from phantoms_dagster.wiring.up_lock import up_phase

LOW_DISK_BYTES = 2_000_000_000
VERDICT_WIDTH, CHECK_WIDTH = 5, 16
# The order of checks in the JSON output. Accounts come last, by name.
ORDER = (
    "python",
    "time zone",
    "settings",
    "data directory",
    "disk",
    "media",
    "ffmpeg",
    "channels",
    "servers",
    "PostgreSQL",
    "Redis",
    "Dagster UI",
    "sandbox",
    *(kind.name for kind in KINDS),
    *(name for name in INTEGRATIONS if name in WRITERS.specs),
    "model",
    *(name for name in INTEGRATIONS if name not in Platform and name not in WRITERS.specs),
    *map(str, Platform),
)
# Where the token of each account is, by platform and name.
Sources = Mapping[tuple[Platform, str], str | None]
STYLES = {"ok": "green", "note": "yellow", "wrong": "red"}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False) -> None:
    """Check settings, servers, ffmpeg, keys and disk, and say how to fix problems. Exits with 1 when it finds one."""
    with plain_errors():
        if as_json:
            findings = sorted(examine(current()), key=_place)
            print_json({"ok": not _wrong(findings), "findings": [asdict(f) for f in findings]})
        else:
            findings = _shown(current())
        if _wrong(findings):
            raise typer.Exit(FAILED)


def _wrong(findings: Iterable[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.verdict == "wrong"]


def _place(finding: Finding) -> tuple[int, str]:
    """Return the sort key of a finding. The order does not depend on which answer came first."""
    return (ORDER.index(finding.check) if finding.check in ORDER else len(ORDER)), finding.check


def _shown(settings: Settings) -> list[Finding]:
    """Print each finding as soon as it is known. On a terminal, a status line shows which checks are still running."""
    findings = []
    if not out.is_terminal:
        for finding in examine(settings):
            out.print(_line(finding))
            findings.append(finding)
        return findings
    with out.status(_waiting(())) as status:
        for finding in examine(settings, lambda names: status.update(_waiting(names))):
            out.print(_line(finding))
            findings.append(finding)
    return findings


def _waiting(names: Collection[str]) -> Text:
    said = f"checking {', '.join(names)}" if names else "checking this machine"
    return Text(said, no_wrap=True, overflow="ellipsis")


def _line(finding: Finding) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(width=VERDICT_WIDTH, no_wrap=True)
    table.add_column(width=CHECK_WIDTH, overflow="fold")
    table.add_column(overflow="fold")
    fix = f"\n[bold]{plain(finding.fix)}[/]" if finding.fix else ""
    said = WrappedText(plain(finding.found) + fix, folded=True)
    table.add_row(f"[{STYLES[finding.verdict]}]{finding.verdict}[/]", plain(finding.check), said)
    return table


def examine(settings: Settings, asking: Callable[[Collection[str]], None] = lambda _: None) -> Iterator[Finding]:
    """Yield all findings: first those of this machine, then those of servers and services as their answers come.

    `asking` is called with the names of the checks that are still running.
    """
    services = Services(settings)
    looks = ParallelChecks(asking)
    try:
        version = ".".join(map(str, sys.version_info[:3]))
        yield Finding("python", "ok", version)
        if zone := unknown_zone():
            fix = "set it to a name such as Europe/Berlin, or unset it"
            yield Finding("time zone", "note", f"this system does not know the time zone TZ={zone}: times are in UTC", fix)
        for variable, meant in unknown_variables(os.environ):
            if meant:  # a variable that resembles no setting may hold an account's token
                yield Finding("settings", "note", f"{variable} is not a setting, so it has no effect", f"did you mean {meant}?")
        yield _home(settings)
        yield _disk(settings)
        yield _ffmpeg()
        yield _channels(services)
        if settings.media.url is not None or settings.media_path.exists():  # else the first file makes the folder
            looks.start("media", lambda: [_media(settings)], SLOW_SECONDS)
        if settings.database.url is None:
            phase = up_phase(settings.paths.home)
            found = f"`phantoms up` is {phase} here" if phase else "nothing is running here and no URLs are set"
            yield Finding("servers", "note", found, "try again when it shows its addresses" if phase else "start `phantoms up`")
            yield from _services(services, looks)
        else:
            _servers(services, looks)
        for finding in looks.findings():
            yield finding
            if finding.check == "PostgreSQL":
                # Its table of accounts knows which ones have their own token, which decides what services to check.
                yield from _services(services, looks, database=finding.verdict == "ok")
    finally:
        services.close()


def _services(services: Services, looks: ParallelChecks, *, database: bool = False) -> Iterator[Finding]:
    """Start the checks of services in parallel. Yield the findings that need no request."""
    settings, endpoints = services.settings, services.endpoints
    _know_accounts(services, database=database)
    if settings.sandbox.url and endpoints.sandbox_needed:
        url = settings.sandbox.url
        fix = "start `phantoms up`"
        looks.start("sandbox", lambda: [_tried("sandbox", lambda: _get(f"{url}/_sandbox/health", url), fix)])
    wanted = _wanted(services, database=database)
    yield from _keys(services, looks, wanted)
    if database:
        yield from _standings(services)
    _ask_accounts(services, looks, wanted)


def _know_accounts(services: Services, *, database: bool) -> None:
    """Find out which accounts have their own token: from PostgreSQL, else from channels.yaml."""
    try:
        if database:
            _ = services.endpoints.connected
            return
    except (PhantomsError, SQLAlchemyError):
        pass
    try:
        found = {str(platform) for (platform, _), source in services.account_sources(database=False).items() if source}
    except PhantomsError:
        found = set()  # already reported by the check of channels.yaml
    services.endpoints.connect(found)


def _home(settings: Settings) -> Finding:
    home = settings.paths.home.expanduser().absolute()
    place = next(p for p in [home, *home.parents] if p.exists())
    if not place.is_dir():
        return Finding("data directory", "wrong", f"{place} is a file", "set PHANTOMS_HOME to a folder")
    if os.access(place, os.W_OK):
        return Finding("data directory", "ok", str(home))
    return Finding("data directory", "wrong", f"{place} is not writable", "set PHANTOMS_HOME to a folder that you can write to")


def _disk(settings: Settings) -> Finding:
    folder = settings.media_path
    free = shutil.disk_usage(next(p for p in [folder, *folder.parents] if p.exists())).free
    found = f"{free / 1e9:.1f} GB free for media in {folder}"
    if free >= LOW_DISK_BYTES:
        return Finding("disk", "ok", found)
    return Finding("disk", "wrong", found, "free some space, or set PHANTOMS_MEDIA to a larger disk (a video takes about 15 MB)")


def _media(settings: Settings) -> Finding:
    fix = "check the PHANTOMS_MEDIA_* settings" if settings.media.url else "give this user write access, or set PHANTOMS_MEDIA"
    return _tried("media", lambda: f"a file was written, read and deleted in {asyncio.run(probe(settings))}", fix)


def _ffmpeg() -> Finding:
    try:
        program = imageio_ffmpeg.get_ffmpeg_exe()
        done = subprocess.run([program, "-hide_banner", "-filters"], capture_output=True, text=True, check=True, timeout=60)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return Finding("ffmpeg", "wrong", str(error), "reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg")
    missing = [name for name in ("ass", "loudnorm", "gradients") if f" {name} " not in done.stdout]
    if missing:
        return Finding(
            "ffmpeg", "wrong", f"{program} lacks {', '.join(missing)}", "unset IMAGEIO_FFMPEG_EXE to use the bundled one"
        )
    return Finding("ffmpeg", "ok", Path(program).name)


def _channels(services: Services) -> Finding:
    path = services.settings.channels_path
    try:
        names = ", ".join(services.channels())
    except ChannelsMissing as error:
        return Finding("channels", "wrong", str(error).removesuffix(f": {error.FIX}"), error.FIX)
    except PhantomsError as error:
        return Finding("channels", "wrong", str(error), f"edit {path}")
    except SQLAlchemyError:
        found = "PostgreSQL does not say which accounts are connected, so their tokens are not checked"
        return Finding("channels", "note", found, "fix PostgreSQL first, then run `phantoms doctor` again")
    if not path.exists():
        return Finding("channels", "note", f"{path} does not exist; the default channel is used", "`phantoms up` makes one to edit")
    return Finding("channels", "ok", names)


def _servers(services: Services, looks: ParallelChecks) -> None:
    settings = services.settings

    def start(check: str, look: Callable[[], str], fix: str) -> None:
        looks.start(check, lambda: [_tried(check, look, fix)])

    start("PostgreSQL", lambda: _postgres(services), "check PHANTOMS_DATABASE_URL, or start `phantoms up`")
    start("Redis", lambda: _redis(settings), "check PHANTOMS_REDIS_URL, or start `phantoms up`")
    if settings.web.url:
        start("Dagster UI", lambda: _get(f"{settings.web.url}/server_info", str(settings.web.url)), "start `phantoms up`")


def _tried(check: str, look: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(check, "ok", look())
    except SQLAlchemyError as error:
        return Finding(check, "wrong", database_problem(error), fix)
    except Exception as error:  # noqa: BLE001  this command reports whatever goes wrong
        return Finding(check, "wrong", (str(error).strip().splitlines() or [type(error).__name__])[0][:300], fix)


def _postgres(services: Services) -> str:
    with services.engine.connect() as connection:
        version = str(connection.execute(text("SHOW server_version")).scalar())
    missing = pending(services.database_url)
    if missing:
        raise PhantomsError(f"version {version}, but migrations {', '.join(missing)} are missing; `phantoms up` applies them")
    return f"version {version}, schema up to date"


def _redis(settings: Settings) -> str:
    if settings.redis.url is None:
        raise PhantomsError("PHANTOMS_REDIS_URL is not set")
    try:
        client = redis.Redis.from_url(settings.redis.url.get_secret_value(), socket_timeout=3)
        host = urlsplit(settings.redis.url.get_secret_value()).hostname
        if host:
            socket.getaddrinfo(host, None)
    except (ValueError, OSError):
        # What was parsed as a host or port may be a part of the password, so do not repeat it.
        raise PhantomsError(
            "the URL is malformed, or its host cannot be found (in a password, write @ : / and % as %40 %3A %2F and %25)"
        ) from None
    with client:
        refuse_cluster(client)
        info = client.info("server")
    return f"version {info.get('valkey_version') or info.get('redis_version')}"


def _get(url: str, shown: str) -> str:
    httpx.get(url, timeout=5, trust_env=False).raise_for_status()
    return shown


def _keys(services: Services, looks: ParallelChecks, wanted: Sources | None) -> Iterator[Finding]:
    """Check the services that have one key. `_ask_accounts` checks the platforms, account by account."""
    settings, endpoints = services.settings, services.endpoints
    by_gateway = {key for key, way in services.routes().items() if way == GATEWAY} if wanted else set()
    for kind in KINDS:
        if not (spec := PROVIDERS[endpoints.chosen(kind)]).remote:
            yield Finding(kind.name, "ok", spec.title)
    for name in INTEGRATIONS:
        if name in Platform and not (Platform(name).spec.usual or any(platform == name for platform, _ in wanted or ())):
            continue  # no channel posts there
        if name in Platform and (own := [key for key in wanted or () if key[0] == name]) and set(own) <= by_gateway:
            continue  # a gateway has the accounts, so no token is needed
        if name in PROVIDERS and not _used(endpoints, name):
            continue  # it is not chosen
        try:
            sandboxed = endpoints.sandboxed(name)
        except PhantomsError as error:
            yield Finding(name, "wrong", str(error), f"set {variable_of_key(name)}, or PHANTOMS_SANDBOX=auto")
            continue
        if sandboxed:
            looks.start(name, partial(_sandboxed, settings, name))
            if name == endpoints.chosen(WRITERS) and settings.sandbox.url and has(name, "model"):
                looks.start("model", lambda: _model(settings))
        elif name in PROVIDERS and not has(name, "check"):
            yield Finding(name, "note", f"not checked: {PROVIDERS[name].title} has no check that is free of charge")
        elif name in PROVIDERS:
            looks.start(name, partial(ask_provider, settings, endpoints, name))
        elif not (wanted and any(platform == name for platform, _ in wanted)):
            why = "channels.yaml cannot be used" if wanted is None else "no channel has an account there"
            yield Finding(name, "note", f"not checked: {why}", "correct the accounts in channels.yaml")


def _used(endpoints: Endpoints, name: str) -> bool:
    try:
        return endpoints.used(name)
    except PhantomsError:
        return False  # only channels.yaml says so, and its check has reported why it cannot be used


def _sandboxed(settings: Settings, name: str) -> list[Finding]:
    """Return the finding for a service without a key: whether the sandbox replaces it."""
    wish = f"set {variable_of_key(name)}"
    if name in Platform and Platform(name).spec.oauth:
        wish = f"run `phantoms accounts connect {name}` or {wish}"
    try:
        if settings.sandbox.url is not None:
            _get(f"{settings.sandbox.url}/_sandbox/health", settings.sandbox.url)
            return [Finding(name, "note", "not checked: the sandbox replaces it", f"{wish} for the real service")]
    except httpx.HTTPError:
        pass
    return [Finding(name, "note", "not checked: it has no key, and the sandbox is not running", f"start `phantoms up`, or {wish}")]


def _model(settings: Settings) -> list[Finding]:
    found = model_finding(settings)
    return [] if found is None else [Finding(found.check, found.verdict, found.found, found.fix)]


def _wanted(services: Services, *, database: bool) -> Sources | None:
    """Return every account with the place of its token; None when channels.yaml cannot be used."""
    try:
        return services.account_sources(database=database)
    except PhantomsError:
        return None  # already reported by the check of channels.yaml
    except SQLAlchemyError:  # PostgreSQL went away after its check
        return _wanted(services, database=False)


def _ask_accounts(services: Services, looks: ParallelChecks, wanted: Sources | None) -> None:
    """Ask each platform who owns the token of each account, and what it allows."""
    settings, endpoints = services.settings, services.endpoints
    routes = services.routes() if wanted else {}
    for (platform, name), place in (wanted or {}).items():
        if not platform.spec.remote:
            continue
        route = routes.get((platform, name), "")
        try:
            real = not endpoints.sandboxed(str(platform.spec.gateway if route == GATEWAY else platform))
        except PhantomsError:
            continue  # already reported by `_keys`
        check = f"{platform}:{name}"
        if real:
            looks.start(check, partial(ask_account, settings, endpoints, platform, name, place, route=route))
        else:  # `_keys` says that the sandbox answers
            looks.start(f"{check} route", partial(route_findings, endpoints, platform, check, route))


def _standings(services: Services) -> Iterator[Finding]:
    """Yield the accounts whose connection ends soon, and those that their platform has blocked."""
    try:
        accounts = Accounts(services.engine).all()
    except SQLAlchemyError as error:
        yield Finding("accounts", "note", f"not checked: {database_problem(error)}", "run `phantoms doctor` again")
        return
    for account in accounts:
        found = standing(account, datetime.now(UTC))
        if found.state in (EXPIRING, BLOCKED):
            yield Finding(f"{account.platform}:{account.name}", "note", f"{found.state}: {found.why}", f"run `{found.command}`")
