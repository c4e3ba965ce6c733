"""`Desk` holds everything that pages use. It is made once at start-up; a page reaches it as `visit.desk`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from sqlalchemy import Engine

from phantoms_dagster.desk.attempts import LoginAttempts
from phantoms_dagster.desk.keys import Keys, load_keys
from phantoms_dagster.desk.oidc import OidcProvider
from phantoms_dagster.registry.platforms import SPECS
from phantoms_dagster.settings import Settings
from phantoms_dagster.store.audit import AuditLog
from phantoms_dagster.store.board import Board
from phantoms_dagster.store.bulk import BulkActions
from phantoms_dagster.store.calendar import Calendar
from phantoms_dagster.store.decisions import Decisions
from phantoms_dagster.store.earlier import EarlierRevisions
from phantoms_dagster.store.engine import reading
from phantoms_dagster.store.guest_links import GuestLinks
from phantoms_dagster.store.pending import PendingDecisions
from phantoms_dagster.store.provider_events import ProviderEvents
from phantoms_dagster.store.review.queue import ReviewQueue
from phantoms_dagster.store.users import Users
from phantoms_dagster.wiring import Services

# Pages run in threads; each uses one connection for milliseconds.
CONNECTIONS = 8
# A page waits at most this long for PostgreSQL. It is longer than the API waits for a lock (`store.answers`).
MAX_WAIT_SECONDS = 6.0


@dataclass(frozen=True)
class Desk:
    """The services that pages read from and act through. `extras` holds what single pages keep between requests, by name."""

    settings: Settings
    services: Services
    keys: Keys
    users: Users
    audit: AuditLog
    attempts: LoginAttempts
    queue: ReviewQueue
    board: Board
    oidc: OidcProvider | None = None
    extras: dict[str, object] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings) -> Desk:
        """Build the desk from settings. Raises InvalidInput without a database URL, or with invalid OpenID Connect settings."""
        services = Services(settings, connections=CONNECTIONS, max_wait=MAX_WAIT_SECONDS)
        redis_url = settings.redis.url.get_secret_value() if settings.redis.url else None
        return cls(
            settings=settings,
            services=services,
            keys=load_keys(settings),
            users=Users(services.engine),
            audit=AuditLog(services.engine),
            attempts=LoginAttempts(redis_url),
            queue=ReviewQueue(reading(services.engine)),
            board=Board(reading(services.engine)),
            oidc=OidcProvider(settings) if settings.oidc.issuer else None,
        )

    # Built on first use: they read the accounts from the database, and the desk must start while PostgreSQL is down.

    @cached_property
    def decisions(self) -> Decisions:
        """Review decisions."""
        return self.services.decisions()

    @cached_property
    def pending(self) -> PendingDecisions:
        """Decisions that can still be undone."""
        return self.services.pending_decisions()

    @cached_property
    def guests(self) -> GuestLinks:
        """Guest links."""
        return GuestLinks(self.services.engine, self.decisions, self.pending)

    @cached_property
    def bulk(self) -> BulkActions:
        """Bulk actions."""
        return BulkActions(self.services.engine, retrying=self.services.retrying(), decisions=self.decisions)

    @cached_property
    def earlier(self) -> EarlierRevisions:
        """Earlier revisions of videos."""
        return EarlierRevisions(self.reading)

    @cached_property
    def calendar(self) -> Calendar:
        """The publication calendar."""
        return Calendar(self.reading)

    @cached_property
    def provider_events(self) -> ProviderEvents:
        """Events that platforms and providers sent."""
        rules = {name: spec.late_ids for name, spec in SPECS.items() if spec.late_ids is not None}
        return ProviderEvents(self.services.engine, rules)

    @cached_property
    def reading(self) -> Engine:
        """The engine for queries that only read."""
        return reading(self.services.engine)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the desk."""
        return is_loopback(self.settings.desk.host)

    def hosts(self) -> frozenset[str]:
        """Return the host names, without ports, that requests may use."""
        found = {self.settings.desk.host.casefold()}
        if self.loopback:
            found |= {"127.0.0.1", "localhost", "::1"}
        if self.settings.desk.url:
            found.add(_host_of(self.settings.desk.url))
        if self.settings.provider_events.url:
            found.add(_host_of(self.settings.provider_events.url))
        return frozenset(found)

    def close(self) -> None:
        """Close all connections."""
        self.attempts.close()
        self.services.close()


def is_loopback(host: str) -> bool:
    """Whether the host is a loopback address or `localhost`."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def forwarded(headers: Mapping[str, str]) -> bool:
    """Whether the request came through a proxy. Then it may come from another machine, even when its address is local."""
    return any(name in headers for name in ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"))


def _host_of(url: str) -> str:
    return (urlsplit(url).hostname or "").casefold()
