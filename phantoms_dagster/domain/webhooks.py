"""Webhooks as values: the events, the body, the allowed addresses and the retry schedule. Pure functions.

They follow Standard Webhooks (https://www.standardwebhooks.com): the body is `{"type", "timestamp", "data"}`, and a message keeps
its id through all attempts.
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Literal
from urllib.parse import quote, urlsplit

from phantoms_dagster.domain.errors import InvalidInput

VERSION = 1
LONGEST_URL = 2_000
OLD_SECRET_HOURS = 24.0
Targets = Literal["public", "loopback", "private"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

# The clouds' metadata services, which hand out credentials. IPv4's is link-local, which is refused anyway.
_METADATA = ipaddress.ip_address("fd00:ec2::254")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


class WebhookEvent(StrEnum):
    """The events that other programs can subscribe to."""

    APPROVAL_WANTED = "approval.wanted"
    VIDEO_POSTED = "video.posted"
    VIDEO_FAILED = "video.failed"
    PROVIDER_DOWN = "provider.down"


EVENTS = tuple(str(event) for event in WebhookEvent)


@dataclass(frozen=True)
class RetrySchedule:
    """When a delivery is retried. All values but `disable_days` are in seconds.

    `waits`: the wait after the first, second, ... attempt; when they are used up the delivery has failed. `timeout`: of one
    attempt. `lease`: a delivery process that is silent for this long counts as dead. After a failure the endpoint gets nothing for
    `first_pause`. Each further failure in a row doubles that, up to `longest_pause`. An endpoint that has only failed for
    `disable_days` is disabled.
    """

    waits: tuple[float, ...] = (5, 60, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400)
    timeout: float = 15.0
    lease: float = 60.0
    first_pause: float = 1.0
    longest_pause: float = 300.0
    disable_days: float = 3.0

    def wait(self, tries: int, *, asked: float | None = None, spread: float = 0.0) -> float | None:
        """Seconds to wait after attempt number `tries`, or None after the last one.

        `asked`: the receiver's Retry-After in seconds, honoured up to a day. `spread`: jitter from -1 to 1.
        """
        if tries > len(self.waits):
            return None
        usual = self.waits[tries - 1] * (1 + 0.2 * spread)
        return max(usual, min(asked or 0.0, 86_400.0))

    def pause(self, failures: int) -> float:
        """Seconds during which an endpoint gets nothing after that many failures in a row."""
        return min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 30))


def check_events(given: list[str]) -> list[str]:
    """The given event types, in order and without repetitions; all types for an empty list.

    Raises InvalidInput for unknown ones.
    """
    if unknown := [name for name in given if name not in EVENTS]:
        raise InvalidInput(f"there is no event {unknown[0]!r}; the events are {', '.join(EVENTS)}")
    return [name for name in EVENTS if name in given] or list(EVENTS)


def check_url(url: str, targets: Targets) -> str:
    """The URL of an endpoint, stripped. Raises InvalidInput. The message never repeats the URL, which may contain a secret."""
    url = url.strip()
    if len(url) > LONGEST_URL or not url.isprintable() or " " in url:
        raise InvalidInput(f"an endpoint's address is at most {LONGEST_URL} characters without spaces")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise InvalidInput("that is not a URL; it should look like https://example.org/hooks/phantoms") from None
    if parts.scheme not in ("http", "https") or not host or port == 0:
        raise InvalidInput("an endpoint's address should look like https://example.org/hooks/phantoms")
    if parts.username is not None or parts.password is not None:
        raise InvalidInput("leave name and password out of the address; the signature proves who sends")
    if parts.fragment:
        raise InvalidInput("leave out the part of the address after #; it is never sent")
    literal = address_of(host)
    if literal is not None and (why := refused(literal, targets)) is not None:
        raise InvalidInput(why)
    local = literal.is_loopback if literal is not None else host.casefold() == "localhost"
    if parts.scheme == "http" and not local:
        raise InvalidInput("use https; http is allowed only for this machine (127.0.0.1, localhost)")
    if local and targets == "public":
        raise InvalidInput(_WHY_LOOPBACK)
    return url


_WHY_LOOPBACK = "it is on this machine itself, and PHANTOMS_WEBHOOK_TARGETS=public does not allow that"


def address_of(host: str) -> Address | None:
    """The IP address that a host is written as; None for a name. An IPv4 address embedded in IPv6 is returned as IPv4."""
    try:
        found = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address):
        inner = found.ipv4_mapped or found.sixtofour
        if inner is None and found in _NAT64:
            inner = ipaddress.IPv4Address(int(found) & 0xFFFFFFFF)
        return inner or found
    return found


def refused(address: Address, targets: Targets) -> str | None:
    """Why deliveries to that address are refused; None when they are allowed."""
    if address.is_loopback:
        return _WHY_LOOPBACK if targets == "public" else None
    if address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved or address == _METADATA:
        return "its address is link-local, multicast or reserved; webhooks are never sent there"
    if address.is_global:
        return None
    return None if targets == "private" else "its address is in a private network; PHANTOMS_WEBHOOK_TARGETS=private allows that"


def origin(url: str) -> str:
    """A URL as it is shown and logged: without its path and query, which may contain a secret."""
    parts = urlsplit(url)
    rest = "/..." if parts.path.strip("/") or parts.query else ""
    return f"{parts.scheme}://{parts.netloc}{rest}"


def body(kind: str, at: datetime, data: Mapping[str, Any], desk_url: str) -> str:
    """The JSON body of a message. Its links lead to the desk."""
    links = {name: f"{desk_url.rstrip('/')}/{path}" for name, path in _paths(kind, data).items()}
    stamp = at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    message = {"type": kind, "timestamp": stamp, "version": VERSION, "data": {**data, "links": links}}
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))


def _paths(kind: str, data: Mapping[str, Any]) -> dict[str, str]:
    """The desk's pages about an event, by name."""
    if kind == WebhookEvent.PROVIDER_DOWN:
        return {"provider": f"providers/{quote(str(data.get('provider', '')), safe='')}"}
    key = quote(str(data.get("video", {}).get("key", "")), safe="")
    found = {"video": f"videos/{key}"}
    if kind == WebhookEvent.APPROVAL_WANTED:
        found["review"] = f"review/{key}"
    if kind == WebhookEvent.VIDEO_FAILED:
        found["issue"] = f"dead-letters/{quote(str(data.get('failure', {}).get('issue', '')), safe='')}"
    return found


def down(breaker: str, since: datetime, why: str) -> dict[str, Any]:
    """The data of `provider.down`. `breaker`: the breaker that opened, such as `youtube`, `youtube:main` or `sandbox/youtube`."""
    real = breaker.removeprefix("sandbox/")
    provider, _, account = real.partition(":")
    return {
        "provider": provider,
        "account": account or None,
        "breaker": breaker,
        "sandbox": real != breaker,
        "since": since.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "reason": why,
    }


def expired(until: datetime | None, now: datetime) -> bool:
    """Whether an old secret has stopped signing."""
    return until is None or until <= now


def kept_until(now: datetime, hours: float) -> datetime:
    """The time until which the old secret keeps signing. Raises InvalidInput for more than 720 hours."""
    if not 0 <= hours <= 24 * 30:
        raise InvalidInput("the old secret can sign for 0 to 720 hours more")
    return now + timedelta(hours=hours)
