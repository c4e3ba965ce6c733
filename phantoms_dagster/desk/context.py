"""`Desk`: everything that pages use, made once when the desk starts. A page reaches it as `visit.desk`."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from urllib.parse import urlsplit

from sqlalchemy import Engine

from phantoms_dagster.desk.attempts import LoginAttempts
from phantoms_dagster.desk.keys import Keys, keys_of
from phantoms_dagster.desk.oidc import OidcProvider
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
from phantoms_dagster.store.review.queue import ReviewQueue
from phantoms_dagster.store.users import Users
from phantoms_dagster.wiring import Services

# Pages are made in threads; each takes one connection for milliseconds.
CONNECTIONS = 8
# The longest that a page waits for an answer of PostgreSQL; longer than a lock that the API waits for (`store.answers`).
MAX_WAIT_SECONDS = 6.0


@dataclass(frozen=True)
class Desk:
    """The parts that pages read from and decide with. `extras`: parts that single pages add, by name."""

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
        """The desk of these settings. Raises InvalidInput without a database, and for a provider that cannot be meant."""
        services = Services(settings, connections=CONNECTIONS, max_wait=MAX_WAIT_SECONDS)
        redis_url = settings.redis_url.get_secret_value() if settings.redis_url else None
        return cls(
            settings=settings,
            services=services,
            keys=keys_of(settings),
            users=Users(services.engine),
            audit=AuditLog(services.engine),
            attempts=LoginAttempts(redis_url),
            queue=ReviewQueue(reading(services.engine)),
            board=Board(reading(services.engine)),
            oidc=OidcProvider(settings) if settings.oidc_issuer else None,
        )

    # Made when they are first needed: they ask the tables which accounts there are, and the desk starts without PostgreSQL, too.

    @cached_property
    def decisions(self) -> Decisions:
        """What reviewers decide."""
        return self.services.decisions()

    @cached_property
    def pending(self) -> PendingDecisions:
        """Decisions that can be undone."""
        return self.services.pending_decisions()

    @cached_property
    def guests(self) -> GuestLinks:
        """Links with which guests decide."""
        return GuestLinks(self.services.engine, self.decisions, self.pending)

    @cached_property
    def bulk(self) -> BulkActions:
        """What is done with many videos at once."""
        return BulkActions(self.services.engine, retrying=self.services.retrying(), decisions=self.decisions)

    @cached_property
    def earlier(self) -> EarlierRevisions:
        """What earlier revisions looked like."""
        return EarlierRevisions(self.reading)

    @cached_property
    def calendar(self) -> Calendar:
        """What goes out when."""
        return Calendar(self.reading)

    @cached_property
    def reading(self) -> Engine:
        """For pages and parts of them that only read."""
        return reading(self.services.engine)

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the desk."""
        return is_loopback(self.settings.desk_host)

    def hosts(self) -> frozenset[str]:
        """The names under which people reach the desk, without ports."""
        found = {self.settings.desk_host.casefold()}
        if self.loopback:
            found |= {"127.0.0.1", "localhost", "::1"}
        if self.settings.desk_url:
            found.add(_host_of(self.settings.desk_url))
        return frozenset(found)

    def close(self) -> None:
        """Give connections back."""
        self.attempts.close()
        self.services.close()


def is_loopback(host: str) -> bool:
    """Whether the address is this machine's own."""
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def forwarded(headers: Mapping[str, str]) -> bool:
    """Whether a proxy passed the request on: then it is not from this machine alone, whatever its address says."""
    return any(name in headers for name in ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via"))


def _host_of(url: str) -> str:
    return (urlsplit(url).hostname or "").casefold()
