"""Every error the project raises on purpose. An error class says what is to be done about it.

`ProviderError`s are made where the call is made, once, from the provider's own error table; nobody re-classifies later.
"""

from __future__ import annotations

import math
from datetime import datetime

from pydantic import Field

from phantoms_dagster.domain.values import JsonValue, Value


class PhantomsError(Exception):
    """The base of all errors that are ours; the message is meant for a person."""


class UnknownStage(PhantomsError):
    """There is no stage of that name."""


class IllegalTransition(PhantomsError):
    """A stage cannot go that way."""


class InvalidInput(PhantomsError):
    """What a person gave cannot be used; the message says where and why."""


class NotFound(PhantomsError):
    """There is no such thing; the message says how to list what there is."""


class StaleClaim(PhantomsError):
    """Another runner has taken over: this one's writes are refused."""


class StoreAway(PhantomsError):
    """PostgreSQL cannot be used now. Nothing is decided: work that needs it stops and goes on later.

    `reason` is the server's or the driver's own line, without any part of the URL.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"PostgreSQL is away: {reason}")
        self.reason = reason


class SchemaMismatch(StoreAway):
    """The tables are not those that this code knows: nothing is read from them or written before they are."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.args = (reason,)


class Evidence(Value):
    """What a provider answered, cut short and redacted; fit for a dead letter."""

    status: int | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    body: str = ""
    request: str = ""
    extra: dict[str, JsonValue] = Field(default_factory=dict)


class ProviderError(PhantomsError):
    """A call to somebody else's service did not do what was asked. Only its subclasses are raised.

    `code` is the provider's own code (`quotaExceeded`, `2207053`, `rate_limit_exceeded`).
    """

    error_class = "provider"

    def __init__(self, message: str, *, provider: str, code: str | None = None, evidence: Evidence | None = None) -> None:
        super().__init__(message)
        self.provider = provider
        self.code = code
        self.evidence = evidence or Evidence()


class Transient(ProviderError):
    """It may work if tried again: connection refused, 5xx before anything took effect. Costs an attempt.

    `retry_after` is the provider's wish in seconds, when it gave one.
    """

    error_class = "transient"

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        code: str | None = None,
        evidence: Evidence | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, provider=provider, code=code, evidence=evidence)
        self.retry_after = retry_after


class Throttled(Transient):
    """We are too fast or a quota is used up: wait. Costs no attempt."""

    error_class = "throttled"


class Permanent(ProviderError):
    """It will never work as asked: bad input, bad key. Dead letter now."""

    error_class = "permanent"


class Disconnected(Permanent):
    """The platform does not accept the account's token any more. That is the account's trouble, not the post's: all of its posts
    wait until the token works again."""


class Barred(Disconnected):
    """The token works, but the account may not do this: a permission was not granted, or the platform has barred the account.

    All of its posts wait; only the next try can tell whether it may again.
    """


class Rejected(ProviderError):
    """The provider's policy, or ours, refuses the content: a person must look. Dead letter now."""

    error_class = "rejected"


class Unknown(ProviderError):
    """The commit point may have taken effect. It is read back, never sent again. `retry_after`: seconds until the read."""

    error_class = "unknown"

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        code: str | None = None,
        evidence: Evidence | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, provider=provider, code=code, evidence=evidence)
        self.retry_after = retry_after


class NotYet(PhantomsError):
    """Nothing is wrong, it is only not time: a render still runs, an account is busy, the publish hour has not come.

    `retry_after` is in seconds; `until`, when given, is the time itself and wins. `held`: another run has to end first. That
    one may have died and wait for the very worker whose run asks, so nobody should wait for it inside a run.
    `waits_for` names the pool or the breaker that is in the way; it is empty for everything else.
    """

    waits_for = ""

    def __init__(self, message: str, *, retry_after: float, until: datetime | None = None, held: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.until = until
        self.held = held


class WaitsForPerson(NotYet):
    """Only a person's decision helps. It makes the stage due at once, so there is no time at which to look again."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=math.inf)


class MediaAway(NotYet):
    """The place where files are kept cannot be used now: full, not mounted, read-only, failing. Nothing is wrong with the video.

    `reading`: not even what is there can be read.
    """

    def __init__(self, message: str, *, reading: bool, retry_after: float = 30.0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.reading = reading


class HumanRejection(PhantomsError):
    """The reviewer said no. A decision, not a failure."""
