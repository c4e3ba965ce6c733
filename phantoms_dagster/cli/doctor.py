"""`phantoms doctor`: looks at everything that can be wrong and says how to mend it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import httpx
import imageio_ffmpeg
import redis
import typer
from rich.table import Table
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from phantoms_dagster.cli.console import FAILED, database_problem, out, plain, plain_errors, print_json
from phantoms_dagster.cli.up import current
from phantoms_dagster.domain.accounts import places
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.resilience.redis_refusals import refuse_cluster
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.migrate import pending
from phantoms_dagster.wiring import INTEGRATIONS, Workshop
from phantoms_dagster.wiring.media import probe
from phantoms_dagster.wiring.models import model_finding
from phantoms_dagster.wiring.whose import whose

# What posting and reading results need; see docs/accounts.md.
SCOPES = {
    Platform.YOUTUBE: "youtube.upload, youtube.readonly, youtube.force-ssl, yt-analytics.readonly",
    Platform.TIKTOK: "user.info.basic, video.publish, video.list",
    Platform.INSTAGRAM: "instagram_basic, instagram_content_publish, instagram_manage_insights, pages_show_list, "
    "pages_read_engagement",
}
LOW_DISK_BYTES = 2_000_000_000
STYLES = {"ok": "green", "note": "yellow", "wrong": "red"}


@dataclass(frozen=True)
class Finding:
    """One check. `verdict`: ok, note or wrong; `fix` says what to do."""

    check: str
    verdict: str
    found: str
    fix: str = ""


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel="Look")(doctor)


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object")] = False) -> None:
    """Check settings, servers, ffmpeg, keys and disk, and say how to fix what is wrong. Exits with 1 when something is."""
    with plain_errors():
        findings = list(examine(current()))
        wrong = [f for f in findings if f.verdict == "wrong"]
        if as_json:
            print_json({"ok": not wrong, "findings": [asdict(f) for f in findings]})
        else:
            out.print(_table(findings))
        if wrong:
            raise typer.Exit(FAILED)


def _table(findings: Iterable[Finding]) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for finding in findings:
        fix = f"\n[bold]{plain(finding.fix)}[/]" if finding.fix else ""
        table.add_row(f"[{STYLES[finding.verdict]}]{finding.verdict}[/]", finding.check, plain(finding.found) + fix)
    return table


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, in an order that lets the first problem explain the later ones."""
    workshop = Workshop(settings)
    try:
        version = ".".join(map(str, sys.version_info[:3]))
        yield Finding("python", "ok", version)
        yield _home(settings)
        yield _disk(settings)
        yield from _media(settings)
        yield _ffmpeg()
        yield _channels(workshop)
        _know_accounts(workshop)
        yield from _servers(workshop)
        yield from _keys(workshop)
        yield from _accounts(workshop)
    finally:
        workshop.close()


def _know_accounts(workshop: Workshop) -> None:
    """Find out which accounts have tokens. Without PostgreSQL and a good channels.yaml only the environment's are known."""
    try:
        _ = workshop.endpoints.connected
    except (PhantomsError, SQLAlchemyError):
        workshop.endpoints.connect(())


def _home(settings: Settings) -> Finding:
    home = settings.home.expanduser().absolute()
    place = next(p for p in [home, *home.parents] if p.exists())
    if not place.is_dir():
        return Finding("data directory", "wrong", f"{place} is a file", "set PHANTOMS_HOME to a folder of yours")
    if os.access(place, os.W_OK):
        return Finding("data directory", "ok", str(home))
    return Finding("data directory", "wrong", f"{place} cannot be written to", "set PHANTOMS_HOME to a folder of yours")


def _disk(settings: Settings) -> Finding:
    folder = settings.path("media")
    free = shutil.disk_usage(next(p for p in [folder, *folder.parents] if p.exists())).free
    found = f"{free / 1e9:.1f} GB free for media in {folder}"
    if free >= LOW_DISK_BYTES:
        return Finding("disk", "ok", found)
    return Finding("disk", "wrong", found, "free some space, or set PHANTOMS_MEDIA to a larger disk (a video takes about 15 MB)")


def _media(settings: Settings) -> Iterator[Finding]:
    if settings.media_url is None and not settings.path("media").exists():
        return  # the first file makes the folder
    fix = "check the PHANTOMS_MEDIA_* settings" if settings.media_url else "let this user write there, or set PHANTOMS_MEDIA"
    yield _tried("media", lambda: f"a file was written, read and deleted in {asyncio.run(probe(settings))}", fix)


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


def _channels(workshop: Workshop) -> Finding:
    path = workshop.settings.path("channels")
    try:
        names = ", ".join(workshop.channels())
    except PhantomsError as error:
        return Finding("channels", "wrong", str(error), f"edit {path}")
    if not path.exists():
        return Finding("channels", "note", f"{path} is not there; the default channel is used", "`phantoms up` writes one to edit")
    return Finding("channels", "ok", names)


def _servers(workshop: Workshop) -> Iterator[Finding]:
    settings = workshop.settings
    if settings.database_url is None:
        yield Finding("servers", "note", "nothing is running here and no URLs are set", "start `phantoms up`")
        return
    yield _tried("PostgreSQL", lambda: _postgres(workshop), "check PHANTOMS_DATABASE_URL, or start `phantoms up`")
    yield _tried("Redis", lambda: _redis(settings), "check PHANTOMS_REDIS_URL, or start `phantoms up`")
    if settings.web_url:
        yield _tried("Dagster UI", lambda: _get(f"{settings.web_url}/server_info", str(settings.web_url)), "start `phantoms up`")
    if settings.sandbox_url and workshop.endpoints.sandbox_needed:
        yield _tried(
            "sandbox", lambda: _get(f"{settings.sandbox_url}/_sandbox/health", str(settings.sandbox_url)), "start `phantoms up`"
        )


def _tried(check: str, look: Callable[[], str], fix: str) -> Finding:
    try:
        return Finding(check, "ok", look())
    except SQLAlchemyError as error:
        return Finding(check, "wrong", database_problem(error), fix)
    except Exception as error:  # noqa: BLE001  whatever a server does wrong is what this command is asked to report
        return Finding(check, "wrong", (str(error).strip().splitlines() or [type(error).__name__])[0][:300], fix)


def _postgres(workshop: Workshop) -> str:
    with workshop.engine.connect() as connection:
        version = str(connection.execute(text("SHOW server_version")).scalar())
    missing = pending(workshop.database_url)
    if missing:
        raise PhantomsError(f"version {version}, but migrations {', '.join(missing)} are missing; `phantoms up` applies them")
    return f"version {version}, schema up to date"


def _redis(settings: Settings) -> str:
    if settings.redis_url is None:
        raise PhantomsError("PHANTOMS_REDIS_URL is not set")
    try:
        client = redis.Redis.from_url(settings.redis_url.get_secret_value(), socket_timeout=3)
        host = urlsplit(settings.redis_url.get_secret_value()).hostname
        if host:
            socket.getaddrinfo(host, None)
    except (ValueError, OSError):
        # What was taken for a host or a port may be half of a password: nothing of it is repeated.
        raise PhantomsError(
            "the URL cannot be read, or its host is not known (write @ : / and % in a password as %40 ...)"
        ) from None
    with client:
        refuse_cluster(client)
        info = client.info("server")
    return f"version {info.get('valkey_version') or info.get('redis_version')}"


def _get(url: str, shown: str) -> str:
    httpx.get(url, timeout=5, trust_env=False).raise_for_status()
    return shown


def _keys(workshop: Workshop) -> Iterator[Finding]:
    endpoints = workshop.endpoints
    for name in INTEGRATIONS:
        if name == "shotstack" and endpoints.renderer == "local":
            yield Finding("render", "ok", "local ffmpeg")
            continue
        try:
            sandboxed = endpoints.sandboxed(name)
        except PhantomsError as error:
            yield Finding(name, "wrong", str(error), "set the key, or PHANTOMS_SANDBOX=auto")
            continue
        kind = "API_KEY" if name in ("openai", "shotstack") else "TOKEN"
        if sandboxed:
            yield Finding(name, "note", "the sandbox answers", f"set PHANTOMS_{name.upper()}_{kind} for the real service")
        else:
            yield Finding(name, "ok", str(httpx.URL(endpoints.base_url(name)).copy_with(userinfo=b"")))
        if name == "openai" and (not sandboxed or workshop.settings.sandbox_url):
            model = model_finding(workshop.settings)
            yield Finding("model", model.verdict, model.found, model.fix)


def _accounts(workshop: Workshop) -> Iterator[Finding]:
    """Whose the token of each account is, as its platform says now."""
    endpoints = workshop.endpoints
    try:
        wanted = places(workshop.channels().values())
        real = [platform for platform in Platform if not endpoints.sandboxed(str(platform))]
    except (PhantomsError, SQLAlchemyError):
        return  # told above
    for (platform, name), place in wanted.items():
        if platform not in real:
            continue

        def look(platform: Platform = platform, name: str = name, place: str | None = place) -> str:
            found = asyncio.run(whose(workshop.settings, endpoints, platform, name, place))
            return f"{found.label} ({found.subject})"

        yield _tried(f"{platform}:{name}", look, f"renew the token, with the scopes {SCOPES[platform]}")
