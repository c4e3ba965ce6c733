"""Sends alerts through Apprise, which supports a hundred kinds of destinations, and reads the facts that alerts report.

A destination's URL contains its password, so it is never logged, shown or stored; a short hash identifies it. `production.alerts`
decides what to report and writes the messages.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import SecretStr
from redis.exceptions import RedisError

from phantoms_dagster.domain.accounts import Account
from phantoms_dagster.domain.attention import Attention
from phantoms_dagster.domain.errors import PhantomsError
from phantoms_dagster.production.alerts import ACCOUNT, AlertReading, BreakerAlert, DayFacts, DeadLetterAlert, Message, Undelivered
from phantoms_dagster.providers.redaction import redact
from phantoms_dagster.settings import Settings
from phantoms_dagster.settings.leaves import leaves
from phantoms_dagster.store import daily
from phantoms_dagster.store.accounts import Accounts
from phantoms_dagster.store.dead_letters.letters import DeadLetters
from phantoms_dagster.wiring.services import Services
from phantoms_dagster.wiring.watching import watching

_log = logging.getLogger(__name__)

CLOSED, OPEN = "closed", "open"
# Shorter secrets are words like `sandbox`: masking them would spoil the text and hide nothing.
SHORTEST_SECRET = 6
_STATUS = re.compile(r"error=(\d{3})")


def destinations(settings: Settings) -> dict[str, Callable[[Message], None]]:
    """A function that sends a message, for each URL in the settings, by the URL's hash. The functions raise Undelivered."""
    return {_name(url): _sender(url, _secrets(settings)) for url in settings.alerts.urls}


def read(services: Services, since: datetime | None) -> AlertReading:
    """The open dead letters since then, and the breakers. When Redis does not answer, that is reported instead of breakers."""
    letters, at = DeadLetters(services.engine).open_since(since)
    found = tuple(
        DeadLetterAlert(n.id, n.key, n.stage, n.error_class, n.provider, redact(n.message), n.created_at) for n in letters
    )
    waits = tuple(replace(item, what=redact(item.what)) for item in services.waits_for_people())
    accounts = tuple(
        BreakerAlert(_name_of(a), a.state, ((a.since or at, redact(a.reason or a.state)),))
        for a in Accounts(services.engine).waiting()
    )
    try:
        breakers = asyncio.run(_breakers(services.settings))
    except (PhantomsError, RedisError) as error:
        _log.warning("the breakers could not be read for alerts: %s", type(error).__name__)
        why = str(error) if isinstance(error, PhantomsError) else type(error).__name__
        away = Attention("redis", f"Redis cannot be used, so all videos wait: {redact(why)}", "phantoms doctor", at)
        return AlertReading(at, found, accounts or None, (*waits, away))
    return AlertReading(at, found, (*accounts, *breakers), waits)


def _name_of(account: Account) -> str:
    return f"{ACCOUNT}{account.key}{' through its gateway' if account.gateway else ''}"


def facts_of(services: Services, day: date, zone: str) -> DayFacts:
    """The facts of a day for its summary, from midnight to midnight in `zone`."""
    local = ZoneInfo(zone)
    start, end = (datetime.combine(d, time.min, local).astimezone(UTC) for d in (day, day + timedelta(days=1)))
    found = daily.day(services.engine, start, end)
    return DayFacts(
        day=day,
        added=found.added,
        posts=found.posts,
        failures=found.failures_by_stage,
        cost=found.cost,
        open_letters=found.open_letters,
        unknown_posts=found.unknown_posts,
        waits=tuple(item for item in services.waits_for_people() if not item.id.startswith("letters:")),
    )


def local_zone(environment: Mapping[str, str] = os.environ, localtime: Path = Path("/etc/localtime")) -> str:
    """The name of this machine's time zone, such as Europe/Berlin; UTC if it has no known name."""
    linked = str(localtime.resolve()).partition("zoneinfo/")[2]
    for name in (environment.get("TZ", "").lstrip(":"), linked.removeprefix("posix/")):
        try:
            if name and ZoneInfo(name):
                return name
        except (ZoneInfoNotFoundError, ValueError, OSError):
            continue  # a rule such as `CET-1CEST`, or a path: Dagster needs a name
    return "UTC"


async def _breakers(settings: Settings) -> tuple[BreakerAlert, ...]:
    async with watching(settings) as watcher:
        found = []
        for breaker in await watcher.breakers.look():
            changes = await watcher.breakers.history(breaker.name)
            # A failed probe opens the breaker again; that belongs to the same outage.
            opened = tuple((c.at, c.why) for c in reversed(changes) if c.old == CLOSED and c.new == OPEN)
            found.append(BreakerAlert(breaker.name, breaker.state, opened))
        return tuple(found)


def _name(url: SecretStr) -> str:
    return hashlib.sha256(url.get_secret_value().encode()).hexdigest()[:8]


def _sender(url: SecretStr, secrets: tuple[str, ...]) -> Callable[[Message], None]:
    def send(message: Message) -> None:
        import apprise  # noqa: PLC0415 - it loads a hundred plugins, so only sending imports it

        with _quiet_apprise() as statuses:
            service = apprise.Apprise()
            if not service.add(url.get_secret_value()):
                raise Undelivered("this is not a URL that Apprise knows: see PHANTOMS_ALERT_URLS")
            title, body = (_masked(text, secrets) for text in (message.title, message.body))
            kind = apprise.NotifyType.WARNING if message.urgent else apprise.NotifyType.INFO
            taken = service.notify(title=title, body=body, notify_type=kind, body_format=apprise.NotifyFormat.TEXT)
        if not taken:
            raise Undelivered(f"it answered {statuses[-1]}" if statuses else "it could not be reached")

    return send


@contextmanager
def _quiet_apprise() -> Iterator[list[str]]:
    """Suppress Apprise's log lines, which may contain a URL. Yields the HTTP statuses found in them."""
    statuses: list[str] = []

    def swallow(record: logging.LogRecord) -> bool:
        statuses.extend(_STATUS.findall(record.getMessage()))
        return False

    # A filter on the logger itself keeps the record from all handlers, including those of parent loggers.
    logger = logging.getLogger("apprise")
    logger.addFilter(swallow)
    try:
        yield statuses
    finally:
        logger.removeFilter(swallow)


def _secrets(settings: Settings) -> tuple[str, ...]:
    """Every secret in the settings and every password in a secret URL, longest first."""
    found: set[str] = set()
    for leaf in leaves(Settings).values():
        value = leaf.value(settings)
        for secret in value if isinstance(value, list) else [value]:
            if isinstance(secret, SecretStr):
                found |= _parts(secret.get_secret_value())
    return tuple(sorted((s for s in found if len(s) >= SHORTEST_SECRET), key=len, reverse=True))


def _parts(secret: str) -> set[str]:
    try:
        password = urlsplit(secret).password or ""
    except ValueError:  # brackets in a password: only the whole URL is masked
        password = ""
    return {secret, password, unquote(password)}


def _masked(text: str, secrets: tuple[str, ...]) -> str:
    """The text with all secrets masked: the last line of defence, in case one got into a dead letter."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return text
