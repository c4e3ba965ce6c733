"""Every error the project raises on purpose. The class of an error decides what happens next.

The adapter that makes a call turns its failure into a `ProviderError`, once, using the provider's own error table. No other code
classifies it again.
"""

from __future__ import annotations

import math
from datetime import datetime

from pydantic import Field

from phantoms_dagster.domain.values import JsonValue, Value


class PhantomsError(Exception):
    """The base of all our errors. The message is written for a person."""


class UnknownStage(PhantomsError):
    """There is no stage of that name."""


class IllegalTransition(PhantomsError):
    """The table of states has no such transition."""


class InvalidInput(PhantomsError):
    """A person's input cannot be used. The message says where and why."""


class NotFound(PhantomsError):
    """There is no such thing. The message says how to list the existing ones."""


class StaleClaim(PhantomsError):
    """Another runner has taken the claim over. The writes of this one are refused."""


class StoreAway(PhantomsError):
    """PostgreSQL is unavailable. Nothing is decided about any video: work that needs it stops and continues later.

    `reason` is one line from the server or the driver. It contains no part of the URL.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"PostgreSQL is away: {reason}")
        self.reason = reason


class SchemaMismatch(StoreAway):
    """The schema version in the database is not the one this code needs. Nothing is read or written until it is."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.args = (reason,)


class Evidence(Value):
    """A provider's answer, shortened and redacted, so that a dead letter can keep it."""

    status: int | None = None
    headers: dict[str, str] = Field(default_factory=dict)
    body: str = ""
    request: str = ""
    extra: dict[str, JsonValue] = Field(default_factory=dict)


class ProviderError(PhantomsError):
    """A call to an external service failed. Only subclasses are raised.

    `code` is the provider's own code (`quotaExceeded`, `2207053`, `rate_limit_exceeded`).
    """

    error_class = "provider"

    def __init__(self, message: str, *, provider: str, code: str | None = None, evidence: Evidence | None = None) -> None:
        super().__init__(message)
        self.provider = provider
        self.code = code
        self.evidence = evidence or Evidence()


class Transient(ProviderError):
    """A retry may work: the connection was refused, or a 5xx came before anything took effect. Costs an attempt.

    `retry_after`: the seconds that the provider asked us to wait, if it did.
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
    """We sent requests too fast, or a quota is used up. The stage waits. Costs no attempt."""

    error_class = "throttled"


class Permanent(ProviderError):
    """A retry of the same request can never work: bad input, bad key. Dead letter now."""

    error_class = "permanent"


class Disconnected(Permanent):
    """The platform no longer accepts the account's token. The post is fine: all posts of the account wait until a token works."""


class Barred(Disconnected):
    """The token works, but the account is not allowed to post: a permission is missing, or the platform has barred the account.

    All posts of the account wait. Only another attempt can show whether it is allowed again.
    """


class Rejected(ProviderError):
    """The provider's policy, or ours, rejects the content. A person must look at it. Dead letter now."""

    error_class = "rejected"


# The code of an `Unknown` whose attempt only read, and sent nothing that could take effect.
LOOK_UP_FAILED = "look_up_failed"


class Unknown(ProviderError):
    """The decisive request may have taken effect. It is never sent again; its outcome is read back.

    `retry_after`: seconds until that read.
    """

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
    """Nothing is wrong, but it is too early: a render is still running, an account is busy, or the publish time is in the future.

    `retry_after` is in seconds. `until` is a point in time and takes precedence. `held`: another run must end first. That run may
    have died, and its retry may need the very worker that would wait for it, so do not wait for it inside a run.
    `waits_for` names the pool or breaker that is in the way. It is empty otherwise.
    """

    waits_for = ""

    def __init__(self, message: str, *, retry_after: float, until: datetime | None = None, held: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.until = until
        self.held = held


class WaitsForPerson(NotYet):
    """A person must decide first. The decision makes the stage due at once, so there is no retry time."""

    def __init__(self, message: str) -> None:
        super().__init__(message, retry_after=math.inf)


class MediaAway(NotYet):
    """The media store is unavailable: full, not mounted, read-only or failing. Nothing is wrong with the video.

    `reading`: existing files cannot be read either.
    """

    def __init__(self, message: str, *, reading: bool, retry_after: float = 30.0) -> None:
        super().__init__(message, retry_after=retry_after)
        self.reading = reading


class HumanRejection(PhantomsError):
    """The reviewer rejected the video. This is a decision, not a failure."""
