"""When a service wants the next request, no matter what our clock says."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import pytest

from phantoms_dagster.domain.retry_after import retry_after
from phantoms_dagster.providers import http
from phantoms_dagster.resilience.transport import _retry_after

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
AT_NOON = "Thu, 26 Nov 2026 12:00:00 GMT"
MINUTE_LATER = "Thu, 26 Nov 2026 12:01:00 GMT"


@pytest.mark.parametrize("now", [datetime(2026, 11, 26, 3, tzinfo=UTC), datetime(2026, 11, 27, 3, tzinfo=UTC)])
def test_a_date_is_compared_with_the_answers_own_date_and_not_with_our_clock(now: datetime) -> None:
    assert retry_after({"retry-after": MINUTE_LATER, "date": AT_NOON}, now=now) == 60


def test_an_answer_without_a_date_is_compared_with_our_clock() -> None:
    assert retry_after({"retry-after": MINUTE_LATER}, now=NOON) == 60
    assert retry_after({"retry-after": MINUTE_LATER, "date": "yesterday"}, now=NOON) == 60
    assert retry_after({"retry-after": AT_NOON}, now=datetime(2026, 11, 26, 13, tzinfo=UTC)) == 0


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("45", 45), ("1.5", 1.5), ("-3", None), ("soon", None), ("", None), ("inf", None), ("nan", None), ("1e999", None)],
)
def test_seconds_are_seconds_and_anything_but_a_number_is_ignored(written: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": written}) == seconds
    assert retry_after({}) is None


def test_a_date_without_a_zone_is_utc() -> None:
    assert retry_after({"retry-after": "Thu, 26 Nov 2026 12:01:00 -0000", "date": AT_NOON}) == 60


def test_adapters_and_the_guard_of_all_calls_read_the_header_alike() -> None:
    """One of them believed our clock: a wait of a minute was none, or one of days."""
    headers = httpx.Headers({"Retry-After": MINUTE_LATER, "Date": AT_NOON})
    assert http.retry_after(httpx.Response(429, headers=headers)) == 60
    assert _retry_after(headers) == 60
    assert _retry_after(httpx.Headers({"retry-after-ms": "1500"})) == 1.5
    assert _retry_after(httpx.Headers({"retry-after-ms": "nan"})) is None
