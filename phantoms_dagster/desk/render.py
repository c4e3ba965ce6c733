"""Pages from templates: what all templates know, and the messages that are shown once."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache, lru_cache
from importlib.resources import files
from typing import Any, Literal
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import HTMLResponse, RedirectResponse, Response

from phantoms_dagster.desk.masking import masked
from phantoms_dagster.desk.nav import MENU, MenuEntry
from phantoms_dagster.desk.platform_rules import platform_rules
from phantoms_dagster.desk.visits import FLASH, Visit, keep_cookie
from phantoms_dagster.domain.counting import counted
from phantoms_dagster.domain.models import Platform
from phantoms_dagster.store.pending import Pending
from phantoms_dagster.wiring.endpoints import INTEGRATIONS

Tone = Literal["good", "bad", "info"]
THEME = "phantoms_theme"
THEMES = ("auto", "light", "dark")
_FLASH_SECONDS = 60
# A decision is shown this long after it can no longer be undone, so that the page can say so.
_SHOWN_AFTER = timedelta(seconds=8)


@dataclass(frozen=True)
class Asset:
    """A static file. Its digest is part of its address, so that browsers may keep it for ever."""

    name: str
    content: bytes
    digest: str

    @property
    def path(self) -> str:
        """Its address."""
        return f"/static/{self.digest}/{self.name}"


@cache
def assets() -> dict[str, Asset]:
    """The static files by name. Only these can be asked for."""
    found = {}
    for file in files("phantoms_dagster.desk").joinpath("static").iterdir():
        if file.is_file() and not file.name.startswith("."):
            content = file.read_bytes()
            if file.name == "desk.css":
                content += platform_rules().encode()
            found[file.name] = Asset(file.name, content, hashlib.sha256(content).hexdigest()[:16])
    return found


@cache
def environment() -> Environment:
    """The templates. A name that a page does not give is an error, not an empty space."""
    made = Environment(
        loader=PackageLoader("phantoms_dagster.desk"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals |= {"asset": lambda name: assets()[name].path, "query": query, "platform_title": platform_title}
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
        "platform_title": platform_title,
    }
    return made


@cache
def icon_of(name: str) -> Markup:
    """A symbol of `static/icons.svg`. Pages have dozens of them, and there are few."""
    at = assets()["icons.svg"].path
    return Markup('<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>').format(at, name)


def page(visit: Visit, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page for this visitor. It takes the messages that waited for them."""
    request = visit.request
    flash = visit.desk.keys.opened("flash", request.cookies.get(FLASH, ""))
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


def piece(template: str, macro: str, *given: object) -> Markup:
    """What a macro of a template writes: a part of a page that can be kept for the next one. It knows nothing of the visitor."""
    written: Markup = getattr(environment().get_template(template).module, macro)(*given)
    return written


def go(visit: Visit, to: str, message: str = "", tone: Tone = "good") -> RedirectResponse:
    """Go to another page of the desk, which shows the message once."""
    response = RedirectResponse(to, 303)
    if message:
        tell(visit, response, message, tone)
    return response


def tell(visit: Visit, response: Response, message: str, tone: Tone = "good") -> None:
    """Let the next page show a message."""
    sealed = visit.desk.keys.seal("flash", [{"text": message[:1_000], "tone": tone}])
    response.set_cookie(FLASH, sealed, max_age=_FLASH_SECONDS, path="/", httponly=True, samesite="lax")


def menu_of(visit: Visit) -> list[MenuEntry]:
    """The entries of the menu whose pages exist."""
    known = visit.request.app.state.paths
    return [entry for entry in MENU if entry.path in known]


def theme_of(visit: Visit) -> str:
    """The colours that the visitor chose: light, dark, or those of their system."""
    found = visit.request.cookies.get(THEME, "auto")
    return found if found in THEMES else "auto"


def undoable(visit: Visit) -> list[Pending]:
    """The visitor's latest decisions that can still be undone, or could a moment ago."""
    if visit.role < 2:
        return []
    window = timedelta(seconds=visit.desk.settings.desk_undo_seconds)
    latest = visit.desk.pending.latest_of(visit.name, within=window + _SHOWN_AFTER)
    return [one for one in latest if one.state in ("pending", "refused")]


# --- what templates write


def query(given: Any, **changes: Any) -> str:
    """A query string: the parameters of a page with changes; None or an empty text takes one away."""
    merged = {**dict(given), **changes}
    kept = {name: value for name, value in merged.items() if value not in (None, "")}
    return f"?{urlencode(kept)}" if kept else "?"


def clock(value: float | None) -> str:
    """Seconds of a film as a player shows them: 0:07.4."""
    if value is None:
        return "-"
    minutes, rest = divmod(max(0.0, value), 60)
    return f"{int(minutes)}:{rest:04.1f}"


def seconds(value: float) -> str:
    """A length: 31.2 s."""
    return f"{value:.1f} s"


@lru_cache(maxsize=4_096)
def moment(value: datetime | None, zone: str = "UTC") -> str:
    """A time in a time zone, which it names."""
    if value is None:
        return "-"
    local = value.astimezone(ZoneInfo(zone))
    name = local.tzname() or zone
    return f"{local:%a %d %b %Y, %H:%M} {name}"


def slot(value: datetime, zone: str = "UTC") -> str:
    """A time as people say it: today 15:54 CET, tomorrow 09:00 CET, Thu 3 Dec 09:00 CET."""
    local = value.astimezone(ZoneInfo(zone))
    days = (local.date() - datetime.now(ZoneInfo(zone)).date()).days
    day = {0: "today", 1: "tomorrow"}.get(days, f"{local:%a} {local.day} {local:%b}")
    return f"{day} {local:%H:%M} {local.tzname() or zone}"


def age(value: datetime | None) -> str:
    """How long ago, or in how long: 3 min ago, in 2 h."""
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
    """Money in US dollars."""
    return f"${value:.3f}"


def megabytes(value: int) -> str:
    """A size."""
    return f"{value / 1e6:.1f} MB"


def count(number: int, one: str, many: str) -> str:
    """A number with its noun: `1 video`, `2 videos`."""
    return counted(number, one, many)


def platform_title(name: str) -> str:
    """The name of a platform as people write it."""
    return Platform(name).title
