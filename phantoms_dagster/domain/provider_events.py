"""Events that platforms and providers send to the desk: what a delivery is, and what an event says.

An event is only a reason to look. It makes a waiting post or render due at once, and the adapters then ask the service as they
always do. Nothing that an event claims is believed: neither a state nor an id enters a ledger before a read has confirmed it.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from phantoms_dagster.domain.text import unfit

# Longer than any id of a service.
MOST_CHARACTERS = 500


class NotAuthentic(Exception):
    """The delivery is not signed with our secret. The message says what is wrong, for our log."""


@dataclass(frozen=True)
class Delivery:
    """One request from a service. `headers` have lower-case names. `body`: the bytes as they arrived. `at`: when.

    `secret`: the end of the address, for a service that signs nothing and takes any address.
    """

    headers: Mapping[str, str]
    query: Mapping[str, str]
    body: bytes
    at: datetime
    secret: str = ""


@dataclass(frozen=True)
class ProviderEvent:
    """What a delivery tells. `kind` is the service's own name for it, such as `post.publish.complete`.

    It names what to look at. For a post: values of the post's saved handle, or `subject`, the service's id of the account. For a
    render: `attempt_id`, our id of the order, and `remote_id`, the service's id of the render. `platform`: where the post is, if
    the service is a gateway.
    """

    kind: str
    handle: Mapping[str, str] = field(default_factory=dict)
    subject: str | None = None
    attempt_id: str | None = None
    remote_id: str | None = None
    platform: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it can be an event: its texts can be stored, and have the length of ids."""
        return all(len(text) <= MOST_CHARACTERS and not unfit(text) for text in self._texts())

    def _texts(self) -> Iterator[str]:
        yield self.kind
        for name, value in self.handle.items():
            yield from (name, value)
        yield from (text for text in (self.subject, self.attempt_id, self.remote_id, self.platform) if text is not None)


class EventSecrets(Protocol):
    """The secrets that prove where a delivery comes from."""

    def settings(self, *names: str) -> Sequence[str]:
        """Those of the integration's settings that are set."""
        ...

    def token(self, text: str) -> str:
        """Our own signature of a text, for services that sign nothing and only repeat our address."""
        ...


class EventReader(Protocol):
    """An integration's module `events`.

    Optional: `handshake(query, secrets)` returns the answer to a GET that checks the address, or raises NotAuthentic.
    """

    def read_events(self, delivery: Delivery, secrets: EventSecrets) -> Sequence[ProviderEvent]:
        """The events of an authentic delivery; none when nothing in it matters. Raises NotAuthentic."""
        ...


def read_json(text: bytes | str) -> Any:
    """The JSON of a delivery. Raises ValueError, also when it is nested too deeply."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def digest_of(delivery: Delivery, number: int) -> str:
    """The identity of a delivery's event with that number. A service that sends the delivery again sends the same bytes."""
    return hashlib.sha256(b"%d\n%b" % (number, delivery.body)).hexdigest()


def signed(text: bytes, secret: str) -> str:
    """HMAC-SHA256 as hex, as TikTok and Meta use it."""
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def matches(text: bytes, given: str, secrets: Sequence[str]) -> bool:
    """Whether `given` is the signature of the text with one of the secrets. Takes the same time for every wrong one."""
    return any(hmac.compare_digest(signed(text, secret).encode(), given.encode()) for secret in secrets)
