"""Renders templates. Sets their globals and filters, and handles flash messages, which are shown once."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlencode, urlsplit
from zoneinfo import ZoneInfo

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, RedirectResponse, Response

from phantoms_dagster.desk.masking import masked
from phantoms_dagster.desk.nav import MENU, MenuEntry
from phantoms_dagster.desk.platform_rules import platform_rules, screens
from phantoms_dagster.desk.visits import FLASH, Visit, keep_cookie
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.domain.readable import readable
from phantoms_dagster.store.pending import Pending
from phantoms_dagster.wiring.endpoints import INTEGRATIONS

Tone = Literal["good", "bad", "info"]
THEME = "phantoms_theme"
THEMES = ("auto", "light", "dark")
_FLASH_SECONDS = 60
# A decision stays visible this long after its undo window, so that the page can say it is committed.
_SHOWN_AFTER = timedelta(seconds=8)


@dataclass(frozen=True)
class StaticFile:
    """A static file. Its digest is part of its URL, so browsers can cache it forever."""

    name: str
    content: bytes
    digest: str

    @property
    def path(self) -> str:
        """The URL path."""
        return f"/static/{self.digest}/{self.name}"


@cache
def static_files() -> dict[str, StaticFile]:
    """Return the static files by name. No other file is served."""
    found = {}
    for file in files("phantoms_dagster.desk").joinpath("static").iterdir():
        if file.is_file() and not file.name.startswith("."):
            content = file.read_bytes()
            if file.name == "desk.css":
                content += platform_rules().encode()
            found[file.name] = StaticFile(file.name, content, hashlib.sha256(content).hexdigest()[:16])
    return found


@cache
def environment() -> Environment:
    """Return the template environment. An undefined name in a template is an error."""
    made = Environment(
        loader=ChoiceLoader([PackageLoader("phantoms_dagster.desk"), screens()]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals |= {"asset": lambda name: static_files()[name].path, "query": query, "platform_title": platform_title}
    made.globals["icon_of"] = icon_of
    made.globals["provider_names"] = frozenset({*INTEGRATIONS, "media"})
    made.globals["fresh_mark"] = lambda: secrets.token_urlsafe(12)
    made.filters |= {
        "clock": clock,
        "moment": moment,
        "slot": slot,
        "seconds": seconds,
        "age": age,
        "usd": usd,
        "megabytes": megabytes,
        "count": count,
        "masked": masked,
        "link": link,
        "coded": coded,
        "platform_title": platform_title,
        "readable": readable,
    }
    return made


@cache
def icon_of(name: str) -> Markup:
    """Return the markup of a symbol in `static/icons.svg`. Cached, because pages use dozens of them."""
    at = static_files()["icons.svg"].path
    return Markup('<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>').format(at, name)


def page(visit: Visit, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page for this visitor, with the flash messages that were waiting."""
    request = visit.request
    flash = visit.desk.keys.unseal("flash", request.cookies.get(FLASH, ""))
    content = (
        environment()
        .get_template(template)
        .render(
            visit=visit,
            menu=menu_of(visit),
            here=request.url.path,
            flashes=flash if isinstance(flash, list) else [],
            theme=theme_of(visit),
            undoable=undoable(visit),
            now=datetime.now(UTC),
            **values,
        )
    )
    response = HTMLResponse(content, status)
    if flash is not None:
        response.delete_cookie(FLASH, path="/")
    keep_cookie(visit, response)
    return response


def render_macro(template: str, macro: str, *given: object) -> Markup:
    """Render a template macro. The result may be cached across visitors, because a macro gets no visitor data."""
    written: Markup = getattr(environment().get_template(template).module, macro)(*given)
    return written


def redirect_to(visit: Visit, to: str, message: str = "", tone: Tone = "good") -> RedirectResponse:
    """Redirect to another page of the desk, which shows the message once."""
    response = RedirectResponse(to, 303)
    if message:
        flash_message(visit, response, message, tone)
    return response


def flash_message(visit: Visit, response: Response, message: str, tone: Tone = "good") -> None:
    """Set a flash message on the response. The next page shows it."""
    sealed = visit.desk.keys.seal("flash", [{"text": message[:1_000], "tone": tone}])
    response.set_cookie(FLASH, sealed, max_age=_FLASH_SECONDS, path="/", httponly=True, samesite="lax")


def menu_of(visit: Visit) -> list[MenuEntry]:
    """Return the menu entries whose pages exist."""
    known = visit.request.app.state.paths
    return [entry for entry in MENU if entry.path in known]


def theme_of(visit: Visit) -> str:
    """Return the visitor's theme: `light`, `dark`, or `auto` for that of their system."""
    found = visit.request.cookies.get(THEME, "auto")
    return found if found in THEMES else "auto"


def undoable(visit: Visit) -> list[Pending]:
    """Return the visitor's latest decisions that can still be undone, or could be a moment ago."""
    if visit.role < 2:
        return []
    window = timedelta(seconds=visit.desk.settings.desk.undo_seconds)
    latest = visit.desk.pending.latest_of(visit.name, within=window + _SHOWN_AFTER)
    return [one for one in latest if one.state in ("pending", "refused")]


# --- template globals and filters


def query(given: Any, **changes: Any) -> str:
    """Return a query string: the given parameters with changes. None or an empty string removes a parameter."""
    merged = {**dict(given), **changes}
    kept = {name: value for name, value in merged.items() if value not in (None, "")}
    return f"?{urlencode(kept)}" if kept else "?"


def clock(value: float | None) -> str:
    """Format seconds as a player shows them: 0:07.4."""
    if value is None:
        return "-"
    minutes, rest = divmod(max(0.0, value), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def seconds(value: float) -> str:
    """Format a duration: 31.2 s."""
    return f"{value:.1f} s"


@lru_cache(maxsize=4_096)
def coded(text: str) -> Markup:
    """The text with what is between backticks as code."""
    parts = text.split("`")
    return Markup("").join(Markup("<code>{}</code>").format(part) if n % 2 else escape(part) for n, part in enumerate(parts))


def link(url: str) -> str:
    """The URL if a browser opens a page for it, else `#`. Services and old rows may contain any text."""
    return url if urlsplit(url).scheme in ("http", "https", "file") else "#"


def moment(value: datetime | None, zone: str = "UTC") -> str:
    """Format a time with its time zone: Thu 24 Dec 2026, 18:00 UTC."""
    if value is None:
        return "-"
    local = value.astimezone(ZoneInfo(zone))
    name = local.tzname() or zone
    return f"{local:%a %d %b %Y, %H:%M} {name}"


def slot(value: datetime, zone: str = "UTC") -> str:
    """Format a time relative to today: today 15:54 CET, tomorrow 09:00 CET, Thu 3 Dec 09:00 CET."""
    local = value.astimezone(ZoneInfo(zone))
    days = (local.date() - datetime.now(ZoneInfo(zone)).date()).days
    day = {0: "today", 1: "tomorrow"}.get(days, f"{local:%a} {local.day} {local:%b}")
    return f"{day} {local:%H:%M} {local.tzname() or zone}"


def age(value: datetime | None) -> str:
    """Format a time relative to now: 3 min ago, in 2 h."""
    if value is None:
        return "-"
    gap = (datetime.now(UTC) - value).total_seconds()
    size = abs(gap)
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if size >= length:
            told = f"{int(size // length)} {unit}"
            break
    else:
        told = f"{int(size)} s"
    return f"{told} ago" if gap >= 0 else f"in {told}"


def usd(value: Decimal | float) -> str:
    """Format an amount in US dollars: $0.120."""
    return f"${value:.3f}"


def megabytes(value: int) -> str:
    """Format a number of bytes: 4.2 MB."""
    return f"{value / 1e6:.1f} MB"


def count(number: int, one: str, many: str) -> str:
    """Format a number with its noun: `1 video`, `2 videos`."""
    return counted(number, one, many)


def platform_title(name: str) -> str:
    """Return the display name of a platform."""
    return Platform(name).title
