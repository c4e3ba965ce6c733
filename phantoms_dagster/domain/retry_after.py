"""The Retry-After header, in both of its forms: seconds or a date."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str], *, now: datetime | None = None) -> float | None:
    """Seconds to wait from now; None when the header is absent, negative or unreadable. `headers` has lower-case names.

    A date is compared with the answer's own Date. If our clock differed from the service's, a wait of a minute could otherwise end
    at once or last for hours. Without a Date, `now` is used (default: our clock).
    """
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = _moment(value)
        if until is None:
            return None
        seconds = max(0.0, (until - (_moment(headers.get("date", "")) or now or datetime.now(UTC))).total_seconds())
    return seconds if math.isfinite(seconds) and seconds >= 0 else None


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
